"""Starting from a snapshot's weights, and resuming from a checkpoint: every part continues where it was."""

from __future__ import annotations

import logging
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from simple_dqn.agent import Agent
from simple_dqn.command_line import MainOptions
from simple_dqn.deepqnetwork import DeepQNetwork
from simple_dqn.environment import EnvironmentOptions
from simple_dqn.errors import CheckpointError, SnapshotError
from simple_dqn.games.games import Games
from simple_dqn.games.roms import same_game
from simple_dqn.learning.neon_network import NeonNetwork
from simple_dqn.replay_memory import ReplayMemory
from simple_dqn.saving.checkpoint import Checkpoint, restore_memory
from simple_dqn.saving.snapshot import Snapshot
from simple_dqn.saving.start import Start
from simple_dqn.statistics import Statistics

logger = logging.getLogger(__name__)

Phase = tuple[str, int]  # random, train or test, and its epoch
SCORES = ("test_score", "test_games")  # the facts that a test adds to a snapshot
BEST = ("best_score", "best_epoch")  # those of the best test so far
# The minimal action set of ALE 0.5. Today's also has FIRE alone, with RIGHT and with LEFT.
_PONG_OF_2015 = ("NOOP", "RIGHT", "LEFT")


class Parts(NamedTuple):
    """What a run is made of."""

    games: Games
    memory: ReplayMemory
    network: DeepQNetwork | NeonNetwork
    agent: Agent
    statistics: Statistics


@dataclass
class Position:
    """Where a training is in its phases.

    Attributes:
        left: the phases that are not complete. The first one is next, or under way.
        epoch: how many epochs are complete.
        epoch_began: training steps before the epoch under way.
        under_way: whether the first phase has begun.
        broken_off: the statistics of the first phase, if a resumed run continues it.
        facts: what the next snapshot records, such as options and scores.
    """

    left: list[Phase]
    epoch: int
    epoch_began: int
    facts: dict[str, Any]
    under_way: bool = False
    broken_off: dict[str, Any] | None = None

    @property
    def next(self) -> Phase:
        """The phase that is next or under way. After the last phase: the first phase of one more epoch."""
        return self.left[0] if self.left else ("train", self.epoch + 1)

    @property
    def after_random(self) -> Phase:
        """The phase that follows the random moves."""
        return self.left[1] if len(self.left) > 1 else ("train", self.epoch + 1)

    def end_training(self, steps: int) -> None:
        """End the training of an epoch, after so many training steps. It forgets the test score of an earlier epoch."""
        self.epoch, self.epoch_began = self.next[1], steps
        for name in SCORES:
            self.facts.pop(name, None)

    def add_test(self, score: float, games: int) -> None:
        """Add the score of a test to the facts, and the best score so far. Of equal scores the later is the best."""
        self.facts |= {"test_score": score, "test_games": games}
        if score >= self.facts.get("best_score", -math.inf):
            self.facts |= {"best_score": score, "best_epoch": self.epoch}


def seeds_of(seed: int, start_epoch: int, start: Start | None) -> list[np.random.SeedSequence]:
    """Separate seeds of games, memory and agent. A resumed run does not draw the numbers of the run before."""
    added = start.checkpoint.state["memory"]["added"] if start and start.checkpoint else []
    return np.random.SeedSequence(seed, spawn_key=(start_epoch, *added)).spawn(3)


def phases_from(phase: str, epoch: int, epochs: int) -> list[Phase]:
    """Return the train and test phases from this one on. Each epoch has a train phase and then a test phase."""
    if phase == "test":
        return [("test", epoch), *phases_from("train", epoch + 1, epochs)]
    return [(name, n) for n in range(epoch, epochs + 1) for name in ("train", "test")]


def transitions_to_hold(o: MainOptions, lanes: int, start: Start | None) -> int:
    """Return the most transitions that a training adds to the memory, with those of the checkpoint.

    A resumed run with the same options gets the same number as the run before, so that its memory has the same layout.
    """
    if o.play_games:
        return 0
    random, epoch = (-(-steps // lanes) * lanes for steps in (o.random_steps, o.train_steps))  # all games step
    left = max(0, o.epochs - o.start_epoch) * epoch
    if not (start and start.checkpoint):
        return random + left
    facts, added = start.checkpoint.state["facts"], lanes * max(start.checkpoint.state["memory"]["added"])
    before_epoch = added - (facts["total_train_steps"] - facts["epoch_began"])
    return max(random + o.epochs * epoch, before_epoch + left, added)


def start_from(start: Start | None, o: MainOptions, parts: Parts, recorded: dict[str, Any]) -> Position:
    """Bring new parts to where they were when the snapshot or checkpoint was saved. Return where the run continues.

    A new run begins at `o.start_epoch`. Its snapshots record the options `recorded`.

    Raises:
        SnapshotError: the weights do not fit the network.
        CheckpointError: the checkpoint's values do not fit together.
    """
    parts.agent.total_train_steps = steps = o.start_epoch * o.train_steps
    phases = [("random", 0), *phases_from("train", o.start_epoch + 1, o.epochs)]
    facts = {"options": recorded, "game": recorded["game"], "actions": parts.games.action_names}
    position = Position(phases, o.start_epoch, steps, facts)
    if not start:
        return position
    if start.snapshot:
        _load_weights(start, start.snapshot, o, parts, position)
    if o.resume and o.csv_file and not start.renamed and not Path(o.csv_file).exists():
        logger.warning("There is no file %s, so a new one begins. Use --csv_file to continue another", o.csv_file)
    if start.checkpoint:
        _continue_from(start.checkpoint, o, parts, position)
    if not parts.memory.count:
        parts.memory.steps_before = parts.agent.total_train_steps
    return position


def _load_weights(start: Start, snapshot: Snapshot, o: MainOptions, parts: Parts, position: Position) -> None:
    """Load the weights and, if training is resumed, the counters."""
    logger.info("Loading weights from %s", start.path)
    facts, names = start.facts, parts.games.action_names
    try:
        parts.network.load_layers(snapshot.layers, str(start.path), facts.get("options", {}).get("optimizer"))
    except SnapshotError as error:
        game = facts.get("game")
        raise SnapshotError(f"{error}" + (f" (it was trained on {game})" if game else "")) from None
    except (LookupError, TypeError, ValueError, AttributeError, RuntimeError) as error:
        raise SnapshotError(f"{start.path} is damaged: its layers do not fit together. Use another one.") from error
    trained_on = facts.get("actions", names)
    if trained_on != names:
        logger.warning("The actions of %s are %s, here %s", start.path, " ".join(trained_on), " ".join(names))
    known = (*SCORES, *BEST) if o.resume or o.start_epoch else SCORES
    position.facts |= {name: facts[name] for name in known if name in facts}
    if o.resume:
        agent = parts.agent
        agent.total_train_steps = facts.get("total_train_steps", agent.total_train_steps)
        position.epoch_began = facts.get("epoch_began", agent.total_train_steps)
        parts.network.train_iterations = facts.get("weight_updates", 0)
        logger.info("No checkpoint: continuing with the weights of epoch %d and an empty replay memory", position.epoch)


def _continue_from(checkpoint: Checkpoint, o: MainOptions, parts: Parts, position: Position) -> None:
    """Bring every part to where it was when the checkpoint was saved."""
    state, games, memory = checkpoint.state, parts.games, parts.memory
    try:
        position.epoch_began = state["facts"]["epoch_began"]
        position.facts |= {name: state["facts"][name] for name in (*SCORES, *BEST) if name in state["facts"]}
        parts.network.restore(state["network"])
        parts.agent.restore(state["agent"])
        same_number = len(state["games"]) == len(games)
        same_games = same_number and games.restore(state["games"])
        if not same_games:
            state["statistics"]["scores"].clear()
        if same_number and not same_games:
            logger.info("This environment cannot restore its state: new games begin")
        parts.statistics.restore(state["statistics"], same_phase=False)
        due = phases_from(*checkpoint.due, o.epochs)
        changed = _changed_options(state["facts"]["options"], position.facts["options"])
        other = f", with another {', '.join(changed)}" if changed else ""
        if not same_number or not memory.fits(state["memory"]):
            logger.info("Continuing from %s%s", checkpoint.path, other)
            logger.info("The replay memory has another layout now. It starts empty, and random steps fill it.")
            position.left = [("random", 0), *due]
            return
        restore_memory(memory, checkpoint)
        if not same_games:
            memory.cut()
        phase, _ = state["stage"]
        under_way = state["under_way"]
    except (LookupError, TypeError, ValueError, AttributeError) as error:
        raise CheckpointError(
            f"{checkpoint.path} is damaged: its values do not fit together. Name a snapshot (.pkl) instead."
        ) from error
    position.left = [("random", 0), *due] if phase == "random" else due
    if under_way and phase != "test":  # because a test begins again with new games
        position.broken_off = state["statistics"]
    same = ", exactly where it stopped" if same_games else ""
    logger.info("Continuing from %s%s", checkpoint.path, other or same)


def _changed_options(before: dict[str, Any], now: dict[str, Any]) -> list[str]:
    """Return the options, as words, whose values differ from those of the run before."""
    changed = [name for name, value in now.items() if value != before.get(name, value)]
    return [f"--{name}" for name in changed if name not in ("game", "epochs")]


def actions_of(start: Start | None, options: EnvironmentOptions) -> list[str] | None:
    """Return the names of the actions that a snapshot's network learned. None: unknown, or those of another game.

    The network may come from an older emulator, which had fewer actions.
    """
    if not start or options.environment != "ale":
        return None
    facts, game = start.facts, options.game
    if "actions" in facts:
        minimal = facts.get("options", {}).get("minimal_action_set", options.minimal_action_set)
        same = same_game("ale", str(facts.get("game")), game) and minimal == options.minimal_action_set
        return list(facts["actions"]) if same else None
    outputs = len(start.snapshot.layers[-1].params.get("W", ())) if start.snapshot and start.snapshot.layers else 0
    if same_game("ale", game, "pong") and options.minimal_action_set and outputs == len(_PONG_OF_2015):
        logger.info("%s has 3 actions, those of Pong in 2015: %s", start.path, " ".join(_PONG_OF_2015))
        return list(_PONG_OF_2015)
    return None
