"""Games as the agent steps them: each with its state, its restarts, and its place among others played side by side."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from simple_dqn.environment import Environment, Mode, Screen
from simple_dqn.state_buffer import StateBuffer


class Outcome(NamedTuple):
    """What an action led to."""

    reward: float
    screen: Screen  # after the action, before any restart
    terminal: bool
    truncated: bool  # terminal, yet only broken off


class Game:
    """An environment, the state that is seen of it, and the no-ops that begin each of its episodes.

    Args:
        environment: the game.
        state_shape: (history, height, width) of a state.
        random_starts: at most this many no-ops after a restart.
        rng: of their number.
    """

    def __init__(
        self,
        environment: Environment,
        state_shape: tuple[int, int, int],
        random_starts: int,
        rng: np.random.Generator,
    ) -> None:
        self.environment = environment
        self._buffer = StateBuffer(state_shape[0], state_shape[1:])
        self._least = min(state_shape[0], random_starts)
        self._random_starts = random_starts
        self._rng = rng
        self._started = False

    @property
    def state(self) -> NDArray[np.uint8]:
        """The last screens, (history, height, width); the next action changes them."""
        return self._buffer.state()

    def begin(self, mode: Mode) -> None:
        """Gets ready to play in `mode`: training goes on with the game under way, a test begins a new one."""
        self.environment.mode = mode
        if mode == "test" or not self._started:
            self._restart()

    def act(self, action: int) -> Outcome:
        """Plays `action`; after the end of an episode the next one is begun."""
        environment = self.environment
        reward = environment.act(action)
        screen, terminal = environment.screen(), environment.is_terminal()
        outcome = Outcome(reward, screen, terminal, terminal and environment.truncated)
        self._buffer.add(screen)
        if terminal:
            self._restart()
        return outcome

    def _restart(self) -> None:
        """Begins an episode with a random number of no-ops, so that games differ; they also fill the state."""
        self._started = True
        self._buffer.reset()
        self.environment.restart()
        self._buffer.add(self.environment.screen())
        for _ in range(self._rng.integers(self._least, self._random_starts, endpoint=True)):
            self.environment.act(0)
            if self.environment.is_terminal():
                self.environment.restart()
            self._buffer.add(self.environment.screen())
