"""One game that never ends, and all that is needed to make it, in this process or in another."""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from simple_dqn.environment import (
    ABANDONED,
    CONTINUES,
    TERMINATED,
    TRUNCATED,
    Environment,
    EnvironmentOptions,
    Mode,
    Screen,
)
from simple_dqn.errors import GameError
from simple_dqn.games.ale import ALEEnvironment
from simple_dqn.games.gym import GymEnvironment
from simple_dqn.state_buffer import StateBuffer
from simple_dqn.watching.watcher import Watcher


def make_environment(
    options: EnvironmentOptions, seed: int, watchers: Sequence[Watcher] = (), actions: Sequence[str] | None = None
) -> Environment:
    """Make the environment that `options` name.

    Args:
        options: which one.
        seed: seed of its randomness.
        watchers: see its frames.
        actions: names of the emulator's actions, instead of those that `minimal_action_set` selects.

    Raises:
        GameError: no game has this name, or it cannot be played.
        OptionError: a watcher cannot watch it.
    """
    if not watchers:  # SDL, which draws some games, must not look for a screen or complain that it finds none
        os.environ.setdefault("SDL_VIDEODRIVER", "dummy")
        os.environ.setdefault("SDL_AUDIODRIVER", "dummy")
    environment: Environment
    if options.environment == "ale":
        environment = ALEEnvironment(options, seed, watchers, actions)
    else:
        environment = GymEnvironment(options, seed, watchers)
    for watcher in watchers:
        watcher.meet(environment)
    return environment


@dataclass(frozen=True)
class GameSpec:
    """All that a process needs to make some of the games. It can be pickled.

    Attributes:
        options: which environment.
        state_shape: history, height and width of a state.
        random_starts: at most this many no-ops at the start of an episode.
        seeds: one for each game.
        actions: as for `make_environment`.
    """

    options: EnvironmentOptions
    state_shape: tuple[int, int, int]
    random_starts: int
    seeds: Sequence[np.random.SeedSequence]
    actions: Sequence[str] | None = None

    @property
    def num_games(self) -> int:
        """Number of games."""
        return len(self.seeds)

    def make(self, number: int, state: NDArray[np.uint8], watchers: Sequence[Watcher] = ()) -> Game:
        """Make game `number`, from 0. It writes what the agent sees to `state`, (history, height, width)."""
        seed = self.seeds[number]
        environment = make_environment(self.options, int(seed.generate_state(1)[0]) >> 1, watchers, self.actions)
        return Game(environment, StateBuffer(state), self.random_starts, np.random.default_rng(seed))


class Game:
    """A game that never ends. After an episode the next one starts, with a random number of no-ops.

    The first screen fills the state, and the screens of the no-ops follow. No-ops make games differ. Their rewards do
    not count, because the agent did not choose them. A game without an action called NOOP starts without them.

    Args:
        environment: the game.
        state: receives the screens.
        random_starts: at most this many no-ops. There are at least as many as a state has screens, as in 2015, unless
            `random_starts` is smaller.
        rng: draws their number.
    """

    def __init__(
        self, environment: Environment, state: StateBuffer, random_starts: int, rng: np.random.Generator
    ) -> None:
        self.environment = environment
        self._state = state
        self._random_starts = random_starts
        self._rng = rng
        self._started = False

    def begin(self, mode: Mode, new_episode: bool) -> None:
        """Continue the episode in `mode`. Start one if `new_episode`, or if none is there to continue."""
        self.environment.mode = mode  # first, because a life just lost ends an episode in one mode only
        if new_episode or not self._started or self.environment.is_terminal():
            self._start_episode()

    def steer(self, action: int) -> int:
        """Return the action to play when the agent chose `action`."""
        for watcher in self.environment.watchers:
            action = watcher.steer(action)
        return action

    def act(self, action: int, screen: Screen) -> tuple[float, int]:
        """Play `action` and copy the next screen to `screen`. Return the reward and the status of the episode."""
        environment = self.environment
        reward = environment.act(action)
        if not math.isfinite(reward):
            raise GameError(f"The game's reward is {reward}. Rewards must be finite numbers.")
        screen[...] = environment.screen()
        self._state.add(screen)
        end = self._end()
        if end != CONTINUES:
            self._start_episode()
        return reward, end

    def state(self) -> dict[str, Any]:
        """What `restore` needs."""
        return dict(
            environment=self.environment.state(),
            mode=self.environment.mode,
            screens=self._state.screens.copy(),
            rng=self._rng.bit_generator.state,
            started=self._started,
        )

    def restore(self, state: dict[str, Any]) -> bool:
        """Continue exactly where a game was. Return False if the environment cannot: then a new game starts."""
        self._rng.bit_generator.state = state["rng"]
        if state["environment"] is None or self.environment.state() is None:
            return False
        self.environment.restore(state["environment"])
        self.environment.mode = state["mode"]
        self._state.screens[...] = state["screens"]
        self._started = state["started"]
        return not self.environment.is_terminal()  # because the time limit may be shorter now

    def _end(self) -> int:
        if self.environment.is_terminal():
            return TRUNCATED if self.environment.truncated else TERMINATED
        return ABANDONED if any(watcher.wants_restart() for watcher in self.environment.watchers) else CONTINUES

    def _start_episode(self) -> None:
        self._started = True
        self._restart_environment()
        noop = self.environment.noop
        if noop is None:
            return
        least = min(self._state.history_length, self._random_starts)
        for _ in range(self._rng.integers(least, self._random_starts, endpoint=True)):
            self.environment.act(noop)
            if self.environment.is_terminal():
                self._restart_environment()
            else:
                self._state.add(self.environment.screen())

    def _restart_environment(self) -> None:
        self.environment.restart()
        screen, expected = self.environment.screen(), self._state.screens.shape[1:]
        if screen.dtype != np.uint8 or screen.shape != expected:
            raise GameError(f"The game's screens are {screen.dtype} of shape {screen.shape}, not uint8 of {expected}.")
        self._state.fill(screen)
