"""The real agent, memory and network learn to catch a ball, from pixels."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from fakes import CatchTraining
from simple_dqn.agent import Agent, Callback, Step
from simple_dqn.deepqnetwork import DeepQNetwork
from simple_dqn.learning.guided import guided_q_value, read_network, saliency

EVERYTHING = {
    "double_dqn": True,
    "dueling": True,
    "prioritized_replay": True,
    "multi_step": 3,
    "target_exploration_rate": 0.05,
}

ONLINE = {"return_lambda": 0.8, "replay_size": 160, "train_frequency": 128, "train_repeat": 64, "target_steps": 0}


@pytest.mark.parametrize(
    ("optimizer", "learning_rate", "datatype", "num_envs", "steps", "more"),
    [
        ("rmsprop", 0.0005, "float32", 1, 2000, {}),
        ("adam", 0.001, "float32", 1, 2000, {"double_dqn": True, "prioritized_replay": True}),
        ("adam", 0.001, "bfloat16", 8, 2000, EVERYTHING),
        ("adam", 0.001, "float32", 8, 3500, ONLINE),
    ],
)
def test_learns_to_catch(
    optimizer: str, learning_rate: float, datatype: str, num_envs: int, steps: int, more: dict[str, Any]
) -> None:
    schedules = dict(learning_rate_decay_steps=steps, importance_steps=steps, exploration_decay_steps=steps // 2)
    learning: dict[str, Any] = dict(optimizer=optimizer, learning_rate=learning_rate, target_steps=125) | schedules
    training = CatchTraining(1, num_envs, datatype, **learning | more)
    agent = training.agent
    assert training.score() < 0  # at random -0.7, never missed 1
    agent.random(500)
    training.statistics.on_phase_start("train", 1, steps)
    agent.train(steps)
    assert training.score() > 0.7
    looked = Looks(agent, training.network)
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
