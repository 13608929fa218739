"""Progress: how long the run still takes, its losses and scores, in a bar, in lines or in a line per epoch."""

from __future__ import annotations

import contextlib
import fcntl
import io
import logging
import math
import os
import pty
import re
import shlex
import struct
import subprocess
import sys
import termios
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from fakes import step
from runs import MAIN
from simple_dqn.command_line import MainOptions
from simple_dqn.reports import progress as module
from simple_dqn.reports.progress import Progress, duration_text, fitting
from simple_dqn.saving.resume import Position, phases_from
from simple_dqn.statistics import Statistics


class Watch:
    """A clock that a test sets."""

    now = 0.0

    def monotonic(self) -> float:
        return self.now


class Terminal(io.StringIO):
    """A terminal that keeps what is written."""

    encoding = "utf-8"

    def isatty(self) -> bool:
        return True


@pytest.fixture
def watch(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> Watch:
    caplog.set_level("INFO")
    watch = Watch()
    monkeypatch.setattr(module, "time", watch)
    monkeypatch.setattr(sys, "stderr", None)  # because it may be closed
    return watch


class Run:
    """A run of 10 epochs of 1000 training and 500 test steps, at the first of its `left` phases."""

    def __init__(self, left: list[tuple[str, int]], **options: Any) -> None:
        defaults = dict(random_steps=200, train_steps=1000, test_steps=500, epochs=10)
        o = MainOptions(**(defaults | options))
        self.position = Position(left, left[0][1] - 1, 0, {})
        self.statistics = Statistics(SimpleNamespace())  # type: ignore[arg-type]
        self.progress = Progress(self.statistics, o, self.position)

    def begin(self, steps: int | None) -> None:
        phase, epoch = self.position.left[0]
        for callback in (self.statistics, self.progress):
            callback.on_phase_start(phase, epoch, steps)
        self.progress.on_begin()

    def step(self, number: int = 1, **words: Any) -> None:
        self.statistics.num_steps += number - 1
        for callback in (self.statistics, self.progress):
            callback.on_step(step(**words))

    def end(self) -> None:
        self.progress.on_phase_end()
        del self.position.left[0]


def test_without_a_terminal_there_is_a_line_a_minute(watch: Watch, caplog: pytest.LogCaptureFixture) -> None:
    run = Run(phases_from("train", 2, 3), epochs=3)
    run.begin(1000)
    run.statistics.on_train(0.125)
    for watch.now in range(1, 130):
        run.step(reward=3, terminal=watch.now == 5)
    run.progress.on_phase_end()
    lines = [line for line in caplog.messages if line.startswith("  train")]
    # One step a second: 940 more, then tests and one more epoch of training, as fast.
    figures = "16 min left, run 49 min, loss 0.12, ε 0.50, score 15.0, 1 steps/s, 1 game"
    assert lines[0] == f"  train 2/3: 60/1000 steps, {figures}"
    assert len(lines) == 2


def test_the_first_seconds_of_training_tell_how_long_it_takes(watch: Watch, caplog: pytest.LogCaptureFixture) -> None:
    run = Run([("random", 0), *phases_from("train", 1, 10)])
    run.begin(200)
    watch.now = 100
    run.step(200)
    run.end()
    assert not [line for line in caplog.messages if "to the end of" in line]
    run.begin(1000)
    watch.now += 19
    run.step(39)
    assert not [line for line in caplog.messages if "to the end of" in line]
    watch.now += 1
    run.step()
    watch.now += 20
    run.step(40)
    (line,) = [line for line in caplog.messages if "to the end of" in line]
    # 15,000 steps, 40 of them done, at 2 a second
    assert line == "About 2.1 h to the end of epoch 10 (measured on 40 training steps)"


def test_a_phase_that_goes_on_has_the_speed_since_then(watch: Watch, caplog: pytest.LogCaptureFixture) -> None:
    run = Run([("train", 10)])
    phase, epoch = run.position.left[0]
    for callback in (run.statistics, run.progress):
        callback.on_phase_start(phase, epoch, 1000)
    run.statistics.num_steps = 900
    run.progress.on_begin()
    watch.now = 60
    run.step(30)
    run.progress.on_phase_end()
    assert "  train 10/10: 930/1000 steps, 140 s left, run 140 s" in caplog.messages[-1]


def test_a_line_per_epoch_has_score_speed_and_time_left(watch: Watch, caplog: pytest.LogCaptureFixture) -> None:
    run = Run(phases_from("train", 1, 10))
    run.position.epoch = 1
    for seconds, steps in ((10, 1000), (1, 500)):  # 100 training and 500 test steps a second
        run.begin(steps)
        watch.now += seconds
        run.step(steps)
        run.end()
    run.position.add_test(91, 1)
    run.progress.log_epoch(1)
    assert caplog.messages[-1] == "epoch 1/10 · test 91.0 (best 91.0 @ 1) · 100 steps/s · 99 s left"
    run.position.epoch = 2
    run.position.add_test(84.21, 1)
    run.progress.log_epoch(2)
    assert "epoch 2/10 · test 84.2 (best 91.0 @ 1) · 100 steps/s" in caplog.messages[-1]
    run.position.add_test(math.nan, 0)
    run.progress.log_epoch(2)
    assert "epoch 2/10 · test: no game ended (best 91.0 @ 1) · 100" in caplog.messages[-1]
    del run.position.facts["test_score"], run.position.left[:]  # without tests; at the end
    run.progress.log_epoch(10)
    assert caplog.messages[-1] == "epoch 10/10 · 100 steps/s"


def test_tests_of_whole_games_count_with_the_time_of_the_last_one(
    watch: Watch, caplog: pytest.LogCaptureFixture
) -> None:
    run = Run(phases_from("train", 9, 10), test_games=5)
    run.begin(1000)
    watch.now += 100
    run.step(1000)
    run.end()
    run.begin(None)
    watch.now += 50
    run.step(70)
    run.end()
    run.progress.log_epoch(9)
    assert "150 s left" in caplog.messages[-1]


@pytest.mark.parametrize(
    ("width", "there", "not_there"),
    [
        (36, ["train 191/200 8%, 3.2 h left"], ["run"]),
        (60, ["▍     | 3.2 h left, run 52 h, loss 0.0021"], ["best"]),
        (80, ["3.2 h left, run 52 h, loss 0.0021, ε 0.50, best 401.2 @ 117"], ["games", "▌"]),
        (120, ["3.2 h left, run 52 h, loss 0.0021, ε 0.50, best 401.2 @ 117, score 15.0", "▋"], []),
    ],
)
def test_the_bar_fits_the_terminal(
    width: int, there: list[str], not_there: list[str], watch: Watch, monkeypatch: pytest.MonkeyPatch
) -> None:
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    monkeypatch.setattr(module, "columns", lambda: width)
    run = Run(phases_from("train", 191, 200), epochs=200, train_steps=100_000, test_steps=50_000)
    run.position.facts |= {"best_score": 401.2, "best_epoch": 117}
    run.begin(100_000)
    run.statistics.on_train(0.0021)
    watch.now = 1000
    run.step(8000, reward=15, terminal=True)
    shown = [line for line in re.split(r"[\r\n]|\x1b\[A", terminal.getvalue()) if line]
    assert max(map(len, shown)) <= width - 2  # because the terminal shows ^C behind the bar
    assert [words for words in there if words not in shown[-1]] == [], shown[-1]
    assert [words for words in not_there if words in shown[-1]] == [], shown[-1]
    assert shown[-1].startswith("train 191/200 8%")
    run.progress.on_phase_end()


def test_no_line_of_a_training_wraps_in_a_terminal(tmp_path: Path) -> None:
    (tmp_path / "snapshots").mkdir()
    for number in range(1, 12):  # of an earlier run
        (tmp_path / f"snapshots/pong_{number}.pkl").touch()
    options = "--random_steps 100 --train_steps 60 --test_steps 40 --epochs 2 --replay_size 1000 --backend cpu"
    files = "--save_weights_prefix snapshots/pong --csv_file results/pong.csv"
    terminal, end = pty.openpty()
    fcntl.ioctl(end, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 80, 0, 0))
    command = [sys.executable, str(MAIN), *shlex.split(f"{files} pong {options}")]
    with subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.DEVNULL, stderr=end) as process:
        os.close(end)
        text = b""
        with contextlib.suppress(OSError):  # at the end, on Linux
            while piece := os.read(terminal, 1 << 16):
                text += piece
    os.close(terminal)
    lines = re.split(r"[\r\n]+", text.decode())
    assert process.returncode == 0, lines
    assert [line for line in lines if len(line) >= 80 and " with: " not in line] == []  # but a command stays whole
    lines = [line.partition(" ")[2] for line in lines if line[:1].isdigit() or line.startswith("  ")]  # not the bars
    start = lines.index("Options: pong --random_steps 100 --train_steps 60 --test_steps 40")
    assert lines[start + 1].strip() == "--epochs 2 --replay_size 1000 --backend cpu"
    assert [line for line in lines if line.startswith("Saved")] == [f"Saved snapshots/pong_{n}.pkl" for n in (1, 2)]
    assert "Moved an earlier run's pong_1.pkl … (11 files) to snapshots/pong.1" in lines


@pytest.mark.parametrize("command", ["./resume.sh a/b_1.pkl", "'/a folder/resume.sh' a/b_1.pkl"])
def test_long_lines_wrap_between_words_but_not_within_a_command(
    command: str, watch: Watch, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "stderr", Terminal())
    monkeypatch.setattr(module, "columns", lambda: 40)
    record = logging.makeLogRecord({"msg": f"A line with two-part words, and more. Continue with: {command}"})
    first, second = module.LogFormatter().format(record)[9:].split("\n")
    assert (first, second.strip()) == ("A line with two-part words,", f"and more. Continue with: {command}")


def test_durations_have_two_or_three_digits() -> None:
    seconds = [0, 59.6, 179, 180, 3600, 2 * 3600, 36_000, 31 * 3600, 4 * 86400, 20 * 86400]
    words = ["0 s", "60 s", "179 s", "3 min", "60 min", "2.0 h", "10 h", "31 h", "4.0 days", "20 days"]
    assert [duration_text(number) for number in seconds] == words


def test_what_does_not_fit_makes_way_for_what_does() -> None:
    assert fitting(["five!", "words that are too long", "six"], 10) == "five!, six"
