"""PFRL: its DQN agent, Nature network, RMSProp and train_agent.

PFRL's Atari wrappers speak the interface of gym before 0.26 (four values from `step`, no info from `reset`), and gym of
that time knows no emulator that still installs; so the emulator comes from ale-py, through the few lines of `OldAtari`.
"""

import tempfile
from contextlib import suppress

import ale_py
import gym
import gymnasium
import numpy as np
import pfrl
import torch
from pfrl.experiments import train_agent
from pfrl.wrappers import atari_wrappers

from stopwatch import BATCH_SIZE, EXPLORATION, REPLAY_SIZE, TARGET_STEPS, TRAIN_FREQUENCY, Stopwatch


class OldAtari(gym.Env):
    metadata = {}  # noqa: RUF012

    def __init__(self):
        gymnasium.register_envs(ale_py)
        self.new = gymnasium.make("BreakoutNoFrameskip-v4", max_episode_steps=30 * 60 * 60).unwrapped
        self.ale = self.new.ale
        self.action_space = gym.spaces.Discrete(int(self.new.action_space.n))
        self.observation_space = gym.spaces.Box(0, 255, self.new.observation_space.shape, np.uint8)

    def get_action_meanings(self):
        return self.new.get_action_meanings()

    def reset(self):
        return self.new.reset()[0]

    def step(self, action):
        observation, reward, terminated, truncated, info = self.new.step(action)
        return observation, reward, terminated or truncated, info


class Done(Exception):
    pass


def tick(env, agent, step):
    if stopwatch.steps + 1 == stopwatch.random_steps:
        explorer.epsilon = EXPLORATION
    if stopwatch.step():
        raise Done


stopwatch = Stopwatch(lambda: agent.optim_t)
pfrl.utils.set_random_seed(1)
env = atari_wrappers.wrap_deepmind(
    atari_wrappers.MaxAndSkipEnv(atari_wrappers.NoopResetEnv(OldAtari(), noop_max=30), skip=4),
    episode_life=True,
    clip_rewards=True,
)
num_actions = env.action_space.n
network = torch.nn.Sequential(
    pfrl.nn.LargeAtariCNN(),
    pfrl.initializers.init_chainer_default(torch.nn.Linear(512, num_actions)),
    pfrl.q_functions.DiscreteActionValueHead(),
)
explorer = pfrl.explorers.ConstantEpsilonGreedy(1.0, lambda: np.random.randint(num_actions))
agent = pfrl.agents.DQN(
    network,
    pfrl.optimizers.RMSpropEpsInsideSqrt(
        network.parameters(), lr=2.5e-4, alpha=0.95, momentum=0.0, eps=1e-2, centered=True
    ),
    pfrl.replay_buffers.ReplayBuffer(REPLAY_SIZE),
    gamma=0.99,
    explorer=explorer,
    replay_start_size=stopwatch.random_steps,
    minibatch_size=BATCH_SIZE,
    update_interval=TRAIN_FREQUENCY,
    target_update_interval=TARGET_STEPS,
    clip_delta=True,
    batch_accumulator="sum",
    phi=lambda state: np.asarray(state, dtype=np.float32) / 255,
)
with tempfile.TemporaryDirectory() as folder, suppress(Done):
    train_agent(agent, env, stopwatch.stop, folder, step_hooks=[tick])
stopwatch.report("pfrl", "torch", "ale-py", "gym", "numpy")
