"""How many steps a second a cluster plays: a model, measured with games that only sleep, and what it says of others.

    scripts/python benchmarks/cluster_speed.py --output cluster_speed.md

A step of the games takes a round trip, the games of one worker one after the other, and for each worker the process
that learns needs some time for its two messages. All on loopback, so that one machine can have 16 workers.
"""

from __future__ import annotations

import argparse
import os
import pickle
import sys
import time
from pathlib import Path
from typing import Any, NamedTuple

sys.path.insert(0, str(Path(__file__).resolve().parent))  # PYTHONSAFEPATH leaves it out
sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "src"))

import numpy as np
from numpy.typing import NDArray

import report
from simple_dqn.cluster import games as cluster_games
from simple_dqn.cluster import machines
from simple_dqn.cluster.games import ClusterGames
from simple_dqn.cluster.machines import RayMachines
from simple_dqn.environment import Environment, EnvironmentOptions, Screen
from simple_dqn.games.game import Game, GameSpec
from simple_dqn.state_buffer import StateBuffer

WORKERS, GAMES = (1, 2, 4, 8, 16), 8  # per worker
SLEEP = 0.002  # seconds of a game's step
CORES = (16, 64, 256, 1024)
STEPS_OF_A_CORE = 1600  # in a second, of Breakout on one core of the Xeon in docs/speed.md


class Sleeper(Environment):
    """A game that sleeps."""

    def __init__(self, seconds: float) -> None:
        self.seconds, self.noise = seconds, np.zeros((84, 84), np.uint8)

    @property
    def num_actions(self) -> int:
        return 4

    def restart(self) -> None:
        pass

    def act(self, action: int) -> float:
        time.sleep(self.seconds)
        return 0

    def screen(self) -> Screen:
        return self.noise

    def is_terminal(self) -> bool:
        return False

    def state(self) -> dict[str, Any]:
        return {}

    def restore(self, state: dict[str, Any]) -> None:
        pass


class SleepingSpec(GameSpec):
    """Games that sleep."""

    def make(self, number: int, state: NDArray[np.uint8], watchers: Any = ()) -> Game:
        return Game(Sleeper(self.random_starts / 1e6), StateBuffer(state), 0, np.random.default_rng(number))


class Measured(NamedTuple):
    """Per step of all games."""

    seconds: float
    processor_seconds: float  # of the process that learns
    messages: float
    bytes: float


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=200, help="steps of all games to measure (default: 200)")
    parser.add_argument("--output", help="Markdown file to write (default: the terminal)")
    arguments = parser.parse_args()
    os.environ.update({"RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0", "RAY_USAGE_STATS_ENABLED": "0"})
    cluster_games._PATIENCE = 300  # seconds, because this machine may be slow
    from ray.cluster_utils import Cluster

    count = count_messages()
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": max(WORKERS)})
    try:
        found = {n: measure(cluster.address, n, GAMES, SLEEP, arguments.steps, count) for n in WORKERS}
        trip = measure(cluster.address, 1, 1, 0, arguments.steps, count).seconds
    finally:
        cluster.shutdown()
    most = max(WORKERS)
    cost = (found[most].processor_seconds - found[1].processor_seconds) / (most - 1)  # of a worker's messages
    nap = found[1].seconds - trip
    rows = []
    for n, m in found.items():
        model = nap + trip + (n - 1) * cost
        rows.append((n, n * GAMES, round(n * GAMES / m.seconds), round(n * GAMES / model), f"{m.messages:g}",
                     round(m.bytes / (n * GAMES)), f"{m.processor_seconds * 1e3:.1f}"))  # fmt: skip
    header = ("Workers", "Games", "Steps/s", "Steps/s of the model", "Messages/step", "Bytes/game and step",
              "Processor ms/step")  # fmt: skip
    size = found[most].bytes / (most * GAMES)
    text = f"Round trip: {trip * 1e3:.2f} ms. Processor time for a worker's two messages: {cost * 1e3:.2f} ms."
    estimate = report.table(("Cores", "Games", "1 Gbit/s", "10 Gbit/s", "25 Gbit/s"), on_paper(trip, cost, size))
    report.write(
        "\n\n".join([text, report.table(header, [tuple(map(str, row)) for row in rows]), estimate]), arguments.output
    )


def measure(address: str, workers: int, games: int, sleep: float, steps: int, count: list[int]) -> Measured:
    """Play `steps` steps."""
    seeds = np.random.SeedSequence(1).spawn(workers * games)
    spec = SleepingSpec(EnvironmentOptions(game="pong"), (4, 84, 84), round(sleep * 1e6), seeds)
    made = ClusterGames(spec, RayMachines(address, workers), workers)
    try:
        made.begin("train", False)
        actions = [1] * len(made)
        for n in range(steps + 20):
            if n == 20:
                count[:] = [0, 0]
                began, processor = time.perf_counter(), time.process_time()
            made.start(actions)
            made.finish()
        return Measured(
            (time.perf_counter() - began) / steps,
            (time.process_time() - processor) / steps,
            count[0] / steps,
            count[1] / steps,
        )
    finally:
        made.close()


def count_messages() -> list[int]:
    """Return a list that will have the number of messages so far, and of their bytes."""
    count = [0, 0]
    ask, get = machines._RayPlayer.ask, machines._RayPlayer.get

    def counted_ask(self: Any, message: Any, expected_bytes: int = 0) -> Any:
        count[0] += 1
        count[1] += len(pickle.dumps(message)) if message[0] == "play" else 0
        return ask(self, message, expected_bytes)

    def counted_get(self: Any, reference: Any) -> Any:
        count[0] += 1
        count[1] += sum(map(len, self._ray.get(reference)))
        return get(self, reference)

    machines._RayPlayer.ask, machines._RayPlayer.get = counted_ask, counted_get  # type: ignore[method-assign]
    return count


def on_paper(trip: float, cost: float, size: float) -> list[tuple[str, ...]]:
    """Steps per second of many cores with 8 or 64 games each, by the speed of the network, while nothing is learned."""
    rows = []
    for cores in CORES:
        for each in (8, 64):
            games = cores * each
            seconds = trip + each / STEPS_OF_A_CORE + (cores - 1) * cost
            speeds = [games / max(seconds, games * size * 8 / rate) for rate in (1e9, 10e9, 25e9)]
            rows.append((str(cores), str(games), *(f"{round(speed, -2):,.0f}" for speed in speeds)))
    return rows


if __name__ == "__main__":
    main()
