"""The progress of a phase: a bar in a terminal, or a line every 30 seconds."""

from __future__ import annotations

import logging
import sys
import time

from tqdm import tqdm

from simple_dqn.agent import Callback, Step
from simple_dqn.reports.scores import mean_text
from simple_dqn.statistics import Statistics

logger = logging.getLogger(__name__)

_BAR_INTERVAL, _LINE_INTERVAL = 0.5, 30.0  # seconds


class Progress(Callback):
    """Shows steps per second, games, mean score, loss, exploration rate and time left.

    Args:
        statistics: source of the figures; it must receive each step before `Progress` does.
        epochs: number of epochs.
    """

    def __init__(self, statistics: Statistics, epochs: int) -> None:
        self._statistics = statistics
        self._epochs = epochs
        self._terminal = bool(sys.stderr and sys.stderr.isatty())

    def on_phase_start(self, phase: str, epoch: int, steps: int | None) -> None:
        self._steps = steps
        self._name = f"{phase} {epoch}/{self._epochs}" if phase in ("train", "test") else phase
        self._start = self._shown = time.monotonic()
        self._before = 0
        self._bar = tqdm(total=steps, desc=self._name, unit="step", leave=False, disable=not self._terminal)

    def on_begin(self) -> None:
        self._before = self._bar.n = self._bar.initial = self._statistics.num_steps  # if the phase continues

    def on_step(self, step: Step) -> None:
        now = time.monotonic()
        if now - self._shown < (_BAR_INTERVAL if self._terminal else _LINE_INTERVAL):
            return
        self._shown = now
        done = self._statistics.num_steps
        if self._terminal:
            self._bar.set_postfix_str(self._figures(), refresh=False)
            self._bar.update(done - self._bar.n)
            return
        per_second = (done - self._before) / (now - self._start)
        left = f", {tqdm.format_interval((self._steps - done) / per_second)} left" if self._steps else ""
        of = f"/{self._steps}" if self._steps else ""
        logger.info("  %s: %d%s steps, %d steps/s, %s%s", self._name, done, of, per_second, self._figures(), left)

    def on_phase_end(self) -> None:
        self._bar.close()

    def _figures(self) -> str:
        s = self._statistics
        score = f", score {mean_text(s.mean_reward)}" if s.num_games else ""
        cost = f", loss {s.mean_cost:.2g}" if s.mean_cost else ""
        return f"{s.num_games} games{score}{cost}, ε {s.exploration_rate:.3f}"
