"""Watchers: they see a game frame by frame and can steer it. Recorders and the viewer are watchers."""

from __future__ import annotations

from collections.abc import Sequence

from simple_dqn.environment import Environment


class Watcher:
    """Sees every frame of one game. Subclasses override the methods that they need."""

    def meet(self, environment: Environment) -> None:
        """Receive the environment before its first game. Raises OptionError if the watcher cannot watch it."""

    def on_game(self) -> None:
        """A game begins. Its first frame follows."""

    def on_frame(self, environment: Environment) -> None:
        """`environment` has a new frame: its picture and its sound."""

    def steer(self, action: int) -> int:
        """Return the action to play when the agent chose `action`."""
        return action

    def wants_restart(self) -> bool:
        """Return whether to abandon the game and start a new one. Called once per step."""
        return False

    def on_restart(self) -> None:
        """The game is abandoned, because a watcher wants a new one."""

    def finish(self) -> None:
        """Complete the output. Called only if the run reaches its end."""

    def close(self) -> None:
        """Free resources. Output that is not finished is lost."""


class WatcherGroup(Watcher):
    """Several watchers of the same games. They see the first `max_games` games only.

    A limit is needed because an environment starts another game after the last one.

    Args:
        watchers: in the order in which they see frames and steer.
        max_games: games to watch. Abandoned games do not count. 0: all.
    """

    def __init__(self, watchers: Sequence[Watcher], max_games: int) -> None:
        self._watchers = watchers
        self._max_games = max_games
        self._games = 0
        self._abandoned = self._done = False

    def __bool__(self) -> bool:
        return bool(self._watchers)

    def meet(self, environment: Environment) -> None:
        for watcher in self._watchers:
            watcher.meet(environment)

    def on_game(self) -> None:
        self._games += not self._abandoned
        self._abandoned = False
        self._done = 0 < self._max_games < self._games
        for watcher in () if self._done else self._watchers:
            watcher.on_game()

    def on_frame(self, environment: Environment) -> None:
        for watcher in () if self._done else self._watchers:
            watcher.on_frame(environment)

    def steer(self, action: int) -> int:
        for watcher in () if self._done else self._watchers:
            action = watcher.steer(action)
        return action

    def wants_restart(self) -> bool:
        # A list, because any() would stop at the first True, and each watcher must be asked.
        restart = any([watcher.wants_restart() for watcher in self._watchers])  # noqa: C419
        if restart:
            self.on_restart()
        return restart

    def on_restart(self) -> None:
        self._abandoned = True
        for watcher in self._watchers:
            watcher.on_restart()

    def continue_with(self, watcher: Watcher) -> None:
        """Let only `watcher` see one game more. The others have finished."""
        self._watchers = [watcher]
        self._max_games = self._games + 1

    def finish(self) -> None:
        for watcher in self._watchers:
            watcher.finish()

    def close(self) -> None:
        for watcher in self._watchers:
            watcher.close()
