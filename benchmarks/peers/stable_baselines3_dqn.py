"""Stable-Baselines3: DQN.learn with CnnPolicy and make_atari_env, as its documentation has it."""

import ale_py
import gymnasium
from stable_baselines3 import DQN
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.env_util import make_atari_env
from stable_baselines3.common.vec_env import VecFrameStack

from stopwatch import BATCH_SIZE, EXPLORATION, REPLAY_SIZE, TARGET_STEPS, TRAIN_FREQUENCY, Stopwatch


class Tick(BaseCallback):
    def __init__(self, stopwatch):
        super().__init__()
        self.stopwatch = stopwatch

    def _on_step(self):
        return not self.stopwatch.step()


stopwatch = Stopwatch(lambda: model._n_updates)
gymnasium.register_envs(ale_py)
model = DQN(
    "CnnPolicy",
    VecFrameStack(make_atari_env("BreakoutNoFrameskip-v4", seed=1), n_stack=4),
    buffer_size=REPLAY_SIZE,
    learning_starts=stopwatch.random_steps,
    batch_size=BATCH_SIZE,
    train_freq=TRAIN_FREQUENCY,
    target_update_interval=TARGET_STEPS,
    exploration_initial_eps=EXPLORATION,  # up to learning_starts it plays at random all the same
    exploration_final_eps=EXPLORATION,
    seed=1,
    device="cpu",
)
model.learn(stopwatch.stop + TRAIN_FREQUENCY, callback=Tick(stopwatch))
stopwatch.report("stable-baselines3", "torch", "ale-py", "gymnasium", "numpy")
