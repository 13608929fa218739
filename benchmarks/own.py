"""This program as a library, for the benchmarks; run by itself it is one of the programs that peers.py compares.

    scripts/python benchmarks/own.py --random_steps 4000 --warm_up 400 --steps 2000

prints a line of JSON. Options of the program may follow, such as --datatype bfloat16.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections.abc import Callable, Sequence
from importlib.metadata import version
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "src"))

from main import GROUPS
from simple_dqn import __version__, options
from simple_dqn.agent import Agent, AgentOptions
from simple_dqn.deepqnetwork import BackendOptions, DeepQNetworkOptions
from simple_dqn.environment import EnvironmentOptions
from simple_dqn.games.game import GameSpec
from simple_dqn.games.make import make_games
from simple_dqn.learning.library import library_of
from simple_dqn.replay.prioritized import memory_class
from simple_dqn.replay_memory import ReplayMemoryOptions
from simple_dqn.statistics import Statistics

# As the peers have it; the rest is at the program's defaults.
SAME_WORK = [
    "breakout",
    *("--backend", "cpu"),
    *("--replay_size", "50000"),
    *("--exploration_decay_steps", "0"),
    *("--exploration_rate_end", "0.05"),
]


def make_agent(argv: Sequence[str], seed: int = 1) -> Agent:
    """The agent that these options make, with everything it works with, and its statistics."""
    values = options.parse(GROUPS, argv, usage="", description="", epilog="")
    game, memory, agent = np.random.SeedSequence(seed).spawn(3)
    env_options, net_options = (
        options.build(EnvironmentOptions, values),
        options.build(DeepQNetworkOptions, values),
    )
    memory_options, agent_options = (
        options.build(ReplayMemoryOptions, values),
        options.build(AgentOptions, values),
    )
    backend = options.build(BackendOptions, values)
    screen_shape = (env_options.screen_height, env_options.screen_width)
    state_shape = (memory_options.history_length, *screen_shape)
    n, random_starts = agent_options.num_envs, agent_options.random_starts
    network_class, on_gpu = library_of(backend)
    spec = GameSpec(env_options, state_shape, random_starts, game.spawn(n))
    games = make_games(spec, on_gpu=on_gpu, in_turn=agent_options.learns_in_bursts)
    rng = np.random.default_rng(memory)
    replay = memory_class(memory_options)(memory_options, screen_shape, net_options.batch_size, rng, lanes=n)
    use_target = agent_options.target_steps > 0
    network = network_class(games.num_actions, state_shape, net_options, backend, seed, use_target, games.cores_left)
    made = Agent(games, replay, network, agent_options, np.random.default_rng(agent))
    made.callbacks = [Statistics(made)]
    return made


def speed(phase: Callable[[int], None], steps: int) -> float:
    """Steps per second of so many steps of a phase."""
    start = time.perf_counter()
    phase(steps)
    return steps / (time.perf_counter() - start)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name in ("random_steps", "warm_up", "steps"):
        parser.add_argument(f"--{name}", type=int, required=True)
    work, program_options = parser.parse_known_args()
    os.environ["CUDA_VISIBLE_DEVICES"] = ""
    agent = make_agent([*SAME_WORK, *program_options])
    agent.random(work.random_steps)
    agent.train(work.warm_up)
    before = agent.network.train_iterations
    steps_per_second = speed(agent.train, work.steps)
    result = dict(
        steps_per_second=steps_per_second,
        updates=agent.network.train_iterations - before,
        versions={"simple_dqn": __version__} | {name: version(name) for name in ("torch", "ale-py", "numpy")},
    )
    print(json.dumps(result))


if __name__ == "__main__":
    main()
