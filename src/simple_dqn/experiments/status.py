"""How far a run is, read from its files."""

from __future__ import annotations

import json
import math
import re
from pathlib import Path
from typing import Any, NamedTuple

from simple_dqn.errors import StatisticsError
from simple_dqn.experiments.plan import PlannedRun
from simple_dqn.reports.scores import mean_text
from simple_dqn.reports.table import read_table

_TAIL = 4096  # bytes of the log that hold its last figures


class Status(NamedTuple):
    """How far a run is. Texts are empty if they are unknown."""

    state: str  # waiting, running, stopped, failed or complete
    error: str
    machine: str
    epoch: int
    last_test: str
    best_test: str
    speed: str
    left: str


def read_facts(path: Path) -> dict[str, Any]:
    """Return what the file RUN.json says; nothing if it is missing or damaged."""
    try:
        facts = json.loads(path.read_text(encoding="utf-8"))
        return dict(facts) if isinstance(facts.get("legs"), list) else {}
    except (OSError, ValueError, AttributeError):
        return {}


def status_of(run: PlannedRun, folder: Path) -> Status:
    """Return how far a run is."""
    facts = read_facts(folder / run.result("json"))
    legs = facts.get("legs") or [{}]
    epoch, tests = 0, []
    try:
        table = read_table(folder / run.result("csv"), 1, ",", ["average_reward"])
        epoch = int(table.columns["epoch"][-1])
        scores = zip(table.phases, table.columns["average_reward"], strict=True)
        tests = [float(score) for phase, score in scores if phase == "test"]
    except StatisticsError:  # no rows yet
        pass
    best = max((score for score in tests if not math.isnan(score)), default=None)
    speed, left = _figures(folder / run.result("log"))
    return Status(
        facts.get("state", "waiting"),
        facts.get("error", ""),
        str(legs[-1].get("machine", "")).partition(",")[0],
        epoch,
        mean_text(tests[-1]) if tests else "",
        "" if best is None else mean_text(best),
        speed,
        left,
    )


def _figures(log: Path) -> tuple[str, str]:
    """Return the last speed and time left in a log."""
    try:
        with log.open("rb") as file:
            file.seek(max(0, log.stat().st_size - _TAIL))
            text = file.read().decode("utf-8", "replace")
    except OSError:
        return "", ""
    speeds = re.findall(r"(\d+) steps/s", text)
    left = re.findall(r"run ([\d.]+ \w+)|· ([\d.]+ \w+) left|About ([\d.]+ \w+) to the end", text)
    return speeds[-1] if speeds else "", "".join(left[-1]) if left else ""
