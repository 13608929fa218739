"""This program as a library, for the benchmarks; run by itself it is one of the programs that peers.py compares.

    scripts/python benchmarks/own.py --random_steps 4000 --warm_up 400 --steps 2000

prints a line of JSON. Options of the program may follow, such as --datatype bfloat16.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from importlib.metadata import version
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "src"))

from main import GROUPS, make_parts
from simple_dqn import __version__, options
from simple_dqn.agent import Agent
from simple_dqn.command_line import MainOptions

# As the peers have it; the rest is at the program's defaults.
SAME_WORK = [
    "breakout",
    *("--backend", "cpu"),
    *("--replay_size", "50000"),
    *("--exploration_decay_steps", "0"),
    *("--exploration_rate_end", "0.05"),
]


def make_agent(argv: Sequence[str], seed: int = 1) -> Agent:
    """The agent that these options make, with everything it works with, and its statistics."""
    values = options.parse(GROUPS, argv, usage="", description="", epilog="") | {"random_seed": seed}
    parts = make_parts(options.build(MainOptions, values), values, None, [], ExitStack())
    parts.agent.callbacks = [parts.statistics]
    return parts.agent


def speed(phase: Callable[[int], None], steps: int) -> float:
    """Steps per second of so many steps of a phase."""
    start = time.perf_counter()
    phase(steps)
    return steps / (time.perf_counter() - start)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name in ("random_steps", "warm_up", "steps"):
        parser.add_argument(f"--{name}", type=int, required=True)
    work, program_options = parser.parse_known_args()
    os.environ["CUDA_VISIBLE_DEVICES"] = ""
    agent = make_agent([*SAME_WORK, *program_options])
    agent.random(work.random_steps)
    agent.train(work.warm_up)
    before = agent.network.train_iterations
    steps_per_second = speed(agent.train, work.steps)
    result = dict(
        steps_per_second=steps_per_second,
        updates=agent.network.train_iterations - before,
        versions={"simple_dqn": __version__} | {name: version(name) for name in ("torch", "ale-py", "numpy")},
    )
    print(json.dumps(result))


if __name__ == "__main__":
    main()
