"""PREFIX_best.pkl is the snapshot of the best test, whatever happens to the run."""

from __future__ import annotations

import os
import shlex
import shutil
from pathlib import Path
from typing import Any

import pytest

import main
from simple_dqn.agent import Agent
from simple_dqn.errors import OptionError
from simple_dqn.interrupts import Interrupted
from simple_dqn.saving.files import ROOT
from simple_dqn.saving.run_files import resume_command
from simple_dqn.saving.snapshot import read_snapshot, write_snapshot
from simple_dqn.saving.start import find_snapshot, named_by_epoch
from simple_dqn.statistics import Statistics

RUN = ["breakout", "--random_steps", "20", "--train_steps", "20", "--test_steps", "10", "--epochs", "4"]
RUN += ["--random_seed", "5", "--screen_width", "40", "--screen_height", "36", "--batch_size", "8", "--backend", "cpu"]
RUN += ["--csv_file", "results/b.csv", "--save_weights_prefix", "snapshots/b"]
SCORES = {1: 3.0, 2: 5.0, 3: 5.0, 4: 4.0}  # of the test of each epoch
BEST = Path("snapshots/b_best.pkl")


@pytest.fixture(autouse=True)
def scores(monkeypatch: pytest.MonkeyPatch) -> dict[int, float]:
    """The scores of the tests, by epoch."""
    scores = dict(SCORES)
    monkeypatch.setattr(Statistics, "mean_reward", property(lambda s: scores.get(s.epoch, 0) * (s.phase == "test")))
    return scores


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a training of four epochs."""
    folder = tmp_path_factory.mktemp("best")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setattr(Statistics, "mean_reward", property(lambda s: SCORES.get(s.epoch, 0) * (s.phase == "test")))
        main.run(RUN)
    return folder


@pytest.fixture
def copy(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of that folder, which is the current one."""
    shutil.copytree(folder, tmp_path / "copy")
    monkeypatch.chdir(tmp_path / "copy")
    return tmp_path / "copy"


def is_best(epoch: int) -> bool:
    return BEST.read_bytes() == Path(f"snapshots/b_{epoch}.pkl").read_bytes()


def test_of_equal_scores_the_later_is_the_best(copy: Path) -> None:
    assert is_best(3)
    facts = read_snapshot(BEST).facts
    assert (facts["epoch"], facts["test_score"], facts["best_score"], facts["best_epoch"]) == (3, 5.0, 5.0, 3)
    assert read_snapshot(Path("snapshots/b_4.pkl")).facts["best_epoch"] == 3


def test_a_snapshot_is_not_the_best_before_its_test(
    scores: dict[int, float], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    play = Agent.test

    def stop_in_second(agent: Agent, steps: int) -> None:
        play(agent, steps)
        agent.interrupted = agent.total_train_steps == 40

    with monkeypatch.context() as patch:
        patch.setattr(Agent, "test", stop_in_second)
        with pytest.raises(Interrupted):
            main.run(RUN)
    assert Path("snapshots/b_2.pkl").exists()
    assert is_best(1)
    main.run(["--resume", "snapshots/b"])
    assert is_best(3)


def test_a_resumed_training_knows_the_best_score_of_before(
    copy: Path, scores: dict[int, float], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    scores.update({5: 4.9, 6: 6.0})
    main.run(["--resume", "snapshots/b", "--epochs", "5"])
    assert is_best(3)
    assert f"The snapshot of the best test, 5.0 in epoch 3, is {BEST}" in caplog.messages
    main.run(["--resume", "snapshots/b", "--epochs", "6"])
    assert is_best(6)


def test_snapshots_of_before_take_the_best_score_from_the_statistics(copy: Path, scores: dict[int, float]) -> None:
    path = Path("snapshots/b_4.pkl")
    snapshot = read_snapshot(path)
    for name in ("best_score", "best_epoch"):
        del snapshot.facts[name]
    write_snapshot(path, snapshot)
    for file in (*Path("snapshots").glob("*.checkpoint"), BEST):
        file.unlink()
    main.run(["--resume", str(path), "--epochs", "5"])
    assert is_best(3)


@pytest.mark.parametrize("words", [["--resume", "snapshots/b_1.pkl"], [*RUN, "--start_epoch", "1"]])
def test_a_training_that_goes_back_keeps_the_best_of_both(
    words: list[str], copy: Path, scores: dict[int, float]
) -> None:
    old = BEST.read_bytes()
    scores.update({2: 2.0, 3: 1.0, 4: 1.0})
    main.run(words + (["--load_weights", "snapshots/b_1.pkl"] if "--start_epoch" in words else []))
    assert Path("snapshots/b.1/b_best.pkl").read_bytes() == old
    assert is_best(1)


def test_a_new_training_moves_the_best_of_the_older_one_away(copy: Path, scores: dict[int, float]) -> None:
    old = BEST.read_bytes()
    scores[1] = 0.0
    main.run([*RUN, "--epochs", "1", "--random_seed", "6"])
    assert Path("snapshots/b.1/b_best.pkl").read_bytes() == old
    assert is_best(1)


@pytest.mark.parametrize("word", ["snapshots/b_best.pkl", "snapshots/b_best", "b_best"])
def test_to_resume_the_best_is_to_resume_its_epoch(word: str, copy: Path, scores: dict[int, float]) -> None:
    expected = Path("snapshots/b_4.pkl").read_bytes()
    main.run(["--resume", word])
    assert Path("snapshots/b_4.pkl").read_bytes() == expected  # exactly, from the checkpoint of epoch 3
    assert Path("snapshots/b.1/b_4.pkl").read_bytes() == expected


def test_a_label_may_be_best(copy: Path) -> None:
    for path in Path("snapshots").glob("b_[34].*"):
        shutil.copy(path, path.with_name(path.name.replace("b_", "b_best_")))
    with pytest.raises(OptionError, match=r"may be snapshots/b_best.pkl or the last of snapshots/b_best_\*.pkl"):
        main.run(["--resume", "snapshots/b_best"])
    BEST.unlink()
    with pytest.raises(OptionError, match="epoch 4 was the last of 4"):
        main.run(["--resume", "snapshots/b_best"])


def test_the_best_is_played_by_its_path_or_name(copy: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    assert find_snapshot(Path("b_best")) == find_snapshot(BEST) == BEST
    words = ["--random_steps", "0", "--train_steps", "0", "--epochs", "1", "--test_steps", "10"]
    main.run(["--load_weights", str(BEST), "breakout", *words])
    assert f"Loading weights from {BEST}" in caplog.messages


def test_a_crash_while_the_best_is_written_leaves_the_one_before(
    scores: dict[int, float], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Killed(BaseException):
        """Stands for kill -9."""

    replace, kept = os.replace, list[bytes]()

    def kill(source: Any, target: Any) -> None:
        if str(target).endswith("best.pkl") and kept:
            raise Killed
        replace(source, target)
        kept.extend([Path(target).read_bytes()] if str(target).endswith("best.pkl") else [])

    monkeypatch.chdir(tmp_path)
    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", kill)
        with pytest.raises(Killed):
            main.run(RUN)
    assert kept == [BEST.read_bytes()]
    main.run(["--resume", "snapshots/b"])
    assert is_best(3)
    assert not list(Path("snapshots").glob(".*.tmp"))


# What a run says at its end


def stopped(words: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """A run that is stopped in its first epoch."""
    play = Agent.train

    def stop_soon(agent: Agent, steps: int) -> None:
        play(agent, 7)
        agent.interrupted = True

    with monkeypatch.context() as patch:
        patch.setattr(Agent, "train", stop_soon)
        with pytest.raises(Interrupted):
            main.run(words)


@pytest.mark.parametrize("csv", ["results/my b.csv", "somewhere/else.csv"])
def test_a_training_that_is_stopped_names_the_command_that_goes_on(
    csv: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    monkeypatch.chdir(tmp_path)
    files = ["--save_weights_prefix", "snapshots/my b", "--csv_file", csv]
    stopped([*RUN, *files], monkeypatch)
    assert caplog.messages[-1].startswith("Continue with: ")
    script, *words = shlex.split(caplog.messages[-1].removeprefix("Continue with: "))
    assert Path(script) == ROOT / "resume.sh"
    assert words == ["snapshots/my b_1.pkl", *(["--csv_file", csv] if "else" in csv else [])]
    main.run(["--resume", *words])
    assert Path(csv).read_text().count("\n") == 1 + 1 + 4 * 2
    assert not caplog.messages[-1].startswith("Continue with: ")


def test_a_resumed_training_that_is_stopped_at_once_names_what_it_began_with(
    copy: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    monkeypatch.setattr(Agent, "train", lambda agent, steps: agent.stop())
    with pytest.raises(Interrupted):
        main.run(["--resume", "snapshots/b", "--epochs", "5"])
    assert caplog.messages[-1] == f"Continue with: {shlex.quote(str(ROOT / 'resume.sh'))} snapshots/b_4.pkl"


def test_in_the_folder_of_the_program_the_command_is_short(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    assert resume_command(Path("snapshots/it's.pkl")) == """./resume.sh 'snapshots/it'"'"'s.pkl'"""
    monkeypatch.chdir(ROOT.parent)
    assert resume_command(Path("a_1.pkl"), "a.csv") == f"{shlex.quote(f'./{ROOT.name}/resume.sh')} a_1.pkl"


def test_a_training_under_another_name_names_no_best_snapshot_that_it_lacks(
    copy: Path, caplog: pytest.LogCaptureFixture, scores: dict[int, float]
) -> None:
    caplog.set_level("INFO")
    scores[5] = 1.0
    main.run(["--resume", "snapshots/b", "--epochs", "5", "--save_weights_prefix", "snapshots/c"])
    assert Path("snapshots/c_5.pkl").exists()
    assert not [message for message in caplog.messages if "c_best.pkl" in message]


def test_a_copy_that_does_not_know_its_epoch_is_resumed_as_it_is(copy: Path) -> None:
    snapshot = read_snapshot(BEST)
    del snapshot.facts["best_epoch"]
    write_snapshot(BEST, snapshot)
    assert named_by_epoch(BEST) == BEST
