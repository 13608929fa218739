"""Progress: a line now and then, with the speed and the time left."""

from __future__ import annotations

import sys
from types import SimpleNamespace

import pytest

from fakes import Clock, step
from simple_dqn.reports.progress import Progress
from simple_dqn.statistics import Statistics


def test_progress_without_a_terminal_is_a_line_now_and_then(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    caplog.set_level("INFO")
    monkeypatch.setattr("simple_dqn.reports.progress._LINE_INTERVAL", 0.0)
    monkeypatch.setattr(sys, "stderr", None)  # because it may be closed
    stats = Statistics(SimpleNamespace())  # type: ignore[arg-type]
    progress = Progress(stats, 3)
    for callback in (stats, progress):
        callback.on_phase_start("train", 2, 4)
    stats.on_train(0.125)
    for n in range(2):
        for callback in (stats, progress):
            callback.on_step(step(3, terminal=n == 0))
    progress.on_phase_end()
    line = caplog.messages[-1]
    assert "train 2/3: 2/4 steps" in line
    assert "1 games, score 3.0, loss 0.12, ε 0.500" in line
    assert "left" in line


def test_progress_of_a_phase_that_goes_on_has_the_speed_since_then(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    caplog.set_level("INFO")
    monkeypatch.setattr("simple_dqn.reports.progress._LINE_INTERVAL", 0.0)
    monkeypatch.setattr("simple_dqn.reports.progress.time", Clock())
    stats = Statistics(SimpleNamespace())  # type: ignore[arg-type]
    progress = Progress(stats, 3)
    for callback in (stats, progress):
        callback.on_phase_start("train", 2, 1000)
    stats.num_steps = 900
    progress.on_begin()
    stats.on_step(step())
    progress.on_step(step())  # a second later
    progress.on_phase_end()
    assert "train 2/3: 901/1000 steps, 1 steps/s" in caplog.messages[-1]
    assert "01:39 left" in caplog.messages[-1]
