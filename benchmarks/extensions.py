"""Measures what the extensions of Q-learning cost, in Breakout, and gain, in the test game Catch.

    scripts/python benchmarks/extensions.py --output extensions.md

Cost: steps per second of training, of all in turns, in relation to plain Q-learning. Gain: the score of a game of
Catch, from -1 (missed) to 1 (caught), after so many steps of training, with the exploration off; medians over seeds.
"""

from __future__ import annotations

import argparse
import logging
import statistics
import sys
from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parent))  # PYTHONSAFEPATH leaves it out

import own  # first: it finds simple_dqn
import report

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))

from fakes import CatchTraining

EXTENSIONS: dict[str, dict[str, Any]] = {
    "plain": {},
    "double_dqn": {"double_dqn": True},
    "dueling": {"dueling": True},
    "prioritized_replay": {"prioritized_replay": True},
    "multi_step 3": {"multi_step": 3},
    "all of them": {"double_dqn": True, "dueling": True, "prioritized_replay": True, "multi_step": 3},
}
ONLINE = {"return_lambda": 0.8, "replay_size": 160, "train_frequency": 128, "train_repeat": 128, "target_steps": 0}
NO_COST: dict[str, dict[str, Any]] = {  # or one told elsewhere, so that only what they gain is measured
    "target_exploration_rate 0.05": {"target_exploration_rate": 0.05},
    "adam_epsilon 1.5e-4": {"adam_epsilon": 1.5e-4},
    "target_rate 0.5": {"target_rate": 0.5},
    "return_lambda 0.8, 128 updates every 128 steps": ONLINE,
}
BASES: dict[str, list[str]] = {"default": [], "@presets/fast": ["@presets/fast"]}
CATCH_STEPS = (500, 1000, 1500, 2000, 3000)


def costs(runs: int, steps: int) -> list[tuple[str, ...]]:
    """Rows of the first table."""
    pairs = [(base, name) for base in BASES for name in EXTENSIONS]
    agents = {}
    for base, name in pairs:
        words = [word for option, value in EXTENSIONS[name].items() for word in (f"--{option}", str(value))]
        agents[base, name] = own.make_agent([*own.SAME_WORK, *BASES[base], *words])
        agents[base, name].random(2000)
        agents[base, name].train(200)
    speeds: dict[tuple[str, str], list[float]] = defaultdict(list)
    for _ in range(runs):
        for pair in pairs:
            speeds[pair].append(own.speed(agents[pair].train, steps))
    medians = {pair: statistics.median(found) for pair, found in speeds.items()}
    return [
        (name, *(f"{medians[b, name]:.0f} ({medians[b, name] / medians[b, 'plain']:.2f})" for b in BASES))
        for name in EXTENSIONS
    ]


def catch_scores(extension: dict[str, Any], seed: int) -> list[float]:
    """Mean scores of 100 games, after each of `CATCH_STEPS`."""
    learning: dict[str, Any] = dict(optimizer="adam", learning_rate=0.0005, importance_steps=max(CATCH_STEPS))
    training = CatchTraining(seed, **learning, **extension)
    training.agent.random(500)
    scores, trained = [], 0
    for steps in CATCH_STEPS:
        training.agent.train(steps - trained)
        trained = steps
        scores.append(training.score())
    return scores


def gains(seeds: int) -> list[tuple[str, ...]]:
    """Rows of the second table."""
    rows = []
    for name, extension in (EXTENSIONS | NO_COST).items():
        scores = np.array([catch_scores(extension, seed) for seed in range(1, seeds + 1)])  # (seeds, steps)
        cells = zip(np.median(scores, axis=0), scores.min(axis=0), scores.max(axis=0), strict=True)
        rows.append((name, *(f"{median:.2f} ({least:.2f} to {most:.2f})" for median, least, most in cells)))
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=5, help="measurements of each speed (default: 5)")
    parser.add_argument("--steps", type=int, default=400, help="steps timed in each (default: 400)")
    parser.add_argument("--seeds", type=int, default=5, help="trainings on Catch for each extension (default: 5)")
    parser.add_argument("--output", help="Markdown file to write (default: the terminal)")
    arguments = parser.parse_args()
    logging.getLogger().setLevel(logging.WARNING)
    parts = [report.machine()]
    if arguments.runs:
        parts.append(f"Steps per second of training, medians of {arguments.runs} (in relation to plain):")
        parts.append(report.table(("Extension", *BASES), costs(arguments.runs, arguments.steps)))
    if arguments.seeds:
        parts.append(f"Score in Catch, medians of {arguments.seeds} seeds (lowest to highest), after so many steps:")
        parts.append(report.table(("Extension", *map(str, CATCH_STEPS)), gains(arguments.seeds)))
    report.write("\n\n".join(parts), arguments.output)


if __name__ == "__main__":
    main()
