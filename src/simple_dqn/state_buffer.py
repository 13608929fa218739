"""The state that the agent sees: the last few screens."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


class StateBuffer:
    """The last few screens, oldest first.

    The replay memory holds them too, but a buffer apart keeps the screens of test games out of training.

    Args:
        screens: (history, height, width), where they are kept; an attribute, too.
    """

    def __init__(self, screens: NDArray[np.uint8]) -> None:
        self.screens = screens

    @property
    def history_length(self) -> int:
        """How many screens."""
        return len(self.screens)

    def add(self, screen: NDArray[np.uint8]) -> None:
        """Puts a (height, width) screen at the end and drops the oldest."""
        self.screens[:-1] = self.screens[1:]
        self.screens[-1] = screen

    def fill(self, screen: NDArray[np.uint8]) -> None:
        """Makes every screen this one, (height, width)."""
        self.screens[:] = screen
