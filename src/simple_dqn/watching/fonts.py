"""The font of windows and films: DejaVu Sans, which matplotlib includes with its licence. All digits have one width."""

from __future__ import annotations

import functools
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pygame


def get_font(size: int) -> Any:
    """The font of this height in pixels. If there is no DejaVu Sans, the one that pygame includes."""
    if not pygame.font.get_init():
        pygame.font.init()
        _load.cache_clear()  # because fonts are lost when pygame quits
    return _load(size)


@functools.cache
def _load(size: int) -> Any:
    return pygame.font.Font(_path(), size)


@functools.cache
def _path() -> str | None:
    found = find_spec("matplotlib")  # not imported, because that takes long
    if not found or not found.origin:
        return None
    path = Path(found.origin).parent / "mpl-data" / "fonts" / "ttf" / "DejaVuSans.ttf"
    return str(path) if path.is_file() else None
