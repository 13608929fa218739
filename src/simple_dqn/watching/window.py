"""A window that shows a game, with its sound and its keys. The only module that knows pygame."""

from __future__ import annotations

import atexit
import contextlib
import ctypes
import logging
import os
import time
import warnings
from collections.abc import Collection, Iterator, Sequence
from typing import Any

import numpy as np

from simple_dqn.environment import Picture, Sound
from simple_dqn.errors import GameError
from simple_dqn.watching.pixels import block
from simple_dqn.watching.viewer import Mind, Scene, shortened

logger = logging.getLogger(__name__)

_SCALE = 630  # height of the picture in a fresh window, at most; Atari's 210 rows, three times
_BAR, _PANEL = 28, 300  # height of the status line, width of the agent's thoughts
_TEXT, _SMALL_TEXT, _LEAST_TEXT = 24, 14, 8  # heights of letters
_BACKGROUND, _INK, _DIM, _ACCENT = (16, 16, 20), (235, 235, 235), (120, 120, 130), (255, 170, 60)
_ATTEMPTS = 3  # to set the size and place of the window
_LEAST_SCREEN = 16  # pixels: on smaller ones nothing can be seen
_MOST_SOUND = 6  # frames that may wait to be heard: more would come too late

_Point = tuple[int, int]


class Window:
    """A window, opened with the first picture.

    Raises:
        GameError: there is no display to open it on.
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
        self._fonts: dict[int, Any] = {}
        self._font = self._font_of(_TEXT)
        self._screen: Any = None
        self._loss = _NoLoss()
        self._speaker: _Speaker | None = None
        self._deaf = False
        self._windowed: tuple[_Point, _Point] | None = None  # place and size before the full screen
        self._roomy: tuple[_Point, _Point] | None = None  # (left edge, width) without and with thoughts
        self._drawn: tuple[Scene, _Point] | None = None  # what the window shows, and its size

    @property
    def idle(self) -> Collection[str]:
        return {"[", "]"} if self._deaf else ()

    def draw(self, scene: Scene) -> None:
        if self._screen is None:
            self._open(scene)
        if not self._windowed and bool(scene.mind) != bool(self._roomy):
            self._make_room(bool(scene.mind))
        self._screen = self._pygame.display.get_surface()  # of the size that the window has now
        size = self._screen.get_size()
        before, self._drawn = self._drawn, (scene, size)
        if before and before[1] == size and _differ_little(before[0], scene):
            self._draw_changes(scene, before[0])
        else:
            self._draw_all(scene)
        self._loss.check()

    def room_for(self, help: Sequence[tuple[str, str]]) -> int:
        return self._fit_help(help)[1]

    def play(self, sound: Sound, frames_per_second: float) -> None:
        if self._deaf:
            return
        if not self._speaker:
            try:
                self._speaker = _Speaker(sound.size, round(sound.size * frames_per_second))
            except (RuntimeError, OSError, AttributeError) as error:
                self._deaf = True
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
        self._loss.check()

    def held(self) -> set[str]:
        pygame = self._pygame
        down = pygame.key.get_pressed()
        names = ("up", "down", "left", "right", "space", *"0123456789")
        return {name for name in names if down[pygame.key.key_code(name)]}

    def toggle_fullscreen(self) -> None:
        """By hand: SDL's own way keeps the window's size, and warns."""
        windowed, self._windowed, self._drawn = self._windowed, None, None
        if windowed:
            self._place(*windowed)
        else:
            self._windowed = self._pygame.display.get_window_position(), self._screen.get_size()
            self._pygame.display.set_window_position((0, 0))  # without a window manager the full screen begins there
            self._pygame.display.set_mode((0, 0), self._pygame.FULLSCREEN)

    def close(self) -> None:
        if self._speaker:
            self._speaker.close()
        if self._loss.lost:  # the X server is gone, and Xlib would end the program at once
            atexit.unregister(self._pygame.quit)
        else:
            self._pygame.quit()

    def _open(self, scene: Scene) -> None:
        pygame = self._pygame
        if pygame.display.get_driver() == "x11":
            # SDL would use OpenGL, even without a GPU: 20 times slower than shared memory, and for the whole window.
            os.environ.setdefault("SDL_FRAMEBUFFER_ACCELERATION", "0")
        rows, columns, _ = scene.picture.shape
        width, height = self._room()
        width, height = fitting(rows, columns, scene.pixel_width, width, min(height - _BAR, max(_SCALE, rows)))
        self._screen = pygame.display.set_mode((width, height + _BAR), pygame.RESIZABLE)
        pygame.display.set_caption("Simple DQN")
        if pygame.display.get_driver() == "x11":
            self._loss = _Loss(pygame.display.get_wm_info()["display"])

    def _room(self) -> tuple[int, int]:
        """Width and height that a window may have on any of the screens, beside its frame and the desktop's bars."""
        sizes = self._pygame.display.get_desktop_sizes()
        width, height = min(width for width, _ in sizes), min(height for _, height in sizes)
        return width - 16, height - max(height // 8, 48)

    def _make_room(self, thoughtful: bool) -> None:
        """The picture keeps its size and place as the thoughts come and go, if the screen has room for both.

        A window that was moved or resized by hand meanwhile stays so.
        """
        display = self._pygame.display
        (left, top), (width, height) = display.get_window_position(), self._screen.get_size()
        before = left, width
        if thoughtful:
            width += max(0, min(_PANEL, self._room()[0] - width))
            screens = sum(across for across, _ in display.get_desktop_sizes())  # side by side, if several
            left = min(left, max(0, screens - 8 - width))
            self._roomy = before, (left, width)
        else:
            assert self._roomy
            (left_then, width_then), made = self._roomy
            left, width = left_then if left == made[0] else left, width_then if width == made[1] else width
            self._roomy = None
        if (left, width) != before:
            self._place((left, top), (width, height))

    def _place(self, place: _Point, size: _Point) -> None:
        """Sets the window's size and place; the place because a new size would move the window by its frame.

        Tries again if a busy window manager has not followed yet.
        """
        pygame = self._pygame
        for attempt in range(_ATTEMPTS):
            time.sleep(0.05 * attempt)
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", RuntimeWarning)  # that it got another size
                pygame.display.set_mode(size, pygame.RESIZABLE)
            pygame.display.set_window_position(place)
            pygame.event.pump()
            if (pygame.display.get_window_position(), pygame.display.get_window_size()) == (place, size):
                return

    def _draw_all(self, scene: Scene) -> None:
        width, height = self._screen.get_size()
        panel = self._panel(scene)
        self._screen.fill(_BACKGROUND)
        self._draw_picture(scene, [(0, len(scene.picture))])
        self._draw_status(scene)
        if scene.mind:
            self._draw_mind(scene.mind, width - panel + 8, panel - 16, height - _BAR)
        if scene.help:
            self._draw_help(scene.help, width, height - _BAR)
        self._pygame.display.flip()

    def _draw_changes(self, scene: Scene, before: Scene) -> None:
        """Draws only what differs: little in most games, while all of a large window takes long."""
        changed = self._draw_picture(scene, changed_rows(before.picture, scene.picture))
        if scene.status != before.status:
            changed.append(self._draw_status(scene))
        self._pygame.display.update(changed)

    def _panel(self, scene: Scene) -> int:
        return min(_PANEL, self._screen.get_width() // 2) if scene.mind else 0

    def _draw_picture(self, scene: Scene, runs: Sequence[tuple[int, int]]) -> list[Any]:
        """Draws some rows of the picture as large as it fits; returns the rectangles of the window that it drew on.

        The scale is a whole number. If the window is too small for that, all of the picture is drawn, smoothed.

        Args:
            scene: with the picture.
            runs: first row and the one after the last of each run of rows.
        """
        pygame = self._pygame
        rows, columns, _ = scene.picture.shape
        width, height = self._screen.get_width() - self._panel(scene), self._screen.get_height() - _BAR
        size = fitting(rows, columns, scene.pixel_width, width, height)
        left, top = (width - size[0]) // 2, (height - size[1]) // 2
        if left < 0 or top < 0:  # the window is too small for any picture
            return []
        whole = size[0] % columns == 0 and size[1] % rows == 0
        if not whole and runs:
            runs = [(0, rows)]
        places = []
        for first, after in runs:
            start, end = first * size[1] // rows, after * size[1] // rows
            place = pygame.Rect(left, top + start, size[0], end - start)
            pixels = np.ascontiguousarray(scene.picture[first:after]).tobytes()
            surface = pygame.image.frombuffer(pixels, (columns, after - first), "RGB").convert(self._screen)
            scale = pygame.transform.scale if whole else pygame.transform.smoothscale
            scale(surface, place.size, self._screen.subsurface(place))
            places.append(place)
        return places

    def _draw_status(self, scene: Scene) -> Any:
        """Draws the status line; returns its rectangle."""
        width, height = self._screen.get_size()
        bar = self._pygame.Rect(0, height - _BAR, width, _BAR)
        self._screen.fill(_BACKGROUND, bar)
        self._text(shortened(scene.status, lambda line: self._font.size(line)[0] <= width - 16), (8, height - _BAR + 6))
        return bar

    def _draw_mind(self, mind: Mind, left: int, width: int, height: int) -> None:
        """Bars from the lowest to the highest Q-value, and the screens of the state, the newest last.

        If there is no room for all actions, those around the chosen one are shown.
        """
        low, high = float(np.min(mind.q)), float(np.max(mind.q))
        bar, gap = (5, 3) if len(mind.names) <= 9 else (3, 0)  # all 18 actions leave room for the screens
        for size in range(_TEXT, _LEAST_TEXT - 1, -2):
            font = self._font_of(size)
            line = font.get_linesize()
            across = max(font.size(f"{name} {q:.3f}")[0] for name, q in zip(mind.names, mind.q.tolist(), strict=True))
            count = max(1, (height - 12 - line) // (line + bar + gap))
            if across <= width and (count >= len(mind.names) or size <= _SMALL_TEXT):
                break
        self._text("Q-values", (left, 8), _DIM, font)
        top = 8 + line + 4
        first = max(0, mind.chosen + 1 - count)
        for i, (name, q) in list(enumerate(zip(mind.names, mind.q.tolist(), strict=True)))[first : first + count]:
            colour = _ACCENT if i == mind.chosen else _DIM
            share = (q - low) / (high - low) if high > low else 1.0
            self._pygame.draw.rect(self._screen, colour, (left, top + line - 4, max(2, int(width * share)), bar))
            self._text(name, (left, top - 4), _INK if i == mind.chosen else _DIM, font)
            number = font.render(f"{q:.3f}", True, _INK)
            self._screen.blit(number, (left + width - number.get_width(), top - 4))
            top += line + bar + gap
        self._draw_state(mind, left, top + 6, width, height, font)

    def _draw_state(self, mind: Mind, left: int, top: int, width: int, height: int, font: Any) -> None:
        pygame = self._pygame
        caption, line = "what it sees, the newest last", font.get_linesize() + 4
        rows = -(-len(mind.state) // 2)
        each = min(width // 2 - 4, (height - top - line) // rows - 8)
        if each < _LEAST_SCREEN:
            return
        if font.size(caption)[0] <= width:
            self._text(caption, (left, top), _DIM, font)
        top += line
        for i, screen in enumerate(mind.state):
            place = (left + i % 2 * (each + 8), top + i // 2 * (each + 8))
            grey = np.repeat(screen[..., None], 3, axis=2).tobytes()
            surface = pygame.image.frombuffer(grey, screen.shape[::-1], "RGB")
            self._screen.blit(pygame.transform.scale(surface, (each, each)), place)

    def _draw_help(self, help: Sequence[tuple[str, str]], width: int, height: int) -> None:
        size, count = self._fit_help(help)
        font = self._font_of(size)
        line, (column, right) = self._line(size), self._help_columns(help, size)
        box = self._pygame.Surface((right, line * count + size), self._pygame.SRCALPHA)
        box.fill((0, 0, 0, 215))
        for i, (keys, text) in enumerate(help[:count]):
            box.blit(font.render(keys, True, _ACCENT), (size // 2, size // 2 + i * line))
            box.blit(font.render(text, True, _INK), (column, size // 2 + i * line))
        self._screen.blit(box, ((width - box.get_width()) // 2, (height - box.get_height()) // 2))

    def _fit_help(self, help: Sequence[tuple[str, str]]) -> tuple[int, int]:
        """Height of the letters, and number of lines of `help` that fit: all, unless the letters get too small."""
        width, height = self._screen.get_size()
        for size in range(_TEXT, _LEAST_TEXT - 1, -2):
            count = (height - _BAR - size) // self._line(size)
            if self._help_columns(help, size)[1] <= width and (count >= len(help) or size <= _SMALL_TEXT):
                break
        return size, max(1, min(count, len(help)))

    def _help_columns(self, help: Sequence[tuple[str, str]], size: int) -> tuple[int, int]:
        """Left and right edge of the column of explanations, with letters of `size`."""
        keys, texts = (max(self._font_of(size).size(text)[0] for text in column) for column in zip(*help, strict=True))
        return size // 2 + keys + size, size // 2 + keys + size + texts + size // 2

    def _line(self, size: int) -> int:
        return int(self._font_of(size).get_linesize()) + size // 6

    def _font_of(self, size: int) -> Any:
        if size not in self._fonts:
            self._fonts[size] = self._pygame.font.Font(None, size)
        return self._fonts[size]

    def _text(self, text: str, place: _Point, colour: tuple[int, int, int] = _INK, font: Any = None) -> None:
        self._screen.blit((font or self._font).render(text, True, colour), place)


def _differ_little(a: Scene, b: Scene) -> bool:
    """Whether two scenes differ only in the status and in pixels."""
    same_shape = (a.picture.shape, a.pixel_width) == (b.picture.shape, b.pixel_width)
    return same_shape and a.mind is b.mind and not a.help and not b.help


def changed_rows(before: Picture, after: Picture) -> list[tuple[int, int]]:
    """Runs of rows in which two pictures of one shape differ: first row, and the one after the last."""
    differ = (before != after).any(axis=(1, 2))
    edges = np.flatnonzero(np.diff(differ, prepend=False, append=False))
    return [(int(first), int(end)) for first, end in edges.reshape(-1, 2)]


def fitting(rows: int, columns: int, pixel_width: float, width: int, height: int) -> tuple[int, int]:
    """Size of the largest picture of so many rows and columns that fits into width x height, in whole pixels if any."""
    for scale in range(max(1, height // rows), 0, -1):
        across, down = block(pixel_width, scale)
        if columns * across <= width and rows * down <= height:
            return columns * across, rows * down
    shrink = min(width / (columns * pixel_width), height / rows)
    return max(1, int(columns * pixel_width * shrink)), max(1, int(rows * shrink))


class _AudioSpec(ctypes.Structure):
    """SDL_AudioSpec of SDL 2."""

    _fields_ = (
        ("freq", ctypes.c_int),
        ("format", ctypes.c_uint16),
        ("channels", ctypes.c_uint8),
        ("silence", ctypes.c_uint8),
        ("samples", ctypes.c_uint16),
        ("padding", ctypes.c_uint16),
        ("size", ctypes.c_uint32),
        ("callback", ctypes.c_void_p),
        ("userdata", ctypes.c_void_p),
    )


_AUDIO, _UNSIGNED_8_BIT = 0x10, 0x0008  # SDL_INIT_AUDIO, AUDIO_U8


class _Speaker:
    """Plays sounds one after another without a gap; if none waits, silence.

    It fills SDL's queue by ctypes. pygame offers a callback instead, which can deadlock: SDL waits for it to close the
    device, it waits for Python's lock, and pygame keeps the lock meanwhile.

    Raises:
        RuntimeError: there is no sound device.
        OSError, AttributeError: pygame comes with another SDL.
    """

    def __init__(self, chunk: int, samples_per_second: int) -> None:
        import pygame.base

        self._sdl = sdl = ctypes.CDLL(pygame.base.__file__)  # has the functions of the SDL that it is linked to
        sdl.SDL_GetError.restype = ctypes.c_char_p
        spec = _AudioSpec(freq=samples_per_second, format=_UNSIGNED_8_BIT, channels=1, samples=chunk)
        self._most = _MOST_SOUND * chunk
        with _silence_of_libraries():
            failed = sdl.SDL_InitSubSystem(_AUDIO)
            self._device = 0 if failed else sdl.SDL_OpenAudioDevice(None, 0, ctypes.byref(spec), None, 0)
        if not self._device:
            raise RuntimeError(sdl.SDL_GetError().decode(errors="replace"))
        sdl.SDL_PauseAudioDevice(self._device, 0)

    @property
    def waiting(self) -> int:
        """Samples that wait to be heard."""
        number: int = self._sdl.SDL_GetQueuedAudioSize(self._device)
        return number

    def play(self, sound: Sound) -> None:
        if self.waiting + sound.size <= self._most:
            self._sdl.SDL_QueueAudio(self._device, sound.tobytes(), sound.size)

    def close(self) -> None:
        self._sdl.SDL_CloseAudioDevice(self._device)


@contextlib.contextmanager
def _silence_of_libraries() -> Iterator[None]:
    """ALSA writes a page to standard error where there is no sound card; one line of ours will do."""
    kept, nowhere = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(nowhere, 2)
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(nowhere)


class _NoLoss:
    """A display that does not vanish, as far as one can tell."""

    lost = False

    def check(self) -> None:
        pass


class _Loss(_NoLoss):
    """Learns that an X display has vanished: Xlib would end the whole program, with what was learned.

    Args:
        display: the capsule that pygame has of it.
    """

    def __init__(self, display: Any) -> None:
        self.lost = False
        with contextlib.suppress(OSError, AttributeError, ValueError):  # another Xlib, before 1.7: it ends the program
            xlib = ctypes.CDLL("libX11.so.6")
            pointer = ctypes.pythonapi.PyCapsule_GetPointer
            pointer.restype, pointer.argtypes = ctypes.c_void_p, [ctypes.py_object, ctypes.c_char_p]
            handler = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_void_p)
            exit_handler = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_void_p)
            self._kept = (handler(lambda _: 0), exit_handler(self._lose))  # Xlib holds no reference
            set_exit = xlib.XSetIOErrorExitHandler
            set_exit.argtypes, set_exit.restype = [ctypes.c_void_p, exit_handler, ctypes.c_void_p], None
            xlib.XSetIOErrorHandler.argtypes = [handler]
            set_exit(pointer(display, b"display"), self._kept[1], None)
            xlib.XSetIOErrorHandler(self._kept[0])

    def _lose(self, *_: Any) -> None:
        self.lost = True

    def check(self) -> None:
        if self.lost:
            raise GameError("the display has gone: the window cannot show the game any more")
