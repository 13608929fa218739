"""The CSV file of a training: one row per phase, never half a row, and nothing of an earlier file is lost."""

from __future__ import annotations

import contextlib
import csv
import io
import logging
import math
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

from simple_dqn.errors import OutputError, reason
from simple_dqn.saving.files import replace_file, require_writable

logger = logging.getLogger(__name__)

Row = dict[str | int, str]  # cells by column name, or by position if the name is empty or a duplicate
_PHASES = ("play", "random", "train", "test")  # in their order within an epoch
_NEEDED = ("epoch", "phase", "total_train_steps", "total_time")  # columns that a file needs to be continued


class CSVFile:
    """A statistics file to which rows are appended.

    Columns that the user added keep their places. Columns that an older file lacks are added at its end.

    Attributes:
        kept: the rows of the earlier file that stay.
        copy: the copy of an earlier file that loses rows; None if it loses none.

    Args:
        path: the file.
        columns: the names of all columns.
        keep: returns the rows of an earlier file that stay, such as `rows_up_to`. None: a new file begins.
        repeated: number of rows that `keep` drops and the training writes again.
        number: an earlier file that loses other rows is copied to PATH.number, or to the next free number.

    Raises:
        OutputError: the file cannot be written, or `keep` is given and the file holds no statistics.
    """

    def __init__(
        self,
        path: Path,
        columns: Iterable[str],
        keep: Callable[[list[Row]], list[Row]] | None = None,
        repeated: int = 0,
        number: int = 1,
    ) -> None:
        require_writable(path)
        self.path = path
        self.rows = 0  # written by this run
        self.kept: list[Row] = []
        self.copy: Path | None = None
        self._columns = list(columns)
        if path.exists() and path.read_bytes().strip() not in (b"", _line(self._columns).strip().encode()):
            complete = False
            if keep:
                self._columns, rows = read_rows(path, self._columns)
                self.kept = keep(rows)
                complete = len(self.kept) + repeated >= len(rows)
            if not complete:
                self.copy = _copy_aside(path, number)
        self.total_time = float(self.kept[-1]["total_time"]) if self.kept else 0.0  # seconds
        replace_file(path, "".join(map(_line, [self._columns, *(row.values() for row in self.kept)])).encode())

    def write(self, row: dict[str, Any]) -> None:
        """Append a row, or nothing if it cannot be written completely.

        Raises:
            OutputError: it could not be written.
        """
        line = _line([row.get(name, "") for name in self._columns]).encode()
        try:
            with self.path.open("r+b", buffering=0) as file:
                end = file.seek(0, io.SEEK_END)
                file.seek(max(0, end - 1))
                if file.read(1) not in (b"\n", b""):  # because an editor may have removed the line end
                    line = b"\n" + line
                try:
                    if file.write(line) != len(line):
                        raise OSError("the disk is full")
                except OSError:
                    file.truncate(end)
                    raise
        except OSError as error:
            raise OutputError(
                f"cannot write to {self.path}: {reason(error)}. Its earlier rows are complete."
            ) from error
        self.rows += 1


def rows_up_to(rows: list[Row], steps: int) -> list[Row]:
    """Return the rows up to this number of training steps."""
    return [row for row in rows if int(row["total_train_steps"]) <= steps]


def rows_before(rows: list[Row], epoch: int, phase: str, random_again: bool) -> list[Row]:
    """Return the rows of earlier phases; if `random_again`, without a random phase at their end."""
    kept = [row for row in rows if _moment(row) < (epoch, _PHASES.index(phase))]
    return kept[:-1] if random_again and kept and kept[-1]["phase"] == "random" else kept


def best_test(rows: list[Row]) -> dict[str, Any]:
    """Return best_score and best_epoch of the tests among these rows, if there are any. Of equal scores the later."""
    tests = []
    for row in rows:
        with contextlib.suppress(ValueError):  # a cell may be empty
            tests += [(float(row["average_reward"]), int(row["epoch"]))] if row["phase"] == "test" else []
    best = max((test for test in tests if not math.isnan(test[0])), default=())
    return dict(zip(("best_score", "best_epoch"), best, strict=False))


def holds_training(path: Path) -> bool:
    """Return whether a file has rows of a training."""
    with contextlib.suppress(OutputError):
        return any(row["phase"] == "train" for row in read_rows(path, ())[1])
    return False


def read_rows(path: Path, columns: Sequence[str]) -> tuple[list[str], list[Row]]:
    """Return the column names and rows of a statistics file, also if a spreadsheet or an editor has saved it.

    Those of `columns` that the file lacks are added, empty. A last row that a crash left unfinished is left out.

    Raises:
        OutputError: the file holds no statistics.
    """
    text, lacking = "", ""
    try:
        text = decoded(path.read_bytes())
        names, *lines = csv.reader(io.StringIO(text, newline=""), strict=True)
        lacking = next((name for name in _NEEDED if name not in names), "")
        if not lacking:
            lines = [line for line in lines if any(line)]
            if lines and not text.endswith(("\n", "\r")) and not _finished(names, lines[-1]):
                lines.pop()
                logger.warning("The last row of %s is unfinished, and is left out", path)
            names += [""] * (max(map(len, lines), default=0) - len(names))
            names += [name for name in columns if name not in names]
            keys = [name if names.index(name) == i else i for i, name in enumerate(names)]
            rows = [dict(zip(keys, line + [""] * (len(keys) - len(line)), strict=True)) for line in lines]
            if all(map(_is_statistics, rows)):
                return names, rows
    except (OSError, ValueError, csv.Error):
        pass  # the error below says what to do
    why = f" (it has no column {lacking}); " if lacking else "; "
    if lacking and text.startswith("epoch;"):  # because spreadsheets separate by ; where decimals have commas
        why = " (its values are separated by ;); save it with commas, or "
    raise OutputError(f"cannot continue {path}: it holds no statistics of this program{why}move it out of the way")


def decoded(content: bytes) -> str:
    """Return the text of a statistics file, in UTF-8 or in Latin-1."""
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError:
        if b"phase" not in content:
            raise
        return content.decode("latin-1")  # because some spreadsheets save umlauts in Latin-1


def _finished(names: list[str], line: list[str]) -> bool:
    """Return whether a row without a line end is complete: its last value, the speed, must follow from others."""
    row = dict(zip(names, line, strict=False))
    try:
        seconds, speed = float(row["epoch_time"]), float(row["steps_per_second"])
        return math.isclose(speed, int(row["steps"]) / seconds if seconds else 0.0, rel_tol=0.001)
    except KeyError:  # of an older file, or unfinished
        return len(line) == len(names)
    except ValueError:
        return False


def _is_statistics(row: Row) -> bool:
    return int(row["total_train_steps"]) >= 0 and float(row["total_time"]) >= 0 and _moment(row) >= (0, 0)


def _moment(row: Row) -> tuple[int, int]:
    """Return the epoch of a row, and the position of its phase in the epoch."""
    return int(row["epoch"]), _PHASES.index(row["phase"])


def _copy_aside(path: Path, number: int) -> Path:
    while (copy := path.with_name(f"{path.name}.{number}")).exists():
        number += 1
    replace_file(copy, path.read_bytes())
    logger.info("Copied the earlier %s to %s", path, copy)
    return copy


def _line(values: Iterable[Any]) -> str:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerow(values)
    return text.getvalue()
