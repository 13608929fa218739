"""Tianshou 2: its DQN, DQNet, Atari wrappers, Collector and off-policy trainer.

The trainer tells of every fourth step only, so the numbers of steps must be multiples of four.
"""

from contextlib import suppress

import ale_py
import gymnasium
from tianshou.algorithm import DQN
from tianshou.algorithm.modelfree.dqn import DiscreteQLearningPolicy
from tianshou.algorithm.optim import AdamOptimizerFactory
from tianshou.data import Collector, VectorReplayBuffer
from tianshou.env import DummyVectorEnv
from tianshou.env.atari.atari_network import DQNet, ScaledObsInputActionReprNet
from tianshou.env.atari.atari_wrapper import wrap_deepmind
from tianshou.trainer import OffPolicyTrainerParams

from stopwatch import BATCH_SIZE, EXPLORATION, REPLAY_SIZE, TARGET_STEPS, TRAIN_FREQUENCY, Stopwatch


class Done(Exception):
    pass


def tick(epoch, env_step):
    while stopwatch.steps < stopwatch.random_steps + env_step:
        if stopwatch.step():
            raise Done


def make_env():
    return wrap_deepmind(gymnasium.make("BreakoutNoFrameskip-v4"), episode_life=True, clip_rewards=True, frame_stack=4)


stopwatch = Stopwatch(lambda: algorithm._iter)
gymnasium.register_envs(ale_py)
env = make_env()
algorithm = DQN(
    policy=DiscreteQLearningPolicy(
        model=ScaledObsInputActionReprNet(DQNet(*env.observation_space.shape, env.action_space.n)),
        action_space=env.action_space,
        observation_space=env.observation_space,
        eps_training=EXPLORATION,
    ),
    optim=AdamOptimizerFactory(lr=1e-4),
    gamma=0.99,
    target_update_freq=TARGET_STEPS // TRAIN_FREQUENCY,  # counted in updates
    is_double=False,
)
buffer = VectorReplayBuffer(REPLAY_SIZE, buffer_num=1, ignore_obs_next=True, save_only_last_obs=True, stack_num=4)
collector = Collector(algorithm, DummyVectorEnv([make_env]), buffer, exploration_noise=True)
collector.reset()
collector.collect(n_step=stopwatch.random_steps, random=True)
stopwatch.steps = stopwatch.random_steps
with suppress(Done):
    algorithm.run_training(
        OffPolicyTrainerParams(
            training_collector=collector,
            test_collector=None,
            max_epochs=1,
            epoch_num_steps=stopwatch.stop,
            collection_step_num_env_steps=TRAIN_FREQUENCY,
            update_step_num_gradient_steps_per_sample=1 / TRAIN_FREQUENCY,
            batch_size=BATCH_SIZE,
            training_fn=tick,
            show_progress=False,
            verbose=False,
        )
    )
stopwatch.report("tianshou", "torch", "ale-py", "gymnasium", "numpy")
