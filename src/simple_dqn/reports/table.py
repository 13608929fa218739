"""Statistics files as tables: those of this program and of the original, also during a training."""

from __future__ import annotations

import csv
import difflib
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from simple_dqn.errors import StatisticsError, reason
from simple_dqn.reports.csv_file import decoded
from simple_dqn.statistics import COLUMNS
from simple_dqn.wording import count

Floats = NDArray[np.float64]
PHASES = ("random", "play", "train", "test")
SCORES = ("average_reward", "min_game_reward", "max_game_reward")
_MISSING = ("", "na", "n/a", "#n/a", "<na>", "nan", "null", "none", "-")  # nan, as other programs save it
_DELIMITERS = (",", ";", "\t", "|")
_NO_GAME = 2.0**63  # the lowest score in files of 2015 if no game ended; their number of games is 1 then
# Column names in the plots of 2015 and in later copies of the original, and ours.
RENAMED = {"phase_time": "epoch_time", "num_games": "nr_games", "mean_q": "meanq", "mean_cost": "meancost"}


class Table(NamedTuple):
    """The rows of a statistics file."""

    path: Path
    phases: list[str]  # one per row
    columns: dict[str, Floats]  # the other columns, one value per row


class NoRows(StatisticsError):
    """A file is missing or has no rows yet, as at the start of a training."""


def read_table(path: Path, skiprows: int, delimiter: str, wanted: Sequence[str]) -> Table:
    """Read a statistics file of this program or of the original, also during a training.

    A last line without all its cells is left out. Cells without a value are nan, and so is text in columns that are
    not `wanted`.

    Args:
        path: the file.
        skiprows: lines before the rows. If the last of them contains epoch and phase, it names the columns. If not,
            the columns are those of this program.
        delimiter: the character between two cells.
        wanted: columns to draw. If an older file lacks some of this program's columns, they are nan.

    Raises:
        StatisticsError: the file is missing, empty or damaged, or lacks another column, or all wanted ones.
    """
    lines, line = _lines(path), skiprows + 1  # the line of the next row, because a cell may contain line ends
    if len(lines) <= skiprows:
        raise NoRows(f"{path} holds no rows yet")
    names = _columns(path, lines[:skiprows], delimiter)
    for name in wanted:
        if name in names or name not in COLUMNS or not set(wanted) & set(names):
            _require_column(path, name, names)
    rows: list[dict[str, Any]] = []
    reader = csv.reader(lines[skiprows:], delimiter=delimiter, strict=True)
    try:
        for cells in reader:
            values = [cell.strip() for cell in cells]
            half_written = line == len(lines) and values[-1:] == [""]
            if any(values) and not half_written:
                rows.append(_row(values, names, wanted))
            line = skiprows + reader.line_num + 1
    except (ValueError, csv.Error) as error:
        if line < len(lines):  # because text after the last line end is an unfinished row
            raise StatisticsError(f"{path}, line {line}: {error}") from None
    if not rows:
        raise NoRows(f"{path} holds no rows yet")
    phases = [row.pop("phase") for row in rows]
    return Table(path, phases, {name: np.array([row[name] for row in rows]) for name in rows[0]})


def _lines(path: Path) -> list[str]:
    """Return the lines of a file. The last is the text after the last line end, usually empty."""
    try:
        return decoded(path.read_bytes()).replace("\r\n", "\n").replace("\r", "\n").split("\n")
    except FileNotFoundError:
        likely = [file for file in (f"results/{path}.csv", f"results/pretrained/{path}.csv") if Path(file).is_file()]
        names = sorted(file.stem for file in path.parent.glob("*.csv"))
        close = difflib.get_close_matches(path.stem, names, n=1, cutoff=0.75)
        likely += [str(path.with_name(f"{name}.csv")) for name in close]
        raise NoRows(f"there is no file {path}" + (f": did you mean {likely[0]}?" if likely else "")) from None
    except (OSError, ValueError) as error:
        why = "it is not text in UTF-8" if isinstance(error, UnicodeDecodeError) else reason(error)
        raise StatisticsError(f"cannot read {path}: {why}") from None


def _columns(path: Path, skipped: Sequence[str], delimiter: str) -> tuple[str, ...]:
    header = _split(skipped[-1], delimiter) if skipped else []
    names = tuple(RENAMED.get(name, name) for name in header)
    if {"epoch", "phase"} <= set(names):
        return names
    if skipped and set(header) & set(PHASES):
        skip = len(skipped)
        raise StatisticsError(f"{path}, line {skip}: this is a row, not the column names; use --skiprows {skip - 1}")
    for other in _DELIMITERS:
        if skipped and {"epoch", "phase"} <= set(_split(skipped[-1], other)):
            word = "$'\\t'" if other == "\t" else f"'{other}'"
            raise StatisticsError(f"{path}: its values are not separated by {delimiter!r}; add --delimiter {word}")
    return tuple(COLUMNS)


def _require_column(path: Path, name: str, names: Sequence[str]) -> None:
    choice = [column for column in names if column not in ("epoch", "phase")]
    if name in choice:
        return
    close = difflib.get_close_matches(name, choice, n=1)
    hint = f"did you mean {close[0]}?" if close else f"it has {', '.join(choice)}"
    raise StatisticsError(f"--fields {name}: {path} has no such column to draw; {hint}")


def _split(line: str, delimiter: str) -> list[str]:
    try:
        return [value.strip() for value in next(csv.reader([line], delimiter=delimiter), [])]
    except csv.Error as error:
        raise ValueError(str(error)) from None


def _row(values: list[str], names: Sequence[str], wanted: Sequence[str]) -> dict[str, Any]:
    """Return the values of a row by column; a ValueError says what is wrong with it."""
    if not any(values[len(names) :]):  # because spreadsheets add empty cells
        values = values[: len(names)]
    if len(values) != len(names):
        hint = "; --delimiter says what stands between them" if len(values) == 1 else ""
        raise ValueError(f"{count(len(values), 'value')} instead of {len(names)}{hint}")
    cells = dict(zip(names, values, strict=True))
    if cells["phase"] not in PHASES:
        raise ValueError(f"phase is {cells['phase'][:40]!r}, which is none of {', '.join(PHASES)}")
    row: dict[str, Any] = dict.fromkeys(wanted, math.nan) | {"phase": cells["phase"]}
    row |= {
        name: _number(name, text, name == "epoch" or name in wanted)
        for name, text in cells.items()
        if name != "phase" and (name in COLUMNS or name in wanted)
    }
    if not abs(row["epoch"]) < 10**12:
        raise ValueError(f"epoch is {row['epoch']}")
    if row.get("min_game_reward") == _NO_GAME:
        row |= dict(nr_games=0.0, **dict.fromkeys(SCORES, math.nan))
    return row


def _number(name: str, text: str, needed: bool) -> float:
    if text.lower() in _MISSING:
        return math.nan
    try:
        return float(text)
    except ValueError:
        if not needed:
            return math.nan
        raise ValueError(f"{name} is {text[:40]!r}, not a number") from None
