"""The state that the agent sees: the last few screens."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


class StateBuffer:
    """The last `history_length` screens, oldest first.

    It is separate from the replay memory, because screens of test games never enter that.

    Args:
        screens: (history, height, width), the array to use; also an attribute.
    """

    def __init__(self, screens: NDArray[np.uint8]) -> None:
        self.screens = screens

    @property
    def history_length(self) -> int:
        """Number of screens."""
        return len(self.screens)

    def add(self, screen: NDArray[np.uint8]) -> None:
        """Append a (height, width) screen and drop the oldest."""
        self.screens[:-1] = self.screens[1:]
        self.screens[-1] = screen

    def fill(self, screen: NDArray[np.uint8]) -> None:
        """Set every screen to this one, (height, width)."""
        self.screens[:] = screen
