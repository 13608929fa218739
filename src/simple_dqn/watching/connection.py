"""Notices that the connection to an X server is lost."""

from __future__ import annotations

import contextlib
import ctypes
from typing import Any


class ConnectionGuard:
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
