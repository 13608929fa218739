"""CSVFile: nothing of an earlier file is lost, and rows are written completely or not at all."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from fakes import HEADER
from simple_dqn.errors import OutputError
from simple_dqn.reports.csv_file import CSVFile, Row, rows_before, rows_up_to
from simple_dqn.statistics import COLUMNS

Keep = Callable[[list[Row]], list[Row]]


def up_to(steps: int) -> Keep:
    return partial(rows_up_to, steps=steps)


def before(epoch: int, phase: str, random_again: bool = False) -> Keep:
    return partial(rows_before, epoch=epoch, phase=phase, random_again=random_again)


def test_an_earlier_file_is_kept(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    for content in ("first", "second"):
        path.write_text(content)
        CSVFile(path, COLUMNS)
        assert path.read_text() == HEADER + "\n"
    assert (tmp_path / "a.csv.1").read_text() == "first"
    assert (tmp_path / "a.csv.2").read_text() == "second"


def rows(*epochs: int) -> str:
    lines = [",".join([str(e), "test", *["0"] * 6, str(e * 100), *["0"] * 4, str(e * 10.5), "0", "0"]) for e in epochs]
    return "\n".join([HEADER, *lines, ""])


def test_goes_on_from_an_earlier_file(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text(rows(0, 1, 2))
    file = CSVFile(path, COLUMNS, up_to(200))
    assert file.total_time == 21
    file.write(dict.fromkeys(COLUMNS, 700) | {"phase": "train"})
    grown = rows(0, 1, 2) + ",".join(["700", "train", *["700"] * 14]) + "\n"
    assert path.read_text() == grown
    assert list(tmp_path.iterdir()) == [path]
    CSVFile(path, COLUMNS, up_to(100))  # later epochs will be run again
    assert path.read_text() == rows(0, 1)
    assert (tmp_path / "a.csv.1").read_text() == grown


@pytest.mark.parametrize("unfinished", ["", "3,train,50"])
def test_goes_on_before_a_phase_whatever_else_the_file_lacks(tmp_path: Path, unfinished: str) -> None:
    path = tmp_path / "a.csv"
    path.write_text(rows(0, 2) + unfinished)  # epoch 1 may stand in another file
    file = CSVFile(path, COLUMNS, before(3, "train"), repeated=1)
    assert path.read_text() == rows(0, 2)
    assert file.total_time == 21
    CSVFile(path, COLUMNS, before(2, "test"), repeated=1)  # the phase that is done again was no more than one row
    assert path.read_text() == rows(0)
    assert list(tmp_path.iterdir()) == [path]
    path.write_text(rows(0, 1, 2, 3))
    CSVFile(path, COLUMNS, before(2, "train"), repeated=1)
    assert path.read_text() == rows(0, 1)
    assert (tmp_path / "a.csv.1").read_text() == rows(0, 1, 2, 3)


def test_random_moves_that_are_repeated_do_not_count_twice(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    moves = rows(0).splitlines()[1].replace("test", "random") + "\n"
    path.write_text(rows(1, 2) + moves)
    CSVFile(path, COLUMNS, before(3, "train", random_again=True), repeated=1)
    assert path.read_text() == rows(1, 2)


def real_row(epoch: int, steps: int = 500) -> str:
    values = dict.fromkeys(COLUMNS, "0") | dict(epoch=str(epoch), phase="test", steps=str(steps))
    values |= dict(total_train_steps=str(epoch * 100), total_time=str(epoch * 10.5))
    return ",".join((values | dict(epoch_time="3.25", steps_per_second=str(steps / 3.25))).values())


def test_the_last_row_is_kept_although_an_editor_took_its_line_end_off(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "a.csv"
    path.write_text("\n".join([HEADER, real_row(1), real_row(2)]))
    CSVFile(path, COLUMNS, up_to(300))
    assert path.read_text() == "\n".join([HEADER, real_row(1), real_row(2), ""])
    path.write_text("\n".join([HEADER, real_row(1), real_row(2)])[:-14])  # 153. of 153.846...
    CSVFile(path, COLUMNS, up_to(300))
    assert path.read_text() == "\n".join([HEADER, real_row(1), ""])
    assert f"The last row of {path} is unfinished" in caplog.text


@pytest.mark.parametrize("keep", [up_to(300), before(3, "train")])
def test_a_file_that_a_spreadsheet_saved_loses_nothing(tmp_path: Path, keep: Keep) -> None:
    path = tmp_path / "a.csv"
    lines = [HEADER + ",note", real_row(1) + ",gr\xf6\xdfer", real_row(2) + ',"two\nlines"']
    quoted = lines[0].replace("phase", '"phase"').replace("epoch,", '"epoch",')
    saved = "\r\n".join([quoted, *lines[1:], "," * 16])
    for content in (saved.encode("latin1"), saved.encode("utf-8-sig")):
        path.write_bytes(content)
        CSVFile(path, COLUMNS, keep)
        assert path.read_text(encoding="utf-8") == "\n".join([*lines, ""])


def test_a_row_is_not_glued_to_one_whose_line_end_an_editor_took_off(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    file = CSVFile(path, COLUMNS)
    file.write(dict.fromkeys(COLUMNS, 1))
    path.write_text(path.read_text().rstrip())
    file.write(dict.fromkeys(COLUMNS, 2))
    assert path.read_text().splitlines() == [HEADER, ",".join("1" * 16), ",".join("2" * 16)]


@pytest.mark.parametrize("keep", [up_to(300), before(3, "train")])
def test_columns_of_the_user_stay_in_place(tmp_path: Path, keep: Keep) -> None:
    path = tmp_path / "a.csv"
    header, *lines = rows(0, 1, 2).splitlines()
    lines = [f"{n},{line},mine,{n}" for n, line in enumerate(lines)]
    earlier = "\n".join([f"nr,{header},note,note", *lines, ""])
    path.write_text(earlier)
    CSVFile(path, COLUMNS, keep).write(dict.fromkeys(COLUMNS, 7))
    assert path.read_text() == earlier + "," + "7," * 16 + ",\n"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("keep", [up_to(300), before(3, "train")])
def test_a_column_that_an_older_file_lacks_is_empty_in_its_rows(tmp_path: Path, keep: Keep) -> None:
    path = tmp_path / "a.csv"
    without = [line.rsplit(",", 1)[0] for line in rows(0, 1, 2).splitlines()]
    path.write_text("\n".join(without))  # an editor took the last line end off
    CSVFile(path, COLUMNS, keep).write(dict.fromkeys(COLUMNS, 7))
    assert path.read_text().splitlines() == [HEADER, *(f"{line}," for line in without[1:]), ",".join("7" * 16)]
    assert list(tmp_path.iterdir()) == [path]


def test_rows_shorter_or_longer_than_the_first_line(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text(f"{HEADER},note\n{real_row(1)}\n{real_row(2)},good,really\n")
    CSVFile(path, COLUMNS, up_to(300))
    assert path.read_text() == f"{HEADER},note,\n{real_row(1)},,\n{real_row(2)},good,really\n"


@pytest.mark.parametrize("column", ["epoch", "phase", "total_train_steps", "total_time"])
def test_a_file_without_a_column_that_resuming_needs_is_refused(tmp_path: Path, column: str) -> None:
    (tmp_path / "a.csv").write_text(HEADER.replace(column, "mine") + "\n")
    with pytest.raises(OutputError, match=rf"no statistics of this program \(it has no column {column}\); move it"):
        CSVFile(tmp_path / "a.csv", COLUMNS, up_to(300))


def test_the_error_names_semicolons(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text(rows(0, 1).replace(",", ";"))
    with pytest.raises(OutputError, match=r"\(its values are separated by ;\); save it with commas, or move it"):
        CSVFile(tmp_path / "a.csv", COLUMNS, up_to(300))


@pytest.mark.parametrize(
    "content", ["a,b\n1,2\n", HEADER + "\nx,y\n", f'{HEADER},a\n{rows(1)[len(HEADER) + 1 : -1]},"b\n', "\0\xff"]
)
def test_does_not_go_on_from_what_is_no_statistics(tmp_path: Path, content: str) -> None:
    (tmp_path / "a.csv").write_text(content)
    with pytest.raises(OutputError, match="it holds no statistics of this program"):
        CSVFile(tmp_path / "a.csv", COLUMNS, up_to(300))
    assert (tmp_path / "a.csv").read_text() == content


def test_half_a_row_is_taken_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.csv"
    file = CSVFile(path, COLUMNS)
    file.write(dict.fromkeys(COLUMNS, 1))
    whole = path.read_bytes()
    real_open = Path.open

    def small_disk(self: Path, *args: Any, **kwargs: Any) -> Any:
        opened = real_open(self, *args, **kwargs)
        return HalfFile(opened)

    monkeypatch.setattr(Path, "open", small_disk)
    with pytest.raises(OutputError, match=r"cannot write to .*a\.csv: .*Its earlier rows are complete"):
        file.write(dict.fromkeys(COLUMNS, 2))
    monkeypatch.undo()
    assert path.read_bytes() == whole


class HalfFile:
    """A file on a disk that has room for ten more bytes."""

    def __init__(self, file: Any) -> None:
        self.file = file

    def __enter__(self) -> HalfFile:
        return self

    def __exit__(self, *_: object) -> None:
        self.file.close()

    def write(self, content: bytes) -> int:
        return int(self.file.write(content[:10]))

    def __getattr__(self, name: str) -> Any:
        return getattr(self.file, name)
