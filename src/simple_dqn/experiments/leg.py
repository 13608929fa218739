"""A leg of a run: one machine trains it from its checkpoint until it is complete, fails or is stopped."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from contextlib import suppress
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from simple_dqn import __version__
from simple_dqn.errors import CheckpointError, OutputError
from simple_dqn.experiments.plan import PlannedRun
from simple_dqn.experiments.status import read_facts
from simple_dqn.machine import cpu_name
from simple_dqn.reports.tensorboard import events_of
from simple_dqn.saving.checkpoint import Checkpoint, checkpoints_of, read_checkpoint
from simple_dqn.saving.files import ROOT, Lock, replace_file
from simple_dqn.saving.names import best_of, files_of
from simple_dqn.wording import last_line

_POLL = 0.25  # seconds
_MOST_KILLS = 3  # in sequence, without a new row of statistics
_TETHER = Path(__file__).with_name("tether.py")


class Leg:
    """Trains what is left of a run, on this machine.

    Args:
        run: which one.
        folder: where its files are.
        cores: for the training.
        variables: of its environment.
    """

    def __init__(self, run: PlannedRun, folder: Path, cores: int, variables: dict[str, str]) -> None:
        self._run, self._folder = run, folder
        self._prefix, self._csv = folder / run.prefix, folder / run.result("csv")
        self._log = folder / run.result("log")
        one_run = {"OMP_NUM_THREADS": str(cores), "SIMPLE_DQN_CORES": str(cores)}
        self._environment = {**os.environ, **one_run, **variables}
        self._facts: dict[str, Any] = {"options": dict(run.options), "seed": run.seed, "legs": []}

    def train(self) -> str:
        """Train until the run is complete. Return "", or why it failed.

        Raises:
            KeyboardInterrupt: the run was stopped, and is saved.
        """
        if not self._csv.with_name("experiment.json").is_file():
            return f"machine {socket.gethostname()} does not see {self._csv.parent / 'experiment.json'}"
        self._facts["legs"] = read_facts(self._folder / self._run.result("json")).get("legs", [])
        self._facts["legs"].append(dict(machine=_machine(), began=_now(), hours=0.0, commit=_commit()))
        self._began = time.monotonic()
        self._save("running")
        try:
            error = self._train_until_complete()
        except BaseException:
            self._save("stopped")
            raise
        self._save("failed" if error else "complete", error)
        return error

    def _train_until_complete(self) -> str:
        kills = 0
        while True:
            self._wait_for_other_legs()
            try:
                checkpoint = _newest(self._prefix)
            except CheckpointError as error:
                return f"{error}. To begin this run again, remove {self._prefix}_*.checkpoint"
            if checkpoint and self._completes(checkpoint):
                return ""  # because the leg before was killed between its last step and this note
            if not checkpoint:
                self._remove_beginnings()
            rows, began = _size(self._csv), _size(self._log)
            status = self._train(resume=checkpoint is not None)
            if status == 0:
                return ""
            if 0 < status < 128:
                return _last_line(self._log, began)
            kills = 0 if _size(self._csv) > rows else kills + 1
            if kills == _MOST_KILLS:
                number = -status if status < 0 else status - 128
                return f"killed {kills} times in sequence ({signal.Signals(number).name}). Is there enough memory?"

    def _completes(self, checkpoint: Checkpoint) -> bool:
        """Return whether nothing is left to do after a checkpoint."""
        options = self._run.options
        test_is_next = checkpoint.due[0] == "test" and (options["test_steps"] or options["test_games"])
        return checkpoint.state["facts"]["epoch"] >= self._run.epochs and not test_is_next

    def _wait_for_other_legs(self) -> None:
        """Wait until no other process writes the files, because the leg before may still be saving."""
        while True:
            try:
                Lock(str(self._prefix)).close()
                return
            except OutputError:
                if not Path(f"{self._prefix}.lock").exists():
                    raise
            time.sleep(1)

    def _remove_beginnings(self) -> None:
        """Remove what a leg left that was killed before its first checkpoint. The run begins again."""
        found = [path for kind in ("pkl", "replay", "checkpoint") for path in files_of(self._prefix, kind)]
        for path in (*found, best_of(self._prefix), self._csv):
            path.unlink(missing_ok=True)
        shutil.rmtree(events_of(self._csv), ignore_errors=True)

    def _train(self, resume: bool) -> int:
        """Train from the checkpoint, or from the beginning. Return the exit status, or minus the signal's number."""
        run = self._run
        words = [*run.words, "--csv_file", run.result("csv")]
        words += ["--resume", run.prefix] if resume else [run.game, "--save_weights_prefix", run.prefix]
        tether = [sys.executable, "-I", "-S", str(_TETHER), str(os.getpid())]
        command = [*tether, sys.executable, str(ROOT / "src" / "main.py"), *words]
        with self._log.open("ab") as log:
            process = subprocess.Popen(
                command,
                cwd=self._folder,
                env=self._environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,  # because Ctrl-C in the terminal is for the driver, which stops all runs
            )
        try:
            return self._wait_for(process)
        except BaseException:  # KeyboardInterrupt: the driver stops the run
            process.terminate()
            process.wait()
            raise

    def _wait_for(self, process: subprocess.Popen[bytes]) -> int:
        size = 0
        while process.poll() is None:
            time.sleep(_POLL)
            if _size(self._csv) != size:
                size = _size(self._csv)
                self._save("running")
        return process.returncode

    def _save(self, state: str, error: str = "") -> None:
        self._facts["legs"][-1]["hours"] = round((time.monotonic() - self._began) / 3600, 4)
        facts = self._facts | {"state": state} | ({"error": error} if error else {})
        replace_file(self._folder / self._run.result("json"), (json.dumps(facts, indent=1) + "\n").encode())


def _newest(prefix: Path) -> Checkpoint | None:
    """Return the newest checkpoint that is complete. None: there are none at all.

    Raises:
        CheckpointError: there are some, but none can be read. The newest may hold days of training.
    """
    paths = checkpoints_of(prefix)
    for path in paths:
        with suppress(CheckpointError):
            return read_checkpoint(path)
    return read_checkpoint(paths[0]) if paths else None  # which says why it cannot


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return 0


def _last_line(log: Path, begin: int) -> str:
    """Return the last line of a log after `begin`, which says why the program ended."""
    with log.open("rb") as file:
        file.seek(begin)
        return last_line(file.read().decode("utf-8", "replace"), f"see {log}")


def _machine() -> str:
    return f"{socket.gethostname()}, {cpu_name()}"


def _now() -> str:
    return datetime.now(timezone.utc).isoformat(timespec="seconds")


def _commit() -> str:
    """Return the commit of the program, or its version if it is no clone."""
    command = ["git", "-C", str(ROOT), "rev-parse", "--short", "HEAD"]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return __version__
