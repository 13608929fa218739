"""Draws scenes on a surface of pygame, for a window or a film. Everything grows with the surface."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pygame

from simple_dqn.environment import Picture
from simple_dqn.watching.display import BLUE, ORANGE, Card, Scene, block, shortened
from simple_dqn.watching.fonts import get_font
from simple_dqn.watching.panel import BACKGROUND, DIM, INK, MIN_TEXT, DecisionPanel

_SMALL_TEXT = 12  # font size, pixels. In a small window help gets pages before its font gets smaller
_LINES = 36  # of text would fill a window, so that the last row of a lecture hall can read it
_CARD_LINES = 18  # of a card's text would fill a window
_DIGITS = 5  # size of the digits of a card's scores, in sizes of its text
_PANEL = 0.55  # width of the panel, in heights of the window


class Painter:
    """Draws scenes on `surface`, on which nothing else may draw."""

    def __init__(self, surface: Any) -> None:
        self._surface = surface
        self._width, self._height = surface.get_size()
        self._text = text_size(self._width, self._height)
        self._bar = bar_height(self._width, self._height)
        self._before: Scene | None = None  # what the surface shows

    def draw(self, scene: Scene) -> list[Any]:
        """Draw `scene`. Only what changed is drawn, because a large surface takes long. Return the rectangles."""
        before, self._before = self._before, scene
        if not before or not _differ_slightly(before, scene):
            return [self._draw_all(scene)]
        changed = self._draw_picture(scene, changed_rows(before.picture, scene.picture))
        if scene.status != before.status:
            changed.append(self._draw_status(scene))
        if scene.decision is not before.decision:
            changed.append(self._draw_panel(scene))
        return changed

    def help_page(self, help: Sequence[tuple[str, str]]) -> tuple[int, int]:
        """Font size, and number of entries of `help` that fit: all, unless the font would be too small."""
        for size in range(self._text, MIN_TEXT - 1, -1):
            count = (self._height - self._bar - size) // _line_height(size)
            if _columns(help, size)[1] <= self._width and (count >= len(help) or size <= _SMALL_TEXT):
                break
        return size, max(1, min(count, len(help)))

    def _draw_all(self, scene: Scene) -> Any:
        self._surface.fill(BACKGROUND)
        self._draw_picture(scene, [(0, len(scene.picture))])
        self._draw_status(scene)
        if scene.decision:
            self._draw_panel(scene)
        if scene.help:
            self._draw_help(scene.help, self._width - self._panel_width(scene))
        elif scene.card:
            self._draw_card(scene.card, self._width - self._panel_width(scene))
        return self._surface.get_rect()

    def _draw_picture(self, scene: Scene, runs: Sequence[tuple[int, int]]) -> list[Any]:
        """Draw some rows of the picture, as large as it fits. Return the rectangles that changed.

        The scale is an integer. If the surface is too small for that, draw the whole picture, smoothed.

        Args:
            scene: the scene with the picture.
            runs: runs of rows to draw: the first row, and the row after the last.
        """
        rows, columns, _ = scene.picture.shape
        width, height = self._width - self._panel_width(scene), self._height - self._bar
        size = fitted_size(rows, columns, scene.pixel_width, width, height)
        left, top = (width - size[0]) // 2, (height - size[1]) // 2
        if left < 0 or top < 0:  # because the surface is too small for any picture
            return []
        integer_scale = size[0] % columns == 0 and size[1] % rows == 0
        if not integer_scale and runs:
            runs = [(0, rows)]
        changed = []
        for first, end in runs:
            upper, lower = first * size[1] // rows, end * size[1] // rows
            place = pygame.Rect(left, top + upper, size[0], lower - upper)
            pixels = np.ascontiguousarray(scene.picture[first:end]).tobytes()
            small = pygame.image.frombuffer(pixels, (columns, end - first), "RGB").convert(self._surface)
            scale = pygame.transform.scale if integer_scale else pygame.transform.smoothscale
            scale(small, place.size, self._surface.subsurface(place))
            changed.append(place)
        return changed

    def _panel_width(self, scene: Scene) -> int:
        return min(panel_width(self._height), self._width // 2) if scene.decision else 0

    def _draw_panel(self, scene: Scene) -> Any:
        width = self._panel_width(scene)
        place = pygame.Rect(self._width - width, 0, width, max(0, self._height - self._bar))
        self._surface.fill(BACKGROUND, place)
        assert scene.decision
        if place.height:
            before = self._surface.get_clip()
            self._surface.set_clip(place)  # because a small panel cannot hold the widest lines
            DecisionPanel(self._surface, place, self._text).draw(scene.decision)
            self._surface.set_clip(before)
        return place

    def _draw_status(self, scene: Scene) -> Any:
        bar = pygame.Rect(0, self._height - self._bar, self._width, self._bar)
        self._surface.fill(BACKGROUND, bar)
        font, margin = get_font(self._text), self._text // 2
        line = shortened(scene.status, lambda line: font.size(line)[0] <= self._width - 2 * margin)
        ink = font.render(line, True, INK)
        self._surface.blit(ink, (margin, bar.top + (self._bar - ink.get_height()) // 2))
        return bar

    def _draw_help(self, help: Sequence[tuple[str, str]], width: int) -> None:
        size, count = self.help_page(help)
        box = _box(_columns(help, size)[1], _line_height(size) * count + size)
        _draw_lines(box, help[:count], size, size, size // 2, ORANGE)
        self._place_box(box, width)

    def _draw_card(self, card: Card, width: int) -> None:
        """Draw a card as large as it fits. Its scores are the largest text."""
        for size in range(max(MIN_TEXT, self._height // _CARD_LINES), MIN_TEXT - 1, -1):
            line, digits, (_, lines_width) = _line_height(size), _DIGITS * size, _columns(card.lines, size)
            columns = [max(get_font(size).size(who)[0], get_font(digits).size(score)[0]) for who, score in card.scores]
            scores_width = sum(columns) + digits * len(columns) // 2
            top = size // 2 + line + _line_height(digits)
            right, bottom = max(lines_width, scores_width), top + line * len(card.lines) + size // 2
            if right <= width and bottom <= self._height - self._bar:
                break
        box = _box(right, bottom)
        left = (right - scores_width) // 2 + digits // 4
        for (who, score), column in zip(card.scores, columns, strict=True):
            colour = BLUE if who.startswith("you") else ORANGE
            for text, font, y in ((who, get_font(size), size // 2), (score, get_font(digits), size // 2 + line)):
                ink = font.render(text, True, colour)
                box.blit(ink, (left + (column - ink.get_width()) // 2, y))
            left += column + digits // 2
        _draw_lines(box, card.lines, size, (right - lines_width) // 2 + size, top, DIM)
        self._place_box(box, width)

    def _place_box(self, box: Any, width: int) -> None:
        """Draw `box` over the picture of this `width`, or over the whole surface if it is wider."""
        width = width if box.get_width() <= width else self._width
        self._surface.blit(box, ((width - box.get_width()) // 2, (self._height - self._bar - box.get_height()) // 2))


def text_size(width: int, height: int) -> int:
    """The font size for a surface, in pixels."""
    return max(MIN_TEXT, min(height // _LINES, width // 42))


def bar_height(width: int, height: int) -> int:
    """Height of the status line of a surface."""
    return text_size(width, height) * 3 // 2 + 2


def height_with_bar(width: int, height: int) -> int:
    """Height of a surface that has room for a picture of this size and for the status line."""
    return next(total for total in range(height, 2 * height + 99) if total - bar_height(width, total) >= height)


def panel_width(height: int) -> int:
    """Width of the panel beside a picture in a surface of this height."""
    return round(_PANEL * height)


def _line_height(size: int) -> int:
    return int(get_font(size).get_linesize()) + size // 6


def _box(width: int, height: int) -> Any:
    """A dark surface that lets the game shine through, with a frame, because games such as Breakout are black."""
    box = pygame.Surface((width, height), pygame.SRCALPHA)
    box.fill((0, 0, 0, 225))
    pygame.draw.rect(box, DIM, box.get_rect(), 1)
    return box


def _draw_lines(
    box: Any, entries: Sequence[tuple[str, str]], size: int, left: int, top: int, colour: tuple[int, int, int]
) -> None:
    """Write two columns, the first one in `colour`."""
    font, column = get_font(size), left - size + _columns(entries, size)[0]
    for i, (label, text) in enumerate(entries):
        box.blit(font.render(label, True, colour), (left, top + i * _line_height(size)))
        box.blit(font.render(text, True, INK), (column, top + i * _line_height(size)))


def _columns(entries: Sequence[tuple[str, str]], size: int) -> tuple[int, int]:
    """Left and right edge of the column of explanations, with a font of `size`."""
    keys, texts = (max(get_font(size).size(text)[0] for text in column) for column in zip(*entries, strict=True))
    return 2 * size + keys, 3 * size + keys + texts


def _differ_slightly(a: Scene, b: Scene) -> bool:
    """Whether two scenes differ only in the status, pixels and the decision. Help and cards count as different."""
    same_shape = (a.picture.shape, a.pixel_width) == (b.picture.shape, b.pixel_width)
    same_panel = bool(a.decision) == bool(b.decision)
    return same_shape and same_panel and not (a.help or b.help or a.card or b.card)


def changed_rows(before: Picture, after: Picture) -> list[tuple[int, int]]:
    """Runs of rows in which two pictures of the same shape differ: the first row, and the row after the last."""
    differ = (before != after).any(axis=(1, 2))
    edges = np.flatnonzero(np.diff(differ, prepend=False, append=False))
    return [(int(first), int(end)) for first, end in edges.reshape(-1, 2)]


def fitted_size(rows: int, columns: int, pixel_width: float, width: int, height: int) -> tuple[int, int]:
    """Largest width and height of a picture within `width` and `height`; at an integer scale if one fits."""
    for scale in range(max(1, height // rows), 0, -1):
        block_width, block_height = block(pixel_width, scale)
        if columns * block_width <= width and rows * block_height <= height:
            return columns * block_width, rows * block_height
    shrink = min(width / (columns * pixel_width), height / rows)
    return max(1, int(columns * pixel_width * shrink)), max(1, int(rows * shrink))
