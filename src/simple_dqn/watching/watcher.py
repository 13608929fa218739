"""Watchers: they see a game frame by frame and can steer it. Recorders and the viewer are watchers."""

from __future__ import annotations

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

    def finish(self) -> None:
        """Complete the output. Called only if the run reaches its end."""

    def close(self) -> None:
        """Free resources. Output that is not finished is lost."""
