"""Neon against PyTorch: how far apart the same training takes them, and how fast each is.

    scripts/python benchmarks/against_neon.py --output neon.md

Needs Neon (docs/neon.md). Both start from the same seed and learn from the same minibatches of Breakout played at
random, 84 x 84, with the target network synced before the first update and after every hundredth; in float32 and, to
tell rounding from anything else, in float64. Speed is measured in turns.
"""

from __future__ import annotations

import argparse
import logging
import sys
from collections import defaultdict
from collections.abc import Iterator, Sequence
from importlib.metadata import version
from pathlib import Path
from statistics import median

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parent))  # PYTHONSAFEPATH leaves it out

import report
from own import SAME_WORK, make_agent, speed
from simple_dqn.deepqnetwork import BackendOptions, DeepQNetwork, DeepQNetworkOptions
from simple_dqn.learning.neon_network import NeonNetwork, load_neon
from simple_dqn.replay_memory import Minibatch

OPTIMIZERS = ("rmsprop", "adam", "adadelta")
UPDATES = (1, 20, 200)
SHAPE, ACTIONS = (4, 84, 84), 4


def play(number: int) -> list[Minibatch]:
    """So many minibatches of Breakout, and one more."""
    agent = make_agent(SAME_WORK)
    agent.random(4000)
    return [agent.memory.minibatch() for _ in range(number + 1)]


def make(library: str, datatype: str, optimizer: str) -> DeepQNetwork | NeonNetwork:
    options, backend = DeepQNetworkOptions(optimizer=optimizer), BackendOptions(library, "cpu", datatype=datatype)
    return (NeonNetwork if library == "neon" else DeepQNetwork)(ACTIONS, SHAPE, options, backend, seed=1)


def differences(optimizer: str, batches: Sequence[Minibatch]) -> Iterator[list[str]]:
    """Rows of the first table: after so many updates, the largest differences of Q-values."""
    kinds = [(library, datatype) for datatype in ("float32", "float64") for library in ("torch", "neon")]
    networks = {kind: make(*kind, optimizer) for kind in kinds}
    # Neon does not round the weights that it draws in float64.
    networks["neon", "float64"].load_layers(networks["torch", "float64"].layers(), "PyTorch's")
    states = np.concatenate([batches[-1].prestates, batches[-1].poststates])
    for number, batch in enumerate(batches[:-1]):
        for network in networks.values():
            if number % 100 == 0:
                network.update_target_network()
            network.train(batch)
        if number + 1 in UPDATES:
            ours, neons, exact, exact_neons = (network.predict(states) for network in networks.values())
            pairs = ((ours, neons), (ours, exact), (neons, exact), (exact, exact_neons))
            yield [
                f"{optimizer}, {number + 1}",
                f"{abs(exact).max():.2f}",
                *(f"{abs(one - other).max():.0e}" for one, other in pairs),
            ]


def speeds(runs: int, steps: int) -> dict[str, dict[str, list[float]]]:
    """Steps per second of every run, by phase and library."""
    agents = {library: make_agent([*SAME_WORK, "--library", library]) for library in ("torch", "neon")}
    found: dict[str, dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    for agent in agents.values():
        agent.random(1000)
        agent.train(20)
    for _ in range(runs):
        for library, agent in agents.items():
            found["train"][library].append(speed(agent.train, steps))
        for library, agent in agents.items():
            found["test"][library].append(speed(agent.test, steps))
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=5, help="of each phase and library, in turn (default: 5)")
    parser.add_argument("--steps", type=int, default=200, help="of the agent in each run (default: 200)")
    parser.add_argument("--output", help="file for the tables (default: the terminal)")
    options = parser.parse_args()
    logging.disable(logging.WARNING)
    load_neon()
    parts = [report.machine() + f"\n- NumPy: {version('numpy')}"]
    batches = play(max(UPDATES))
    rows = [row for optimizer in OPTIMIZERS for row in differences(optimizer, batches)]
    head = ["Optimizer, updates", "Largest Q", "PyTorch to Neon", "PyTorch to exact", "Neon to exact"]
    parts.append(report.table([*head, "PyTorch to Neon, float64"], rows))
    found = speeds(options.runs, options.steps)
    head = ["Steps per second", "PyTorch", "Neon", "PyTorch is × as fast"]
    timed = [
        [phase, report.cell(by["torch"]), report.cell(by["neon"]), f"{median(by['torch']) / median(by['neon']):.1f}"]
        for phase, by in found.items()
    ]
    parts.append(report.table(head, timed))
    report.write("\n\n".join(parts), options.output)


if __name__ == "__main__":
    main()
