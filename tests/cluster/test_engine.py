"""An experiment on Ray, embedded in this machine: it loses nothing, and reports what failed."""

from __future__ import annotations

import importlib.util
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import psutil
import pytest

from main import GROUPS
from runs import DEADLINE, ROOT, contents, wait_for
from simple_dqn.cluster.connection import connect, why_not_connected
from simple_dqn.cluster.engine import _fitting
from simple_dqn.errors import OptionError
from simple_dqn.experiments.command import main

OPTIONS = ["--random_steps", "60", "--train_steps", "400", "--test_steps", "20", "--epochs", "1", "--batch_size", "8"]
OPTIONS += ["--screen_width", "40", "--screen_height", "36", "--backend", "cpu"]
COMMAND = [
    "try",
    "--games",
    "pong",
    "--seeds",
    "1",
    "--variant",
    "plain",
    "--variant",
    "bad --learning_rate 1000 --clip_error 0",
]

with_ray = pytest.mark.skipif(not importlib.util.find_spec("ray"), reason="Ray is not installed")


def start(folder: Path) -> subprocess.Popen[str]:
    variables = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST")}
    command = [sys.executable, str(ROOT / "src" / "experiment.py"), *COMMAND, *OPTIONS]
    return subprocess.Popen(
        command, cwd=folder, env=variables, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True
    )


@with_ray
def test_an_experiment_on_ray(tmp_path: Path) -> None:
    """Stopped by Ctrl-C, continued, its worker killed: all runs end, and complete ones are not touched again."""
    first = start(tmp_path)
    results = tmp_path / "results" / "try"
    while not (results / "pong_plain_1.json").exists():
        assert first.poll() is None, first.stderr and first.stderr.read()
        time.sleep(0.05)
    first.send_signal(signal.SIGINT)
    assert "Continue with: ./experiment.sh try --games pong" in wait_for(first, "Continue with")
    first.communicate(timeout=DEADLINE)
    assert first.returncode == 130

    second = start(tmp_path)
    killed = False
    while second.poll() is None:
        workers = [p for p in psutil.Process(second.pid).children(recursive=True) if is_worker(p)]
        if not killed and workers:
            workers[0].kill()
            killed = True
        time.sleep(0.05)
    _, log = second.communicate(timeout=DEADLINE)
    assert (second.returncode, killed) == (2, True), log
    assert "pong_bad_1 failed: The loss is NaN or infinite" in log
    assert log.endswith("error: 1 of 2 runs failed. The same command tries them again\n")
    states = {path.name: json.loads(path.read_text())["state"] for path in results.glob("pong*.json")}
    assert states == {"pong_plain_1.json": "complete", "pong_bad_1.json": "failed"}

    before = {name: data for name, data in contents(tmp_path).items() if "plain" in name}
    third = start(tmp_path)
    third.communicate(timeout=DEADLINE)
    assert third.returncode == 2
    assert {name: data for name, data in contents(tmp_path).items() if "plain" in name} == before


def is_worker(process: psutil.Process) -> bool:
    try:
        return process.cmdline()[:1] == ["ray::pong_plain_1"]
    except psutil.Error:
        return False


def node(cores: float, gpus: float = 0) -> dict[str, Any]:
    return {"Resources": {"CPU": cores, "GPU": gpus} if gpus else {"CPU": cores}}


def test_runs_that_no_machine_can_hold_are_refused() -> None:
    nodes: list[dict[str, Any]] = [node(2), node(8, 1), {"Resources": {}}]
    assert _fitting(nodes, 2, 0, 0) == nodes[:2]
    assert _fitting(nodes, 8, 0.25, 0) == nodes[1:2]
    with pytest.raises(OptionError, match=r"--cores 9: the largest machine has 8\. Use a smaller --cores"):
        _fitting(nodes, 9, 0, 0)
    with pytest.raises(OptionError, match=r"--gpus 2: no machine has as many with --cores 1 \(at most 1\)"):
        _fitting(nodes, 1, 2, 0)
    nodes[0]["Resources"]["memory"] = nodes[1]["Resources"]["memory"] = 4 * 2**30
    assert _fitting(nodes, 2, 0, 4 * 2**30) == nodes[:2]
    with pytest.raises(OptionError, match=r"a run may need 5\.0 GiB of memory, and the largest machine has 4\.0 GiB"):
        _fitting(nodes, 2, 0, 5 * 2**30)


def test_another_version_of_ray_or_python_is_told_in_one_line() -> None:
    error = (
        "Version mismatch: The cluster was started with:\n    Ray: 2.59.0\n    Python: 3.12.1\n"
        "This process on node 10.0.0.1 was started with:\n    Ray: 2.60.0\n    Python: 3.11.7\n"
    )
    assert why_not_connected("auto", "--address", error) == (
        "--address auto: the cluster has Ray 2.59.0 and Python 3.12.1, this machine Ray 2.60.0 and Python 3.11.7. "
        "Use the same on all machines"
    )
    assert (
        why_not_connected("a:1", "--address", "no answer\nmore") == "--address a:1: there is no Ray cluster (no answer)"
    )


@with_ray
@pytest.mark.parametrize("port", ["1", "99999"])
def test_an_address_at_which_nobody_answers_is_told_at_once(port: str) -> None:
    with pytest.raises(OptionError, match=f"--cluster 127.0.0.1:{port}: there is no Ray cluster"):
        connect(f"127.0.0.1:{port}", "--cluster")


def test_without_ray_one_line_says_what_installs_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    monkeypatch.chdir(tmp_path)
    assert main(GROUPS, ["try", "--games", "pong"]) == 2
    assert "./experiment.sh installs it" in capsys.readouterr().err
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []
