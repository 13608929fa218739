"""A training whose games are on Ray, on this machine: it loses nothing, and is the training of one process."""

from __future__ import annotations

import importlib.util
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from main import main
from runs import DEADLINE, MAIN, contents, start, wait_for, without_times

OPTIONS = ["pong", "--random_steps", "100", "--train_steps", "900", "--test_steps", "60", "--epochs", "1"]
OPTIONS += ["--num_envs", "3", "--train_frequency", "8", "--batch_size", "8", "--random_seed", "1"]
OPTIONS += ["--screen_width", "40", "--screen_height", "36", "--backend", "cpu", "--replay_size", "2000"]
OPTIONS += ["--save_weights_prefix", "pong", "--csv_file", "pong.csv"]

with_ray = pytest.mark.skipif(not importlib.util.find_spec("ray"), reason="Ray is not installed")


def outcome(folder: Path) -> tuple[bytes, list[dict[str, str]]]:
    return (folder / "pong_1.pkl").read_bytes(), without_times(folder / "pong.csv")


@with_ray
def test_a_training_on_ray_whose_worker_is_killed_and_that_is_interrupted(tmp_path: Path) -> None:
    here, there = tmp_path / "here", tmp_path / "there"
    here.mkdir()
    there.mkdir()
    straight = start(*OPTIONS, cwd=here, OMP_NUM_THREADS="1")
    straight.communicate(timeout=DEADLINE)

    variables = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST")}
    command = [sys.executable, str(MAIN), *OPTIONS, "--cluster", "local", "--cluster_cores", "1"]
    run = subprocess.Popen(
        command, cwd=there, env=variables | {"OMP_NUM_THREADS": "1"}, stderr=subprocess.PIPE,
        stdout=subprocess.DEVNULL, text=True, start_new_session=True,
    )  # fmt: skip
    log = wait_for(run, "Train 1/1")
    assert "3 games on 1 core of the cluster" in log
    children = psutil.Process(run.pid).children(recursive=True)
    workers = [process for process in children if process.name().startswith("ray::GamePlayer")]
    workers[0].kill()
    assert "Lost games 1 to 3" in wait_for(run, "Restored games 1 to 3")
    os.killpg(run.pid, signal.SIGINT)  # as a terminal does
    _, log = run.communicate(timeout=DEADLINE)
    assert "Lost" not in log  # because the signal is for the process that learns
    assert run.returncode == 130, log
    deadline = time.monotonic() + DEADLINE
    while any(process.is_running() and process.status() != "zombie" for process in children):
        assert time.monotonic() < deadline, "processes of Ray are left"
        time.sleep(0.1)

    resumed = start("--resume", "pong", "--csv_file", "pong.csv", cwd=there, OMP_NUM_THREADS="1")
    _, log = resumed.communicate(timeout=DEADLINE)
    assert "exactly where it stopped" in log
    assert outcome(there) == outcome(here)


def test_without_ray_one_line_says_what_installs_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    monkeypatch.chdir(tmp_path)
    assert main([*OPTIONS, "--cluster", "auto"]) == 2
    assert "scripts/python --cluster -V installs it" in capsys.readouterr().err
    assert contents(tmp_path) == {}


def test_watched_games_stay_in_this_process(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    words = ["pong", "--play_games", "1", "--max_game_seconds", "1", "--record_screen_path", str(tmp_path / "frames")]
    assert main([*words, "--cluster", "auto", "--backend", "cpu"]) == 0
    assert "Watched games cannot leave this process: --cluster auto is not used" in caplog.text
