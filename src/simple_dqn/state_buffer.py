"""The state that the agent sees: the last few screens."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


class StateBuffer:
    """The last `history_length` screens, oldest first.

    The replay memory holds them too, but a buffer apart keeps the screens of test games out of training.

    Args:
        history_length: screens in a state.
        screen_shape: (height, width) of a screen.
    """

    def __init__(self, history_length: int, screen_shape: tuple[int, int]) -> None:
        self._screens: NDArray[np.uint8] = np.zeros((history_length, *screen_shape), np.uint8)

    def add(self, screen: NDArray[np.uint8]) -> None:
        """Puts a (height, width) screen at the end and drops the oldest."""
        self._screens[:-1] = self._screens[1:]
        self._screens[-1] = screen

    def reset(self) -> None:
        """Makes every screen black."""
        self._screens.fill(0)

    def state(self) -> NDArray[np.uint8]:
        """The state, (history_length, height, width); a view that the next `add` changes."""
        return self._screens
