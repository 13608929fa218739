"""What the key `v` shows of the agent: Q-values, the values of the last states, and the pixels that counted."""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from simple_dqn.agent import Agent
from simple_dqn.environment import Picture
from simple_dqn.errors import SnapshotError
from simple_dqn.learning.guided import guided_q_value, read_network, saliency
from simple_dqn.saving.snapshot import Layer
from simple_dqn.watching.display import ORANGE, TIMELINE, Decision, QScale
from simple_dqn.watching.history import STEPS

logger = logging.getLogger(__name__)

_FAINT = 0.1  # heat that is not shown, because it would be noise all over the picture

Heat = NDArray[np.floating[Any]]  # (height, width), how much each pixel influenced the action, from 0 to 1
Explain = Callable[[NDArray[np.uint8], int], Heat]  # of a state and an action


class Saliency:
    """Finds the pixels that influenced the Q-value of the chosen action most.

    Args:
        layers: returns the network's layers, in the form that snapshots have.
        version: returns a number that changes whenever the weights change.
    """

    def __init__(self, layers: Callable[[], Sequence[Layer]], version: Callable[[], int]) -> None:
        self._layers, self._version = layers, version
        self._read_version = -1

    def __call__(self, state: NDArray[np.uint8], action: int) -> Heat:
        """Return the heat. Raises SnapshotError if guided back-propagation does not know a layer."""
        version = self._version()
        if self._read_version != version:
            self._network = read_network(self._layers())
            self._read_version = version
        guided = guided_q_value(self._network, state[None], np.array([action]))
        return saliency(guided.pixels)[0]


class Thought(NamedTuple):
    """A decision, and the pixels that counted."""

    decision: Decision
    heat: Heat | None  # None: unknown

    def over(self, picture: Picture) -> Picture:
        """`picture` with what counted in orange."""
        return picture if self.heat is None else overlaid(picture, self.heat)


class Insight:
    """Explains decisions of an agent. Its bars and its timeline have one scale, that of all Q-values so far.

    Attributes:
        problem: why there is no heat; "" if there is.
    """

    def __init__(self, agent: Agent, explain: Explain | None) -> None:
        self._agent, self._explain = agent, explain
        self._scale = QScale()
        self._values: deque[float] = deque(maxlen=STEPS + TIMELINE)
        self.problem = ""

    def think(
        self, state: NDArray[np.uint8], action: int, q_values: NDArray[np.floating[Any]] | None, steps_back: int = 0
    ) -> Thought:
        """Explain why the agent chose `action` in `state`, so many steps ago. The timeline ends there.

        Args:
            state: what the agent saw.
            action: what it chose.
            q_values: what the network predicted; None: nothing yet.
            steps_back: how long ago.
        """
        agent = self._agent
        if q_values is None:
            q_values = agent.network.predict(state[None])[0]
        self._scale = self._scale.including(q_values)
        if not steps_back:
            self._values.append(float(q_values.max()))
        values = tuple(self._values)[: max(0, len(self._values) - steps_back)][-TIMELINE:]
        names = agent.games.action_names
        decision = Decision(names, q_values, action, state.copy(), self._scale, values)
        return Thought(decision, self._heat(state, action))

    def _heat(self, state: NDArray[np.uint8], action: int) -> Heat | None:
        if not self._explain or self.problem:
            return None
        try:
            return self._explain(state, action)
        except SnapshotError as error:
            self.problem = "no saliency for this network (see the log)"
            logger.warning("The saliency cannot be shown: %s", error)
            return None


def overlaid(picture: Picture, heat: Heat) -> Picture:
    """`picture`, darker where `heat` is low, brighter and orange where it is high. `heat` may have any size."""
    import cv2

    height, width, _ = picture.shape
    strong = ((heat - _FAINT) / (1 - _FAINT)).clip(min=0)
    weight = cv2.resize(strong.astype(np.float32), (width, height))[..., None]
    # The picture is never covered, so that the ball can be seen where the agent looks at it.
    mixed = picture * (0.5 + 0.5 * weight) + np.array(ORANGE, np.float32) * (0.75 * weight)
    return np.asarray(mixed.clip(max=255), np.uint8)
