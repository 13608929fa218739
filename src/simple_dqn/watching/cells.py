"""Pictures as characters of a terminal, in as many colours as it has. A character shows two pixels."""

from __future__ import annotations

import os
from collections.abc import Callable

import numpy as np

from simple_dqn.environment import Picture

Halves = list[list[int]]  # red, green and blue of the upper and of the lower pixel
Style = Callable[[Halves], tuple[str, str]]  # returns the escape sequence of the colours, and the character

_BLOCK = "▀"  # the upper half has the foreground's colour, the lower half the background's
_SHADES = " .:-=+*#%@"
_ANSI = np.array(  # the usual values of the 16 colours
    [[level * (bits >> i & 1) for i in range(3)] for level in (170, 255) for bits in range(8)], np.int32
)
_ANSI[7], _ANSI[8] = 192, 96  # light and dark grey


def style_of_terminal() -> Style:
    """How the terminal of standard output shows colours, after NO_COLOR, COLORTERM and its description."""
    if os.environ.get("NO_COLOR"):  # see no-color.org
        return without_colours
    if os.environ.get("COLORTERM", "") in ("truecolor", "24bit"):
        return in_all_colours
    number = _num_colours()
    return in_256_colours if number >= 256 else in_16_colours if number >= 8 else without_colours


def _num_colours() -> int:
    """The number of colours in the terminal's description: below 8 if it has none; 256 if there is no description."""
    try:
        import curses
    except ImportError:  # a Python without curses
        return 256
    try:
        curses.setupterm()
        return curses.tigetnum("colors")
    except curses.error:
        return 256


def in_all_colours(halves: Halves) -> tuple[str, str]:
    """The colours as they are."""
    upper, lower = (f"2;{r};{g};{b}" for r, g, b in halves)
    return f"\x1b[38;{upper};48;{lower}m", _BLOCK


def in_256_colours(halves: Halves) -> tuple[str, str]:
    """The nearest of 216 colours and 24 greys."""
    upper, lower = (_of_256(r, g, b) for r, g, b in halves)
    return f"\x1b[38;5;{upper};48;5;{lower}m", _BLOCK


def in_16_colours(halves: Halves) -> tuple[str, str]:
    """The nearest of 16 colours."""
    upper, lower = (int(np.square(_ANSI - half).sum(axis=1).argmin()) for half in halves)
    return f"\x1b[{30 + upper + 52 * (upper > 7)};{40 + lower + 52 * (lower > 7)}m", _BLOCK


def without_colours(halves: Halves) -> tuple[str, str]:
    """A character that is as bright as both pixels."""
    light = sum(30 * r + 59 * g + 11 * b for r, g, b in halves) / 200 / 256
    return "", _SHADES[int(light * len(_SHADES))]


def _of_256(red: int, green: int, blue: int) -> int:
    """The number of the nearest colour among the 216 colours and 24 greys that nearly every terminal has."""
    if max(red, green, blue) - min(red, green, blue) < 12:
        grey = (red + green + blue) // 3
        return 16 if grey < 4 else 231 if grey > 246 else 232 + min(23, max(0, (grey - 3) // 10))
    r, g, b = ((0 if c < 48 else 1 if c < 115 else (c - 35) // 40) for c in (red, green, blue))
    return 16 + 36 * r + 6 * g + b


def blocks(picture: Picture, pixel_width: float, columns: int, rows: int) -> Picture:
    """`picture` resized to half characters, as large as it fits: (rows, columns, 2 halves, 3) uint8.

    Half a character is about as high as it is wide.
    """
    import cv2

    height, width, _ = picture.shape
    shrink = min(columns / (width * pixel_width), 2 * rows / height)
    width, height = max(1, int(width * pixel_width * shrink)), max(1, int(height * shrink / 2))
    small = cv2.resize(picture, (width, 2 * height), interpolation=cv2.INTER_AREA)
    return small.reshape(height, 2, width, 3).transpose(0, 2, 1, 3)


def changes(cells: Picture, before: Picture | None, style: Style) -> str:
    """The text that makes a terminal show `cells`, if it shows `before` now. None: what it shows is unknown."""
    changed = np.ones(cells.shape[:2], bool) if before is None else (cells != before).any(axis=(2, 3))
    text = []
    for row in np.flatnonzero(changed.any(axis=1)).tolist():
        last, colours = -2, ""
        for column in np.flatnonzero(changed[row]).tolist():
            if column != last + 1:
                text.append(f"\x1b[{row + 1};{column + 1}H")
            last = column
            wanted, character = style(cells[row, column].tolist())
            text.append(character if wanted == colours else wanted + character)
            colours = wanted
    return "".join(text)
