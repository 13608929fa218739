"""Measures the phases of this program, in steps per second, for several configurations.

    scripts/python benchmarks/phases.py --output phases.md

The configurations take turns, as often as --runs says; what is told is the median. To measure another one, add a line
to CONFIGURATIONS.
"""

from __future__ import annotations

import argparse
import logging
import sys
from collections import defaultdict
from dataclasses import replace
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))  # PYTHONSAFEPATH leaves it out

import own  # first: it finds simple_dqn
import report
from simple_dqn.agent import Agent

CONFIGURATIONS = {  # options as on the command line
    "float32": [],
    "bfloat16": ["--datatype", "bfloat16"],
    "@presets/fast": ["@presets/fast"],
}

PHASES = ("random", "train at exploration 1", "train at exploration 0.05", "test")


def measure(agent: Agent, phase: str, steps: int) -> float:
    """Steps per second of a phase."""
    if phase.startswith("train"):
        rate = float(phase.split()[-1])
        agent.options = replace(agent.options, exploration_rate_start=rate, exploration_rate_end=rate)
    return own.speed(getattr(agent, phase.split()[0]), steps)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=5, help="measurements of each figure (default: 5)")
    parser.add_argument("--random_steps", type=int, default=4000, help="random steps first (default: 4000)")
    parser.add_argument("--warm_up", type=int, default=400, help="steps of each phase, not timed (default: 400)")
    parser.add_argument("--steps", type=int, default=2000, help="steps timed (default: 2000)")
    parser.add_argument("--only", nargs="+", choices=CONFIGURATIONS, help="no other configurations but these")
    parser.add_argument("--output", help="Markdown file to write (default: the terminal)")
    arguments = parser.parse_args()
    logging.getLogger().setLevel(logging.WARNING)

    machine = report.machine()
    names = arguments.only or list(CONFIGURATIONS)
    agents = {name: own.make_agent([*own.SAME_WORK, *CONFIGURATIONS[name]]) for name in names}
    for agent in agents.values():
        agent.random(arguments.random_steps)
        for phase in PHASES:
            measure(agent, phase, arguments.warm_up)
    speeds: dict[tuple[str, str], list[float]] = defaultdict(list)
    for _ in range(arguments.runs):
        for phase in PHASES:
            for name, agent in agents.items():
                speeds[name, phase].append(measure(agent, phase, arguments.steps))

    rows = [(phase, *(report.cell(speeds[name, phase]) for name in names)) for phase in PHASES]
    title = f"Steps per second on Breakout, on the CPU; medians of {arguments.runs} interleaved runs of "
    title += f"{arguments.steps} steps, the lowest and the highest in brackets."
    report.write("\n\n".join([title, machine, report.table(("Phase", *names), rows)]), arguments.output)


if __name__ == "__main__":
    main()
