"""Runs of the program in processes of their own, and the files that they leave."""

from __future__ import annotations

import csv
import os
import subprocess
import sys
import threading
from pathlib import Path

from fakes import HEADER

ROOT = Path(__file__).resolve().parent.parent
MAIN = ROOT / "src" / "main.py"
TIMES = ("total_time", "epoch_time", "steps_per_second")
DEADLINE = 300  # seconds for a program that takes two, because others may use the machine


def start(*words: str, cwd: Path, **more_variables: str) -> subprocess.Popen[str]:
    variables = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST")} | more_variables
    command, pipe = [sys.executable, str(MAIN), *words], subprocess.PIPE
    return subprocess.Popen(command, cwd=cwd, env=variables, stdout=pipe, stderr=pipe, text=True, encoding="utf-8")


def wait_for(process: subprocess.Popen[str], *words: str, seconds: float = DEADLINE) -> str:
    """Read the log until a line has one of `words`. If none comes in time, kill the process and show its log."""
    deadline, log = threading.Timer(seconds, process.kill), ""
    deadline.start()
    assert process.stderr
    try:
        for line in process.stderr:
            log += line
            if any(word in line for word in words):
                return log
    finally:
        deadline.cancel()
    raise AssertionError(f"not logged within {seconds} s: {words}. The log:\n{log}")


def rows(path: Path) -> list[dict[str, str]]:
    """The rows of a statistics file."""
    header, *lines = path.read_text().splitlines()
    assert header == HEADER
    assert all(line.count(",") == HEADER.count(",") for line in lines)
    return list(csv.DictReader([header, *lines]))


def without_times(path: Path) -> list[dict[str, str]]:
    """The rows of a statistics file, which are equal for equal runs."""
    return [{name: value for name, value in row.items() if name not in TIMES} for row in rows(path)]


def contents(folder: Path) -> dict[str, bytes]:
    """The content of every file in a folder and those below."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
