"""Checkpoints: a run that is killed and resumed, anywhere and as often as you like, ends as if nothing had happened."""

from __future__ import annotations

import csv
import errno
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import main
from simple_dqn.agent import Agent
from simple_dqn.environment import CONTINUES, TRUNCATED
from simple_dqn.errors import CheckpointError, GameError, OptionError, OutputError, SimpleDQNError, exit_status
from simple_dqn.games.ale import ALEEnvironment
from simple_dqn.games.gym import GymEnvironment
from simple_dqn.interrupts import Interrupted
from simple_dqn.replay_memory import ReplayMemory, ReplayMemoryOptions
from simple_dqn.saving import checkpoint as checkpoints
from simple_dqn.saving.checkpoint import Checkpoints, read_checkpoint, restore_memory
from simple_dqn.saving.files import Lock
from simple_dqn.saving.snapshot import read_snapshot, write_snapshot
from simple_dqn.saving.start import start_where_it_stopped

MAIN = Path(__file__).resolve().parents[2] / "src" / "main.py"
RUN = ["breakout", "--random_steps", "50", "--train_steps", "60", "--test_steps", "20", "--epochs", "3"]
RUN += ["--random_seed", "5", "--screen_width", "40", "--screen_height", "36", "--batch_size", "8", "--backend", "cpu"]
RUN += ["--target_steps", "16", "--random_starts", "5", "--repeat_action_probability", "0.25"]
RUN += ["--csv_file", "results/b.csv", "--save_weights_prefix", "snapshots/b"]
EXTENDED = ["--double_dqn", "true", "--dueling", "true", "--prioritized_replay", "true", "--multi_step", "3"]
EXTENDED += ["--target_exploration_rate", "0.05", "--target_rate", "0.5"]
SIDE_BY_SIDE = ["--num_envs", "3", "--optimizer", "adam", "--datatype", "bfloat16"]
SIDE_BY_SIDE += ["--replay_size", "120", *EXTENDED]  # it wraps
ONLINE = ["--num_envs", "3", "--return_lambda", "0.8", "--replay_size", "60", "--target_steps", "0"]
ONLINE += ["--train_frequency", "12", "--train_repeat", "4"]
TIMES = ("total_time", "epoch_time", "steps_per_second")


class Killed(BaseException):
    """Stands for kill -9: nothing in the program catches it."""


def ended(folder: Path) -> tuple[bytes, list[dict[str, str]]]:
    """What a run came to: its last snapshot and its statistics, times aside."""
    with (folder / "results" / "b.csv").open() as file:
        rows = list(csv.DictReader(file))
    table = [{name: value for name, value in row.items() if name not in TIMES} for row in rows]
    return (folder / "snapshots" / "b_3.pkl").read_bytes(), table


@pytest.fixture(scope="module", params=["one game", "side by side"])
def straight(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[list[str], Path]:
    """The words of a run, and the folder in which it went through in one go."""
    words = RUN + (SIDE_BY_SIDE if request.param == "side by side" else [])
    folder = tmp_path_factory.mktemp("straight")
    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.chdir(folder)
        main.run(words)
    return words, folder


def files(folder: Path) -> list[str]:
    return sorted(path.name for path in (folder / "snapshots").iterdir())


def test_the_last_two_epochs_are_kept(straight: tuple[list[str], Path]) -> None:
    words, folder = straight
    chunks = ["b_110.replay", "b_170.replay", "b_230.replay"]
    old = ["b_50.replay"] if "--replay_size" in words else ["b_110.replay"]
    found = files(folder)
    assert [name for name in found if name.endswith(".checkpoint")] == ["b_2.checkpoint", "b_3.checkpoint"]
    assert set(chunks) - set(old) <= set(found)
    assert not [name for name in found if name.endswith((".tmp", ".lock"))]


def write_points(words: list[str], folder: Path, monkeypatch: pytest.MonkeyPatch, kill_at: int | None) -> int:
    """Runs or resumes in `folder`; dies at the so-manieth file, before or, for every other, after it is in place."""
    calls, replace = 0, os.replace

    def kill(source: Any, target: Any) -> None:
        nonlocal calls
        calls += 1
        if calls == kill_at and calls % 2:
            raise Killed
        replace(source, target)
        if calls == kill_at:
            raise Killed

    begun = bool(list(folder.glob("snapshots/*.checkpoint")))
    with monkeypatch.context() as patch:
        patch.chdir(folder)
        patch.setattr(os, "replace", kill)
        try:
            main.run(["--resume", "snapshots/b"] if begun else words)
        except Killed:
            pass
        except OptionError:
            calls = 0  # nothing is left to do
    return calls


def test_killed_at_every_file_that_it_writes(
    straight: tuple[list[str], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    words, expected = straight
    point = 2
    for attempt in range(100):
        calls = write_points(words, tmp_path, monkeypatch, kill_at=point)
        if calls < point:
            break
        point = 2 + attempt % 7
    assert attempt > 5
    assert ended(tmp_path) == ended(expected)


def stop_after(phase: str, steps: int, monkeypatch: pytest.MonkeyPatch, words: list[str]) -> None:
    """A run that is stopped in its first `phase`."""
    play = getattr(Agent, phase)

    def stop_soon(agent: Agent, _: int) -> None:
        play(agent, steps)
        agent.interrupted = True

    with monkeypatch.context() as patch:
        patch.setattr(Agent, phase, stop_soon)
        with pytest.raises(Interrupted):
            main.run(words)


@pytest.mark.parametrize(("phase", "steps", "times"), [("test", 7, 3), ("random", 15, 3)])
def test_stopped_within_a_phase(
    phase: str,
    steps: int,
    times: int,
    straight: tuple[list[str], Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The second and third time it is a resumed run that is stopped."""
    words, expected = straight
    monkeypatch.chdir(tmp_path)
    for command in [words, *[["--resume", "snapshots/b"]] * (times - 1)]:
        stop_after(phase, steps, monkeypatch, command)
    main.run(["--resume", "snapshots/b"])
    assert ended(tmp_path) == ended(expected)


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def below(folder: str, files: dict[str, bytes]) -> dict[str, bytes]:
    return {name[len(folder) + 1 :]: content for name, content in files.items() if name.startswith(f"{folder}/")}


AGAIN = ["--epochs", "1", "--random_seed", "6"]


def test_a_new_run_over_an_older_one_s_name_keeps_them_apart(
    straight: tuple[list[str], Path], copy: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    neighbours = dict.fromkeys(("b_7_3.pkl", "b_slow_1.pkl", "bb_1.pkl", "b.pkl", "b_slow_best.pkl"), b"mine")
    for name, content in neighbours.items():  # of other labels, or copied by hand
        (copy / "snapshots" / name).write_bytes(content)
    (copy / "results/b.csv.1").write_bytes(b"of an even older run")
    before = contents(copy)
    main.run([*straight[0], *AGAIN])
    after = contents(copy)
    old = {name: content for name, content in below("snapshots", before).items() if name not in neighbours}
    assert below("snapshots/b.2", after) == old
    assert after["results/b.csv.2"] == before["results/b.csv"]
    assert {name: after[f"snapshots/{name}"] for name in neighbours} == neighbours
    told = f"Moved an earlier run's b_1.pkl … ({len(old)} files) to snapshots/b.2. Continue that run with "
    assert f"{told}{MAIN.parents[1] / 'resume.sh'} snapshots/b.2/b\n" in caplog.text
    new = [name for name in below("snapshots", after) if name not in neighbours and "/" not in name]
    assert {name for name in new if name.endswith(".pkl")} == {"b_1.pkl"}
    with pytest.raises(OptionError, match=r"epoch 3 was the last of 3"):
        main.run(["--resume", "snapshots/b.2/b"])
    main.run(["--resume", "snapshots/b.2/b", "--epochs", "4"])
    assert [row[:2] for row in phases(copy)] == [["0", "random"], ["1", "train"], ["1", "test"]]  # not of the old one
    assert (copy / "results/b.csv.2").read_text().count("\n") == 1 + 1 + 4 * 2
    assert (copy / "snapshots/b.2/b_4.pkl").exists()
    assert sorted(path.name for path in copy.glob("*/*.[0-9]")) == ["b.2", "b.csv.1", "b.csv.2"]


def test_a_run_that_begins_with_weights_of_its_own_name_finds_them(
    copy: Path, straight: tuple[list[str], Path]
) -> None:
    main.run([*straight[0], *AGAIN, "--load_weights", "snapshots/b_2.pkl"])
    assert {path.name for path in copy.glob("snapshots/*.pkl")} == {"b_1.pkl"}
    assert (copy / "snapshots/b.1/b_2.pkl").exists()


def test_epochs_after_the_one_gone_on_from_move_away(copy: Path, straight: tuple[list[str], Path]) -> None:
    """The memory's chunks that both need are in both places."""
    before = contents(copy)
    main.run(["--resume", "snapshots/b_2.pkl", "--learning_rate", "0.01"])
    assert {path.name for path in copy.glob("snapshots/*.pkl")} == {"b_1.pkl", "b_2.pkl", "b_3.pkl"}
    assert (copy / "snapshots/b_3.pkl").read_bytes() != before["snapshots/b_3.pkl"]
    assert (copy / "snapshots/b.1/b_3.pkl").read_bytes() == before["snapshots/b_3.pkl"]
    assert (copy / "results/b.csv.1").read_bytes() == before["results/b.csv"]
    assert start_where_it_stopped(Path("snapshots/b.1/b")).path == Path("snapshots/b.1/b_3.checkpoint")
    before = contents(copy)
    main.run([*straight[0], "--start_epoch", "2", "--load_weights", "snapshots/b_2.pkl"])  # as in 2015
    assert (copy / "snapshots/b.2/b_3.pkl").read_bytes() == before["snapshots/b_3.pkl"]
    assert (copy / "snapshots/b_2.pkl").read_bytes() == before["snapshots/b_2.pkl"]


@pytest.mark.parametrize(
    "words",
    [["--learning_rate", "-1"], ["--load_weights", "b_9.pkl"], ["--replay_size", "1e12", "--random_steps", "1e12"]],
)
def test_a_run_that_cannot_start_moves_nothing(words: list[str], copy: Path, straight: tuple[list[str], Path]) -> None:
    before = contents(copy)
    with pytest.raises(SimpleDQNError):
        main.run([*straight[0], *words])
    lock = Lock("snapshots/b")
    with pytest.raises(OutputError, match="another run"):
        main.run(straight[0])
    lock.close()
    assert contents(copy) == before


def test_a_full_disk_moves_nothing(copy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    before = contents(copy)
    with monkeypatch.context() as patch:
        patch.setattr(os, "link", fail)
        patch.setattr(Path, "rename", fail)
        with pytest.raises(OutputError, match=r"cannot move snapshots/b_\*, .*, to snapshots/b.1: No space left"):
            checkpoints.set_aside(Path("snapshots/b"), Path("snapshots/b.1"), -1)
    assert contents(copy) == before
    assert not (copy / "snapshots/b.1").exists()


@pytest.mark.parametrize(("cut", "links"), [(1, True), (6, True), (3, False)])
def test_a_move_that_is_cut_short_loses_nothing(
    cut: int, links: bool, copy: Path, straight: tuple[list[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    before, calls = below("snapshots", contents(copy)), 0
    kind = "unlink" if links else "rename"
    function = getattr(Path, kind)

    def die(path: Path, *arguments: Any, **words: Any) -> Any:
        nonlocal calls
        calls += path.name in before
        if calls == cut and path.name in before:
            raise Killed
        return function(path, *arguments, **words)

    def no_links(*_: Any) -> None:
        raise OSError(errno.EPERM, "Operation not permitted")

    with monkeypatch.context() as patch:
        patch.setattr(Path, kind, die)
        if not links:
            patch.setattr(os, "link", no_links)
        with pytest.raises(Killed):
            main.run([*straight[0], *AGAIN])
    if links:
        assert below("snapshots/b.1", contents(copy)) == before  # whole
    main.run([*straight[0], *AGAIN])
    after = contents(copy)
    assert below("snapshots/b.2", after) | below("snapshots/b.1", after) == before


@pytest.fixture
def copy(straight: tuple[list[str], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A finished run whose last epoch is to be done again."""
    shutil.copytree(straight[1], tmp_path / "copy")
    monkeypatch.chdir(tmp_path / "copy")
    return tmp_path / "copy"


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 4
    path.write_bytes(content)


DAMAGES: dict[str, Callable[[Path], Any]] = {
    "flipped": flip,
    "torn": lambda path: os.truncate(path, path.stat().st_size - 1),
    "empty": lambda path: os.truncate(path, 0),
    "gone": Path.unlink,
}


def test_lambda_returns_go_on_as_if_nothing_had_happened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    words = [*RUN, *ONLINE]
    for name in ("straight", "stopped"):
        (tmp_path / name).mkdir()
        monkeypatch.chdir(tmp_path / name)
        if name == "stopped":
            stop_after("train", 30, monkeypatch, words)  # between two trainings
            words = ["--resume", "snapshots/b"]
        main.run(words)
    snapshot, table = ended(tmp_path / "straight")
    assert ended(tmp_path / "stopped") == (snapshot, table)
    assert int(table[-1]["weight_updates"]) > 0


@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize("which", ["b_3.checkpoint", "b_230.replay"])
def test_a_damaged_file_is_named_and_the_checkpoint_before_is_used(
    which: str, damage: str, straight: tuple[list[str], Path], copy: Path, caplog: pytest.LogCaptureFixture
) -> None:
    if which == "b_3.checkpoint" and damage == "gone":
        pytest.skip("that is a snapshot without a checkpoint")
    DAMAGES[damage](copy / "snapshots" / which)
    with caplog.at_level("INFO"):
        main.run(["--resume", "snapshots/b_3.pkl"])
    (warning,) = (record.getMessage() for record in caplog.records if record.levelname == "WARNING")
    assert f"snapshots/{which}" in warning
    assert "looking for the one before" in warning
    assert "Going on from snapshots/b_2.checkpoint" in caplog.text
    assert ended(copy) == ended(straight[1])


def test_the_end_is_the_end(copy: Path) -> None:
    with pytest.raises(OptionError, match="epoch 3 was the last of 3"):
        main.run(["--resume", "snapshots/b"])
    assert not (copy / "snapshots" / "b.lock").exists()


def test_a_checkpoint_of_another_version_is_said_to_be_one(copy: Path) -> None:
    path = copy / "snapshots" / "b_3.checkpoint"
    path.write_bytes(path.read_bytes().replace(b"simple_dqn checkpoint 2", b"simple_dqn checkpoint 1", 1))
    with pytest.raises(CheckpointError, match="was written by another version of this program"):
        read_checkpoint(path)


def test_a_run_that_fails_before_its_first_step_saves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "snapshots").mkdir()
    (tmp_path / "snapshots" / "b_0.pkl").write_bytes(b"of somebody else")

    def fail(agent: Agent, steps: int) -> None:
        raise GameError("no such luck")

    monkeypatch.setattr(Agent, "random", fail)
    with pytest.raises(GameError):
        main.run(RUN)
    assert contents(tmp_path / "snapshots") == {"b.1/b_0.pkl": b"of somebody else"}


def test_another_number_of_no_ops_is_another_option(copy: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level("INFO"):
        main.run(["--resume", "snapshots/b", "--epochs", "4", "--random_starts", "9"])
    assert ", with another --random_starts\n" in caplog.text


def test_more_epochs_and_another_learning_rate(copy: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level("INFO"):
        main.run(["--resume", "snapshots/b", "--epochs", "4", "--learning_rate", "0.001"])
    assert "Going on from snapshots/b_3.checkpoint, with another --learning_rate\n" in caplog.text
    _, table = ended(copy)
    assert [row["phase"] for row in table] == ["random", *["train", "test"] * 4]
    assert (copy / "snapshots" / "b_4.checkpoint").exists()
    assert not (copy / "snapshots" / "b_2.checkpoint").exists()


@pytest.mark.parametrize(
    ("word", "value"),
    [
        ("--game", "pong"),
        ("--screen_width", "44"),
        ("--frame_skip", "3"),
        ("--history_length", "3"),
        ("--batch_norm", "true"),
        ("--dueling", "other"),
    ],
)
def test_another_task_is_refused(word: str, value: str, copy: Path, straight: tuple[list[str], Path]) -> None:
    if word == "--dueling":
        value = "false" if word in straight[0] else "true"
    words = [value] if word == "--game" else [word, value]
    with pytest.raises(OptionError, match=f"{word} {value}.*does not go with --resume.* was trained with"):
        main.run(["--resume", "snapshots/b", "--epochs", "4", *words])


def test_going_on_in_another_folder_takes_the_whole_memory_along(copy: Path, straight: tuple[list[str], Path]) -> None:
    for path in copy.glob("snapshots/b_3.*"):
        path.unlink()
    main.run(["--resume", "snapshots/b", "--save_weights_prefix", "other/b"])
    found = read_checkpoint(copy / "other" / "b_3.checkpoint")  # whole, its chunks too
    assert found.chunks[0].start == [0] * len(found.chunks[0].start)
    assert (copy / "other/b_3.pkl").read_bytes() == (straight[1] / "snapshots/b_3.pkl").read_bytes()


def test_another_number_of_games_fills_the_memory_anew(copy: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level("INFO"):
        main.run(["--resume", "snapshots/b", "--epochs", "4", "--num_envs", "2"])
    assert "starts empty" in caplog.text
    _, table = ended(copy)
    assert [row["phase"] for row in table[-3:]] == ["random", "train", "test"]
    assert int(table[-1]["weight_updates"]) > int(table[-4]["weight_updates"])


def test_the_row_of_a_training_that_goes_on_with_an_empty_memory_is_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    stop_after("train", 7, monkeypatch, [*RUN, "--epochs", "1"])
    before = (tmp_path / "results" / "b.csv").read_text()
    main.run(["--resume", "snapshots/b", "--num_envs", "2"])
    assert (tmp_path / "results" / "b.csv.1").read_text() == before
    rows = (tmp_path / "results" / "b.csv").read_text().splitlines()[1:]
    assert [row.split(",")[:3] for row in rows] == [
        ["0", "random", "50"], ["0", "random", "50"], ["1", "train", "53"], ["1", "test", "20"],
    ]  # fmt: skip


def test_a_test_that_was_broken_off_comes_after_the_memory_is_filled_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    stop_after("test", 7, monkeypatch, [*RUN, "--epochs", "1"])
    main.run(["--resume", "snapshots/b", "--num_envs", "2"])
    rows = (tmp_path / "results" / "b.csv").read_text().splitlines()[1:]
    assert [row.split(",")[:2] for row in rows] == [["0", "random"], ["1", "train"], ["0", "random"], ["1", "test"]]


@pytest.mark.parametrize("train_steps", ["20", "0"])
def test_shorter_epochs_keep_the_memory(train_steps: str, copy: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level("INFO"):
        main.run(["--resume", "snapshots/b", "--epochs", "4", "--train_steps", train_steps])
    assert ", with another --train_steps\n" in caplog.text
    _, table = ended(copy)
    assert int(table[-1]["replay_memory_count"]) >= int(table[-2]["replay_memory_count"])


def test_what_begins_anew_does_not_follow_what_was_broken_off(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """An environment that cannot be brought to where it was."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(ALEEnvironment, "state", lambda _: None)
    stop_after("train", 7, monkeypatch, RUN)
    state = read_checkpoint(tmp_path / "snapshots" / "b_1.checkpoint").state
    assert state["memory"]["ends"][0][-1] == CONTINUES
    assert state["statistics"]["scores"]
    seen: list[Any] = []

    def look(agent: Agent, _: int) -> None:
        seen.append((agent.memory.terminals[agent.memory.added[0] - 1], dict(agent.callbacks[0]._scores)))  # type: ignore[attr-defined]
        agent.interrupted = True

    monkeypatch.setattr(Agent, "train", look)
    with pytest.raises(Interrupted), caplog.at_level("INFO"):
        main.run(["--resume", "snapshots/b"])
    assert "new games begin" in caplog.text
    assert seen == [(TRUNCATED, {})]


def test_a_game_longer_than_the_limit_that_is_new_does_not_reach_into_the_next_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    stop_after("train", 7, monkeypatch, RUN)
    seen: list[Any] = []

    def look(agent: Agent, _: int) -> None:
        seen.append((agent.memory.terminals[agent.memory.added[0] - 1], dict(agent.callbacks[0]._scores)))  # type: ignore[attr-defined]
        agent.interrupted = True

    monkeypatch.setattr(Agent, "train", look)
    with pytest.raises(Interrupted):
        main.run(["--resume", "snapshots/b", "--max_game_seconds", "0.1"])
    assert seen == [(TRUNCATED, {})]


def test_without_a_checkpoint_there_are_the_weights(copy: Path, caplog: pytest.LogCaptureFixture) -> None:
    for path in copy.glob("snapshots/*.checkpoint"):
        path.unlink()
    with caplog.at_level("INFO"):
        main.run(["--resume", "snapshots/b_2.pkl", "--checkpoint", "false"])
    assert "No checkpoint" in caplog.text
    _, table = ended(copy)
    assert [row["phase"] for row in table[-3:]] == ["random", "train", "test"]
    assert table[-2]["epoch"] == "3"
    assert not list(copy.glob("snapshots/*.checkpoint"))


def test_what_a_snapshot_of_another_version_says_of_itself(copy: Path, caplog: pytest.LogCaptureFixture) -> None:
    """An option that is unknown here, and an optimizer whose arrays only look like those of the one asked for."""
    snapshot = read_snapshot(copy / "snapshots" / "b_3.pkl")
    options = snapshot.facts["options"] | {"clipped_q": True, "optimizer": "adadelta"}
    write_snapshot(copy / "other_1.pkl", snapshot._replace(facts=snapshot.facts | {"options": options}))
    kind = "adam" if len(snapshot.layers[0].states) == 2 else "rmsprop"
    words = ["--load_weights", "other_1.pkl", "--optimizer", kind, "--random_steps", "5", "--train_steps", "0"]
    with caplog.at_level("INFO"):
        main.run([*words, "--test_steps", "0"])
    assert "other_1.pkl was made with options that are unknown here: --clipped_q" in caplog.text
    assert f"The optimizer in other_1.pkl is not {kind}, so it starts from scratch" in caplog.text


def test_a_label_may_be_a_number(copy: Path) -> None:
    for name in ("2.pkl", "2.checkpoint", "3.pkl", "3.checkpoint"):
        shutil.copy(copy / f"snapshots/b_{name}", copy / f"snapshots/b_7_{name}")
    assert start_where_it_stopped(Path("snapshots/b_7")).path == Path("snapshots/b_7_3.checkpoint")
    assert start_where_it_stopped(Path("snapshots/b_2.pkl")).path == Path("snapshots/b_2.checkpoint")
    shutil.copy(copy / "snapshots/b_3.pkl", copy / "snapshots/b_7.pkl")
    with pytest.raises(OptionError, match=r"b_7 may be snapshots/b_7.pkl or the last of snapshots/b_7_\*.pkl"):
        start_where_it_stopped(Path("snapshots/b_7"))


def test_a_snapshot_newer_than_the_last_checkpoint_is_told_of(copy: Path, caplog: pytest.LogCaptureFixture) -> None:
    assert start_where_it_stopped(Path("snapshots/b")).path == Path("snapshots/b_3.checkpoint")
    assert not caplog.records
    os.utime("snapshots/b_1.pkl")
    assert start_where_it_stopped(Path("snapshots/b")).path == Path("snapshots/b_3.checkpoint")
    assert "snapshots/b_1.pkl is newer than the last checkpoint, snapshots/b_3.checkpoint, and has none" in caplog.text


def test_the_last_checkpoint_is_the_one_written_last_whatever_the_times_of_the_files(
    copy: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """As after a copy to another machine."""
    os.utime("snapshots/b_2.checkpoint")
    os.utime("snapshots/b_3.pkl")
    assert start_where_it_stopped(Path("snapshots/b")).path == Path("snapshots/b_3.checkpoint")
    assert not caplog.records


def test_random_moves_that_are_stopped_again_are_not_lost(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for command, stored in [(RUN, 15), (["--resume", "snapshots/b"], 30), (["--resume", "snapshots/b"], 45)]:
        stop_after("random", 15, monkeypatch, command)
        assert read_checkpoint(Path("snapshots/b_0.checkpoint")).chunks[-1].stop == [stored]


def phases(folder: Path) -> list[list[str]]:
    """Epoch, phase and steps of every row."""
    return [row.split(",")[:3] for row in (folder / "results" / "b.csv").read_text().splitlines()[1:]]


def test_stopped_while_the_memory_is_filled_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing of the epochs before is lost, and the test that was due follows."""
    monkeypatch.chdir(tmp_path)
    begun = [["0", "random", "50"], ["1", "train", "60"], ["1", "test", "20"]]
    stop_after("test", 7, monkeypatch, [*RUN, "--epochs", "1"])
    stop_after("random", 10, monkeypatch, ["--resume", "snapshots/b", "--num_envs", "2"])
    stop_after("random", 10, monkeypatch, ["--resume", "snapshots/b"])
    main.run(["--resume", "snapshots/b"])
    assert phases(tmp_path) == [*begun[:2], begun[0], begun[2]]
    assert not (tmp_path / "results" / "b.csv.1").exists()


def test_stopped_in_the_test_after_the_memory_was_filled_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    stop_after("test", 7, monkeypatch, [*RUN, "--epochs", "1"])
    stop_after("test", 8, monkeypatch, ["--resume", "snapshots/b", "--replay_size", "90"])
    main.run(["--resume", "snapshots/b"])
    assert phases(tmp_path)[-1] == ["1", "test", "20"]


def test_shorter_epochs_than_the_one_under_way(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    stop_after("train", 40, monkeypatch, [*RUN, "--epochs", "1"])
    main.run(["--resume", "snapshots/b", "--train_steps", "30"])
    assert phases(tmp_path) == [["0", "random", "50"], ["1", "train", "40"], ["1", "test", "20"]]


def test_stopped_between_two_phases(
    straight: tuple[list[str], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    words, expected = straight
    monkeypatch.chdir(tmp_path)
    train_epoch = main.train_epoch

    def interrupt(setup: main.Setup, epoch: int) -> None:
        setup.parts.agent.interrupted = epoch == 1
        train_epoch(setup, epoch)

    with monkeypatch.context() as patch:
        patch.setattr(main, "train_epoch", interrupt)
        with pytest.raises(Interrupted):
            main.run(words)
    main.run(["--resume", "snapshots/b"])
    assert ended(tmp_path) == ended(expected)


def test_new_games_of_gymnasium_are_others_than_the_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    words = ["CartPole-v1", "--environment", "gym", *RUN[1:]]
    restart, firsts = GymEnvironment.restart, []

    def remember(environment: GymEnvironment) -> None:
        restart(environment)
        firsts.append(tuple(environment._observation))

    monkeypatch.setattr(GymEnvironment, "restart", remember)
    stop_after("train", 20, monkeypatch, words)
    before = set(firsts)
    stop_after("train", 20, monkeypatch, ["--resume", "snapshots/b"])
    assert len(set(firsts)) == len(firsts)
    assert before


def test_another_seed_is_refused(copy: Path) -> None:
    """The draws go on as they were."""
    with pytest.raises(OptionError, match=r"--random_seed 77 does not go with --resume: .* was trained with 5"):
        main.run(["--resume", "snapshots/b", "--epochs", "4", "--random_seed", "77"])


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (MemoryError(), 2),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes"), 2),
        (RuntimeError("CUDA out of memory. Tried to allocate 2.00 GiB"), 2),
        (RuntimeError("mat1 and mat2 shapes cannot be multiplied"), None),
    ],
)
def test_memory_that_runs_out_is_told_in_a_line(
    error: Exception, status: int | None, capsys: pytest.CaptureFixture[str]
) -> None:
    def program() -> None:
        raise error

    if status is None:
        with pytest.raises(RuntimeError):
            exit_status(program, "buy more")
    else:
        assert exit_status(program, "buy more") == status
        assert capsys.readouterr().err == "error: there is not enough memory: buy more\n"


@pytest.mark.parametrize("path", [".", "/"])
def test_a_folder_is_no_training(path: str) -> None:
    with pytest.raises(OptionError, match="name a snapshot, or a prefix such as snapshots/pong"):
        start_where_it_stopped(Path(path))


def test_an_epoch_too_short_to_learn_from_is_told_of(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.chdir(tmp_path)
    main.run([*RUN, "--epochs", "1", "--random_steps", "0", "--train_steps", "6", "--test_steps", "0"])
    assert "Nothing was learned. Too few transitions for a minibatch (6)." in caplog.text


def test_no_checkpoints_unless_wanted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    main.run([*RUN, "--epochs", "1", "--checkpoint", "false"])
    assert files(tmp_path) == ["b_1.pkl"]


def test_a_full_disk_leaves_what_there_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, straight: tuple[list[str], Path]
) -> None:
    """The disk fills up in the third epoch, just as its checkpoint is written; later there is room again."""
    words, expected = straight
    monkeypatch.chdir(tmp_path)
    fsync, count = os.fsync, 0

    def full(file: int) -> None:
        nonlocal count
        if Path("snapshots/b_2.checkpoint").exists() and Path("results/b.csv").read_text().count("\n") > 6:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        fsync(file)

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        with pytest.raises(OutputError, match=r"b_3.* \([\d,]+ bytes\): No space left on device"):
            main.run(words)
    assert not [name for name in files(tmp_path) if name.endswith(".tmp")]
    main.run(["--resume", "snapshots/b"])
    assert ended(tmp_path) == ended(expected)


# With real processes


def start(*words: str, cwd: Path) -> subprocess.Popen[str]:
    command = [sys.executable, str(MAIN), *words]
    return subprocess.Popen(command, cwd=cwd, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def test_kill_9_at_random_moments(straight: tuple[list[str], Path], tmp_path: Path) -> None:
    words, expected = straight
    rng = np.random.default_rng(len(words))
    killed = 0
    for attempt in range(40):
        begun = bool(list(tmp_path.glob("snapshots/*.checkpoint")))
        process = start(*(["--resume", "snapshots/b"] if begun else words), cwd=tmp_path)
        assert process.stderr
        log = ""
        while not re.search("(Random|Train|Test)", log) and process.poll() is None:
            log = process.stderr.readline()
        if attempt < 8:
            time.sleep(rng.random() * 0.2)
            process.kill()
        process.communicate()
        killed += process.returncode == -signal.SIGKILL
        if process.returncode == 0:
            break
    assert killed
    assert ended(tmp_path) == ended(expected)


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 129)])
def test_stopped_in_the_middle_of_an_epoch(
    number: signal.Signals, status: int, straight: tuple[list[str], Path], tmp_path: Path
) -> None:
    if number == signal.SIGHUP and signal.getsignal(number) is signal.SIG_IGN:
        pytest.skip("these tests run under nohup")
    words, _ = straight
    steps = ["--train_steps", "1500", "--train_frequency", "100", "--epochs", "1"]
    process = start(*words, *steps, cwd=tmp_path)
    assert process.stderr
    while "Train 1/1" not in process.stderr.readline():
        assert process.poll() is None
    time.sleep(0.2)
    process.send_signal(number)
    _, log = process.communicate(timeout=60)
    assert process.returncode == status, log
    assert "Traceback" not in log
    whole = tmp_path / "whole"
    whole.mkdir()
    one, other = start("--resume", "snapshots/b", cwd=tmp_path), start(*words, *steps, cwd=whole)
    for process in (one, other):
        _, log = process.communicate(timeout=60)
        assert process.returncode == 0, log
    assert (tmp_path / "snapshots/b_1.pkl").read_bytes() == (whole / "snapshots/b_1.pkl").read_bytes()
    for folder in (tmp_path, whole):
        (folder / "snapshots/b_1.pkl").rename(folder / "snapshots/b_3.pkl")
    assert ended(tmp_path)[1] == ended(whole)[1]


def test_two_runs_of_one_name(tmp_path: Path) -> None:
    process = start(*RUN, "--train_steps", "100000", cwd=tmp_path)
    assert process.stderr
    while "Train 1/" not in process.stderr.readline():
        assert process.poll() is None
    second = start(*RUN, cwd=tmp_path)
    out, log = second.communicate(timeout=60)
    assert (second.returncode, out) == (2, "")
    assert f"error: another run (process {process.pid}) is writing snapshots/b_*" in log
    process.kill()
    process.communicate()
    Lock(str(tmp_path / "snapshots" / "b")).close()  # a dead process holds nothing


def test_a_file_system_without_locks_is_not_taken_for_another_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def flock(*_: Any) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr("fcntl.flock", flock)
    Lock(str(tmp_path / "b")).close()
    assert not list(tmp_path.iterdir())


def test_what_a_killed_run_left_half_written_is_cleared_away(tmp_path: Path) -> None:
    for name in (".b_3.pkl.x1y2.tmp", ".b_x_3.pkl.x1y2.tmp", ".c_3.pkl.x1y2.tmp"):
        (tmp_path / name).touch()
    Lock(str(tmp_path / "b")).close()
    assert not (tmp_path / ".b_3.pkl.x1y2.tmp").exists()
    assert (tmp_path / ".b_x_3.pkl.x1y2.tmp").exists()  # a run of another label may be writing it now
    assert (tmp_path / ".c_3.pkl.x1y2.tmp").exists()


# Chunks


def fill(memory: ReplayMemory, count: int, rng: np.random.Generator) -> None:
    for _ in range(count):
        lane = int(rng.integers(len(memory.added)))
        screen = rng.integers(0, 256, memory.screens.shape[1:], np.uint8)
        memory.add(int(rng.integers(4)), float(rng.normal()), screen, bool(rng.random() < 0.1), lane)


def test_chunks_hold_what_is_new_and_together_all_there_is(tmp_path: Path) -> None:
    def make() -> ReplayMemory:
        options = ReplayMemoryOptions(replay_size=3000)
        return ReplayMemory(options, (4, 5), 8, np.random.default_rng(1), lanes=2)

    rng, memory = np.random.default_rng(2), make()
    writer = Checkpoints(str(tmp_path / "m"))
    for number, added in enumerate((2500, 0, 10, 1400, 5000, 300)):
        fill(memory, added, rng)
        memory.cut(0)
        path = writer.save(number, dict(memory=memory.state()), memory)
        found = read_checkpoint(path)
        other = make()
        restore_memory(other, found)
        for name in ("actions", "rewards", "screens", "terminals"):
            held = [slice(lane * memory.lane_size, lane * memory.lane_size + n) for lane, n in enumerate(memory.counts)]
            for part in held:
                assert np.array_equal(getattr(memory, name)[part], getattr(other, name)[part]), (number, name)
        assert np.array_equal(other.minibatch().prestates, memory.minibatch().prestates)
        if number == 2:
            assert found.chunks[-1].length < 2000
    assert [chunk.start for chunk in found.chunks][1:] == [chunk.stop for chunk in found.chunks][:-1]
    assert len(found.chunks) <= 3  # the others are overwritten


def test_the_chunks_of_another_timeline_are_not_overwritten(tmp_path: Path) -> None:
    names = []
    for seed in (1, 2):
        memory = ReplayMemory(ReplayMemoryOptions(replay_size=100), (4, 5), 8, np.random.default_rng(1))
        fill(memory, 50, np.random.default_rng(seed))
        path = Checkpoints(str(tmp_path / "m")).save(seed, dict(memory=memory.state()), memory)
        names.append(read_checkpoint(path).chunks[0].name)
    assert names == ["m_50.replay", "m_51.replay"]
    assert read_checkpoint(tmp_path / "m_1.checkpoint")


@pytest.mark.parametrize("content", [b"", b"\n\n", b"simple_dqn checkpoint 2 00000000\n{}\n", bytes(range(100, 200))])
def test_what_is_no_checkpoint_is_said_so(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "m_1.checkpoint"
    path.write_bytes(content)
    with pytest.raises(CheckpointError, match="is damaged"):
        read_checkpoint(path)
    assert checkpoints.checkpoints_of(tmp_path / "m") == [path]
