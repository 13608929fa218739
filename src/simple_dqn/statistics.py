"""Statistics of every phase: a line in the log and a row in a CSV file. The only module that knows the columns."""

from __future__ import annotations

import csv
import io
import logging
import math
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from simple_dqn.agent import Agent, Callback, Step
from simple_dqn.errors import OptionError, OutputError, reason
from simple_dqn.replay_memory import as_array
from simple_dqn.reports.scores import mean_text, score_text, shortest
from simple_dqn.saving.files import require_writable, write_whole

logger = logging.getLogger(__name__)

# The columns of the CSV file, in order, and how the value of each is computed when a phase ends.
COLUMNS: dict[str, Callable[[Any], Any]] = {  # of a Statistics: mypy does not know its attributes here yet
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
Row = dict[str | int, str]  # values by column; by place, if the column has no name of its own
_PHASES = ("play", "random", "train", "test")  # in the order in which they come within an epoch
_NEEDED = ("epoch", "phase", "total_train_steps", "total_time")  # to go on with a file
_ANEW = ("play", "test")  # begin with new games
_UPDATES_UNCHECKED = 100  # on a GPU, because each look at the loss waits for the updates before
_SILENT = (
    "The network fell silent: all units of a layer are 0, so its Q-values are the same for every screen. It cannot "
    "recover. Start again, or resume an earlier snapshot, with a smaller --learning_rate or another --random_seed."
)


class Statistics(Callback):
    """Counts steps, games, scores and costs; at the end of a phase they go to the log and, as a row, to `csv`.

    A game counts whole, in the phase in which it ends, or not at all.

    Args:
        agent: whose steps are counted.
        csv: where the rows go; `write_to` may give it later.
    """

    def __init__(self, agent: Agent, csv: CSVFile | None = None) -> None:
        self._agent = agent
        self._start_time = time.monotonic()
        self.write_to(csv)
        self._validation_states: NDArray[np.uint8] | None = None
        self._silent = False  # whether a warning has said that the network fell silent
        self.phase = ""
        self._scores: dict[int, float] = {}  # so far, of each game under way; nan if it does not count
        self.on_phase_start("", 0, None)

    def write_to(self, csv: CSVFile | None) -> None:
        """Write the rows to `csv`. The total time continues from its last row."""
        self._csv = csv
        self._start_time -= csv.total_time if csv else 0.0

    def on_phase_start(self, phase: str, epoch: int, steps: int | None) -> None:
        if phase in _ANEW:
            self._scores = {}
        elif self.phase in _ANEW:  # what goes on began under another exploration rate, and with all lives
            self._scores = dict.fromkeys(self._scores, math.nan)
        self.phase, self.epoch = phase, epoch
        self.num_steps = self.num_games = 0
        self.game_rewards: list[float] = []  # of the games that ended in this phase
        self.exploration_rate = 1.0
        self._costs: Any = 0.0  # their sum, which may be on the GPU
        self._num_costs = 0
        self._phase_start_time = time.monotonic()

    def save_state(self, under_way: bool) -> dict[str, Any]:
        """What it knows of the phase, which is `under_way` or over, and the states by which it judges the network."""
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
        """Goes on with the same games, validation states and, if `same_phase`, in the phase that was under way."""
        states = state["validation_states"]
        self._validation_states = states if states is None else states.copy()
        self._scores = dict(state["scores"])
        if "phase" in state:
            self.phase = state["phase"]
        elif not same_phase:  # an older checkpoint does not tell whether they are scores of a test
            self._scores = dict.fromkeys(self._scores, math.nan)
        if same_phase:
            self.num_steps, self.exploration_rate = state["num_steps"], state["exploration_rate"]
            self.game_rewards = list(state["game_rewards"])
            self.num_games = len(self.game_rewards)
            self._costs, self._num_costs = state["costs"], state["num_costs"]
            self._phase_start_time -= state["seconds"]
            self._start_time -= state["seconds"]  # the phase's row, which counted them, is written anew

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
        if isinstance(self._costs, float) or self._num_costs % _UPDATES_UNCHECKED == 0:
            self.require_finite_loss()

    def require_finite_loss(self) -> None:
        """Raises OptionError if the loss of an update of this phase is NaN or infinite: then its weights are no use."""
        if not math.isfinite(self.mean_cost):
            raise OptionError("The loss is NaN or infinite. This epoch was not saved. Use a smaller --learning_rate.")

    def on_phase_end(self) -> None:
        self.require_finite_loss()
        self._now = time.monotonic()
        self._seconds = self._now - self._phase_start_time
        row = {name: value(self) for name, value in COLUMNS.items()}
        self._log(row)
        if self._csv and self.num_steps:
            self._csv.write(row)

    @property
    def mean_reward(self) -> float:
        """Mean score of the games that ended in this phase; nan if none did."""
        return sum(self.game_rewards) / len(self.game_rewards) if self.game_rewards else math.nan

    @property
    def mean_cost(self) -> float:
        """Mean cost of this phase's weight updates; 0 if there was none."""
        return float(self._costs) / self._num_costs if self._num_costs else 0.0

    def _mean_q(self) -> float:
        """Mean over the validation states, drawn once, of the highest Q-value; 0 as long as there are none."""
        # Not in a phase that is broken off: it may go on, and then no draw must have been made.
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

    def _log(self, row: dict[str, Any]) -> None:
        if self.game_rewards:
            mean, low, high = row["average_reward"], row["min_game_reward"], row["max_game_reward"]
            scores = mean_text(mean, decimals=2), score_text(low), score_text(high)
            text = "  num_games: %d, average_reward: %s, min_game_reward: %s, max_game_reward: %s"
            logger.info(text, self.num_games, *scores)
        else:
            logger.info("  num_games: 0, so no average, minimum or maximum of game rewards (nan)")
        text = "  last_exploration_rate: %(last_exploration_rate).4f,"
        text += " meanq: %(meanq).4f," if self._validation_states is not None else ""
        text += " meancost: %(meancost).6f," if self._num_costs else ""
        logger.info(text + " epoch_time: %(epoch_time)ds, steps_per_second: %(steps_per_second)d", row)


class CSVFile:
    """A statistics file that grows by whole rows.

    The user's own columns stay where they are, and columns that an older file lacks follow its last.

    Args:
        path: the file.
        keep_steps: go on from an earlier file, up to so many training steps.
        keep_before: go on from an earlier file, up to this epoch and phase.
            Without the one and the other a new file begins. An earlier one that is not kept whole stays beside it.
        random_again: with `keep_before`, the random moves that the file then ends with will be written again, too.
        done_again: whether the row of that phase, if it was broken off, will be written again whole.
        number: an earlier file is kept as PATH.number, or with the next free number.

    Raises:
        OutputError: it cannot be written, or there is a file to go on from and it holds no statistics.
    """

    def __init__(
        self,
        path: Path,
        keep_steps: int | None = None,
        keep_before: tuple[int, str] | None = None,
        random_again: bool = False,
        done_again: bool = True,
        number: int = 1,
    ) -> None:
        require_writable(path)
        self.path = path
        self.rows = 0  # written since
        self.total_time = 0.0  # seconds, of the last row kept
        self._columns, rows, kept = list(COLUMNS), list[Row](), list[Row]()
        if path.exists() and path.read_bytes().strip() not in (b"", _line(COLUMNS).strip().encode()):
            whole = False
            if keep_before is not None:
                self._columns, rows = _read(path)
                kept = [row for row in rows if _moment(row) < (keep_before[0], _PHASES.index(keep_before[1]))]
                if random_again and kept and kept[-1]["phase"] == "random":
                    kept.pop()
                whole = len(kept) >= len(rows) - done_again
            elif keep_steps is not None:
                self._columns, rows = _read(path)
                kept = [row for row in rows if int(row["total_train_steps"]) <= keep_steps]
                whole = len(kept) == len(rows)
            if not whole:
                _set_aside(path, number)
        if kept:
            self.total_time = float(kept[-1]["total_time"])
        write_whole(path, "".join(map(_line, [self._columns, *(row.values() for row in kept)])).encode())

    def write(self, row: dict[str, Any]) -> None:
        """Appends a row, whole or not at all.

        Raises:
            OutputError: it could not be written.
        """
        line = _line([row.get(name, "") for name in self._columns]).encode()
        try:
            with self.path.open("r+b", buffering=0) as file:
                end = file.seek(0, io.SEEK_END)
                file.seek(max(0, end - 1))
                if file.read(1) not in (b"\n", b""):  # because an editor may have removed the line end
                    line = b"\n" + line
                try:
                    if file.write(line) != len(line):
                        raise OSError("the disk is full")
                except OSError:
                    file.truncate(end)
                    raise
        except OSError as error:
            raise OutputError(f"cannot write to {self.path}: {reason(error)}; its earlier rows are whole") from error
        self.rows += 1


def _read(path: Path) -> tuple[list[str], list[Row]]:
    """The columns and rows of a statistics file, except a last row that a crash left unfinished.

    A spreadsheet or an editor may have saved the file since. Columns of this program that it lacks are added, empty.
    """
    lacking = ""
    try:
        text = decoded(path.read_bytes())
        names, *lines = csv.reader(io.StringIO(text, newline=""), strict=True)
        lacking = next((name for name in _NEEDED if name not in names), "")
        lines = [line for line in lines if any(line)]
        if lines and not text.endswith(("\n", "\r")) and not lacking and not _finished(names, lines[-1]):
            lines.pop()
            logger.warning("The last row of %s is unfinished, and is left out", path)
        names += [""] * (max(map(len, lines), default=0) - len(names))
        names += [name for name in COLUMNS if name not in names]
        keys = [name if names.index(name) == i else i for i, name in enumerate(names)]
        rows = [dict(zip(keys, line + [""] * (len(keys) - len(line)), strict=True)) for line in lines]
        whole = not lacking and all(
            int(row["total_train_steps"]) >= 0 and float(row["total_time"]) >= 0 and _moment(row) >= (0, 0)
            for row in rows
        )
    except (OSError, ValueError, csv.Error):
        whole = False
    if not whole:
        why = f" (it has no column {lacking}); " if lacking else "; "
        if lacking and text.startswith("epoch;"):  # as spreadsheets do where numbers have decimal commas
            why = " (its values are separated by ;); save it with commas, or "
        raise OutputError(
            f"cannot go on from {path}: it holds no statistics of this program{why}move it out of the way"
        )
    return names, rows


def _finished(names: list[str], line: list[str]) -> bool:
    """Whether a row without its line end is complete: its speed, as a rule its last value, must follow from others."""
    row = dict(zip(names, line, strict=False))
    try:
        seconds, speed = float(row["epoch_time"]), float(row["steps_per_second"])
        return math.isclose(speed, int(row["steps"]) / seconds if seconds else 0.0, rel_tol=0.001)
    except KeyError:  # of an older file, or unfinished
        return len(line) == len(names)
    except ValueError:
        return False


def _moment(row: Row) -> tuple[int, int]:
    """When the phase of a row came: its epoch, and which in it."""
    return int(row["epoch"]), _PHASES.index(row["phase"])


def _set_aside(path: Path, n: int) -> None:
    while (old := path.with_name(f"{path.name}.{n}")).exists():
        n += 1
    write_whole(old, path.read_bytes())
    logger.info("The statistics that were in %s are kept in %s", path, old)


def _line(values: Any) -> str:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerow(values)
    return text.getvalue()


def decoded(content: bytes) -> str:
    """The text of a statistics file, in UTF-8 or as a spreadsheet saves it."""
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError:
        if b"phase" not in content:
            raise
        return content.decode("latin-1")  # a spreadsheet saved the file, and a comment has an umlaut
