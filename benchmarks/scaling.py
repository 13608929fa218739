"""Shows how training speed grows with --num_envs and with threads.

    scripts/python benchmarks/scaling.py --output results/scaling.md --plot results/scaling.png

Training on Breakout at exploration 0.05, as in benchmarks/README.md; configurations take turns.
"""

from __future__ import annotations

import argparse
import logging
import sys
from collections import defaultdict
from pathlib import Path
from statistics import median

import matplotlib
import torch

sys.path.insert(0, str(Path(__file__).resolve().parent))  # PYTHONSAFEPATH leaves it out

import own  # first: it finds simple_dqn
import report
from simple_dqn.machine import num_cores

PRESETS: dict[str, list[str]] = {"default": [], "@presets/fast": ["@presets/fast"]}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=5, help="measurements of each figure (default: 5)")
    parser.add_argument("--steps", type=int, default=800, help="steps timed (default: 800)")
    parser.add_argument("--num_envs", type=int, nargs="+", default=[1, 2, 4, 8, 16, 32], help="numbers of games")
    parser.add_argument("--threads", type=int, nargs="+", help="numbers of threads (default: 1, 2, 4 … all cores)")
    parser.add_argument("--output", help="Markdown file to write (default: the terminal)")
    parser.add_argument("--plot", type=Path, help="PNG file to write")
    arguments = parser.parse_args()
    logging.getLogger().setLevel(logging.WARNING)
    machine = report.machine()
    threads = arguments.threads or [n for n in (1, 2, 4, 8, 16, 32, 64) if n <= num_cores()]
    agents = {}
    for preset, words in PRESETS.items():
        for n in arguments.num_envs:
            agent = own.make_agent([*own.SAME_WORK, "--replay_size", "5000", *words, "--num_envs", str(n)])
            agent.random(1000)
            agents[preset, n] = agent
    speeds: dict[tuple[str, int, int], list[float]] = defaultdict(list)
    for run in range(arguments.runs + 1):
        for (preset, n), agent in agents.items():
            for t in threads:
                torch.set_num_threads(t)
                agent.train(40)  # wakes the threads
                speed = own.speed(agent.train, arguments.steps)
                speeds[preset, n, t] += [speed] if run else []  # the first run warms up
    figures = {key: median(own_speeds) for key, own_speeds in speeds.items()}
    columns = [(preset, t) for preset in PRESETS for t in threads]
    head = ["Games", *(f"{preset}, {t} thread{'s' * (t > 1)}" for preset, t in columns)]
    rows = [[str(n), *(f"{figures[preset, n, t]:.0f}" for preset, t in columns)] for n in arguments.num_envs]
    title = f"Steps per second of training, medians of {arguments.runs} interleaved runs of {arguments.steps} steps."
    report.write("\n\n".join([title, machine, report.table(head, rows)]), arguments.output)
    if arguments.plot:
        plot(arguments.plot, figures, columns, arguments.num_envs)


def plot(
    path: Path, figures: dict[tuple[str, int, int], float], columns: list[tuple[str, int]], numbers: list[int]
) -> None:
    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(7, 4), layout="constrained")
    colours = dict(zip(PRESETS, ("#0072b2", "#d55e00"), strict=True))
    most = max(t for _, t in columns)
    for preset, t in columns:
        label = f"{preset}, {t} thread{'s' * (t > 1)}"
        style = "-" if t == most else "--"
        axes.plot(
            numbers, [figures[preset, n, t] for n in numbers], style, marker="o", color=colours[preset], label=label
        )
    axes.set_xscale("log", base=2)
    axes.set_xticks(numbers, [str(n) for n in numbers])
    axes.set_ylim(bottom=0)
    axes.set_xlabel("games side by side (--num_envs)")
    axes.set_ylabel("training steps per second")
    axes.grid(alpha=0.3)
    figure.legend(loc="outside right upper", frameon=False)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=100)


if __name__ == "__main__":
    main()
