"""Tries to make a training lose something: kills it, damages its files, fills its disk, gives it bad options.

    scripts/python benchmarks/faults.py --trials 200 --output faults.md

A short training of Pong is interrupted by one fault after another, each drawn at random, and resumed each time, until
it is through; then its last snapshot must be the same, byte for byte, and its statistics the same, times aside, as
those of the training that nothing befell. Then it begins again, until all trials are made. A limit on the size of files
stands for a full disk: writing fails at the same places.
"""

from __future__ import annotations

import argparse
import os
import random
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))  # PYTHONSAFEPATH leaves it out

import report

MAIN = Path(__file__).resolve().parents[1] / "src" / "main.py"
RUN = ["pong", "--random_steps", "300", "--train_steps", "500", "--test_steps", "200", "--epochs", "4"]
RUN += ["--random_seed", "1", "--screen_width", "40", "--screen_height", "36", "--backend", "cpu", "--num_envs", "2"]
RUN += ["--replay_size", "1500", "--csv_file", "results/pong.csv", "--save_weights_prefix", "snapshots/pong"]
BAD = (
    ["--game", "pongo"], ["--screen_width", "7"], ["--replay_size", "1"], ["--learning_rate", "nan"],
    ["--frame_skip", "0"], ["--epochs", "-1"], ["--num_envs", "0"],
    ["--csv_file", "/dev/full/x.csv"], ["--no_such", "1"],
)  # fmt: skip


class Campaign:
    """Trainings in a folder, and what was done to them.

    Args:
        folder: where they run.
        expected: what one comes to.
        trials: how many faults.
    """

    def __init__(self, folder: Path, expected: tuple[bytes, list[list[str]]], trials: int) -> None:
        self.folder, self.expected, self.trials = folder, expected, trials
        self.counts: Counter[str] = Counter()
        self.bad: list[str] = []  # what went wrong
        self.trainings = 0

    def run(self) -> None:
        faults: list[Callable[[], str]] = [self.kill, self.kill, self.kill, self.stop, self.damage, self.fill_disk]
        faults += [self.bad_option]
        while self.counts.total() < self.trials:
            for _ in range(random.randrange(4, 12)):
                self.counts[random.choice(faults)()] += 1
            self.finish()
            print(f"{self.counts.total()} faults, {self.trainings} trainings, {len(self.bad)} wrong", flush=True)

    def start(self, *words: str, limit: int | None = None) -> subprocess.Popen[str]:
        begun = list(self.folder.glob("snapshots/*.checkpoint"))
        command = [sys.executable, str(MAIN), *(["--resume", "snapshots/pong"] if begun else RUN), *words]

        def set_limit() -> None:
            if limit is not None:
                resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))

        environment = os.environ | {"OMP_NUM_THREADS": "1"}
        return subprocess.Popen(
            command, cwd=self.folder, env=environment, stderr=subprocess.PIPE, text=True, preexec_fn=set_limit
        )

    def kill(self) -> str:
        return self._signal(signal.SIGKILL, "killed (SIGKILL)", (-signal.SIGKILL, 0, 2))

    def stop(self) -> str:
        number = random.choice([signal.SIGTERM, signal.SIGINT])
        return self._signal(number, "stopped (SIGTERM, Ctrl-C)", (128 + number, -number, 0, 2))

    def _signal(self, number: int, name: str, allowed: tuple[int, ...]) -> str:
        process = self.start()
        time.sleep(random.uniform(0.2, 4))
        process.send_signal(number)
        _, log = process.communicate()
        self._check(process.returncode in allowed, f"{name}: status {process.returncode}", log)
        return name

    def damage(self) -> str:
        """Damages a file of the newest checkpoint; where there is none before it, it is put back."""
        files = sorted(self.folder.glob("snapshots/*.checkpoint"), key=lambda path: path.stat().st_mtime_ns)
        chunks = sorted(self.folder.glob("snapshots/*.replay"), key=lambda path: path.stat().st_mtime_ns)
        if len(files) < 2 or not chunks:
            return self.kill()
        file = random.choice([files[-1], chunks[-1]])
        content = bytearray(file.read_bytes())
        kind = random.choice(["flipped", "torn"])
        if kind == "flipped":
            content[random.randrange(len(content))] ^= 1 << random.randrange(8)
        else:
            del content[random.randrange(len(content)) :]
        file.write_bytes(content)
        process = self.start()
        time.sleep(random.uniform(2, 4))
        process.kill()
        _, log = process.communicate()
        told = file.name in log or "snapshots/pong" not in log  # killed before it looked
        self._check(told, f"{file.name} {kind} and nothing said", log)
        return f"a file {kind}"

    def fill_disk(self) -> str:
        process = self.start(limit=random.randrange(1000, 40000))
        _, log = process.communicate()
        self._check(process.returncode in (0, 2) and "Traceback" not in log, "a full disk", log)
        return "a full disk (files limited in size)"

    def bad_option(self) -> str:
        before = {path: path.read_bytes() for path in self.folder.rglob("*") if path.is_file()}
        process = self.start(*random.choice(BAD))
        _, log = process.communicate()
        after = {path: path.read_bytes() for path in self.folder.rglob("*") if path.is_file()}
        self._check(process.returncode == 2 and "error: " in log and before == after, "a bad option", log)
        return "a bad option"

    def finish(self) -> None:
        """Lets the training go through, compares, and clears the folder."""
        process = self.start()
        _, log = process.communicate()
        self._check(process.returncode == 0 or "was the last" in log, "it did not end", log)
        self.trainings += 1
        self._check(outcome(self.folder) == self.expected, "another outcome", log)
        left = [path.name for path in self.folder.rglob("*") if path.name.endswith((".tmp", ".lock"))]
        self._check(not left, f"left behind: {left}", "")
        for path in self.folder.iterdir():
            shutil.rmtree(path)

    def _check(self, good: bool, what: str, log: str) -> None:
        if not good:
            self.bad.append(what)
            print(f"WRONG: {what}\n{log}", file=sys.stderr, flush=True)


def outcome(folder: Path) -> tuple[bytes, list[list[str]]]:
    """The last snapshot, and the statistics without times."""
    try:
        rows = report.rows_without_times(folder / "results" / "pong.csv")
        return (folder / "snapshots" / "pong_4.pkl").read_bytes(), rows
    except OSError as error:
        return str(error).encode(), []


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trials", type=int, default=200, help="faults, at least (default: 200)")
    parser.add_argument("--seed", type=int, default=1, help="of the faults (default: 1)")
    parser.add_argument("--output", help="Markdown file to write (default: the terminal)")
    arguments = parser.parse_args()
    random.seed(arguments.seed)
    with tempfile.TemporaryDirectory() as name:
        straight, folder = Path(name, "straight"), Path(name, "faults")
        for path in (straight, folder):
            path.mkdir()
        environment = os.environ | {"OMP_NUM_THREADS": "1"}
        subprocess.run(
            [sys.executable, str(MAIN), *RUN], cwd=straight, env=environment, check=True, capture_output=True
        )
        campaign = Campaign(folder, outcome(straight), arguments.trials)
        campaign.run()
    rows = [(name, str(count)) for name, count in campaign.counts.most_common()]
    rows.append(("in all", str(campaign.counts.total())))
    lost = ", ".join(campaign.bad) or "nothing"
    text = f"{campaign.trainings} trainings went through, with these faults on their way. Lost or wrong: {lost}."
    report.write("\n\n".join([text, report.table(("Fault", "Times"), rows)]), arguments.output)


if __name__ == "__main__":
    main()
