"""What an actor does: it plays some of the games, and answers messages from the process that learns.

    message               the actor                                  answer
    make, spec, numbers   makes these games of a `GameSpec`          `Facts`
    begin, mode, new      calls `Games.begin`                        states of its games
    play, actions         plays a step                               `Played`
    state                 calls `Games.state`                        states for `restore`
    restore, states       calls `Games.restore`                      whether it could
    again, messages       does again what a lost actor did           the answer to the last message

Only new screens travel, 7 kB for a game and step. The process that learns keeps the screens before.
"""

from __future__ import annotations

import socket
from collections.abc import Sequence
from importlib import import_module
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from simple_dqn.environment import CONTINUES
from simple_dqn.errors import GameError
from simple_dqn.games.game import GameSpec
from simple_dqn.games.games import Games, SharedArrays, games_here

Message = tuple[Any, ...]
_DEPENDENCIES = ("simple_dqn", "ale_py", "cv2", "gymnasium", "numpy")  # on which pixels may depend


class Facts(NamedTuple):
    """What the process that learns must know of the games."""

    num_actions: int
    action_names: list[str]
    machine: str
    versions: list[str]


class Played(NamedTuple):
    """The results of a step, for the games that played."""

    rewards: NDArray[np.float64]  # (games,)
    ends: NDArray[np.uint8]  # (games,)
    screens: NDArray[np.uint8]  # (games, height, width)
    states: dict[int, NDArray[np.uint8]]  # of those that start another episode, by their place in the arrays above


class Player:
    """Plays the games that the message `make` names."""

    _games: Games

    def answer(self, message: Message) -> Any:
        """Do what a message says. Return the answer."""
        match message:
            case "make", GameSpec() as spec, range() as numbers:
                arrays = SharedArrays.make(len(numbers), spec.state_shape)
                self._games = games_here(spec, numbers, arrays)
                return Facts(self._games.num_actions, self._games.action_names, socket.gethostname(), versions())
            case "begin", mode, new_episode:
                self._games.begin(mode, new_episode)
                return self._games.arrays.states
            case "play", actions:
                return self._play(actions)
            case ("state",):
                return self._games.state()
            case "restore", states:
                return self._games.restore(states)
            case "again", messages:
                answer = None
                for earlier in messages:
                    answer = self.answer(earlier)
                return answer
        raise ValueError(message)

    def _play(self, actions: Sequence[int | None]) -> Played:
        self._games.start(actions)
        self._games.finish()
        arrays = self._games.arrays
        playing = [game for game, action in enumerate(actions) if action is not None]
        ended = [place for place, game in enumerate(playing) if arrays.ends[game] != CONTINUES]
        states = {place: arrays.states[playing[place]] for place in ended}
        return Played(arrays.rewards[playing], arrays.ends[playing], arrays.screens[playing], states)


def versions() -> list[str]:
    """Return names and versions of the packages on which pixels may depend."""
    return [f"{name} {import_module(name).__version__}" for name in _DEPENDENCIES]


def require_same_versions(facts: Facts) -> None:
    """Check that a machine computes the same pixels as this one.

    Raises:
        GameError: it has other versions.
    """
    for theirs, ours in zip(facts.versions, versions(), strict=True):
        if theirs != ours:
            raise GameError(f"machine {facts.machine} has {theirs}, this one {ours}: install the same on all machines")
