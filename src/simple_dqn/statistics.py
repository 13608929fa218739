"""Statistics of every phase: two lines in the log and a row in the CSV file. The only module that knows its columns."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from simple_dqn.agent import NEW_GAMES, Agent, Callback, Step
from simple_dqn.errors import OptionError
from simple_dqn.replay_memory import as_array
from simple_dqn.reports.csv_file import CSVFile
from simple_dqn.reports.scores import mean_text, score_text, shortest
from simple_dqn.wording import count

logger = logging.getLogger(__name__)

# The columns of the CSV file, in order, and how the value of each is computed at the end of a phase.
COLUMNS: dict[str, Callable[[Any], Any]] = {  # Any stands for Statistics, whose attributes mypy does not know here yet
    "epoch": lambda s: s.epoch,
    "phase": lambda s: s.phase,
    "steps": lambda s: s.num_steps,
    "nr_games": lambda s: s.num_games,
    "average_reward": lambda s: shortest(s.mean_reward),
    "min_game_reward": lambda s: shortest(min(s.game_rewards, default=math.nan)),
    "max_game_reward": lambda s: shortest(max(s.game_rewards, default=math.nan)),
    "last_exploration_rate": lambda s: shortest(s.exploration_rate),
    "total_train_steps": lambda s: s._agent.total_train_steps,
    "replay_memory_count": lambda s: s._agent.memory.count,
    "meanq": lambda s: s._mean_q(),
    "meancost": lambda s: shortest(s.mean_cost),
    "weight_updates": lambda s: s._agent.network.train_iterations,
    "total_time": lambda s: s._now - s._start_time,
    "epoch_time": lambda s: s._seconds,
    "steps_per_second": lambda s: s.num_steps / s._seconds if s._seconds else 0.0,
}
_CHECK_INTERVAL = 100  # updates between checks of a loss on the GPU, because each check waits for the GPU
_SILENT = (
    "All units of a layer are dead (always 0), so the Q-values are the same for every state. The network cannot "
    "recover. Start again, or resume an earlier snapshot, with a smaller --learning_rate or another --random_seed."
)


class Statistics(Callback):
    """Counts steps, games, scores and losses. At the end of a phase it logs them and writes a row to `csv`.

    A game counts in the phase in which it ends, with its whole score, or not at all.

    Args:
        agent: whose steps are counted.
        csv: where the rows go; `write_to` may give it later.
    """

    def __init__(self, agent: Agent, csv: CSVFile | None = None) -> None:
        self._agent = agent
        self._start_time = time.monotonic()
        self.write_to(csv)
        self._validation_states: NDArray[np.uint8] | None = None
        self._warned_of_bias = False
        self._silent = False  # whether the log warned that all units of a layer are dead
        self.phase = ""
        self._scores: dict[int, float] = {}  # so far, of each game; nan if it does not count
        self.on_phase_start("", 0, None)

    def write_to(self, csv: CSVFile | None) -> None:
        """Write the rows to `csv`. The total time continues from its last row."""
        self._csv = csv
        self._start_time -= csv.total_time if csv else 0.0

    def on_phase_start(self, phase: str, epoch: int, steps: int | None) -> None:
        if phase in NEW_GAMES:
            self._scores = {}
        elif self.phase in NEW_GAMES:  # because these games began with all lives and another exploration rate
            self._scores = dict.fromkeys(self._scores, math.nan)
        self.phase, self.epoch = phase, epoch
        self._test_has_steps = phase == "test" and steps is not None  # not a number of games
        self._diverged = False
        self.num_steps = self.num_games = 0
        self.game_rewards: list[float] = []  # of the games that ended in this phase
        self.exploration_rate = 1.0
        self._costs: Any = 0.0  # the sum of losses, which may be on the GPU
        self._num_costs = 0
        self._phase_start_time = time.monotonic()

    def save_state(self, under_way: bool) -> dict[str, Any]:
        """Return the counts of the phase, which is `under_way` or over, and the validation states."""
        return dict(
            phase=self.phase,
            num_steps=self.num_steps,
            game_rewards=list(self.game_rewards),
            exploration_rate=self.exploration_rate,
            scores=dict(self._scores),
            costs=float(self._costs),
            num_costs=self._num_costs,
            seconds=time.monotonic() - self._phase_start_time if under_way else 0.0,
            validation_states=self._validation_states,
        )

    def restore(self, state: dict[str, Any], same_phase: bool) -> None:
        """Continue with the games and validation states of `state` and, if `same_phase`, with its phase."""
        states = state["validation_states"]
        self._validation_states = states if states is None else states.copy()
        self.phase, self._scores = state["phase"], dict(state["scores"])
        if same_phase:
            self.num_steps, self.exploration_rate = state["num_steps"], state["exploration_rate"]
            self.game_rewards = list(state["game_rewards"])
            self.num_games = len(self.game_rewards)
            self._costs, self._num_costs = state["costs"], state["num_costs"]
            self._phase_start_time -= state["seconds"]
            self._start_time -= state["seconds"]  # because the row of this phase, which has them, is written again

    def on_step(self, step: Step) -> None:
        self.num_steps += 1
        self.exploration_rate = step.exploration_rate
        score = self._scores.pop(step.game, 0.0) + step.reward
        if not (step.terminal or step.truncated):
            self._scores[step.game] = score
        elif step.terminal and not math.isnan(score):
            self.num_games += 1
            self.game_rewards.append(score)

    def on_train(self, cost: float) -> None:
        self._costs = self._costs + cost
        self._num_costs += 1
        if isinstance(self._costs, float) or self._num_costs % _CHECK_INTERVAL == 0:
            self.require_finite_loss()

    def require_finite_loss(self) -> None:
        """Raise OptionError if the loss of an update of this phase is NaN or infinite: its weights are useless."""
        if self._diverged or not math.isfinite(self.mean_cost):
            raise OptionError("The loss is NaN or infinite. This epoch was not saved. Use a smaller --learning_rate.")

    def on_phase_end(self) -> None:
        self._now = time.monotonic()
        self._seconds = self._now - self._phase_start_time
        self.row = {name: value(self) for name, value in COLUMNS.items()}
        self._diverged = self.phase == "train" and not math.isfinite(self.row["meanq"])  # as after the last update
        self.require_finite_loss()
        self._log(self.row)
        self._warn_of_bias()
        if self._csv and self.num_steps:
            self._csv.write(self.row)

    @property
    def mean_reward(self) -> float:
        """Mean score of the games that ended in this phase; nan without any."""
        return sum(self.game_rewards) / len(self.game_rewards) if self.game_rewards else math.nan

    @property
    def mean_cost(self) -> float:
        """Mean loss of this phase's weight updates; 0 without any."""
        return float(self._costs) / self._num_costs if self._num_costs else 0.0

    def _mean_q(self) -> float:
        """Return the mean highest Q-value of the validation states, which are sampled once; 0 without any."""
        # Not in an interrupted phase: a draw would change the random numbers of the resumed training.
        if self._validation_states is None and not self._agent.interrupted and self._agent.memory.ready:
            self._validation_states = as_array(self._agent.memory.minibatch().prestates)
        if self._validation_states is None:
            return 0.0
        q = self._agent.network.predict(self._validation_states)  # (states, actions)
        if self._agent.network.train_iterations and not self._silent:
            self._silent = bool((q == q[0]).all() and (self._validation_states != self._validation_states[0]).any())
            if self._silent:
                logger.warning(_SILENT)
        return float(q.max(axis=1).mean())

    def _warn_of_bias(self) -> None:
        games = len(self._agent.games)
        few = self._test_has_steps and 0 < self.num_games < games
        if few and not (self._warned_of_bias or self._agent.interrupted):
            self._warned_of_bias = True
            logger.warning(
                "Only %d of %d games ended within --test_steps, so short games count more than long ones. "
                "Use --test_games %d, which plays them to their ends",
                *(self.num_games, games, games),
            )

    def _log(self, row: dict[str, Any]) -> None:
        if self.game_rewards:
            mean, low, high = row["average_reward"], row["min_game_reward"], row["max_game_reward"]
            scores = mean_text(mean, decimals=2), score_text(low), score_text(high)
            logger.info("  %s, score %s (lowest %s, highest %s)", count(self.num_games, "game"), *scores)
        else:
            logger.info("  no game ended, so there is no score")
        text = "  ε %(last_exploration_rate).4f,"
        text += " mean Q %(meanq).4f," if self._validation_states is not None else ""
        text += " loss %(meancost).6f," if self._num_costs else ""
        logger.info(text + " %(epoch_time)d s, %(steps_per_second)d steps/s", row)
