"""Average the colours of two frames like the emulator, but only where the result is seen.

With `color_averaging` the emulator averages every frame, which takes more than half as long as playing it. An agent
sees one frame in four.
"""

from __future__ import annotations

import atexit
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

# Red, green and blue of the emulator's 128 colours in NTSC games, as its getScreen and getScreenRGB show them.
_PALETTE = np.frombuffer(
    bytes.fromhex(
        "0000004a4a4a6f6f6f8e8e8eaaaaaac0c0c0d6d6d6ececec48480069690f86861da2a22abbbb35d2d240e8e84afcfc54"
        "7c2c00904811a26221b47a30c3903dd2a44adfb755ecc860901c00a33915b55328c66c3ad5824ae39759f0aa67fcbc74"
        "940000a71a1ab83232c84848d65c5ce46f6ff08080fc909084006497197aa8308fb846a2c659b3d46cc3e07cd2ec8ce0"
        "50008468199a7d30ad9246c0a459d0b56ce0c57ceed48cfc140090331aa34e32b56848c67f5cd5956fe3a980f0bc90fc"
        "000094181aa72d32b84248c8545cd6656fe47580f08490fc001c88183b9d2d57b04272c2548ad265a0e175b5ef84c8fc"
        "0030641850802d6d984288b054a0c565b7d975cceb84e0fc00403018624e2d8169429e8254b89965d1ae75e7c284fcd4"
        "0044001a661a32843248a0485cba5c6fd26f80e88090fc90143c00355f18527e2d6e9c4287b7549ed065b4e775c8fc84"
        "3038005059166d762b88923ea0ab4fb7c25fccd86ee0ec7c482c00694d14866a26a28638bb9f47d2b656e8cc63fce070"
    ),
    np.uint8,
).reshape(128, 3)


STEPS_IN_RESET = ("berzerk", "double_dunk")  # play steps of frame_skip frames within a reset
_NOT_FRAME_BY_FRAME = {
    *STEPS_IN_RESET,
    # Draw no new frame while they think, so the frame before is an older one.
    *("backgammon", "othello", "tetris", "tic_tac_toe_3d", "video_checkers", "video_chess"),
}


@cache
def can_average(rom: Path) -> bool:
    """Whether the game in file `rom` is the same if played frame by frame, and drawn with the colours known here."""
    import ale_py

    if ale_py.ALEInterface.isSupportedROM(rom) in _NOT_FRAME_BY_FRAME:
        return False
    ale = _averaging_emulator(rom)
    for _ in range(300):
        indexes = ale.getScreen()
        if indexes.any():
            break
        ale.act(0)  # black is the same in PAL and proves nothing
    return bool(indexes.any()) and np.array_equal(_PALETTE[indexes >> 1], ale.getScreenRGB())


@cache
def grey_averages() -> NDArray[np.uint8]:
    """(256, 256) grey level of each two colours' average; the emulator's indexes of colours are even.

    The emulator takes 77 % of the brighter and 23 % of the darker, in red, green and blue each. It drops the last two
    bits, and looks for the closest of its colours: the first one with the smallest sum of differences.
    """
    palette = _PALETTE.astype(np.int16)
    high, low = np.maximum(palette[:, None], palette), np.minimum(palette[:, None], palette)
    averages, places = np.unique((((high - low) * 77 // 100 + low) & ~3).reshape(-1, 3), axis=0, return_inverse=True)
    closest = np.abs(averages[:, None] - palette).sum(axis=2, dtype=np.int16).argmin(axis=1)
    greys = (_PALETTE @ (0.2989, 0.5870, 0.1140)).round().astype(np.uint8)
    table = greys[closest[places]].reshape(128, 128)
    return table.repeat(2, axis=0).repeat(2, axis=1)


class LastFrames:
    """The last two frames of an emulator that does not average, averaged on request.

    Args:
        ale: the emulator, with a frame_skip of 1.
    """

    def __init__(self, ale: Any) -> None:
        import cv2

        self._lookup: Any = cv2.LUT
        self._ale = ale
        self._averages = grey_averages()
        self._same = self._averages.diagonal().copy()  # grey levels where nothing has changed
        self._last = np.zeros(ale.getScreenDims(), np.uint8)
        self._before = np.zeros_like(self._last)
        self.add()

    def add(self) -> None:
        """Fetch the frame that the emulator has just played."""
        self._before, self._last = self._last, self._before
        self._ale.getScreen(self._last)

    def average(self, out: NDArray[np.uint8]) -> None:
        """Fill `out`, a contiguous array, with the grey levels of the last two frames' average."""
        self._lookup(self._last, self._same, out)
        last, before = self._last.reshape(-1), self._before.reshape(-1)
        changed = np.flatnonzero(last != before)
        out.reshape(-1)[changed] = self._averages[last[changed], before[changed]]


def average_after_reset(rom: Path, before: Any, out: NDArray[np.uint8]) -> None:
    """Fill `out` with the grey levels of the first screen after a reset of the emulator in state `before`.

    The screen averages two frames of the reset, but the emulator shows only the last one. So a second emulator, which
    averages, repeats the reset.
    """
    ale = _averaging_emulator(rom)
    ale.restoreState(before)
    ale.reset_game()
    ale.getScreenGrayscale(out)


@cache
def _averaging_emulator(rom: Path) -> Any:
    import ale_py

    ale = ale_py.ALEInterface()
    ale.setInt("random_seed", 0)  # fixed, because the default is the clock
    ale.setBool("color_averaging", True)
    ale.loadROM(rom)
    return ale


atexit.register(_averaging_emulator.cache_clear)  # because nanobind reports objects that outlive the interpreter
