"""Make the games of a run, in as many processes as are fastest."""

from __future__ import annotations

import logging
import os
from collections.abc import Sequence

from simple_dqn.cluster.games import ClusterGames, ClusterOptions
from simple_dqn.cluster.machines import RayMachines
from simple_dqn.games.game import GameSpec
from simple_dqn.games.games import Games, SharedArrays, games_here
from simple_dqn.games.workers import GameWorkers
from simple_dqn.machine import num_cores
from simple_dqn.watching.watcher import Watcher

logger = logging.getLogger(__name__)


def number_of_games(num_envs: int, play_games: int, watchers: Sequence[Watcher]) -> int:
    """Return how many games are played side by side. Watched games of --play_games follow one another."""
    if not play_games:
        return num_envs
    return 1 if watchers else min(num_envs, play_games)


def make_games(
    spec: GameSpec,
    watchers: Sequence[Watcher] = (),
    on_gpu: bool = False,
    in_turn: bool = False,
    cluster: ClusterOptions = ClusterOptions(),  # noqa: B008  (it is frozen)
) -> Games:
    """Make the games, in this process, in workers or on a cluster. The results are the same.

    Args:
        spec: the games.
        watchers: see the first game. They cannot leave this process, so all games stay in it too.
        on_gpu: the network leaves the processor cores to the games.
        in_turn: games and network never compute at the same time, so both can use all cores.
        cluster: the cluster, if any.

    Raises:
        GameError, OptionError: as `make_environment`.
    """
    games = _place_games(spec, watchers, on_gpu, in_turn, cluster)
    if spec.random_starts and "NOOP" not in games.action_names:
        text = "No action of %s is called NOOP: --random_starts %d has no effect"
        logger.info(text, spec.options.game, spec.random_starts)
    return games


def _place_games(
    spec: GameSpec, watchers: Sequence[Watcher], on_gpu: bool, in_turn: bool, cluster: ClusterOptions
) -> Games:
    n, cores = spec.num_games, num_cores()
    workers = 0 if watchers or n == 1 else min(n, _cores_for_games(cores, on_gpu, in_turn))
    if cluster.cluster:
        if not watchers:
            return _games_on_cluster(spec, cluster, cluster.cluster, max(1, workers), in_turn)
        logger.info("Watched games cannot leave this process: --cluster %s is not used", cluster.cluster)
    if workers:
        return GameWorkers(spec, workers, cores_left=None if in_turn else cores - workers)
    return games_here(spec, range(n), SharedArrays.make(n, spec.state_shape), watchers)


def _games_on_cluster(
    spec: GameSpec, options: ClusterOptions, address: str, workers_here: int, in_turn: bool
) -> ClusterGames:
    cores, cores_left = options.cluster_cores, None
    if address == "local":
        cores = cores or workers_here
        cores_left = None if in_turn else max(1, num_cores() - cores)
    return ClusterGames(spec, RayMachines(address, options.cluster_cores), cores or None, cores_left)


def _cores_for_games(cores: int, on_gpu: bool, in_turn: bool) -> int:
    """Number of cores that play games. 0: the process that learns plays them too.

    The network splits every layer evenly among its cores, so a core that also plays games delays all others. With two
    or three cores it is faster to play and learn in turn (docs/speed.md).
    """
    if in_turn:
        return cores if cores > 1 else 0  # because workers on one core would only add messages
    return cores - 1 if on_gpu else cores // 4


def leave_cores_to_games() -> None:
    """Let OpenMP's threads wait less busily between layers, because games need the same cores in turn.

    They must not sleep between layers either (docs/speed.md). Call this before the first import of torch, because
    OpenMP reads the variable only then.
    """
    os.environ.setdefault("GOMP_SPINCOUNT", "10000")
