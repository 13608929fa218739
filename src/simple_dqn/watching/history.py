"""The last steps of a game, so that the user can look at them again. The game itself does not go back."""

from __future__ import annotations

from collections import deque
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from simple_dqn.environment import Picture

STEPS = 300  # 20 seconds of an Atari game, which take about 40 MB


class Moment(NamedTuple):
    """What there was when the agent chose an action."""

    picture: Picture
    state: NDArray[np.uint8]  # (history, height, width)
    action: int  # that the agent chose
    q_values: NDArray[np.floating[Any]] | None  # if the agent needed them
    score: float
    lives: int


class History:
    """The last moments, and which of them is shown.

    Attributes:
        steps_back: how far the moment shown is in the past. 0: it is now.
    """

    def __init__(self) -> None:
        self._moments: deque[Moment] = deque(maxlen=STEPS)
        self.steps_back = 0

    def add(self, moment: Moment) -> None:
        """Add the moment that is now."""
        self._moments.append(moment)
        self.steps_back = 0

    def clear(self) -> None:
        """Forget all, because another game begins."""
        self._moments.clear()
        self.steps_back = 0

    @property
    def shown(self) -> Moment | None:
        """The moment to show instead of what is now; None: show what is now."""
        return self._moments[-1 - self.steps_back] if self.steps_back else None

    def back(self) -> None:
        """Show the moment before."""
        self.steps_back = max(0, min(self.steps_back + 1, len(self._moments) - 1))

    def forward(self) -> bool:
        """Show the moment after. Return whether there was one."""
        if not self.steps_back:
            return False
        self.steps_back -= 1
        return True
