"""Games side by side in one process, and the arrays that they share with the agent."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from simple_dqn.environment import Mode
from simple_dqn.games.game import Game, GameSpec
from simple_dqn.watching.watcher import Watcher


class SharedArrays(NamedTuple):
    """State, screen, reward and end of each game. Games write them, and the agent reads them."""

    states: NDArray[np.uint8]  # (games, history, height, width), the last screens: what the agent sees
    screens: NDArray[np.uint8]  # (games, height, width), after the last actions
    rewards: NDArray[np.float64]  # (games,), of the last actions
    ends: NDArray[np.uint8]  # (games,), CONTINUES, TERMINATED, TRUNCATED or ABANDONED after the last actions

    @staticmethod
    def make(num_games: int, state_shape: tuple[int, int, int], buffer: Any = None) -> SharedArrays:
        """Make arrays in `buffer`, which has `num_bytes` bytes, or in new memory."""
        _, height, width = state_shape
        raw = np.frombuffer(buffer or bytearray(SharedArrays.num_bytes(num_games, state_shape)), np.uint8)
        rewards, ends, screens, states = np.split(
            raw, np.cumsum([8 * num_games, num_games, num_games * height * width])
        )
        return SharedArrays(
            states.reshape(num_games, *state_shape),
            screens.reshape(num_games, height, width),
            rewards.view(np.float64),
            ends,
        )

    @staticmethod
    def num_bytes(num_games: int, state_shape: tuple[int, int, int]) -> int:
        """Size of the arrays."""
        history, height, width = state_shape
        return num_games * (8 + 1 + (history + 1) * height * width)

    def of(self, numbers: range) -> SharedArrays:
        """Return the part of the games `numbers`."""
        part = slice(numbers.start, numbers.stop)
        return SharedArrays(self.states[part], self.screens[part], self.rewards[part], self.ends[part])


class Games:
    """Games side by side in this process.

    Attributes:
        arrays: state, screen, reward and end of each game.
        num_actions, action_names: as the environments have them.
        cores_left: processor cores for the network; None: all.

    Args:
        games: of one kind. Each writes to its state in `arrays`.
        arrays: as above.
    """

    cores_left: int | None = None

    def __init__(self, games: Sequence[Game], arrays: SharedArrays) -> None:
        self.games = games
        self.arrays = arrays
        self.num_actions, self.action_names = games[0].environment.num_actions, games[0].environment.action_names
        self._actions: Sequence[int | None] = ()

    def __len__(self) -> int:
        return len(self.arrays.states)

    def begin(self, mode: Mode, new_episode: bool) -> None:
        """All games continue in `mode`. Those that cannot, or all if `new_episode`, start an episode."""
        for game in self.games:
            game.begin(mode, new_episode)

    def start(self, actions: Sequence[int | None]) -> Sequence[int | None]:
        """Start a step of the first `len(actions)` games, except those whose action is None. `finish` must follow.

        Returns the actions that they play: those of the agent, or of a user who plays.
        """
        self._actions = [
            None if action is None else game.steer(action) for game, action in zip(self.games, actions, strict=False)
        ]
        return self._actions

    def finish(self) -> None:
        """Wait until the step is played. Then `arrays` has the results."""
        arrays = self.arrays
        for i, action in enumerate(self._actions):
            if action is not None:
                arrays.rewards[i], arrays.ends[i] = self.games[i].act(action, arrays.screens[i])

    def state(self) -> list[dict[str, Any]]:
        """What `restore` needs, for each game."""
        return [game.state() for game in self.games]

    def restore(self, states: Sequence[dict[str, Any]]) -> bool:
        """Continue exactly where as many games were. Return False if some cannot and must start again."""
        restored = [game.restore(state) for game, state in zip(self.games, states, strict=True)]
        return all(restored)

    def close(self) -> None:
        """Free what the games hold."""
        for game in self.games:
            game.environment.close()


def games_here(spec: GameSpec, numbers: range, arrays: SharedArrays, watchers: Sequence[Watcher] = ()) -> Games:
    """Make the games `numbers` of `spec` in this process, with their part of the `arrays`. `watchers` see game 0."""
    games = [
        spec.make(number, state, () if number else watchers)
        for number, state in zip(numbers, arrays.states, strict=True)
    ]
    return Games(games, arrays)
