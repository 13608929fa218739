"""What every view of a game shows and can do: the `Viewer` fills a `Scene`, a `Display` draws it.

The displays are `Window` in window.py and `Terminal` in terminal.py.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterable, Sequence
from typing import Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from simple_dqn.environment import Picture, Sound

HELP = (  # keys, and what they do
    ("m", "take over, give back"),
    ("arrows, space", "joystick and button"),
    ("0 to 9", "play that action"),
    ("a, s", "slower, faster"),
    ("[, ]", "volume"),
    ("p", "pause"),
    ("n", "one step forward"),
    ("b", "look one step back; p goes on"),
    ("r", "restart the game"),
    ("v", "Q-values, and what the agent sees"),
    ("-, +", "fewer, more random moves (ε)"),
    ("f", "full screen"),
    ("h", "this help"),
    ("q, Esc", "quit"),
)

TIMELINE = 150  # steps whose values are shown, 10 seconds of an Atari game

# These two can be told apart in all common kinds of colour blindness (Okabe and Ito 2008).
ORANGE, BLUE = (230, 159, 0), (86, 180, 233)


class QScale(NamedTuple):
    """The scale on which bars of Q-values are drawn, the same for many states. Each bar starts at 0.

    So bars are as long as their Q-values are large. A scale for each state would exaggerate small differences.
    """

    low: float = 0.0  # at the left end, at most 0
    high: float = 0.0  # at the right end, at least 0

    def including(self, q_values: NDArray[np.floating[Any]]) -> QScale:
        """The scale, made larger for `q_values` if necessary. NaN and infinity do not count."""
        finite = q_values[np.isfinite(q_values)].tolist()
        return QScale(min([self.low, *finite]), max([self.high, *finite]))

    def position(self, q: float) -> float:
        """Where `q` is on the scale, from 0 to 1. NaN and infinity are at Q-value 0."""
        q = q if math.isfinite(q) else 0.0
        return (q - self.low) / ((self.high - self.low) or 1)

    def bar(self, q: float) -> tuple[float, float]:
        """Left and right end of the bar of `q`, from 0 to 1."""
        left, right = sorted((self.position(0), self.position(q)))
        return left, right

    def __str__(self) -> str:
        return f"{self.low:.3g} to {self.high:.3g}"


class Decision(NamedTuple):
    """What the agent chose in a state, and why."""

    action_names: Sequence[str]
    q_values: NDArray[np.floating[Any]]  # (num_actions,)
    action: int  # that the agent chose, possibly at random
    state: NDArray[np.uint8]  # (history, height, width)
    scale: QScale  # of the bars of the Q-values
    values: Sequence[float]  # of the last states, this one last: their highest Q-values; may be empty

    @property
    def random(self) -> bool:
        """Whether ε made the choice. A random choice of the best action is not noticed."""
        return bool(np.isfinite(self.q_values).all()) and self.action != int(self.q_values.argmax())


class Card(NamedTuple):
    """What is shown of a finished game."""

    scores: Sequence[tuple[str, str]]  # whose, and how many points; shown as large as possible
    lines: Sequence[tuple[str, str]]  # labels and values; the keys and what they do last


class Scene(NamedTuple):
    """Everything that a display draws at one moment."""

    picture: Picture
    pixel_width: float  # of a picture's pixel, in pixel heights
    status: Sequence[str]  # parts; the most important first, the keys for help and quitting last; see `shortened`
    help: Sequence[tuple[str, str]]  # keys and what they do, from the current page on; empty: hidden
    card: Card | None  # None: hidden; help covers it
    decision: Decision | None  # None: hidden


class Display(Protocol):
    """Draws scenes, plays sounds and reads keys."""

    @property
    def unused_keys(self) -> Collection[str]:
        """The keys of HELP that do nothing here."""

    def draw(self, scene: Scene) -> None:
        """Draw `scene`. Raises GameError if the display is gone."""

    def play(self, sound: Sound, frames_per_second: float) -> None:
        """Play a frame's sound after the sounds before it."""

    def pressed(self) -> Iterable[str]:
        """The keys pressed since the last call: characters, or up, down, left, right, space, escape."""

    def held(self) -> set[str]:
        """The keys that are down now, by the same names."""

    def help_page_length(self, help: Sequence[tuple[str, str]]) -> int:
        """How many of the first entries of `help` fit on one page: at least one."""

    def toggle_fullscreen(self) -> None:
        """Fill the screen, or return to the window."""

    def close(self) -> None:
        """Restore everything as it was before."""


def shortened(status: Sequence[str], fits: Callable[[str], bool]) -> str:
    """A line with the last part of `status`, and before it as many of the first parts as fit."""
    lines = [" · ".join([*status[:count], status[-1]]) for count in range(len(status))]
    return next((line for line in reversed(lines) if fits(line)), status[-1])


def block(pixel_width: float, height: int) -> tuple[int, int]:
    """Width and height of the block that shows one pixel of a picture, when it is `height` pixels high."""
    return max(1, math.floor(pixel_width * height + 0.5)), height


def least_height(pixel_width: float, height: int) -> int:
    """The smallest height of a block that has the same shape as a block of `height`."""
    return height // math.gcd(*block(pixel_width, height))


def enlarged(picture: Picture, pixel_width: float, height: int) -> Picture:
    """`picture` without blur: each pixel becomes a block, `height` pixels high."""
    columns, rows = block(pixel_width, height)
    if columns == rows == 1:  # because a copy takes 4 ms for a large picture
        return picture
    return picture.repeat(rows, axis=0).repeat(columns, axis=1)
