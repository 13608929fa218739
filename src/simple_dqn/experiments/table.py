"""What an experiment shows while it runs: a table in a terminal, or lines."""

from __future__ import annotations

import logging
import re
import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from simple_dqn.experiments.plan import PlannedRun
from simple_dqn.experiments.status import Status, status_of
from simple_dqn.wording import count

logger = logging.getLogger(__name__)

_STATES = ("running", "failed", "stopped", "waiting", "complete")  # the most interesting first
_COLUMNS = ("run", "machine", "epoch", "steps/s", "last test", "best test", "time left")
# Left out in this sequence if the terminal is too narrow.
_DISPENSABLE = ("machine", "steps/s", "best test", "last test")
_AROUND = 6  # lines of the terminal for title, column names, caption and borders


class Lines:
    """Logs each epoch that ends, and each run that fails.

    Args:
        runs: all runs of the experiment.
        folder: where their files are.
    """

    def __init__(self, runs: Sequence[PlannedRun], folder: Path) -> None:
        self._runs, self._folder = runs, folder
        self._read = {run.name: self._log_size(run) for run in runs}  # bytes of each log

    def show(self) -> None:
        """Show what is new."""
        for run in self._runs:
            if self._log_size(run) > self._read[run.name]:
                self._show_epochs(run)

    def fail(self, run: PlannedRun, error: str) -> None:
        """Show that a run has failed."""
        logger.info("%s failed: %s", run.name, error)

    def close(self) -> None:
        """Show the last state."""
        self.show()

    def _show_epochs(self, run: PlannedRun) -> None:
        with (self._folder / run.result("log")).open("rb") as log:
            log.seek(self._read[run.name])
            text = b"".join(log.read().rpartition(b"\n")[:2])  # without a line that is half written
        self._read[run.name] += len(text)
        for line in re.findall(r"(epoch \d+/.*)", text.decode("utf-8", "replace")):
            logger.info("%s on %s: %s", run.name, status_of(run, self._folder).machine, line)

    def _log_size(self, run: PlannedRun) -> int:
        path = self._folder / run.result("log")
        return path.stat().st_size if path.exists() else 0


class LiveTable:
    """A table in the terminal, with a row for each run. If it is higher than the terminal, complete runs are left out.

    Args:
        runs: all runs of the experiment.
        folder: where their files are.
    """

    def __init__(self, runs: Sequence[PlannedRun], folder: Path) -> None:
        from rich.console import Console
        from rich.live import Live

        self._runs, self._folder = runs, folder
        self._ended: dict[str, Status] = {}  # of the runs whose files do not change any more
        self._console = Console(file=sys.stderr)
        self._live = Live(console=self._console, auto_refresh=False)
        self._live.start()

    def show(self) -> None:
        """Draw the table again."""
        self._live.update(self._table(self._console.height - _AROUND), refresh=True)

    def fail(self, run: PlannedRun, error: str) -> None:
        """Do nothing, because the table has the states of all runs. A line of the log would break it."""

    def close(self) -> None:
        """Leave the whole table on the terminal."""
        self._live.vertical_overflow = "visible"
        self._live.update(self._table(len(self._runs)), refresh=True)
        self._live.stop()

    def _table(self, most: int) -> Any:
        from rich.table import Table as RichTable

        statuses = [(run, self._status(run)) for run in self._runs]
        counts = Counter(status.state for _, status in statuses)
        caption = ", ".join(f"{counts[state]} {state}" for state in reversed(_STATES) if counts[state])
        table = RichTable(title=f"{self._runs[0].experiment}: {count(len(self._runs), 'run')}", caption=caption)
        first = sorted(statuses, key=lambda pair: _STATES.index(pair[1].state))[: max(1, most)]
        rows = [row(run, status) for run, status in first]
        shown = _columns_that_fit(rows, self._console.width)
        for i in shown:
            table.add_column(_COLUMNS[i], justify="left" if i < 2 else "right", no_wrap=True)
        for cells in rows:
            table.add_row(*(cells[i] for i in shown))
        return table

    def _status(self, run: PlannedRun) -> Status:
        status = self._ended.get(run.name) or status_of(run, self._folder)
        if status.state == "complete":
            self._ended[run.name] = status
        return status


def _columns_that_fit(rows: Sequence[Sequence[str]], width: int) -> list[int]:
    """Return the numbers of the columns to show, because a run's name or an epoch that is cut tells nothing."""
    shown = list(range(len(_COLUMNS)))
    for name in _DISPENSABLE:
        cells = (max(len(row[i]) for row in (_COLUMNS, *rows)) for i in shown)
        if sum(cell + 3 for cell in cells) + 1 <= width:  # with the borders
            break
        shown.remove(_COLUMNS.index(name))
    return shown


def row(run: PlannedRun, status: Status) -> tuple[str, ...]:
    """Return the cells of a run, in the order of the columns."""
    running = status.state == "running"
    epoch = f"{status.epoch}/{run.epochs}" if status.machine else ""
    left = status.left if running else status.state
    return run.name, status.machine, epoch, status.speed if running else "", status.last_test, status.best_test, left
