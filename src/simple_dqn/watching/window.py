"""A window that shows a game, plays its sound and reads keys."""

from __future__ import annotations

import atexit
import logging
import os
import time
import warnings
from collections.abc import Collection, Iterator, Sequence
from typing import Any

import pygame

from simple_dqn.environment import Sound
from simple_dqn.errors import GameError
from simple_dqn.watching.connection import ConnectionGuard
from simple_dqn.watching.display import Scene
from simple_dqn.watching.icons import window_icon
from simple_dqn.watching.painter import Painter, bar_height, fitted_size, height_with_bar, panel_width
from simple_dqn.watching.speaker import Speaker

logger = logging.getLogger(__name__)

_PICTURE = 630  # height of the picture in a new window, if that is less than 2/3 of the screen
_ATTEMPTS = 3  # to set the size and place of the window

_Point = tuple[int, int]


class Window:
    """A window with this title. The first picture opens it.

    Raises:
        GameError: there is no display.
    """

    def __init__(self, title: str = "Simple DQN") -> None:
        self._title = title
        where = os.environ.get("DISPLAY") or "a window"
        try:
            pygame.display.init()
        except pygame.error as error:
            raise GameError(f"cannot open {where}: {error}") from None
        if pygame.display.get_driver() in ("offscreen", "dummy") and "SDL_VIDEODRIVER" not in os.environ:
            pygame.display.quit()  # because SDL may fall back on an invisible display
            raise GameError(f"cannot open {where}")
        self._screen: Any = None
        self._connection: ConnectionGuard | None = None  # to an X server
        self._speaker: Speaker | None = None
        self._no_sound = False
        self._windowed: tuple[_Point, _Point] | None = None  # position and size before full screen
        self._widened: tuple[_Point, _Point] | None = None  # (left edge, width) without and with the panel
        self._painter: tuple[Painter, _Point] | None = None  # and the window's size; None: draw everything

    @property
    def unused_keys(self) -> Collection[str]:
        return {"[", "]"} if self._no_sound else ()

    def draw(self, scene: Scene) -> None:
        if self._screen is None:
            self._open(scene)
        if not self._windowed and bool(scene.decision) != bool(self._widened):
            self._toggle_panel(bool(scene.decision))
        self._screen = pygame.display.get_surface()  # again, because the window may have another size now
        size = self._screen.get_size()
        if not self._painter or self._painter[1] != size:
            self._painter = Painter(self._screen), size
        pygame.display.update(self._painter[0].draw(scene))
        self._check_connection()

    def help_page_length(self, help: Sequence[tuple[str, str]]) -> int:
        return Painter(self._screen).help_page(help)[1]

    def play(self, sound: Sound, frames_per_second: float) -> None:
        if self._no_sound:
            return
        if not self._speaker:
            try:
                self._speaker = Speaker(sound.size, round(sound.size * frames_per_second))
            except (RuntimeError, OSError, AttributeError) as error:
                self._no_sound = True
                logger.info("There is no sound here: %s", error)
                return
        self._speaker.play(sound)

    def pressed(self) -> Iterator[str]:
        if self._screen is None:
            return
        for event in pygame.event.get():
            if event.type == pygame.QUIT:
                yield "q"
            elif event.type in (pygame.VIDEOEXPOSE, pygame.WINDOWEXPOSED, pygame.WINDOWSIZECHANGED):
                self._painter = None
            elif event.type == pygame.KEYDOWN:
                name = pygame.key.name(event.key)
                typed = event.unicode.lower()
                yield typed if typed.isprintable() and typed.strip() else name
        self._check_connection()

    def held(self) -> set[str]:
        down = pygame.key.get_pressed()
        names = ("up", "down", "left", "right", "space", *"0123456789")
        return {name for name in names if down[pygame.key.key_code(name)]}

    def toggle_fullscreen(self) -> None:
        """Fill the screen, or return to the window. SDL's own function would keep the window's size, and warn."""
        windowed, self._windowed, self._painter = self._windowed, None, None
        if windowed:
            self._place(*windowed)
        else:
            self._windowed = pygame.display.get_window_position(), self._screen.get_size()
            # To the corner, because without a window manager the full screen starts at the window.
            pygame.display.set_window_position((0, 0))
            pygame.display.set_mode((0, 0), pygame.FULLSCREEN)

    def close(self) -> None:
        if self._speaker:
            self._speaker.close()
        if self._connection and self._connection.lost:  # pygame would call Xlib, which would end the program
            atexit.unregister(pygame.quit)
        else:
            pygame.quit()

    def _open(self, scene: Scene) -> None:
        if pygame.display.get_driver() == "x11":
            # because SDL would use OpenGL, even without a GPU, which takes 20 times as long as shared memory
            os.environ.setdefault("SDL_FRAMEBUFFER_ACCELERATION", "0")
        rows, columns, _ = scene.picture.shape
        width, height = self._max_size()
        highest = max(_PICTURE, rows, 2 * min(rows for _, rows in pygame.display.get_desktop_sizes()) // 3)
        room = min(highest, height - bar_height(width, height))
        width, height = fitted_size(rows, columns, scene.pixel_width, width, room)
        pygame.display.set_icon(window_icon())
        self._screen = pygame.display.set_mode((width, height_with_bar(width, height)), pygame.RESIZABLE)
        pygame.display.set_caption(self._title)
        if pygame.display.get_driver() == "x11":
            self._connection = ConnectionGuard(pygame.display.get_wm_info()["display"])

    def _check_connection(self) -> None:
        if self._connection and self._connection.lost:
            raise GameError("the connection to the display is lost")

    def _max_size(self) -> tuple[int, int]:
        """Largest width and height of a window that fits on each screen, with its frame and the desktop's bars."""
        sizes = pygame.display.get_desktop_sizes()
        width, height = min(width for width, _ in sizes), min(height for _, height in sizes)
        return width - 16, height - max(height // 8, 48)

    def _toggle_panel(self, show: bool) -> None:
        """Widen the window for the panel, or undo this. The picture stays where it is if the screen is large enough.

        If the user moved or resized the window meanwhile, this is kept.
        """
        display = pygame.display
        (left, top), (width, height) = display.get_window_position(), self._screen.get_size()
        new_left, new_width = left, width
        if show:
            new_width += max(0, min(panel_width(height), self._max_size()[0] - width))
            desktop_width = sum(columns for columns, _ in display.get_desktop_sizes())  # if screens are side by side
            new_left = min(left, max(0, desktop_width - 8 - new_width))
            self._widened = (left, width), (new_left, new_width)
        else:
            assert self._widened
            (old_left, old_width), (wide_left, wide_width) = self._widened
            new_left = old_left if left == wide_left else left
            new_width = old_width if width == wide_width else width
            self._widened = None
        if (new_left, new_width) != (left, width):
            self._place((new_left, top), (new_width, height))

    def _place(self, position: _Point, size: _Point) -> None:
        """Set the window's size, then its position, because a new size would move the window by its frame.

        Try again if a busy window manager has not followed yet.
        """
        for attempt in range(_ATTEMPTS):
            time.sleep(0.05 * attempt)
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", RuntimeWarning)  # pygame warns if the window gets another size
                pygame.display.set_mode(size, pygame.RESIZABLE)
            pygame.display.set_window_position(position)
            pygame.event.pump()
            if (pygame.display.get_window_position(), pygame.display.get_window_size()) == (position, size):
                return
