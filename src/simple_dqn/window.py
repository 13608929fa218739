"""A window that shows a game, with its sound and its keys. The only module that knows pygame."""

from __future__ import annotations

import atexit
import contextlib
import ctypes
import logging
import os
from collections.abc import Iterator
from typing import Any

import numpy as np

from simple_dqn.environment import Sound
from simple_dqn.errors import GameError
from simple_dqn.pixels import block
from simple_dqn.viewer import Mind, Scene

logger = logging.getLogger(__name__)

_SCALE = 630  # height of the picture in a fresh window, at most; Atari's 210 rows, three times
_BAR, _PANEL = 28, 300  # height of the status line, width of the agent's thoughts
_BACKGROUND, _INK, _DIM, _ACCENT = (16, 16, 20), (235, 235, 235), (120, 120, 130), (255, 170, 60)
_MOST_SOUND = 6  # frames that may wait to be heard: more would come too late


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
            pygame.display.quit()  # nobody could see what SDL falls back on
            raise GameError(f"cannot open {where}")
        pygame.font.init()
        self._font = pygame.font.Font(None, 24)
        self._screen: Any = None
        self._loss = _NoLoss()
        self._speaker: _Speaker | None = None
        self._deaf = False
        self._thoughtful = False
        self._windowed: tuple[int, int] | None = None  # the size to go back to from the full screen

    def draw(self, scene: Scene) -> None:
        if self._screen is None:
            self._open(scene)
        if bool(scene.mind) != self._thoughtful:
            self._make_room(bool(scene.mind))
        self._screen = self._pygame.display.get_surface()  # of the size that the window has now
        width, height = self._screen.get_size()
        panel = min(_PANEL, width // 2) if scene.mind else 0
        self._screen.fill(_BACKGROUND)
        self._draw_picture(scene, width - panel, height - _BAR)
        self._text(scene.status, (8, height - _BAR + 6))
        if scene.mind:
            self._draw_mind(scene.mind, width - panel + 8, panel - 16, height - _BAR)
        if scene.help:
            self._draw_help(scene, width - panel, height - _BAR)
        self._pygame.display.flip()
        self._loss.check()

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
        pygame = self._pygame
        windowed, self._windowed = self._windowed, None
        if windowed:
            pygame.display.set_mode(windowed, pygame.RESIZABLE)
        else:
            self._windowed = self._screen.get_size()
            pygame.display.set_mode((0, 0), pygame.FULLSCREEN)

    def close(self) -> None:
        if self._speaker:
            self._speaker.close()
        if self._loss.lost:  # there is nobody to take leave of: Xlib would end the program at once
            atexit.unregister(self._pygame.quit)
        else:
            self._pygame.quit()

    def _open(self, scene: Scene) -> None:
        pygame = self._pygame
        rows, columns, _ = scene.picture.shape
        across, down = block(scene.pixel_width, max(1, _SCALE // rows))
        self._screen = pygame.display.set_mode((columns * across, rows * down + _BAR), pygame.RESIZABLE)
        pygame.display.set_caption("Simple DQN")
        if pygame.display.get_driver() == "x11":
            self._loss = _Loss(pygame.display.get_wm_info()["display"])

    def _make_room(self, thoughtful: bool) -> None:
        """The picture keeps its size as the thoughts come and go, unless the window fills the screen."""
        self._thoughtful = thoughtful
        width, height = self._windowed or self._screen.get_size()
        size = max(_PANEL, width + (_PANEL if thoughtful else -_PANEL)), height
        if self._windowed:  # for when it is a window again
            self._windowed = size
        else:
            self._screen = self._pygame.display.set_mode(size, self._pygame.RESIZABLE)

    def _draw_picture(self, scene: Scene, width: int, height: int) -> None:
        """As large as it fits: in whole pixels, or smaller and smooth where not even one fits."""
        pygame = self._pygame
        rows, columns, _ = scene.picture.shape
        size = fitting(rows, columns, scene.pixel_width, width, height)
        surface = pygame.image.frombuffer(np.ascontiguousarray(scene.picture).tobytes(), (columns, rows), "RGB")
        whole = size[0] % columns == 0 and size[1] % rows == 0
        scaled = (pygame.transform.scale if whole else pygame.transform.smoothscale)(surface, size)
        self._screen.blit(scaled, ((width - size[0]) // 2, (height - size[1]) // 2))

    def _draw_mind(self, mind: Mind, left: int, width: int, height: int) -> None:
        """Bars from the lowest to the highest Q-value, and the screens of the state, the newest last."""
        line = self._font.get_linesize()
        self._text("Q-values", (left, 8), _DIM)
        low, high = float(np.min(mind.q)), float(np.max(mind.q))
        top = 8 + line + 4
        bar, gap = (5, 3) if len(mind.names) <= 9 else (3, 0)  # all 18 actions leave room for the screens
        for i, (name, q) in enumerate(zip(mind.names, mind.q.tolist(), strict=True)):
            colour = _ACCENT if i == mind.chosen else _DIM
            share = (q - low) / (high - low) if high > low else 1.0
            self._pygame.draw.rect(self._screen, colour, (left, top + line - 4, max(2, int(width * share)), bar))
            self._text(name, (left, top - 4), _INK if i == mind.chosen else _DIM)
            number = self._font.render(f"{q:.3f}", True, _INK)
            self._screen.blit(number, (left + width - number.get_width(), top - 4))
            top += line + bar + gap
        self._text("what it sees, the newest last", (left, top + 6), _DIM)
        self._draw_state(mind, left, top + line + 10, width, height)

    def _draw_state(self, mind: Mind, left: int, top: int, width: int, height: int) -> None:
        pygame = self._pygame
        rows = -(-len(mind.state) // 2)
        each = min(width // 2 - 4, (height - top) // rows - 8)
        if each < 1:
            return
        for i, screen in enumerate(mind.state):
            place = (left + i % 2 * (each + 8), top + i // 2 * (each + 8))
            grey = np.repeat(screen[..., None], 3, axis=2).tobytes()
            surface = pygame.image.frombuffer(grey, screen.shape[::-1], "RGB")
            self._screen.blit(pygame.transform.scale(surface, (each, each)), place)

    def _draw_help(self, scene: Scene, width: int, height: int) -> None:
        pygame = self._pygame
        line = self._font.get_linesize() + 4
        box = pygame.Surface((380, line * len(scene.help) + 24), pygame.SRCALPHA)
        box.fill((0, 0, 0, 215))
        for i, (keys, text) in enumerate(scene.help):
            box.blit(self._font.render(keys, True, _ACCENT), (16, 12 + i * line))
            box.blit(self._font.render(text, True, _INK), (160, 12 + i * line))
        self._screen.blit(box, ((width - box.get_width()) // 2, (height - box.get_height()) // 2))

    def _text(self, text: str, place: tuple[int, int], colour: tuple[int, int, int] = _INK) -> None:
        self._screen.blit(self._font.render(text, True, colour), place)


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
