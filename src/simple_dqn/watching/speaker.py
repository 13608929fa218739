"""Plays a game's sound. It fills the queue of SDL, which pygame includes."""

from __future__ import annotations

import contextlib
import ctypes
import os
from collections.abc import Iterator

from simple_dqn.environment import Sound

_MAX_WAITING = 6  # frames of sound in the queue; more would sound late


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


class Speaker:
    """Plays sounds one after another without a gap. An empty queue is silence.

    It calls SDL by ctypes, because pygame's audio callback can deadlock: to close the device, pygame holds Python's
    lock and waits for the callback, and the callback waits for the lock.

    Raises:
        RuntimeError: there is no sound device.
        OSError, AttributeError: pygame includes another version of SDL.
    """

    def __init__(self, chunk: int, samples_per_second: int) -> None:
        import pygame.base

        self._sdl = sdl = ctypes.CDLL(pygame.base.__file__)  # gives access to the SDL that it is linked to
        sdl.SDL_GetError.restype = ctypes.c_char_p
        spec = _AudioSpec(freq=samples_per_second, format=_UNSIGNED_8_BIT, channels=1, samples=chunk)
        self._max_samples = _MAX_WAITING * chunk
        with _silent_stderr():
            failed = sdl.SDL_InitSubSystem(_AUDIO)
            self._device = 0 if failed else sdl.SDL_OpenAudioDevice(None, 0, ctypes.byref(spec), None, 0)
        if not self._device:
            raise RuntimeError(sdl.SDL_GetError().decode(errors="replace"))
        sdl.SDL_PauseAudioDevice(self._device, 0)

    @property
    def waiting(self) -> int:
        """Samples in the queue."""
        number: int = self._sdl.SDL_GetQueuedAudioSize(self._device)
        return number

    def play(self, sound: Sound) -> None:
        """Append `sound` to the queue. It is dropped if the queue is full."""
        if self.waiting + sound.size <= self._max_samples:
            self._sdl.SDL_QueueAudio(self._device, sound.tobytes(), sound.size)

    def close(self) -> None:
        self._sdl.SDL_CloseAudioDevice(self._device)


@contextlib.contextmanager
def _silent_stderr() -> Iterator[None]:
    """Hide standard error, because ALSA writes a page of messages if there is no sound card."""
    stderr, null = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(null, 2)
        yield
    finally:
        os.dup2(stderr, 2)
        os.close(stderr)
        os.close(null)
