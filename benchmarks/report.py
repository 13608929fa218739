"""What the benchmarks write: the machine, and tables in Markdown."""

from __future__ import annotations

import os
import platform
import subprocess
from collections.abc import Iterable, Sequence
from importlib.metadata import version
from pathlib import Path
from statistics import median

import psutil


def machine() -> str:
    """A list of what the figures depend on, in Markdown."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    facts = {
        "CPU": f"{_cpu_name()}, {cores} logical cores",
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


def _cpu_name() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
        command = ["sysctl", "-n", "machdep.cpu.brand_string"]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return platform.processor() or platform.machine()
