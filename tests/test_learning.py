"""The real agent, memory and network learn to catch a ball, from pixels."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from fakes import Catch, side_by_side
from nvis.guided import guided_q_value, read_network, saliency
from simple_dqn.agent import Agent, AgentOptions, Callback, Step
from simple_dqn.deepqnetwork import BackendOptions, DeepQNetwork, DeepQNetworkOptions
from simple_dqn.options import build
from simple_dqn.replay_memory import ReplayMemoryOptions, make_memory
from simple_dqn.statistics import Statistics

EVERYTHING = {"double_dqn": True, "dueling": True, "prioritized_replay": True, "multi_step": 3}


def score(agent: Agent, statistics: Statistics, steps: int) -> float:
    statistics.on_phase_start("test", 0, steps)
    agent.test(steps)
    return statistics.mean_reward


@pytest.mark.parametrize(
    ("optimizer", "learning_rate", "datatype", "num_envs", "more"),
    [
        ("rmsprop", 0.00025, "float32", 1, {}),
        ("adam", 0.0005, "float32", 1, {"double_dqn": True, "prioritized_replay": True}),
        ("adam", 0.0005, "bfloat16", 8, {"dueling": True, "multi_step": 3}),
        ("adam", 0.0005, "bfloat16", 8, EVERYTHING),
    ],
)
def test_learns_to_catch(
    optimizer: str, learning_rate: float, datatype: str, num_envs: int, more: dict[str, Any]
) -> None:
    rng = np.random.default_rng(1)
    learning = dict(optimizer=optimizer, learning_rate=learning_rate, discount_rate=0.9)
    memory_options = build(ReplayMemoryOptions, dict(replay_size=5000, history_length=1, importance_steps=4000) | more)
    memory = make_memory(memory_options, (44, 44), 32, rng, lanes=num_envs)
    options = build(DeepQNetworkOptions, learning | more)
    network = DeepQNetwork(3, (1, 44, 44), options, BackendOptions(backend="cpu", datatype=datatype), seed=1)
    agent_options = AgentOptions(
        exploration_decay_steps=1500, exploration_rate_test=0, train_frequency=1, target_steps=250, random_starts=0
    )
    games = side_by_side([Catch(own) for own in rng.spawn(num_envs)], 1, (44, 44), 0, rng)
    agent = Agent(games, memory, network, agent_options, rng)
    statistics = Statistics(agent)
    agent.callbacks = [statistics]
    assert score(agent, statistics, 600) < 0  # 100 games; at random -0.7, never missed 1
    agent.random(500)
    statistics.on_phase_start("train", 1, 3500)
    agent.train(3500)
    assert score(agent, statistics, 600) > 0.7
    looked = Looks(agent, network)
    agent.callbacks = [looked]
    agent.test(60)
    assert np.mean(looked.at_things) > 5 * np.mean(looked.elsewhere)


class Looks(Callback):
    """Notes how much the Q-values of the first game's actions hang on pixels of ball and paddle, and on others."""

    def __init__(self, agent: Agent, network: DeepQNetwork) -> None:
        self.agent = agent
        self.network = read_network(network.layers())
        self.at_things: list[float] = []
        self.elsewhere: list[float] = []

    def on_begin(self) -> None:
        self.state = self.agent.state.copy()

    def on_step(self, step: Step) -> None:
        if step.game == 0:
            found = saliency(guided_q_value(self.network, self.state[None], np.array([step.action])).pixels)[0]
            things = self.state[-1] > 0
            self.at_things.append(float(found[things].mean()))
            self.elsewhere.append(float(found[~things].mean()))
            self.state = self.agent.state.copy()
