"""A window that shows a game, plays its sound and reads keys. Only this module and speaker.py use pygame."""

from __future__ import annotations

import atexit
import contextlib
import ctypes
import functools
import logging
import os
import time
import warnings
from collections.abc import Collection, Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from simple_dqn.environment import Picture, Sound
from simple_dqn.errors import GameError
from simple_dqn.watching.display import Decision, Scene, block, shortened
from simple_dqn.watching.speaker import Speaker

logger = logging.getLogger(__name__)

_MAX_HEIGHT = 630  # of the picture in a new window: three times Atari's 210 rows
_BAR, _PANEL = 28, 300  # height of the status line, width of the panel with the agent's decision
_TEXT, _SMALL_TEXT, _MIN_TEXT = 24, 14, 8  # font sizes, pixels
_BACKGROUND, _INK, _DIM, _ACCENT = (16, 16, 20), (235, 235, 235), (120, 120, 130), (255, 170, 60)
_ATTEMPTS = 3  # to set the size and place of the window
_MIN_SCREEN = 16  # pixels; smaller screens show nothing useful

_Point = tuple[int, int]


class Window:
    """A window. The first picture opens it.

    Raises:
        GameError: there is no display.
    """

    def __init__(self) -> None:
        os.environ.setdefault("PYGAME_HIDE_SUPPORT_PROMPT", "1")
        import pygame

        self._pygame: Any = pygame
        where = os.environ.get("DISPLAY") or "a window"
        try:
            pygame.display.init()
        except pygame.error as error:
            raise GameError(f"cannot open {where}: {error}") from None
        if pygame.display.get_driver() in ("offscreen", "dummy") and "SDL_VIDEODRIVER" not in os.environ:
            pygame.display.quit()  # because SDL may fall back on an invisible display
            raise GameError(f"cannot open {where}")
        pygame.font.init()
        self._get_font: Any = functools.cache(functools.partial(pygame.font.Font, None))
        self._font = self._get_font(_TEXT)
        self._screen: Any = None
        self._connection: _ConnectionGuard | None = None  # to an X server
        self._speaker: Speaker | None = None
        self._no_sound = False
        self._windowed: tuple[_Point, _Point] | None = None  # position and size before full screen
        self._widened: tuple[_Point, _Point] | None = None  # (left edge, width) without and with the panel
        self._drawn: tuple[Scene, _Point] | None = None  # the scene that the window shows, and the window's size

    @property
    def unused_keys(self) -> Collection[str]:
        return {"[", "]"} if self._no_sound else ()

    def draw(self, scene: Scene) -> None:
        if self._screen is None:
            self._open(scene)
        if not self._windowed and bool(scene.decision) != bool(self._widened):
            self._toggle_panel(bool(scene.decision))
        self._screen = self._pygame.display.get_surface()  # again, because the window may have another size now
        size = self._screen.get_size()
        before, self._drawn = self._drawn, (scene, size)
        if before and before[1] == size and _differ_slightly(before[0], scene):
            self._draw_changes(scene, before[0])
        else:
            self._draw_all(scene)
        self._check_connection()

    def help_page_length(self, help: Sequence[tuple[str, str]]) -> int:
        return self._fit_help(help)[1]

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
        pygame = self._pygame
        if self._screen is None:
            return
        for event in pygame.event.get():
            if event.type == pygame.QUIT:
                yield "q"
            elif event.type in (pygame.VIDEOEXPOSE, pygame.WINDOWEXPOSED, pygame.WINDOWSIZECHANGED):
                self._drawn = None
            elif event.type == pygame.KEYDOWN:
                name = pygame.key.name(event.key)
                typed = event.unicode.lower()
                yield typed if typed.isprintable() and typed.strip() else name
        self._check_connection()

    def held(self) -> set[str]:
        pygame = self._pygame
        down = pygame.key.get_pressed()
        names = ("up", "down", "left", "right", "space", *"0123456789")
        return {name for name in names if down[pygame.key.key_code(name)]}

    def toggle_fullscreen(self) -> None:
        """Fill the screen, or return to the window. SDL's own function would keep the window's size, and warn."""
        windowed, self._windowed, self._drawn = self._windowed, None, None
        if windowed:
            self._place(*windowed)
        else:
            self._windowed = self._pygame.display.get_window_position(), self._screen.get_size()
            # To the corner, because without a window manager the full screen starts at the window.
            self._pygame.display.set_window_position((0, 0))
            self._pygame.display.set_mode((0, 0), self._pygame.FULLSCREEN)

    def close(self) -> None:
        if self._speaker:
            self._speaker.close()
        if self._connection and self._connection.lost:  # pygame would call Xlib, which would end the program
            atexit.unregister(self._pygame.quit)
        else:
            self._pygame.quit()

    def _open(self, scene: Scene) -> None:
        pygame = self._pygame
        if pygame.display.get_driver() == "x11":
            # because SDL would use OpenGL, even without a GPU, which takes 20 times as long as shared memory
            os.environ.setdefault("SDL_FRAMEBUFFER_ACCELERATION", "0")
        rows, columns, _ = scene.picture.shape
        width, height = self._max_size()
        width, height = fitted_size(rows, columns, scene.pixel_width, width, min(height - _BAR, max(_MAX_HEIGHT, rows)))
        self._screen = pygame.display.set_mode((width, height + _BAR), pygame.RESIZABLE)
        pygame.display.set_caption("Simple DQN")
        if pygame.display.get_driver() == "x11":
            self._connection = _ConnectionGuard(pygame.display.get_wm_info()["display"])

    def _check_connection(self) -> None:
        if self._connection and self._connection.lost:
            raise GameError("the connection to the display is lost")

    def _max_size(self) -> tuple[int, int]:
        """Largest width and height of a window that fits on each screen, with its frame and the desktop's bars."""
        sizes = self._pygame.display.get_desktop_sizes()
        width, height = min(width for width, _ in sizes), min(height for _, height in sizes)
        return width - 16, height - max(height // 8, 48)

    def _toggle_panel(self, show: bool) -> None:
        """Widen the window for the panel, or undo this. The picture stays where it is if the screen is large enough.

        If the user moved or resized the window meanwhile, this is kept.
        """
        display = self._pygame.display
        (left, top), (width, height) = display.get_window_position(), self._screen.get_size()
        new_left, new_width = left, width
        if show:
            new_width += max(0, min(_PANEL, self._max_size()[0] - width))
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
        pygame = self._pygame
        for attempt in range(_ATTEMPTS):
            time.sleep(0.05 * attempt)
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", RuntimeWarning)  # pygame warns if the window gets another size
                pygame.display.set_mode(size, pygame.RESIZABLE)
            pygame.display.set_window_position(position)
            pygame.event.pump()
            if (pygame.display.get_window_position(), pygame.display.get_window_size()) == (position, size):
                return

    def _draw_all(self, scene: Scene) -> None:
        width, height = self._screen.get_size()
        panel = self._panel_width(scene)
        self._screen.fill(_BACKGROUND)
        self._draw_picture(scene, [(0, len(scene.picture))])
        self._draw_status(scene)
        if scene.decision:
            self._draw_decision(scene.decision, width - panel + 8, panel - 16, height - _BAR)
        if scene.help:
            self._draw_help(scene.help, width, height - _BAR)
        self._pygame.display.flip()

    def _draw_changes(self, scene: Scene, before: Scene) -> None:
        """Draw only the differences, because a whole large window takes long."""
        changed = self._draw_picture(scene, changed_rows(before.picture, scene.picture))
        if scene.status != before.status:
            changed.append(self._draw_status(scene))
        self._pygame.display.update(changed)

    def _panel_width(self, scene: Scene) -> int:
        return min(_PANEL, self._screen.get_width() // 2) if scene.decision else 0

    def _draw_picture(self, scene: Scene, runs: Sequence[tuple[int, int]]) -> list[Any]:
        """Draw some rows of the picture, as large as it fits. Return the rectangles of the window that changed.

        The scale is an integer. If the window is too small for that, draw the whole picture, smoothed.

        Args:
            scene: the scene with the picture.
            runs: runs of rows to draw: the first row, and the row after the last.
        """
        pygame = self._pygame
        rows, columns, _ = scene.picture.shape
        width, height = self._screen.get_width() - self._panel_width(scene), self._screen.get_height() - _BAR
        size = fitted_size(rows, columns, scene.pixel_width, width, height)
        left, top = (width - size[0]) // 2, (height - size[1]) // 2
        if left < 0 or top < 0:  # because the window is too small for any picture
            return []
        integer_scale = size[0] % columns == 0 and size[1] % rows == 0
        if not integer_scale and runs:
            runs = [(0, rows)]
        changed = []
        for first, end in runs:
            upper, lower = first * size[1] // rows, end * size[1] // rows
            place = pygame.Rect(left, top + upper, size[0], lower - upper)
            pixels = np.ascontiguousarray(scene.picture[first:end]).tobytes()
            surface = pygame.image.frombuffer(pixels, (columns, end - first), "RGB").convert(self._screen)
            scale = pygame.transform.scale if integer_scale else pygame.transform.smoothscale
            scale(surface, place.size, self._screen.subsurface(place))
            changed.append(place)
        return changed

    def _draw_status(self, scene: Scene) -> Any:
        """Draw the status line. Return its rectangle."""
        width, height = self._screen.get_size()
        bar = self._pygame.Rect(0, height - _BAR, width, _BAR)
        self._screen.fill(_BACKGROUND, bar)
        self._text(shortened(scene.status, lambda line: self._font.size(line)[0] <= width - 16), (8, height - _BAR + 6))
        return bar

    def _draw_decision(self, decision: Decision, left: int, width: int, height: int) -> None:
        """Draw the scale of the bars, the Q-values with their bars, and the screens of the state, the newest last.

        If not all actions fit, draw the chosen one and those before it.
        """
        names, q_values, scale = decision.action_names, decision.q_values.tolist(), decision.scale
        header = f"Q-values since v: {scale}"
        bar, gap = (5, 3) if len(names) <= 9 else (3, 0)  # so that the screens fit below 18 actions
        for size in range(_TEXT, _MIN_TEXT - 1, -2):
            font = self._get_font(size)
            line = font.get_linesize()
            entries = [f"{name} {q:.3f}" for name, q in zip(names, q_values, strict=True)]
            text_width = max(font.size(text)[0] for text in (header, *entries))
            count = max(1, (height - 12 - line) // (line + bar + gap))
            if text_width <= width and (count >= len(names) or size <= _SMALL_TEXT):
                break
        self._text(header, (left, 8), _DIM, font)
        top = 8 + line + 4
        first = max(0, decision.action + 1 - count)
        zero = left + int((width - 1) * scale.position(0))
        for i, (name, q) in list(enumerate(zip(names, q_values, strict=True)))[first : first + count]:
            colour = _ACCENT if i == decision.action else _DIM
            start, end = (left + int(width * share) for share in scale.bar(q))
            self._pygame.draw.rect(self._screen, colour, (start, top + line - 4, end - start, bar))
            self._pygame.draw.line(self._screen, _INK, (zero, top + line - 5), (zero, top + line - 4 + bar))
            self._text(name, (left, top - 4), _INK if i == decision.action else _DIM, font)
            number = font.render(f"{q:.3f}", True, _INK)
            self._screen.blit(number, (left + width - number.get_width(), top - 4))
            top += line + bar + gap
        self._draw_state(decision.state, left, top + 6, width, height, font)

    def _draw_state(self, state: NDArray[np.uint8], left: int, top: int, width: int, height: int, font: Any) -> None:
        pygame = self._pygame
        caption, line = "what it sees, the newest last", font.get_linesize() + 4
        rows = -(-len(state) // 2)
        side = min(width // 2 - 4, (height - top - line) // rows - 8)
        if side < _MIN_SCREEN:
            return
        if font.size(caption)[0] <= width:
            self._text(caption, (left, top), _DIM, font)
        top += line
        for i, screen in enumerate(state):
            place = (left + i % 2 * (side + 8), top + i // 2 * (side + 8))
            grey = np.repeat(screen[..., None], 3, axis=2).tobytes()
            surface = pygame.image.frombuffer(grey, screen.shape[::-1], "RGB")
            self._screen.blit(pygame.transform.scale(surface, (side, side)), place)

    def _draw_help(self, help: Sequence[tuple[str, str]], width: int, height: int) -> None:
        size, count = self._fit_help(help)
        font = self._get_font(size)
        line, (column, right) = self._line_height(size), self._help_columns(help, size)
        box = self._pygame.Surface((right, line * count + size), self._pygame.SRCALPHA)
        box.fill((0, 0, 0, 215))
        for i, (keys, text) in enumerate(help[:count]):
            box.blit(font.render(keys, True, _ACCENT), (size // 2, size // 2 + i * line))
            box.blit(font.render(text, True, _INK), (column, size // 2 + i * line))
        self._screen.blit(box, ((width - box.get_width()) // 2, (height - box.get_height()) // 2))

    def _fit_help(self, help: Sequence[tuple[str, str]]) -> tuple[int, int]:
        """Font size, and number of entries of `help` that fit: all, unless the font would be too small."""
        width, height = self._screen.get_size()
        for size in range(_TEXT, _MIN_TEXT - 1, -2):
            count = (height - _BAR - size) // self._line_height(size)
            if self._help_columns(help, size)[1] <= width and (count >= len(help) or size <= _SMALL_TEXT):
                break
        return size, max(1, min(count, len(help)))

    def _help_columns(self, help: Sequence[tuple[str, str]], size: int) -> tuple[int, int]:
        """Left and right edge of the column of explanations, with a font of `size`."""
        keys, texts = (max(self._get_font(size).size(text)[0] for text in column) for column in zip(*help, strict=True))
        return size // 2 + keys + size, size // 2 + keys + size + texts + size // 2

    def _line_height(self, size: int) -> int:
        return int(self._get_font(size).get_linesize()) + size // 6

    def _text(self, text: str, place: _Point, colour: tuple[int, int, int] = _INK, font: Any = None) -> None:
        self._screen.blit((font or self._font).render(text, True, colour), place)


def _differ_slightly(a: Scene, b: Scene) -> bool:
    """Whether two scenes differ only in the status and in pixels. Pages of help count as different."""
    same_shape = (a.picture.shape, a.pixel_width) == (b.picture.shape, b.pixel_width)
    return same_shape and a.decision is b.decision and not a.help and not b.help


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


class _ConnectionGuard:
    """Notices that the connection to the X server is lost. Xlib alone would end the program.

    Args:
        display: the X display, as a capsule of pygame.
    """

    def __init__(self, display: Any) -> None:
        self.lost = False
        with contextlib.suppress(OSError, AttributeError, ValueError):  # before Xlib 1.7 nothing can be done
            xlib = ctypes.CDLL("libX11.so.6")
            pointer = ctypes.pythonapi.PyCapsule_GetPointer
            pointer.restype, pointer.argtypes = ctypes.c_void_p, [ctypes.py_object, ctypes.c_char_p]
            handler = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_void_p)
            exit_handler = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_void_p)
            self._handlers = (handler(lambda _: 0), exit_handler(self._lose))  # kept, because Xlib holds no reference
            set_exit = xlib.XSetIOErrorExitHandler
            set_exit.argtypes, set_exit.restype = [ctypes.c_void_p, exit_handler, ctypes.c_void_p], None
            xlib.XSetIOErrorHandler.argtypes = [handler]
            set_exit(pointer(display, b"display"), self._handlers[1], None)
            xlib.XSetIOErrorHandler(self._handlers[0])

    def _lose(self, *_: Any) -> None:
        self.lost = True
