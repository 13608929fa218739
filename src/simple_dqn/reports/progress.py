"""Progress: a bar in a terminal or a line a minute, and a line per epoch. All tell how much time is left.

The log goes to the terminal or a file. In a terminal no line is cut within a word.
"""

from __future__ import annotations

import logging
import math
import os
import sys
import textwrap
import time
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from tqdm import tqdm

from simple_dqn.agent import Callback, Step
from simple_dqn.reports.scores import mean_text
from simple_dqn.statistics import Statistics
from simple_dqn.wording import count

if TYPE_CHECKING:
    from simple_dqn.command_line import MainOptions
    from simple_dqn.saving.resume import Position

logger = logging.getLogger(__name__)

_BAR_INTERVAL, _LINE_INTERVAL = 0.5, 60.0  # seconds
_MEASURED = 20.0  # seconds of training before the first estimate of the whole run
_BAR_COLUMNS = 6  # of the bar at least; narrower terminals show none


class Progress(Callback):
    """Shows time left, loss, exploration rate, best test score, mean score, speed and games.

    Args:
        statistics: source of the figures; it must receive each step before `Progress` does.
        o: the lengths of the phases.
        position: the phases that are left, and the best test score.
    """

    def __init__(self, statistics: Statistics, o: MainOptions, position: Position) -> None:
        self._statistics, self._o, self._position = statistics, o, position
        self._terminal = in_terminal()
        self._speeds: dict[str, float] = {}  # steps per second of the last phase of each name
        self._seconds_of_games = 0.0  # of the last test of --test_games
        self._estimated = False  # whether the log has told how long the run takes

    def on_phase_start(self, phase: str, epoch: int, steps: int | None) -> None:
        self._phase, self._steps = phase, steps
        self._name = f"{phase} {epoch}/{self._o.epochs}" if phase in ("train", "test") else phase
        self._start = self._shown = time.monotonic()
        self._before = 0
        self._bar = tqdm(total=steps, desc=self._name, leave=False, disable=not self._terminal, ncols=_bar_columns())

    def on_begin(self) -> None:
        self._before = self._statistics.num_steps  # if the phase continues

    def on_step(self, step: Step) -> None:
        now = time.monotonic()
        if not self._estimated and self._phase == "train" and now - self._start >= _MEASURED:
            self._measure(now)
            self._log_estimate()
        if now - self._shown < (_BAR_INTERVAL if self._terminal else _LINE_INTERVAL):
            return
        self._shown = now
        self._measure(now)
        done, figures = self._statistics.num_steps, self._figures()
        if not self._terminal:
            of = f"/{self._steps}" if self._steps else ""
            logger.info("  %s: %d%s steps, %s", self._name, done, of, ", ".join(figures))
            return
        how_far = f" {100 * done / self._steps:.0f}%" if self._steps else f": {count(done, 'step')}"
        name = self._name + how_far
        width = _bar_columns() - len(f"{name}, ")
        first = ", ".join(figures[:4]).split(", ")  # because the first one holds two figures
        text = fitting([fitting(first, width), *figures[4:]], width - _BAR_COLUMNS)
        between = " {bar}| " if self._steps and len(text) < width - _BAR_COLUMNS else ", "
        self._bar.n, self._bar.ncols, self._bar.bar_format = done, _bar_columns(), name + between + text
        self._bar.refresh()

    def on_phase_end(self) -> None:
        self._bar.close()
        self._measure(time.monotonic())
        if self._phase == "test" and self._o.test_games:
            self._seconds_of_games = time.monotonic() - self._start

    def log_epoch(self, epoch: int) -> None:
        """Log the epoch that is complete: its test, the best test so far, the speed of training and the time left."""
        facts, parts = self._position.facts, [f"epoch {epoch}/{self._o.epochs}"]
        if "test_score" in facts:
            ended = not math.isnan(facts["test_score"])
            best = f" ({self._best()})" if self._best() else ""
            parts.append((f"test {mean_text(facts['test_score'])}" if ended else "test: no game ended") + best)
        if "train" in self._speeds:
            parts.append(f"{self._speeds['train']:.0f} steps/s")
        left = self._run_left(0, self._position.left)
        parts += [f"{duration_text(left)} left"] if left else []
        logger.info(" · ".join(parts))

    def _measure(self, now: float) -> None:
        done = self._statistics.num_steps - self._before
        if done and now > self._start:
            self._speeds[self._phase] = done / (now - self._start)

    def _log_estimate(self) -> None:
        self._estimated = True
        left, done = self._run_left(self._phase_left(), self._position.left[1:]), self._statistics.num_steps
        if left is not None:
            text = "About %s to the end of epoch %d (measured on %d training steps)"
            logger.info(text, duration_text(left), self._o.epochs, done - self._before)

    def _phase_left(self) -> float:
        """Return the seconds left of this phase, whose number of steps is known."""
        return ((self._steps or 0) - self._statistics.num_steps) / self._speeds[self._phase]

    def _run_left(self, seconds: float, phases: Iterable[tuple[str, int]]) -> float | None:
        """Return `seconds` plus those of `phases`; None before training has begun, because its speed is unknown.

        Before the first test, --test_steps count as if they were as fast as training. --test_games count as nothing,
        because the length of a game is unknown.
        """
        o, speeds = self._o, self._speeds
        if not o.trains or "train" not in speeds:
            return None
        test = self._seconds_of_games if o.test_games else o.test_steps / speeds.get("test", speeds["train"])
        of_phase = {"random": 0.0, "train": o.train_steps / speeds["train"], "test": test}
        return seconds + sum(of_phase[phase] for phase, _ in phases)

    def _best(self) -> str:
        facts = self._position.facts
        return f"best {mean_text(facts['best_score'])} @ {facts['best_epoch']}" if "best_epoch" in facts else ""

    def _figures(self) -> list[str]:
        """What there is to show, the most important first."""
        s, parts = self._statistics, []
        if self._steps and self._phase in self._speeds:
            left = self._phase_left()
            run = self._run_left(left, self._position.left[1:])
            parts.append(f"{duration_text(left)} left" + (f", run {duration_text(run)}" if run is not None else ""))
        parts += [f"loss {s.mean_cost:.2g}"] if s.mean_cost else []
        parts += [f"ε {s.exploration_rate:.2f}"]
        parts += [self._best()] if self._best() else []
        parts += [f"score {mean_text(s.mean_reward)}"] if s.num_games else []
        parts += [f"{self._speeds[self._phase]:.0f} steps/s"] if self._phase in self._speeds else []
        return [*parts, count(s.num_games, "game")]


class LogFormatter(logging.Formatter):
    """Put the time before each message. In a terminal, wrap lines between words."""

    def __init__(self) -> None:
        super().__init__("%(asctime)s %(message)s", "%H:%M:%S" if in_terminal() else None)

    def format(self, record: logging.LogRecord) -> str:
        text, colon, command = super().format(record).partition(" with: ")  # uncut, because it is to be copied
        if in_terminal() and "\n" not in text:
            indent = " " * len("00:00:00   ")
            text = textwrap.fill(
                text, columns() - 1, subsequent_indent=indent, break_long_words=False, break_on_hyphens=False
            )
        return text + colon + command


def start_log() -> None:
    """Let the log go to stderr."""
    handler = logging.StreamHandler()
    handler.setFormatter(LogFormatter())
    logging.basicConfig(handlers=[handler], level=logging.INFO)


def in_terminal() -> bool:
    """Return whether the log goes to a terminal."""
    return bool(sys.stderr and sys.stderr.isatty())


def columns() -> int:
    """Return the width of the log's terminal; 80 if it is unknown."""
    try:
        return os.get_terminal_size(sys.stderr.fileno()).columns or 80
    except (OSError, ValueError, AttributeError):
        return 80


def _bar_columns() -> int:
    """Return the width of the bar's line. Two columns are left, because Ctrl-C shows ^C there."""
    return columns() - 2


def fitting(parts: Sequence[str], width: int) -> str:
    """Join the parts that fit, at least the first one."""
    text, *others = parts
    for part in others:
        longer = f"{text}, {part}"
        text = longer if len(longer) <= width else text
    return text


def duration_text(seconds: float) -> str:
    """Return a duration in the unit in which it has two or three digits."""
    for unit, size, least in (("days", 86400, 3), ("h", 3600, 2), ("min", 60, 3)):
        if seconds >= least * size:
            return f"{seconds / size:.{int(seconds < 10 * size and unit != 'min')}f} {unit}"
    return f"{max(0, seconds):.0f} s"
