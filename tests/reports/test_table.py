"""Statistics files as tables: names, layouts, half-written and broken rows."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from fakes import HEADER
from simple_dqn.errors import StatisticsError
from simple_dqn.reports.plot import PlotOptions
from simple_dqn.reports.table import Table, read_table
from simple_dqn.statistics import COLUMNS

ORIGINAL = Path(__file__).resolve().parents[3] / "shared" / "reference" / "original"
FIELDS = ["average_reward", "meanq", "nr_games", "meancost"]
RANDOM = "0,random,500,3,-20.5,-21,-19,1,0,500,0.001,0,0,1.5,1.5,333.3"
TRAIN = "1,train,1000,5,-19,-21,-17,0.9,1000,1500,0.2,0.01,250,4.5,3,333.3"
TEST = "1,test,800,4,-18,-21,-16,0.05,1000,1500,0.3,0,250,6.5,2,400"
ROWS = [RANDOM, TRAIN, TEST]


def write(path: Path, *lines: str, end: str = "\n") -> Path:
    path.parent.mkdir(exist_ok=True)
    path.write_text("\n".join(lines) + end)
    return path


def read(path: Path, wanted: Sequence[str] = FIELDS, skiprows: int = 1, delimiter: str = ",") -> Table:
    return read_table(path, skiprows, delimiter, wanted)


def test_reads_numbers_by_column(tmp_path: Path) -> None:
    table = read(write(tmp_path / "a.csv", HEADER, *ROWS))
    assert table.phases == ["random", "train", "test"]
    assert table.columns["epoch"].tolist() == [0, 1, 1]
    assert table.columns["meanq"].tolist() == [0.001, 0.2, 0.3]
    assert set(table.columns) == set(COLUMNS) - {"phase"}


def test_columns_of_other_names_and_in_another_order(tmp_path: Path) -> None:
    """`phase_time` is what the plots of 2015 called `epoch_time`."""
    path = write(tmp_path / "a.csv", "phase,mean_q,comment,phase_time,epoch", "train,0.5,so so,7,1")
    for names in (["meanq", "epoch_time"], ["mean_q", "phase_time"]):
        fields = PlotOptions(csv_file=("a.csv",), fields=",".join(names)).field_names
        columns = read(path, fields).columns
        assert [columns["meanq"].tolist(), columns["epoch_time"].tolist()] == [[0.5], [7]]
        assert "comment" not in columns


def test_phase_of_2015_in_which_no_game_ended(tmp_path: Path) -> None:
    """It counted as one game, with the largest and the lowest of all whole numbers as its scores."""
    row = TEST.replace("4,-18,-21,-16", "1,0,9223372036854775807,-9223372036854775808")
    columns = read(write(tmp_path / "a.csv", HEADER, TRAIN, row)).columns
    assert columns["nr_games"].tolist() == [5, 0]
    for name in ("average_reward", "min_game_reward", "max_game_reward"):
        assert np.isnan(columns[name]).tolist() == [False, True]


@pytest.mark.parametrize(
    ("lines", "skiprows", "delimiter"),
    [
        (ROWS, 0, ","),
        (["some words", *ROWS], 1, ","),
        (["# a run of mine", HEADER, *ROWS], 2, ","),
        ([line.replace(",", ";") for line in (HEADER, *ROWS)], 1, ";"),
        ([line.replace(",", " , ") for line in (HEADER, *ROWS, "", "  ")], 1, ","),
        (["\ufeff" + HEADER + "\r", *(row + "\r" for row in ROWS)], 1, ","),
        (['"' + line.replace(",", '","') + '"' for line in (HEADER, *ROWS)], 1, ","),
        ([line + ",,," for line in (HEADER, *ROWS, "," * 15)], 1, ","),
        ([f"{i}," + line for i, line in enumerate((HEADER, *ROWS))], 1, ","),
        (["\r".join((HEADER, *ROWS))], 1, ","),
    ],
)
def test_layouts(lines: list[str], skiprows: int, delimiter: str, tmp_path: Path) -> None:
    table = read(write(tmp_path / "a.csv", *lines), skiprows=skiprows, delimiter=delimiter)
    assert table.phases == ["random", "train", "test"]
    assert table.columns["steps_per_second"].tolist() == [333.3, 333.3, 400]


@pytest.mark.parametrize("missing", ["", " ", "NA", "N/A", "#N/A", "nan", "NaN", "NULL", "None", "<NA>", "-", '""'])
def test_cells_without_a_value_are_nan(missing: str, tmp_path: Path) -> None:
    row = f"2,test,800,0,{missing},{missing},{missing},0.05,1000,1500,0.3,{missing},250,6.5,2,{missing}"
    columns = read(write(tmp_path / "a.csv", HEADER, *ROWS, row)).columns
    for name in ("average_reward", "min_game_reward", "max_game_reward", "meancost", "steps_per_second"):
        assert np.isnan(columns[name]).tolist() == [False, False, False, True]
    assert columns["meanq"].tolist() == [0.001, 0.2, 0.3, 0.3]


def test_columns_that_are_not_wanted_hold_anything(tmp_path: Path) -> None:
    odd = TRAIN.replace("4.5,3,333.3", "a while,Grüße,fast") + ",mine,mine"
    path = tmp_path / "a.csv"
    for encoding in ("utf-8", "latin-1"):
        path.write_bytes("\n".join([HEADER + ",note,note", odd, ""]).encode(encoding))
        columns = read(path).columns
        assert columns["meanq"].tolist() == [0.2]
        assert np.isnan(columns["epoch_time"]).all()
        with pytest.raises(StatisticsError, match="epoch_time is 'Grüße', not a number"):
            read(path, ["epoch_time"])


def test_a_column_that_an_older_file_lacks_has_no_values(tmp_path: Path) -> None:
    path = write(tmp_path / "a.csv", "epoch,phase,average_reward", "1,train,-19", "2,train,-18")
    columns = read(path).columns
    assert columns["average_reward"].tolist() == [-19, -18]
    assert np.isnan([columns[name] for name in ("meanq", "nr_games", "meancost")]).all()
    with pytest.raises(StatisticsError, match=r"--fields meanq: .* no such column"):
        read(path, ["meanq"])  # there would be nothing to draw


def test_a_note_of_two_lines_stays_in_its_row(tmp_path: Path) -> None:
    path = write(tmp_path / "a.csv", HEADER + ",note", TRAIN + ',"two\nlines"', TEST + ",")
    assert read(path).phases == ["train", "test"]
    write(path, HEADER + ",note", TRAIN + ',"two\nlines"', TEST.replace("0.3", "abc") + ",")
    with pytest.raises(StatisticsError, match="line 4: meanq is 'abc'"):
        read(path)
    write(path, HEADER + ",note", TRAIN + ',"no end', TEST + ",")  # else it would hold the rows after it
    with pytest.raises(StatisticsError, match="line 2: unexpected end of data"):
        read(path)


def test_last_line_may_be_half_written(tmp_path: Path) -> None:
    """Wherever a reader meets it; with all its values it counts."""
    whole = "\n".join([HEADER, RANDOM, ""])
    for cut in range(len(TRAIN) + 1):
        (tmp_path / "a.csv").write_text(whole + TRAIN[:cut])
        rows = len(read(tmp_path / "a.csv").phases)
        assert rows == 1 + (TRAIN[:cut].count(",") == len(COLUMNS) - 1 and not TRAIN[:cut].endswith(",")), TRAIN[:cut]


@pytest.mark.parametrize("lines", [[], [HEADER], [HEADER[:20]], [HEADER, RANDOM[:9]]])
def test_file_without_rows(lines: list[str], tmp_path: Path) -> None:
    with pytest.raises(StatisticsError, match=r"a\.csv holds no rows yet"):
        read(write(tmp_path / "a.csv", *lines, end=""))


@pytest.mark.parametrize(
    ("row", "message"),
    [
        (TRAIN.replace("0.2", "abc"), "line 3: meanq is 'abc', not a number"),
        (TRAIN.replace("0.2", "0.2 or so"), "line 3: meanq is '0.2 or so', not a number"),
        (TRAIN.replace("1,train", ",train"), "line 3: epoch is nan"),
        (TRAIN.replace("train", ""), "line 3: phase is '', which is none of"),
        (TRAIN.replace("train", "x" * 99), f"line 3: phase is '{'x' * 40}', which"),
        (TRAIN.replace("train", "trian"), "line 3: phase is 'trian', which is none of random, play, train, test"),
        (TRAIN.replace("1,train", "nan,train"), "line 3: epoch is nan"),
        (TRAIN.replace("1,train", "1e300,train"), "line 3: epoch is 1e+300"),
        (TRAIN[:30], "line 3: 8 values instead of 16"),
        (TRAIN + ",7", "line 3: 17 values instead of 16"),
        ("\0" * 40, "line 3: "),
    ],
)
def test_broken_row_is_named(row: str, message: str, tmp_path: Path) -> None:
    path = write(tmp_path / "a.csv", HEADER, RANDOM, row, TEST)
    with pytest.raises(StatisticsError, match=re.escape(f"a.csv, {message}")):
        read(path)
