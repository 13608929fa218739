"""A leg of a run: the files are those of train.sh, and nothing is lost when the training or its worker is killed."""

from __future__ import annotations

import dataclasses
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from main import GROUPS
from runs import DEADLINE, contents, without_times
from runs import start as start_program
from simple_dqn.experiments import tether
from simple_dqn.experiments.command import runs_of
from simple_dqn.experiments.leg import Leg
from simple_dqn.experiments.plan import Plan, PlannedRun
from simple_dqn.experiments.status import Status, status_of
from simple_dqn.experiments.table import Lines, LiveTable, row

OPTIONS = ["--random_steps", "60", "--train_steps", "60", "--test_steps", "20", "--epochs", "2", "--batch_size", "8"]
OPTIONS += ["--screen_width", "40", "--screen_height", "36", "--backend", "cpu"]


def make(folder: Path, *options: str) -> PlannedRun:
    plan = Plan("try", [], [*OPTIONS, *options], ["pong"], {"plain": []}, [7])
    plan.write(folder)
    (run,) = runs_of(plan, GROUPS)
    return run


def facts(folder: Path) -> dict[str, Any]:
    return dict(json.loads((folder / "results/try/pong_plain_7.json").read_text()))


def after_first_epoch(folder: Path, do: Callable[[], None]) -> None:
    """Call `do` when the first epoch is trained; in the random phase a stopped run would save PREFIX_0.pkl too."""

    def wait() -> None:
        deadline = time.monotonic() + DEADLINE
        csv_file = folder / "results/try/pong_plain_7.csv"
        while not (csv_file.exists() and csv_file.read_text().count("\n") > 2) and time.monotonic() < deadline:
            time.sleep(0.01)
        do()

    threading.Thread(target=wait, daemon=True).start()


def kill_training(number: int, folder: Path) -> None:
    owner = int((folder / "snapshots/try/pong_plain_7.lock").read_text().split()[1])
    os.kill(owner, number)


@pytest.fixture(scope="module")
def straight(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the training that train.sh does; not to be written to."""
    folder = tmp_path_factory.mktemp("straight")
    files = ["--save_weights_prefix", "snapshots/pong_plain_7", "--csv_file", "results/pong_plain_7.csv"]
    process = start_program("pong", *OPTIONS, "--random_seed", "7", *files, cwd=folder)
    _, log = process.communicate(timeout=DEADLINE)
    assert process.returncode == 0, log
    return folder


def require_same(folder: Path, straight: Path) -> None:
    found = {name: data for name, data in contents(folder / "snapshots/try").items() if name.endswith(".pkl")}
    wanted = {name: data for name, data in contents(straight / "snapshots").items() if name.endswith(".pkl")}
    assert found == wanted
    csv_file = folder / "results/try/pong_plain_7.csv"
    assert without_times(csv_file) == without_times(straight / "results/pong_plain_7.csv")
    assert [path.name for path in folder.rglob("*.csv.*")] == []


@pytest.mark.parametrize("number", [None, signal.SIGKILL, signal.SIGTERM])
def test_a_run_is_the_training_of_train_sh_also_if_it_is_killed(
    number: int | None, straight: Path, tmp_path: Path
) -> None:
    run = make(tmp_path)
    if number:
        after_first_epoch(tmp_path, lambda: kill_training(number, tmp_path))
    assert Leg(run, tmp_path, 1, {}).train() == ""
    require_same(tmp_path, straight)
    found = facts(tmp_path)
    assert (found["state"], found["seed"], len(found["legs"])) == ("complete", 7, 1)
    assert found["options"] == dict(run.options)
    assert row(run, status_of(run, tmp_path))[2] == "2/2"
    before = contents(tmp_path / "snapshots")
    assert Leg(run, tmp_path, 1, {}).train() == ""  # as after a worker that died before it could note the end
    assert contents(tmp_path / "snapshots") == before
    assert len(facts(tmp_path)["legs"]) == 2


def test_a_run_whose_checkpoints_cannot_be_read_keeps_its_files(tmp_path: Path) -> None:
    """A disk that fails for a moment must not cost days of training."""
    run = make(tmp_path, "--epochs", "1", "--test_steps", "0")
    for _ in range(2):  # the second as after a worker that died before it could note the end
        assert Leg(run, tmp_path, 1, {}).train() == ""
    (checkpoint,) = tmp_path.glob("snapshots/try/*.checkpoint")
    checkpoint.write_bytes(b"damaged")
    before = contents(tmp_path)
    error = Leg(run, tmp_path, 1, {}).train()
    assert "pong_plain_7_1.checkpoint is damaged" in error
    assert error.endswith(f"To begin this run again, remove {tmp_path}/snapshots/try/pong_plain_7_*.checkpoint")
    after = contents(tmp_path)
    record = "results/try/pong_plain_7.json"
    assert after | {record: b""} == before | {record: b""}


def test_a_run_needs_the_memory_of_its_transitions(tmp_path: Path) -> None:
    few, many = make(tmp_path), make(tmp_path, "--train_steps", "1e9")
    assert few.memory - 3 * 2**28 == (60 + 2 * 60) * 40 * 36
    assert many.memory - 3 * 2**28 == 1_000_000 * 40 * 36  # those of --replay_size


def test_a_run_that_fails_tells_its_last_line(tmp_path: Path) -> None:
    run = make(tmp_path, "--learning_rate", "1000", "--clip_error", "0")
    error = Leg(run, tmp_path, 1, {}).train()
    assert error.startswith("The loss is NaN or infinite")
    assert (facts(tmp_path)["state"], facts(tmp_path)["error"]) == ("failed", error)
    assert status_of(run, tmp_path).state == "failed"


def test_a_training_that_is_always_killed_is_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = make(tmp_path)
    monkeypatch.setattr(Leg, "_train", lambda self, resume: -signal.SIGKILL)
    assert Leg(run, tmp_path, 1, {}).train() == "killed 3 times in sequence (SIGKILL). Is there enough memory?"


def test_a_run_that_the_driver_stops_is_stopped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(leg: Leg, process: subprocess.Popen[bytes]) -> int:
        raise KeyboardInterrupt

    run = make(tmp_path)
    monkeypatch.setattr(Leg, "_wait_for", interrupt)
    with pytest.raises(KeyboardInterrupt):
        Leg(run, tmp_path, 1, {}).train()
    assert row(run, status_of(run, tmp_path))[-1] == "stopped"


def test_a_machine_without_the_folder_is_named(tmp_path: Path) -> None:
    run = make(tmp_path)
    assert "does not see /nowhere/results/try/experiment.json" in Leg(run, Path("/nowhere"), 1, {}).train()


def test_a_run_that_did_not_begin_is_waiting(tmp_path: Path) -> None:
    run = make(tmp_path)
    assert row(run, status_of(run, tmp_path)) == ("pong_plain_7", "", "", "", "", "", "waiting")


def test_the_time_left_is_known_from_the_first_estimate_on(tmp_path: Path) -> None:
    run = make(tmp_path)
    log = tmp_path / run.result("log")
    log.parent.mkdir(parents=True, exist_ok=True)
    log.write_text("About 2.1 h to the end of epoch 10 (measured on 40 training steps)\n")  # as test_progress.py has it
    assert status_of(run, tmp_path).left == "2.1 h"


@pytest.mark.parametrize(("width", "columns"), [(120, 7), (100, 6), (80, 5), (60, 3), (40, 3)])
def test_a_narrow_table_leaves_columns_out(
    width: int, columns: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", str(width))
    run = make(tmp_path)
    status = Status("running", "", "node-12.example", 137, "1126.4", "1310.0", "512", "11.4 h")
    monkeypatch.setattr("simple_dqn.experiments.table.status_of", lambda *_: status)
    runs = [dataclasses.replace(run, name=f"space_invaders_prioritized_{n}", epochs=200) for n in (1, 2)]
    LiveTable(runs, tmp_path).close()
    lines = capsys.readouterr().err.splitlines()
    first = next(line for line in lines if "137/200" in line or "space" in line)
    assert first.count("│") == columns + 1
    if width > 40:  # where nothing else is left to leave out
        assert not any("…" in line for line in lines)
        assert sum("space_invaders_prioritized_2" in line and "137/200" in line for line in lines) == 1


def test_a_line_that_is_half_written_is_shown_when_it_is_whole(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    run = make(tmp_path)
    log = tmp_path / run.result("log")
    lines = Lines([run], tmp_path)
    log.parent.mkdir(parents=True, exist_ok=True)
    for text in ("epoch 1/2 · te", "epoch 1/2 · test 3.0\n"):
        log.write_text(text)
        lines.show()
    assert [message.partition(": ")[2] for message in caplog.messages] == ["epoch 1/2 · test 3.0"]


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells a process that its parent died")
def test_a_command_ends_with_the_process_that_started_it(tmp_path: Path) -> None:
    child = f"[{sys.executable!r}, '-c', 'import time; print(1, flush=True); time.sleep(600)']"
    code = f"""if True:
        import os, subprocess, sys
        subprocess.Popen([sys.executable, {tether.__file__!r}, str(os.getpid()), *{child}])
        sys.stdin.read()"""
    pipe = subprocess.PIPE
    with subprocess.Popen([sys.executable, "-c", code], stdin=pipe, stdout=pipe) as parent:
        assert parent.stdout
        assert parent.stdout.readline() == b"1\n"
        parent.kill()
        assert parent.stdout.read() == b""  # returns when the child has closed it, too
