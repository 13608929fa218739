"""Checkpoints: a run that is killed and resumed, anywhere and as often as you like, ends as if nothing had happened."""

from __future__ import annotations

import errno
import math
import os
import re
import shlex
import shutil
import signal
import time
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from torch import AcceleratorError, OutOfMemoryError

import main
from runs import DEADLINE, ROOT, contents, rows, start, wait_for, without_times
from simple_dqn.agent import Agent
from simple_dqn.deepqnetwork import DeepQNetwork, TrainResult
from simple_dqn.environment import CONTINUES, TRUNCATED
from simple_dqn.errors import CheckpointError, GameError, OptionError, OutputError, SimpleDQNError, exit_status
from simple_dqn.games.ale import ALEEnvironment
from simple_dqn.games.gym import GymEnvironment
from simple_dqn.interrupts import Interrupted
from simple_dqn.replay_memory import Minibatch, ReplayMemory, ReplayMemoryOptions
from simple_dqn.saving import checkpoint as checkpoints
from simple_dqn.saving.checkpoint import Checkpoints, read_checkpoint, restore_memory
from simple_dqn.saving.files import Lock
from simple_dqn.saving.snapshot import read_snapshot, write_snapshot
from simple_dqn.saving.start import start_where_it_stopped
from simple_dqn.statistics import Statistics

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
RESUME = ["--resume", "snapshots/b"]
GPU_FULL = "the GPU has not enough memory: buy more, or --backend cpu"
Straight = tuple[list[str], Path]  # the words of a run, and the folder in which it went through in one go


class Killed(BaseException):
    """Stands for kill -9: nothing in the program catches it."""


def ended(folder: Path) -> tuple[bytes, list[dict[str, str]]]:
    """The last snapshot and the statistics of a run, times aside."""
    return (folder / "snapshots" / "b_3.pkl").read_bytes(), without_times(folder / "results" / "b.csv")


def phases(folder: Path) -> list[str]:
    """Epoch, phase and steps of every row."""
    return [" ".join((row["epoch"], row["phase"], row["steps"])) for row in rows(folder / "results" / "b.csv")]


@pytest.fixture(scope="module", params=["one game", "side by side"])
def straight(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Straight:
    words = RUN + (SIDE_BY_SIDE if request.param == "side by side" else [])
    folder = tmp_path_factory.mktemp("straight")
    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.chdir(folder)
        main.run(words)
    return words, folder


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder, empty."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def copy(straight: Straight, folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder, with a finished run."""
    shutil.copytree(straight[1], folder / "copy")
    monkeypatch.chdir(folder / "copy")
    return folder / "copy"


def files(folder: Path) -> list[str]:
    return sorted(path.name for path in (folder / "snapshots").iterdir())


def test_the_last_two_epochs_are_kept(straight: Straight) -> None:
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
            main.run(RESUME if begun else words)
        except Killed:
            pass
        except OptionError:
            calls = 0  # nothing is left to do
    return calls


def test_killed_at_every_file_that_it_writes(
    straight: Straight, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
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


def stop_after(phase: str, steps: int, words: list[str]) -> None:
    """Run the program, and stop it in its first `phase`."""
    play = getattr(Agent, phase)

    def stop_soon(agent: Agent, _: int) -> None:
        play(agent, steps)
        agent.interrupted = True

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Agent, phase, stop_soon)
        with pytest.raises(Interrupted):
            main.run(words)


@pytest.mark.parametrize(("phase", "steps"), [("test", 7), ("random", 15)])
def test_stopped_within_a_phase(phase: str, steps: int, straight: Straight, folder: Path) -> None:
    """The second and third time it is a resumed run that is stopped."""
    words, expected = straight
    for command in (words, RESUME, RESUME):
        stop_after(phase, steps, command)
    main.run(RESUME)
    assert ended(folder) == ended(expected)


RANDOM, TRAIN, TEST = "0 random 50", "1 train 60", "1 test 20"
TWO_GAMES = ["--num_envs", "2"]  # another layout of the memory, so that random moves fill it again


@pytest.mark.parametrize(
    ("stops", "last", "expected", "earlier"),
    [
        ([("train", 7, [])], TWO_GAMES, [RANDOM, RANDOM, "1 train 53", TEST], [RANDOM, "1 train 7"]),
        ([("test", 7, [])], TWO_GAMES, [RANDOM, TRAIN, RANDOM, TEST], []),
        ([("test", 7, []), ("random", 10, TWO_GAMES), ("random", 10, [])], [], [RANDOM, TRAIN, RANDOM, TEST], []),
        ([("test", 7, []), ("test", 8, ["--replay_size", "90"])], [], [RANDOM, TRAIN, RANDOM, TEST], []),
        ([("train", 40, [])], ["--train_steps", "30"], [RANDOM, "1 train 40", TEST], []),
    ],
    ids=["training", "test", "random moves", "test after random moves", "shorter epochs"],
)
def test_rows_of_runs_that_were_stopped(
    stops: list[tuple[str, int, list[str]]], last: list[str], expected: list[str], earlier: list[str], folder: Path
) -> None:
    """A test that was due follows, also if random moves come first. Rows of a phase that is not resumed are kept."""
    command = [*RUN, "--epochs", "1"]
    for phase, steps, words in stops:
        stop_after(phase, steps, [*command, *words])
        command = RESUME
    main.run([*command, *last])
    assert phases(folder) == expected
    copy = folder / "results" / "b.csv.1"
    assert copy.exists() == bool(earlier)
    if earlier:
        copy.rename(folder / "results" / "b.csv")
        assert phases(folder) == earlier


def below(folder: str, files: dict[str, bytes]) -> dict[str, bytes]:
    return {name[len(folder) + 1 :]: content for name, content in files.items() if name.startswith(f"{folder}/")}


AGAIN = ["--epochs", "1", "--random_seed", "6"]


def test_a_new_run_over_an_older_one_s_name_keeps_them_apart(
    straight: Straight, copy: Path, caplog: pytest.LogCaptureFixture
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
    told = f"Moved an earlier run's b_1.pkl … ({len(old)} files) to snapshots/b.2"
    command = f"Continue that run with: {shlex.quote(str(ROOT / 'resume.sh'))} snapshots/b.2/b"
    first = caplog.messages.index(told)
    assert caplog.messages[first : first + 2] == [told, command]
    new = [name for name in below("snapshots", after) if name not in neighbours and "/" not in name]
    assert {name for name in new if name.endswith(".pkl")} == {"b_1.pkl"}
    with pytest.raises(OptionError, match=r"epoch 3 was the last of 3"):
        main.run(["--resume", "snapshots/b.2/b"])
    main.run(["--resume", "snapshots/b.2/b", "--epochs", "4"])
    assert phases(copy) == [RANDOM, TRAIN, TEST]  # not those of the older run
    assert (copy / "results/b.csv.2").read_text().count("\n") == 1 + 1 + 4 * 2
    assert (copy / "snapshots/b.2/b_4.pkl").exists()
    assert sorted(path.name for path in copy.glob("*/*.[0-9]")) == ["b.2", "b.csv.1", "b.csv.2"]


def test_a_run_that_begins_with_weights_of_its_own_name_finds_them(copy: Path, straight: Straight) -> None:
    main.run([*straight[0], *AGAIN, "--load_weights", "snapshots/b_2.pkl"])
    assert {path.name for path in copy.glob("snapshots/*.pkl")} == {"b_1.pkl"}
    assert (copy / "snapshots/b.1/b_2.pkl").exists()


def test_epochs_after_the_one_gone_on_from_move_away(copy: Path, straight: Straight) -> None:
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


@pytest.mark.parametrize("word", ["snapshots/b.5_1", "snapshots/b.5_1.pkl"])
def test_epochs_move_away_also_if_a_label_has_a_dot(word: str, copy: Path) -> None:
    for epoch in (1, 2):
        (copy / f"snapshots/b_{epoch}.pkl").rename(copy / f"snapshots/b.5_{epoch}.pkl")
    before = (copy / "snapshots/b.5_2.pkl").read_bytes()
    main.run(["--resume", word, "--epochs", "2"])
    assert (copy / "snapshots/b.5.1/b.5_2.pkl").read_bytes() == before
    assert (copy / "snapshots/b.5_2.pkl").read_bytes() != before
    assert (copy / "snapshots/b_3.pkl").exists()


def test_a_resumed_run_under_another_name_has_statistics_of_its_own(copy: Path) -> None:
    """Those of the run before, and of an older run of that name, stay as they are."""
    statistics = (copy / "results/b.csv").read_bytes()
    (copy / "results/c.csv").write_bytes(statistics)
    main.run(["--resume", "snapshots/b_2.pkl", "--save_weights_prefix", "snapshots/c"])
    assert (copy / "results/b.csv").read_bytes() == (copy / "results/c.csv.1").read_bytes() == statistics
    assert [row["epoch"] for row in rows(copy / "results/c.csv")] == ["3", "3"]
    assert (copy / "snapshots/c_3.pkl").read_bytes() == (copy / "snapshots/b_3.pkl").read_bytes()


def test_a_run_that_does_not_train_leaves_a_training_s_statistics_alone(copy: Path, straight: Straight) -> None:
    before = contents(copy)
    with pytest.raises(OutputError, match=r"results/b.csv holds the statistics of a training"):
        main.run([*straight[0], "--play_games", "1"])
    assert contents(copy) == before


def test_weights_that_the_last_update_spoiled_are_not_saved(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Statistics, "_mean_q", lambda _: math.nan)
    with pytest.raises(OptionError, match=r"The loss is NaN or infinite\. This epoch was not saved"):
        main.run(RUN)
    assert files(folder) == []


def test_statistics_that_lack_the_rows_before_give_a_warning(copy: Path, caplog: pytest.LogCaptureFixture) -> None:
    header, *lines = (copy / "results/b.csv").read_text().splitlines(keepends=True)
    (copy / "results/b.csv").write_text(header + "".join(lines[:3]))
    main.run([*RESUME, "--epochs", "4"])
    assert "results/b.csv lacks the rows of epoch 3. An earlier file, such as results/b.csv.1, may have" in caplog.text


def test_statistics_that_begin_with_another_name_give_no_warning(copy: Path, caplog: pytest.LogCaptureFixture) -> None:
    stop_after("train", 7, ["--resume", "snapshots/b_2.pkl", "--save_weights_prefix", "snapshots/c", *TWO_GAMES])
    main.run(["--resume", "snapshots/c"])
    assert [record for record in caplog.records if record.levelname == "WARNING"] == []
    assert [row["phase"] for row in rows(copy / "results/c.csv")] == ["random", "train", "test"]


def test_a_run_under_another_name_that_saved_nothing_begins_again_under_it(
    copy: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    caplog.set_level("INFO")
    monkeypatch.setattr(Statistics, "_mean_q", lambda _: math.nan)
    with pytest.raises(OptionError):
        main.run(["--resume", "snapshots/b_2.pkl", "--save_weights_prefix", "snapshots/c"])
    assert " snapshots/b_2.pkl --save_weights_prefix snapshots/c\n" in caplog.text


def test_a_copied_file_of_statistics_is_continued_if_it_is_named(copy: Path) -> None:
    shutil.copy(copy / "results/b.csv", copy / "results/c.csv")
    more = ["--save_weights_prefix", "snapshots/c", "--csv_file", "results/c.csv"]
    main.run(["--resume", "snapshots/b_2.pkl", *more])
    assert without_times(copy / "results/c.csv") == without_times(copy / "results/b.csv")


def test_a_training_without_tests_that_is_complete_is_not_resumed(folder: Path) -> None:
    main.run([*RUN, "--epochs", "1", "--test_steps", "0"])
    with pytest.raises(OptionError, match=r"epoch 1 was the last of 1"):
        main.run(RESUME)


def test_one_file_of_statistics_is_of_one_run(copy: Path, straight: Straight) -> None:
    before = contents(copy)
    lock = Lock("results/b.csv")
    words = [*straight[0], "--save_weights_prefix", "snapshots/c"]
    with pytest.raises(OutputError, match=r"is writing results/b\.csv: .* give this one another --csv_file"):
        main.run(words)
    lock.close()
    assert contents(copy) == before


@pytest.mark.parametrize(
    "words",
    [["--learning_rate", "-1"], ["--load_weights", "b_9.pkl"], ["--replay_size", "1e12", "--random_steps", "1e12"]],
)
def test_a_run_that_cannot_start_moves_nothing(words: list[str], copy: Path, straight: Straight) -> None:
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

    def fail_halfway(source: Path, target: Path) -> None:
        target.write_bytes(source.read_bytes()[:9])
        fail()

    before = contents(copy)
    with monkeypatch.context() as patch:
        patch.setattr(os, "link", fail)
        patch.setattr(shutil, "copy2", fail_halfway)
        with pytest.raises(OutputError, match=r"cannot move snapshots/b_\*, .*, to snapshots/b.1: No space left"):
            checkpoints.set_aside(Path("snapshots/b"), Path("snapshots/b.1"), -1)
    assert contents(copy) == before
    assert not (copy / "snapshots/b.1").exists()


@pytest.mark.parametrize(("cut", "links"), [(1, True), (6, True), (3, False)])
def test_a_move_that_is_cut_short_loses_nothing(
    cut: int, links: bool, copy: Path, straight: Straight, monkeypatch: pytest.MonkeyPatch
) -> None:
    before, calls = below("snapshots", contents(copy)), 0
    unlink = Path.unlink

    def die(path: Path, *arguments: Any, **words: Any) -> Any:
        nonlocal calls
        calls += path.name in before
        if calls == cut and path.name in before:
            raise Killed
        return unlink(path, *arguments, **words)

    def no_links(*_: Any) -> None:
        raise OSError(errno.EPERM, "Operation not permitted")

    with monkeypatch.context() as patch:
        patch.setattr(Path, "unlink", die)
        if not links:
            patch.setattr(os, "link", no_links)
        with pytest.raises(Killed):
            main.run([*straight[0], *AGAIN])
    assert below("snapshots/b.1", contents(copy)) == before  # whole
    main.run([*straight[0], *AGAIN])
    after = contents(copy)
    assert below("snapshots/b.2", after) | below("snapshots/b.1", after) == before


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
            stop_after("train", 30, words)  # between two trainings
            words = RESUME
        main.run(words)
    snapshot, table = ended(tmp_path / "straight")
    assert ended(tmp_path / "stopped") == (snapshot, table)
    assert int(table[-1]["weight_updates"]) > 0


@pytest.mark.parametrize(  # without its checkpoint, b_3.pkl would be resumed from its weights
    ("which", "damage"), [(which, damage) for which in ("b_230.replay", "b_3.checkpoint") for damage in DAMAGES][:-1]
)
def test_a_damaged_file_is_named_and_the_checkpoint_before_is_used(
    which: str, damage: str, straight: Straight, copy: Path, caplog: pytest.LogCaptureFixture
) -> None:
    DAMAGES[damage](copy / "snapshots" / which)
    with caplog.at_level("INFO"):
        main.run(["--resume", "snapshots/b_3.pkl"])
    warnings = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
    (warning,) = (text for text in warnings if "--test_games" not in text)  # with few games in a test
    assert f"snapshots/{which}" in warning
    assert "looking for the one before" in warning
    assert "Continuing from snapshots/b_2.checkpoint" in caplog.text
    assert ended(copy) == ended(straight[1])


def test_a_run_that_fails_before_its_first_step_saves_nothing(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (folder / "snapshots").mkdir()
    (folder / "snapshots" / "b_0.pkl").write_bytes(b"of somebody else")

    def fail(agent: Agent, steps: int) -> None:
        raise GameError("no such luck")

    monkeypatch.setattr(Agent, "random", fail)
    with pytest.raises(GameError):
        main.run(RUN)
    assert contents(folder / "snapshots") == {"b.1/b_0.pkl": b"of somebody else"}


@pytest.mark.parametrize(
    ("word", "value"),
    [("learning_rate", "0.001"), ("random_starts", "9"), ("train_steps", "20"), ("train_steps", "0")],
)
def test_more_epochs_with_another_option(word: str, value: str, copy: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    main.run([*RESUME, "--epochs", "4", f"--{word}", value])
    assert f"Continuing from snapshots/b_3.checkpoint, with another --{word}\n" in caplog.text
    trained = [] if (word, value) == ("train_steps", "0") else ["train"]
    table = rows(copy / "results" / "b.csv")
    assert [row["phase"] for row in table] == ["random", *["train", "test"] * 3, *trained, "test"]
    assert int(table[-1]["replay_memory_count"]) >= int(table[-2]["replay_memory_count"])
    checkpoints = ["b_3.checkpoint", "b_4.checkpoint"] if trained else ["b_2.checkpoint", "b_3.checkpoint"]
    assert [name for name in files(copy) if name.endswith(".checkpoint")] == checkpoints


SIZES = ["--screen_width 44", "--frame_skip 3", "--history_length 3"]


@pytest.mark.parametrize(
    "option", ["the game pong", *SIZES, "--batch_norm true", "--dueling other", "--random_seed 77"]
)
def test_another_task_is_refused(option: str, copy: Path, straight: Straight) -> None:
    option = option.replace("other", "false" if "--dueling" in straight[0] else "true")
    words = option.removeprefix("the game ").split()
    with pytest.raises(OptionError, match=f"{option}.*does not go with --resume.* was trained with"):
        main.run([*RESUME, "--epochs", "4", *words])


def test_a_training_continued_in_another_folder_saves_its_complete_memory_there(copy: Path, straight: Straight) -> None:
    for path in copy.glob("snapshots/b_3.*"):
        path.unlink()
    main.run([*RESUME, "--save_weights_prefix", "other/b"])
    found = read_checkpoint(copy / "other" / "b_3.checkpoint")
    assert found.chunks[0].start == [0] * len(found.chunks[0].start)
    assert (copy / "other/b_3.pkl").read_bytes() == (straight[1] / "snapshots/b_3.pkl").read_bytes()


def test_another_number_of_games_fills_the_memory_anew(copy: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level("INFO"):
        main.run([*RESUME, "--epochs", "4", "--num_envs", "2"])
    assert "starts empty" in caplog.text
    _, table = ended(copy)
    assert [row["phase"] for row in table[-3:]] == ["random", "train", "test"]
    assert int(table[-1]["weight_updates"]) > int(table[-4]["weight_updates"])


@pytest.mark.parametrize("words", [[], ["--max_game_seconds", "0.1"]], ids=["no state", "beyond the new limit"])
def test_new_games_do_not_continue_the_earlier_ones(
    words: list[str], folder: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """The games cannot be restored, because they have no state or are longer than the new limit."""
    if not words:
        monkeypatch.setattr(ALEEnvironment, "state", lambda _: None)
    stop_after("train", 7, RUN)
    state = read_checkpoint(folder / "snapshots" / "b_1.checkpoint").state
    assert state["memory"]["ends"][0][-1] == CONTINUES
    assert state["statistics"]["scores"]
    seen: list[Any] = []

    def look(agent: Agent, _: int) -> None:
        seen.append((agent.memory.terminals[agent.memory.added[0] - 1], dict(agent.callbacks[0]._scores)))  # type: ignore[attr-defined]
        agent.interrupted = True

    monkeypatch.setattr(Agent, "train", look)
    with pytest.raises(Interrupted), caplog.at_level("INFO"):
        main.run([*RESUME, *words])
    assert "new games begin" in caplog.text
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


def test_random_moves_that_are_stopped_again_are_not_lost(folder: Path) -> None:
    for command, stored in [(RUN, 15), (RESUME, 30), (RESUME, 45)]:
        stop_after("random", 15, command)
        assert read_checkpoint(Path("snapshots/b_0.checkpoint")).chunks[-1].stop == [stored]


def test_stopped_between_two_phases(straight: Straight, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    words, expected = straight
    train_epoch = main.train_epoch

    def interrupt(setup: main.Setup, epoch: int) -> None:
        setup.parts.agent.interrupted = epoch == 1
        train_epoch(setup, epoch)

    with monkeypatch.context() as patch:
        patch.setattr(main, "train_epoch", interrupt)
        with pytest.raises(Interrupted):
            main.run(words)
    main.run(RESUME)
    assert ended(folder) == ended(expected)


def test_new_games_of_gymnasium_are_others_than_the_first(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    words = ["CartPole-v1", "--environment", "gym", *RUN[1:]]
    restart, firsts = GymEnvironment.restart, []

    def remember(environment: GymEnvironment) -> None:
        restart(environment)
        firsts.append(tuple(environment._observation))

    monkeypatch.setattr(GymEnvironment, "restart", remember)
    stop_after("train", 20, words)
    before = set(firsts)
    stop_after("train", 20, RESUME)
    assert len(set(firsts)) == len(firsts)
    assert before


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (MemoryError(), "there is not enough memory: buy more"),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried"), "there is not enough memory: buy more"),
        (OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB"), GPU_FULL),
        (AcceleratorError("CUDA error: out of memory\nCUDA kernel errors might be"), GPU_FULL),
        (RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"), GPU_FULL),
        (RuntimeError("mat1 and mat2 shapes cannot be multiplied"), None),
    ],
)
def test_memory_that_runs_out_is_told_in_a_line(
    error: Exception, text: str | None, capsys: pytest.CaptureFixture[str]
) -> None:
    def program() -> None:
        raise error

    if text is None:
        with pytest.raises(RuntimeError):
            exit_status(program, "buy more")
    else:
        assert exit_status(program, "buy more") == 2
        assert capsys.readouterr().err == f"error: {text}\n"


@pytest.mark.parametrize(
    ("games", "steps", "why"),
    [
        ("1", "6", "6 transitions are too few for a minibatch of 8"),
        ("6", "12", "12 transitions of 6 games hold no state with its history and return .see --history_length .*"),
    ],
)
def test_an_epoch_too_short_to_learn_from_is_told_of(
    games: str, steps: str, why: str, folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    short = ["--epochs", "1", "--random_steps", "0", "--train_steps", steps, "--test_steps", "0", "--num_envs", games]
    main.run([*RUN, *short])
    assert re.search(f"Nothing was learned: {why}. Use more --random_steps or --train_steps.", caplog.text)


def test_a_full_disk_leaves_what_there_was(folder: Path, monkeypatch: pytest.MonkeyPatch, straight: Straight) -> None:
    """The disk fills up in the third epoch, just as its checkpoint is written; later there is room again."""
    words, expected = straight
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
    assert not [name for name in files(folder) if name.endswith(".tmp")]
    main.run(RESUME)
    assert ended(folder) == ended(expected)


def test_a_full_gpu_leaves_what_there_was(
    folder: Path, monkeypatch: pytest.MonkeyPatch, straight: Straight, capsys: pytest.CaptureFixture[str]
) -> None:
    """Memory runs out in the third epoch. The run goes on from the second one."""
    words, expected = straight
    train = DeepQNetwork.train

    def full(network: DeepQNetwork, batch: Minibatch) -> TrainResult:
        if Path("snapshots/b_2.checkpoint").exists():
            raise OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.\nSee documentation")
        return train(network, batch)

    with monkeypatch.context() as patch:
        patch.setattr(DeepQNetwork, "train", full)
        assert main.main(words) == 2
    error = "the GPU has not enough memory: use a smaller --replay_size, --batch_size or --num_envs, or --backend cpu"
    assert capsys.readouterr().err.endswith(f"error: {error}\n")
    main.run(RESUME)
    assert ended(folder) == ended(expected)


# With real processes


def test_kill_9_at_random_moments(straight: Straight, tmp_path: Path) -> None:
    words, expected = straight
    rng = np.random.default_rng(len(words))
    killed = 0
    for attempt in range(40):
        begun = bool(list(tmp_path.glob("snapshots/*.checkpoint")))
        process = start(*(RESUME if begun else words), cwd=tmp_path)
        if attempt < 8:
            wait_for(process, "Random", "Train", "Test", "error")
            time.sleep(rng.random() * 0.2)
            process.kill()
        process.communicate()
        killed += process.returncode == -signal.SIGKILL
        if process.returncode == 0:
            break
    assert killed
    assert ended(tmp_path) == ended(expected)


@pytest.fixture(scope="module")
def long_epoch(straight: Straight, tmp_path_factory: pytest.TempPathFactory) -> Straight:
    """One epoch, long enough to be stopped in its middle."""
    words = [*straight[0], "--train_steps", "1500", "--train_frequency", "100", "--epochs", "1"]
    folder = tmp_path_factory.mktemp("long_epoch")
    process = start(*words, cwd=folder)
    _, log = process.communicate(timeout=DEADLINE)
    assert process.returncode == 0, log
    return words, folder


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 129)])
def test_stopped_in_the_middle_of_an_epoch(
    number: signal.Signals, status: int, long_epoch: Straight, tmp_path: Path
) -> None:
    if number == signal.SIGHUP and signal.getsignal(number) is signal.SIG_IGN:
        pytest.skip("these tests run under nohup")
    words, complete = long_epoch
    process = start(*words, cwd=tmp_path)
    wait_for(process, "Train 1/1")
    time.sleep(0.2)
    process.send_signal(number)
    out, log = process.communicate(timeout=DEADLINE)
    assert (process.returncode, out) == (status, ""), log
    assert "Traceback" not in log
    assert "Interrupted: ending after this step" in log
    assert "Saved snapshots/b_1.pkl" in log
    facts, (random, train) = read_snapshot(tmp_path / "snapshots/b_1.pkl").facts, rows(tmp_path / "results/b.csv")
    assert (random["phase"], train["phase"], train["epoch"], facts["epoch"]) == ("random", "train", "1", 0)
    assert 0 < int(train["steps"]) == facts["total_train_steps"] < 1500
    process = start(*RESUME, cwd=tmp_path)
    _, log = process.communicate(timeout=DEADLINE)
    assert process.returncode == 0, log
    assert (tmp_path / "snapshots/b_1.pkl").read_bytes() == (complete / "snapshots/b_1.pkl").read_bytes()
    assert without_times(tmp_path / "results/b.csv") == without_times(complete / "results/b.csv")


def test_two_runs_of_one_name(tmp_path: Path) -> None:
    process = start(*RUN, "--train_steps", "100000", cwd=tmp_path)
    wait_for(process, "Train 1/")
    second = start(*RUN, cwd=tmp_path)
    out, log = second.communicate(timeout=DEADLINE)
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
        path = writer.save(number, dict(memory=memory.state(), stage=("train", 1)), memory)
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
        path = Checkpoints(str(tmp_path / "m")).save(seed, dict(memory=memory.state(), stage=("train", 1)), memory)
        names.append(read_checkpoint(path).chunks[0].name)
    assert names == ["m_50.replay", "m_51.replay"]
    assert read_checkpoint(tmp_path / "m_1.checkpoint")


@pytest.mark.parametrize(
    ("content", "words"),
    [
        *((content, "is damaged") for content in (b"", b"\n\n", b"simple_dqn checkpoint 2 00000000\n{}\n", b"d" * 100)),
        (b"simple_dqn checkpoint 2 %08x\n{}\n" % zlib.crc32(b"{}"), "is damaged"),
        (b"simple_dqn checkpoint 1 00000000\n{}\n", "was written by another version of this program"),
    ],
)
def test_what_is_no_checkpoint_is_said_so(content: bytes, words: str, tmp_path: Path) -> None:
    path = tmp_path / "m_1.checkpoint"
    path.write_bytes(content)
    with pytest.raises(CheckpointError, match=words):
        read_checkpoint(path)
    assert checkpoints.checkpoints_of(tmp_path / "m") == [path]
