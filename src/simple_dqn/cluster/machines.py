"""Where the games of `ClusterGames` are played: in actors of Ray, or in this process."""

from __future__ import annotations

import math
import pickle
from collections.abc import Callable
from typing import Any, Protocol

from simple_dqn.cluster.connection import SOURCE, connect, require_program
from simple_dqn.cluster.player import Message, Player
from simple_dqn.errors import OptionError

_PIECE = 90_000  # bytes; Ray puts results above 100 KiB into its object store, which takes twice as long


class PlayerLost(Exception):
    """The process of a player has died, or its machine has. The text says which, if Ray knows."""


class RemotePlayer(Protocol):
    """A `Player`, seen from the process that learns."""

    def ask(self, message: Message, expected_bytes: int = 0) -> Any:
        """Send a message. Return a reference to the answer. Messages are answered in sequence."""

    def wait(self, reference: Any, seconds: float) -> bool:
        """Wait for an answer. Return whether it is there, or the player is lost."""

    def get(self, reference: Any) -> Any:
        """Wait for an answer and return it, or raise it if it is an exception.

        Raises:
            PlayerLost: no answer will come.
        """

    def close(self) -> None:
        """End the player."""


class Machines(Protocol):
    """Machines that lend cores to players."""

    def start_player(self) -> RemotePlayer:
        """Start a player as soon as there is a free core."""

    def free_cores(self) -> int:
        """Number of cores without a player."""

    def close(self) -> None:
        """Leave the machines."""


class PlayerHere:
    """A player in this process, until the cluster has a core for its games."""

    def __init__(self) -> None:
        self._player = Player()

    def ask(self, message: Message, expected_bytes: int = 0) -> Any:
        return self._player.answer(message)

    def wait(self, reference: Any, seconds: float) -> bool:
        return True

    def get(self, reference: Any) -> Any:
        return reference

    def close(self) -> None:
        self._player = Player()


class RayMachines:
    """The machines of a Ray cluster.

    Args:
        address: auto, HOST:PORT, or local: Ray starts on this machine.
        most_cores: that the user wants; 0: all.

    Raises:
        OptionError: Ray is missing, there is no such cluster, it has fewer cores, or a machine lacks the program.
    """

    def __init__(self, address: str, most_cores: int) -> None:
        self._ray = connect(None if address == "local" else address, "--cluster", "scripts/python --cluster -V")
        try:
            nodes = [node for node in self._ray.nodes() if node["Alive"] and node["Resources"].get("CPU")]
            cores = int(sum(node["Resources"]["CPU"] for node in nodes))
            if not cores:
                raise OptionError(f"--cluster {address}: its machines lend no cores. Start Ray there with --num-cpus")
            if most_cores > cores:
                raise OptionError(f"--cluster_cores {most_cores}: the cluster has {cores}. Use at most {cores}")
            require_program(self._ray, nodes)
        except BaseException:
            self.close()
            raise
        # Not restarted by Ray, because it would not know the games. Spread, because games on one machine share caches.
        self._actor = self._ray.remote(_actor_class()).options(num_cpus=1, max_restarts=0, scheduling_strategy="SPREAD")

    def start_player(self) -> RemotePlayer:
        return _RayPlayer(self._ray, self._actor.remote(SOURCE))

    def free_cores(self) -> int:
        return int(self._ray.available_resources().get("CPU", 0))

    def close(self) -> None:
        self._ray.shutdown()


class _RayPlayer:
    def __init__(self, ray: Any, actor: Any) -> None:
        self._ray, self._actor = ray, actor

    def ask(self, message: Message, expected_bytes: int = 0) -> Any:
        pieces = math.ceil(expected_bytes / _PIECE) or 1
        references = self._actor.answer.options(num_returns=pieces).remote(pieces, message)
        return references if pieces > 1 else [references]

    def wait(self, reference: Any, seconds: float) -> bool:
        ready, _ = self._ray.wait(reference[:1], timeout=seconds)
        return bool(ready)

    def get(self, reference: Any) -> Any:
        try:
            return pickle.loads(b"".join(self._ray.get(reference)))
        except self._ray.exceptions.RayTaskError as error:
            raise error.cause from None
        except self._ray.exceptions.RayError as error:
            raise PlayerLost(str(error)) from None

    def close(self) -> None:
        self._ray.kill(self._actor)


def _actor_class() -> Callable[[str], Any]:
    """Return a class that Ray pickles by value, because the worker may not find this module."""

    class GamePlayer:
        def __init__(self, source: str) -> None:
            import sys

            sys.path[:0] = [] if source in sys.path else [source]
            from simple_dqn.cluster.player import Player

            self._player = Player()

        def answer(self, pieces: int, message: Any) -> Any:
            import pickle

            data = pickle.dumps(self._player.answer(message), protocol=5)
            size = -(-len(data) // pieces)
            parts = [data[n * size : (n + 1) * size] for n in range(pieces)]
            return parts if pieces > 1 else data

    return GamePlayer
