"""Measures what games and learning that take turns gain, in `@presets/online`.

    scripts/python benchmarks/in_turn.py --output in_turn.md

Each run is a program of its own, since OpenMP reads GOMP_SPINCOUNT only as it is loaded. They take turns, as often as
--runs says; what is told are medians.
"""

from __future__ import annotations

import argparse
import csv
import os
import subprocess
import sys
import tempfile
from collections import defaultdict
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))  # PYTHONSAFEPATH leaves it out

import report

ROOT = Path(__file__).resolve().parents[1]
PHASES = ("random", "train", "test")
IN_ONE_PROCESS = """
from simple_dqn.games import make
make._cores_for_games = lambda cores, on_gpu, in_turn: 0
"""
PROGRAM = """
from main import main
sys.exit(main())
"""
VARIANTS = {  # what comes before the program, and GOMP_SPINCOUNT; 300,000 is OpenMP's own where no core has two threads
    "games in the program's own process": (IN_ONE_PROCESS, "300000"),
    "in a process for each core": ("", "300000"),
    "and `GOMP_SPINCOUNT=1000`": ("", "1000"),
    "and `GOMP_SPINCOUNT=3000`": ("", "3000"),
    "and 10000, as the program sets it": ("", None),
}


def measure(before: str, spins: str | None, options: list[str]) -> dict[str, float]:
    """Steps per second of each phase of one run."""
    code = f"import sys\nsys.path.insert(0, {str(ROOT / 'src')!r})\n{before}{PROGRAM}"
    variables = {name: value for name, value in os.environ.items() if name != "GOMP_SPINCOUNT"}
    if spins:
        variables["GOMP_SPINCOUNT"] = spins
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-c", code, *options, "--csv_file", "speed.csv"]
        subprocess.run(command, cwd=folder, env=variables, check=True, capture_output=True)
        with (Path(folder) / "speed.csv").open() as file:
            return {row["phase"]: float(row["steps_per_second"]) for row in csv.DictReader(file)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=5, help="measurements of each figure (default: 5)")
    parser.add_argument("--train_steps", type=int, default=8192, help="steps of training (default: 8192)")
    parser.add_argument("--test_steps", type=int, default=6000, help="steps of testing (default: 6000)")
    parser.add_argument("--output", help="Markdown file to write (default: the terminal)")
    arguments = parser.parse_args()
    options = ["breakout", f"@{ROOT / 'presets' / 'online'}", "--backend", "cpu", "--epochs", "1", "--random_seed", "1"]
    options += ["--random_steps", "1200", "--train_steps", str(arguments.train_steps)]
    options += ["--test_games", "0", "--test_steps", str(arguments.test_steps), "--exploration_rate_start", "0.05"]
    machine = report.machine()
    speeds: dict[tuple[str, str], list[float]] = defaultdict(list)
    for _ in range(arguments.runs):
        for name, (before, spins) in VARIANTS.items():
            for phase, speed in measure(before, spins, options).items():
                speeds[name, phase].append(speed)
    rows = [(name, *(report.cell(speeds[name, phase]) for phase in PHASES)) for name in VARIANTS]
    title = f"Steps per second of `@presets/online` in Breakout, on the CPU; medians of {arguments.runs} interleaved "
    title += f"runs ({arguments.train_steps} steps of training), the lowest and the highest in brackets."
    report.write("\n\n".join([title, machine, report.table(("", *PHASES), rows)]), arguments.output)


if __name__ == "__main__":
    main()
