"""What the benchmarks share: the machine and tables in Markdown, and statistics without times."""

from __future__ import annotations

import csv
import os
import platform
import sys
from collections.abc import Iterable, Sequence
from importlib.metadata import version
from pathlib import Path
from statistics import median

import psutil

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "src"))

from simple_dqn.machine import cpu_name

_TIMES = ("total_time", "epoch_time", "steps_per_second")


def machine() -> str:
    """A list of what the figures depend on, in Markdown."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    facts = {
        "CPU": f"{cpu_name()}, {cores} logical cores",
        "Memory": f"{psutil.virtual_memory().total / 2**30:.0f} GiB",
        "System": f"{platform.system()} {platform.release()} on {platform.machine()}",
        "Python": f"{platform.python_version()}, torch {version('torch')}, ale-py {version('ale-py')}",
        "Load as it began": " ".join(f"{load:.1f}" for load in os.getloadavg()) + " (1, 5, 15 minutes)",
    }
    if "OMP_NUM_THREADS" in os.environ:
        facts["Threads"] = f"OMP_NUM_THREADS={os.environ['OMP_NUM_THREADS']} (JAX does not heed it)"
    return "\n".join(f"- {name}: {value}" for name, value in facts.items())


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table in Markdown; all columns but the first are set flush right."""
    rule = [":--", *["--:"] * (len(head) - 1)]
    return "\n".join(f"| {' | '.join(row)} |" for row in (head, rule, *rows))


def cell(figures: Sequence[float]) -> str:
    """Their median, the lowest and the highest in brackets."""
    return f"{median(figures):.0f} ({min(figures):.0f} to {max(figures):.0f})"


def write(text: str, output: str | None) -> None:
    """To the file `output`, else to the terminal."""
    if output:
        Path(output).write_text(text + "\n")
    else:
        print(text)


def rows_without_times(csv_file: Path) -> list[list[str]]:
    """The rows of a statistics file, without the columns that differ between equal trainings."""
    with csv_file.open() as file:
        return [[value for name, value in row.items() if name not in _TIMES] for row in csv.DictReader(file)]
