"""The panel beside the picture: the agent's Q-values, the value of the last states, and what it sees."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pygame
from numpy.typing import NDArray

from simple_dqn.watching.display import BLUE, ORANGE, TIMELINE, Decision, QScale
from simple_dqn.watching.fonts import get_font
from simple_dqn.watching.icons import draw_action, has_icon

INK, DIM, FAINT, BACKGROUND = (235, 235, 235), (150, 150, 160), (48, 48, 56), (16, 16, 20)
MIN_TEXT = 8  # font size, pixels
_MIN_SCREEN = 16  # pixels; smaller screens show nothing useful
_LEGEND = "orange: what raised this Q-value most"


class DecisionPanel:
    """Draws a decision into a rectangle of a surface, from top to bottom. What does not fit is left out.

    Args:
        surface: where to draw.
        place: the rectangle.
        text: font size, pixels. It is made smaller if the lines would be too wide or too many.
    """

    def __init__(self, surface: Any, place: Any, text: int) -> None:
        self._surface, self._text_size = surface, text
        self._margin = text // 2
        self._place = place.inflate(-2 * self._margin, -self._margin)
        self._top = self._place.top

    def draw(self, decision: Decision) -> None:
        """Draw it."""
        self._choose_font(decision)
        self._draw_title(decision)
        self._draw_bars(decision)
        self._draw_line(_LEGEND, ORANGE)
        self._top += self._line // 3
        self._draw_values(decision.values, decision.scale)
        self._draw_state(decision.state)

    def _choose_font(self, decision: Decision) -> None:
        """Take the largest font in which the legend fits, and all actions in 60% of the height."""
        for size in range(self._text_size, MIN_TEXT - 1, -1):
            self._font = get_font(size)
            self._line = self._font.get_linesize()
            lines = 2 + len(decision.q_values)
            if self._font.size(_LEGEND)[0] <= self._place.width and lines * self._line <= 0.6 * self._place.height:
                break

    def _draw_title(self, decision: Decision) -> None:
        title, colour = ("random move (ε)", BLUE) if decision.random else ("best move", ORANGE)
        self._write("Q-values", self._place.left, DIM)
        self._write(title, self._place.right, colour, right=True)
        self._top += self._line

    def _draw_bars(self, decision: Decision) -> None:
        """A line for each action: its sign, its bar, its Q-value. Then the scale.

        If not all actions fit, draw the chosen one and those before it.
        """
        names, q_values, scale = decision.action_names, decision.q_values.tolist(), decision.scale
        texts = [f"{q:.3f}" for q in q_values]
        count = max(1, (self._place.bottom - self._top) // self._line - 1)
        first = max(0, decision.action + 1 - count)
        left = self._place.left + max(self._name_width(name) for name in names) + self._margin
        number = max(self._font.size(text)[0] for text in texts)
        bars = pygame.Rect(left, self._top, max(1, self._place.right - number - self._margin - left), self._line)
        zero = bars.left + round((bars.width - 1) * scale.position(0))
        top = self._top
        for i in range(first, min(len(names), first + count)):
            chosen = i == decision.action
            colour = (BLUE if decision.random else ORANGE) if chosen else DIM
            if chosen:
                row = pygame.Rect(self._place.left - self._margin // 2, self._top, self._place.width, self._line)
                self._surface.fill(FAINT, row.inflate(self._margin, 0).clamp(row))
            self._draw_name(names[i], INK if chosen else DIM)
            start, end = (bars.left + round(bars.width * share) for share in scale.bar(q_values[i]))
            thick = max(2, self._line * 5 // 9)
            self._surface.fill(colour, (start, self._top + (self._line - thick) // 2, max(1, end - start), thick))
            self._write(texts[i], self._place.right, INK if chosen else DIM, right=True)
            self._top += self._line
        self._surface.fill(INK, (zero, top, max(1, self._line // 16), self._top - top))
        self._draw_scale(scale, bars, zero)

    def _draw_scale(self, scale: QScale, bars: Any, zero: int) -> None:
        """The ends of the scale and 0, below the bars."""
        if self._top + self._line > self._place.bottom:
            return
        low, high = f"{scale.low:.3g}", f"{scale.high:.3g}"
        width, low_width = self._font.size("0")[0], self._font.size(low)[0]
        if scale.low < 0:
            self._write(low, bars.left, DIM)
        if scale.low == 0 or bars.left + low_width < zero - width:
            self._write("0", zero - (width // 2 if scale.low < 0 else 0), DIM)
        if scale.high > 0:
            self._write(high, bars.right, DIM, right=True)
        self._top += self._line

    def _draw_values(self, values: Sequence[float], scale: QScale) -> None:
        """The value of the last states as a line, on the scale of the bars."""
        height = min(5 * self._line, (self._place.bottom - self._top) // 3)
        if len(values) < 2 or height < 2 * self._line:
            return
        self._draw_line(f"value of the last states: {values[-1]:.2f}", DIM)
        box = pygame.Rect(self._place.left, self._top, self._place.width, height - self._line)
        self._surface.fill(FAINT, box)
        y = [box.bottom - 1 - (box.height - 1) * scale.position(value) for value in values]
        zero = round(box.bottom - 1 - (box.height - 1) * scale.position(0))
        thin = max(1, self._line // 16)
        pygame.draw.line(self._surface, DIM, (box.left, zero), (box.right - 1, zero), thin)
        step = (box.width - 1) / (TIMELINE - 1)
        points = [(box.right - 1 - step * (len(y) - 1 - i), at) for i, at in enumerate(y)]
        pygame.draw.lines(self._surface, ORANGE, False, points, max(2, self._line // 9))
        self._top += box.height + self._line // 3

    def _draw_state(self, state: NDArray[np.uint8]) -> None:
        """The screens of the state side by side, or in two rows if they would be small."""
        gap = max(2, self._margin // 2)
        room = self._place.bottom - self._top - self._line
        columns = -(-len(state) // 2) if len(state) > 1 else 1
        side = min((self._place.width + gap) // columns, (room + gap) // -(-len(state) // columns)) - gap
        if side < self._place.width // 4:
            columns = len(state)
            side = min((self._place.width + gap) // columns - gap, room)
        if side < _MIN_SCREEN:
            return
        self._draw_line("what it sees, the newest last", DIM)
        for i, screen in enumerate(state):
            place = self._place.left + i % columns * (side + gap), self._top + i // columns * (side + gap)
            grey = np.repeat(screen[..., None], 3, axis=2).tobytes()
            small = pygame.image.frombuffer(grey, screen.shape[::-1], "RGB")
            self._surface.blit(pygame.transform.scale(small, (side, side)), place)

    def _draw_line(self, text: str, colour: tuple[int, int, int]) -> None:
        if self._font.size(text)[0] <= self._place.width and self._top + self._line <= self._place.bottom:
            self._write(text, self._place.left, colour)
            self._top += self._line

    def _name_width(self, name: str) -> int:
        return self._line if has_icon(name) else int(self._font.size(name[:9])[0])

    def _draw_name(self, name: str, colour: tuple[int, int, int]) -> None:
        if has_icon(name):
            side = self._line * 7 // 8
            draw_action(self._surface, name, pygame.Rect(self._place.left, self._top + 1, side, side), colour)
        else:
            self._write(name[:9], self._place.left, colour)

    def _write(self, text: str, x: int, colour: tuple[int, int, int], right: bool = False) -> None:
        ink = self._font.render(text, True, colour)
        self._surface.blit(ink, (x - ink.get_width() * right, self._top))
