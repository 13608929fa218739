"""Who watches a game, together: they leave when the last game is over, though another one always begins."""

from __future__ import annotations

from collections.abc import Sequence

from simple_dqn.environment import Environment
from simple_dqn.watching.watcher import Watcher


class Audience(Watcher):
    """Watchers of the first so many games.

    Args:
        watchers: in the order in which they see things, and steer.
        games: how many they stay for, those given up not counted; 0: all.
    """

    def __init__(self, watchers: Sequence[Watcher], games: int) -> None:
        self._watchers = watchers
        self._most_games = games
        self._games = 0
        self._given_up = self._gone = False

    def meet(self, environment: Environment) -> None:
        for watcher in self._watchers:
            watcher.meet(environment)

    def on_game(self) -> None:
        self._games += not self._given_up
        self._given_up = False
        self._gone = 0 < self._most_games < self._games
        for watcher in () if self._gone else self._watchers:
            watcher.on_game()

    def on_frame(self, environment: Environment) -> None:
        for watcher in () if self._gone else self._watchers:
            watcher.on_frame(environment)

    def steer(self, action: int) -> int:
        for watcher in self._watchers:
            action = watcher.steer(action)
        return action

    def wants_restart(self) -> bool:
        self._given_up = any([watcher.wants_restart() for watcher in self._watchers])  # noqa: C419  (all of them are asked)
        return self._given_up

    def finish(self) -> None:
        for watcher in self._watchers:
            watcher.finish()

    def close(self) -> None:
        for watcher in self._watchers:
            watcher.close()
