"""Measures what the program costs beside the network and the emulator: the limit that no GPU can lift.

    scripts/python benchmarks/overhead.py --output overhead.md

The agent, the replay memory and the statistics are real and at their defaults. The games give made-up ends and screens
at once, the network learns nothing, and the memory's screens are not there, as those on a GPU are not.
"""

from __future__ import annotations

import argparse
import logging
import statistics
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

sys.path.insert(0, str(Path(__file__).resolve().parent))  # PYTHONSAFEPATH leaves it out

import own  # first: it finds simple_dqn
import report
from simple_dqn.agent import Agent, AgentOptions
from simple_dqn.command_line import MainOptions
from simple_dqn.deepqnetwork import DeepQNetworkOptions, TrainResult, n_step_returns
from simple_dqn.environment import TERMINATED, Mode
from simple_dqn.games.games import Games, SharedArrays
from simple_dqn.replay.prioritized import memory_class
from simple_dqn.replay_memory import Minibatch, ReplayMemoryOptions, TargetParts
from simple_dqn.reports.progress import Progress
from simple_dqn.reports.scores import Scores
from simple_dqn.saving.resume import Position
from simple_dqn.statistics import Statistics

SHAPE, ACTIONS, BATCH, LIFE = (4, 84, 84), 4, 32, 200  # steps of a life
MEMORIES: dict[str, dict[str, Any]] = {
    "default": {},
    "--prioritized_replay true": {"prioritized_replay": True},
    "--prioritized_replay true --multi_step 3": {"prioritized_replay": True, "multi_step": 3},
}


class InstantGames(Games):
    """Lives of 200 steps, in which nothing is to be seen."""

    def __init__(self, number: int) -> None:
        self.arrays = SharedArrays.make(number, SHAPE)
        self.num_actions = ACTIONS
        self._times = np.arange(number) * LIFE // number

    def begin(self, mode: Mode, new_episode: bool) -> None:
        pass

    def start(self, actions: Sequence[int | None]) -> Sequence[int | None]:
        return actions

    def finish(self) -> None:
        self._times += 1
        self.arrays.ends[:] = (self._times % LIFE == 0) * TERMINATED


class InstantNetwork:
    """Does for an update what is done with NumPy, and no more."""

    def __init__(self) -> None:
        self.train_iterations = 0
        self._options = DeepQNetworkOptions()

    def predict(self, states: NDArray[np.uint8]) -> NDArray[np.float32]:
        return np.zeros((len(states), ACTIONS), np.float32)

    def target_arrays(self, batch: Minibatch) -> TargetParts:
        returns, discounts = n_step_returns(batch, self._options, np.float32)
        return TargetParts(returns, discounts, np.zeros(BATCH, np.float32))

    def train(self, batch: Minibatch) -> TrainResult:
        self.train_iterations += 1
        n_step_returns(batch, self._options, np.float32)
        return TrainResult(0.0, np.full(BATCH, 0.1, np.float32))

    def anneal(self, step: int) -> None:
        pass

    def update_target_network(self) -> None:
        pass


class NoScreens:
    """Forgets screens."""

    def __setitem__(self, indexes: Any, screens: Any) -> None:
        pass

    def __getitem__(self, indexes: NDArray[np.int64]) -> NDArray[np.uint8]:
        return np.empty((*indexes.shape, 1, 1), np.uint8)


def make_agent(games: int, memory: dict[str, Any]) -> Agent:
    options = ReplayMemoryOptions(replay_size=100_000, **memory)
    replay = memory_class(options)(options, (1, 1), BATCH, np.random.default_rng(1), lanes=games)
    replay.screens = NoScreens()
    agent_options = AgentOptions(exploration_decay_steps=0, num_envs=games)
    agent = Agent(InstantGames(games), replay, InstantNetwork(), agent_options, np.random.default_rng(2))
    told = Statistics(agent)
    agent.callbacks = [told, Progress(told, MainOptions(), Position([], 0, 0, {})), Scores()]
    return agent


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=5, help="measurements of each figure (default: 5)")
    parser.add_argument("--steps", type=int, default=20_000, help="steps timed (default: 20000)")
    parser.add_argument("--games", type=int, nargs="+", default=[1, 8, 64], help="side by side (default: 1 8 64)")
    parser.add_argument("--output", help="Markdown file to write (default: the terminal)")
    arguments = parser.parse_args()
    logging.getLogger().setLevel(logging.WARNING)

    machine = report.machine()
    agents = {(name, n): make_agent(n, MEMORIES[name]) for n in arguments.games for name in MEMORIES}
    times: dict[tuple[str, int], list[float]] = {key: [] for key in agents}
    for agent in agents.values():
        for callback in agent.callbacks:
            callback.on_phase_start("train", 1, (arguments.runs + 1) * arguments.steps)
        agent.random(60_000)
        agent.train(1000)
    for _ in range(arguments.runs):
        for key, agent in agents.items():
            times[key].append(1e6 / own.speed(agent.train, arguments.steps) * agent.options.train_frequency)

    cells = {key: f"{statistics.median(found):.0f} ({min(found):.0f})" for key, found in times.items()}
    rows = [(str(n), *(cells[name, n] for name in MEMORIES)) for n in arguments.games]
    title = "Microseconds of four steps and an update, without network, emulator and screens; "
    title += f"medians of {arguments.runs} interleaved runs of {arguments.steps} steps, the lowest in brackets."
    names = (name if name == "default" else f"`{name}`" for name in MEMORIES)
    report.write("\n\n".join([title, machine, report.table(("Games", *names), rows)]), arguments.output)


if __name__ == "__main__":
    main()
