"""Event files for TensorBoard: every column of every phase, once, whatever happens to the run."""

from __future__ import annotations

import csv
import errno
import math
import sys
from pathlib import Path
from typing import Any

import pytest

import main
from simple_dqn.agent import Agent
from simple_dqn.errors import OptionError, OutputError
from simple_dqn.interrupts import Interrupted
from simple_dqn.reports.tensorboard import events_of
from simple_dqn.statistics import COLUMNS

try:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
except ImportError:
    EventAccumulator = None
needs_tensorboard = pytest.mark.skipif(EventAccumulator is None, reason="tensorboard is not installed")

RUN = ["breakout", "--random_steps", "20", "--train_steps", "20", "--test_steps", "10", "--epochs", "2"]
RUN += ["--random_seed", "5", "--screen_width", "40", "--screen_height", "36", "--batch_size", "8", "--backend", "cpu"]
RUN += ["--save_weights_prefix", "snapshots/b", "--csv_file", "results/b.csv", "--tensorboard", "true"]
EVENTS = Path("results/b.tensorboard")


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def points(folder: Path) -> dict[str, list[tuple[int, float]]]:
    """Training steps and value of every point, by name."""
    events = EventAccumulator(str(folder), purge_orphaned_data=False)
    events.Reload()
    return {tag: [(e.step, e.value) for e in events.Scalars(tag)] for tag in events.Tags()["scalars"]}


def rows(path: Path) -> dict[str, list[Any]]:
    """The same of a CSV file."""
    found: dict[str, list[Any]] = {}
    with path.open() as file:
        for row in csv.DictReader(file):
            for name in set(COLUMNS) - {"phase"}:
                if math.isfinite(float(row[name])):
                    point = int(row["total_train_steps"]), pytest.approx(float(row[name]), rel=1e-6)
                    found.setdefault(f"{row['phase']}/{name}", []).append(point)
    return found


@needs_tensorboard
def test_every_column_is_there_against_training_steps(folder: Path) -> None:
    main.run(RUN)
    found = points(EVENTS)
    assert found == rows(Path("results/b.csv"))
    assert [step for step, _ in found["test/meanq"]] == [20, 40]
    assert "test/average_reward" not in found  # no game ended, so there is no mean


@needs_tensorboard
def test_a_resumed_training_continues_without_gaps_and_double_points(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    play = Agent.train

    def stop_in_second(agent: Agent, steps: int) -> None:
        play(agent, steps if agent.total_train_steps < 20 else 5)
        agent.interrupted = agent.total_train_steps > 20

    with monkeypatch.context() as patch:
        patch.setattr(Agent, "train", stop_in_second)
        with pytest.raises(Interrupted):
            main.run(RUN)
    assert [step for step, _ in points(EVENTS)["train/steps"]] == [20, 25]
    main.run(["--resume", "snapshots/b"])
    assert points(EVENTS) == rows(Path("results/b.csv"))
    assert [step for step, _ in points(EVENTS)["train/steps"]] == [20, 40]
    assert len(list(EVENTS.iterdir())) == 1
    main.run(["--resume", "snapshots/b", "--epochs", "3", "--tensorboard", "false"])
    main.run(["--resume", "snapshots/b", "--epochs", "4", "--tensorboard", "true"])  # the third epoch too
    assert points(EVENTS) == rows(Path("results/b.csv"))


@needs_tensorboard
def test_points_of_an_earlier_run_move_with_its_statistics(folder: Path) -> None:
    main.run(RUN)
    before = points(EVENTS)
    main.run([*RUN, "--epochs", "1", "--random_seed", "6"])
    assert points(events_of(Path("results/b.csv.1"))) == before == rows(Path("results/b.csv.1"))
    assert points(EVENTS) == rows(Path("results/b.csv"))
    main.run(["--resume", "snapshots/b.1/b", "--epochs", "3"])
    assert points(Path("results/b.tensorboard.1")) == rows(Path("results/b.csv.1"))


@needs_tensorboard
def test_a_full_disk_is_one_line(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    opened = Path.open

    def fail(path: Path, mode: str = "r", *rest: Any, **words: Any) -> Any:
        if "tfevents" in path.name:
            raise OSError(errno.ENOSPC, "No space left on device")
        return opened(path, mode, *rest, **words)

    monkeypatch.setattr(Path, "open", fail)
    with pytest.raises(OutputError, match=r"cannot write to results/b.tensorboard/.*: No space left on device"):
        main.run(RUN)


def test_without_the_package_nothing_is_written(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "tensorboard", None)
    with pytest.raises(OptionError, match=r"needs the package tensorboard .*pip install -r requirements-tensorboard"):
        main.run(RUN)
    assert not list(folder.iterdir())


@needs_tensorboard
def test_what_cannot_be_written_is_said_before_the_run(folder: Path) -> None:
    with pytest.raises(OptionError, match="--tensorboard true writes beside the CSV file: add --csv_file"):
        main.run(RUN[:-4] + RUN[-2:])
    EVENTS.parent.mkdir()
    EVENTS.write_text("mine")
    with pytest.raises(OutputError, match=r"cannot write results/b.tensorboard"):
        main.run(RUN)
    assert EVENTS.read_text() == "mine"


def test_the_folder_is_named_after_the_csv_file() -> None:
    names = {"a/b.csv": "a/b.tensorboard", "b.csv.1": "b.tensorboard.1", "x.csv.csv.1.2": "x.csv.tensorboard.1.2"}
    names |= {"table": "table.tensorboard"}
    assert {name: str(events_of(Path(name))) for name in names} == names
