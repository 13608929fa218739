"""Chooses which frames of a game become a film, and draws the agent's decisions beside them."""

from __future__ import annotations

import dataclasses
import logging
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from simple_dqn.agent import NEW_GAMES, Agent, Callback, Step
from simple_dqn.environment import Environment, Picture, Sound
from simple_dqn.reports.scores import score_text
from simple_dqn.watching.display import Scene, block
from simple_dqn.watching.film import Film, film_scale
from simple_dqn.watching.insight import Explain, Insight, Thought
from simple_dqn.watching.recorder import RecorderOptions
from simple_dqn.watching.watcher import Watcher

logger = logging.getLogger(__name__)

_TAIL = 1.0  # seconds that a film goes on after its last point


@dataclass(frozen=True)
class Shot:
    """A frame that is kept. It is recorded as an `Environment` would be."""

    frames_per_second: float
    pixel_width: float
    shown: Picture
    heard: Sound
    status: tuple[str, ...] = ()
    thought: Thought | None = None

    def picture(self) -> Picture:
        """The frame in colour."""
        return self.shown

    def sound(self) -> Sound:
        """The frame's sound."""
        return self.heard


class FilmEditor(Watcher, Callback):
    """Films what the options ask for, from the agent's first action on, because it does not choose those before."""

    def __init__(self, film: Film, options: RecorderOptions) -> None:
        self._film, self._options = film, options
        self._first: Shot | None = None  # the last frame before the first action
        self._begun = self._steered = False
        self._frames = 0  # since then
        self._filmed = False  # whether the film has a frame, or a warning said that it has none
        self._score, self._rate = 0.0, ""
        self._insight: Insight | None = None
        self._thought: Thought | None = None
        self._painter: OverlayPainter | None = None
        self._frames_at_end: int | None = None  # of the last game, when the next one began
        self._best = BestFrames()

    def on_phase_start(self, phase: str, epoch: int, steps: int | None) -> None:
        if phase in NEW_GAMES:
            self._score = 0.0

    def on_game(self) -> None:
        self._score, self._frames_at_end = 0.0, self._frames
        self._thought = self._thought and self._thought._replace(heat=None)  # it is of the last game

    def attach(self, agent: Agent, explain: Explain) -> None:
        """Receive the agent, and the function that explains its decisions."""
        self._agent = agent
        if self._options.overlay:
            self._insight = Insight(agent, explain)

    def on_frame(self, environment: Environment) -> None:
        status = tuple(filter(None, (self._rate, f"score {score_text(self._score)}")))
        shot = Shot(
            environment.frames_per_second,
            environment.pixel_width,
            environment.picture(),
            environment.sound(),
            status,
            self._thought,
        )
        if self._begun:
            self._choose(shot)
        else:
            self._first = shot

    def steer(self, action: int) -> int:
        if self._insight:
            self._thought = self._insight.think(self._agent.state, action, self._agent.q_values)
        self._steered = True
        if not self._begun:
            self._begun = True
            if self._first:
                self._choose(dataclasses.replace(self._first, thought=self._thought))
        return action

    def on_step(self, step: Step) -> None:
        if step.game == 0 and self._steered:  # else the last game to be filmed is over
            self._steered = False
            self._rate = f"ε {step.exploration_rate:.2f}"
            self._score = 0.0 if step.terminal or step.truncated else self._score + step.reward
            end = self._frames if self._frames_at_end is None else self._frames_at_end
            self._best.add_points(step.reward, self._frames - end)
            self._frames_at_end = None

    def finish(self) -> None:
        for shot in self._best.frames():
            self._record(shot)
        if not self._filmed:
            start = self._options.video_from
            missed = f"second {start:g}. Use a smaller --video_from" if self._begun else "the agent's first action"
            logger.warning("There is no film: the game ended before %s", missed)
            self._filmed = True  # because this is called again if the user plays another game
        self._film.finish()

    def close(self) -> None:
        self._film.close()

    def _choose(self, shot: Shot) -> None:
        """Record the frame, keep it or leave it out."""
        start, seconds, rate = self._options.video_from, self._options.video_seconds, shot.frames_per_second
        number, self._frames = self._frames, self._frames + 1
        if seconds and start is None:
            self._best.add(shot, max(1, round(seconds * rate)), round(min(_TAIL, seconds / 2) * rate))
            return
        first = round((start or 0) * rate)
        if first <= number and (not seconds or number < first + max(1, round(seconds * rate))):
            self._record(shot)

    def _record(self, shot: Shot) -> None:
        if self._insight and shot.thought:
            self._painter = self._painter or OverlayPainter(shot)
            shot = self._painter.painted(shot)
        self._film.on_frame(shot)
        self._filmed = True


class BestFrames:
    """Keeps the frames in which most points were scored, of those that were added one after the other."""

    def __init__(self) -> None:
        self._last: deque[Shot] = deque()
        self._points: deque[tuple[int, float]] = deque()  # when they were scored, in frames, and how many
        self._count = 0
        self._best: list[Shot] = []
        self._best_points = 0.0

    def add_points(self, points: float, frames_since: int = 0) -> None:
        """The frame `frames_since` frames before the last one scored `points`. Lost points do not count."""
        if points > 0:
            self._points.append((self._count - frames_since, points))

    def add(self, shot: Shot, length: int, tail: int) -> None:
        """Add the next frame. Keep `length` frames, of which the points in the last `tail` do not count."""
        self._count += 1
        self._last.append(shot)
        if len(self._last) > length:
            self._last.popleft()
        while self._points and self._points[0][0] <= self._count - length:
            self._points.popleft()
        if len(self._last) == length:
            self._compare(self._count - tail)

    def frames(self) -> Iterator[Shot]:
        """Yield the best frames, and forget all."""
        self._compare(self._count)
        best = self._best or list(self._last)
        self._best, self._last = [], deque()
        yield from best

    def _compare(self, end: int) -> None:
        points = sum(points for when, points in self._points if when <= end)
        if points > self._best_points:
            self._best_points, self._best = points, list(self._last)


class OverlayPainter:
    """Paints frames as a window shows them with the key v. All are as large as the first."""

    def __init__(self, first: Shot) -> None:
        import pygame

        from simple_dqn.watching.painter import Painter, height_with_bar, panel_width

        rows, columns, _ = first.picture().shape
        width, height = block(first.pixel_width, film_scale(first))
        width, height = width * columns, height * rows
        total = height_with_bar(width, height)
        self._surface = pygame.Surface((width + panel_width(total), total), 0, 32)
        self._painter = Painter(self._surface)

    def painted(self, shot: Shot) -> Shot:
        """`shot` with the agent's decision."""
        import pygame

        assert shot.thought
        picture = shot.thought.over(shot.picture())
        self._painter.draw(Scene(picture, shot.pixel_width, shot.status, (), None, shot.thought.decision))
        width, height = self._surface.get_size()
        pixels = pygame.image.tobytes(self._surface, "RGB")  # six times as fast as pygame.surfarray
        return dataclasses.replace(shot, shown=np.frombuffer(pixels, np.uint8).reshape(height, width, 3), pixel_width=1)
