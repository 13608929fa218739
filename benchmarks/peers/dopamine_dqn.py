"""Dopamine: its JAX DQN agent and Atari environment, in the loop of its Runner."""

import gin
import numpy as np
from dopamine.discrete_domains.atari_lib import create_atari_environment
from dopamine.jax.agents.dqn.dqn_agent import JaxDQNAgent

from stopwatch import BATCH_SIZE, EXPLORATION, REPLAY_SIZE, TARGET_STEPS, TRAIN_FREQUENCY, Stopwatch

stopwatch = Stopwatch(lambda: int(agent.optimizer_state[0].count))
gin.parse_config(
    f"""
    dopamine.jax.replay_memory.replay_buffer.ReplayBuffer.max_capacity = {REPLAY_SIZE}
    dopamine.jax.replay_memory.replay_buffer.ReplayBuffer.batch_size = {BATCH_SIZE}
    AtariPreprocessing.terminal_on_life_loss = True
    """
)
env = create_atari_environment("Breakout", sticky_actions=False)
agent = JaxDQNAgent(
    num_actions=env.action_space.n,
    min_replay_history=stopwatch.random_steps,  # at random up to then
    update_period=TRAIN_FREQUENCY,
    target_update_period=TARGET_STEPS,
    epsilon_train=EXPLORATION,
    epsilon_decay_period=1,
    seed=1,
)
done = False
while not done:
    action = agent.begin_episode(env.reset())
    while True:
        observation, reward, terminal, _ = env.step(action)
        reward = np.clip(reward, -1, 1)
        done = stopwatch.step()
        if done or env.game_over:
            break
        if terminal:  # a life is lost
            agent.end_episode(reward, terminal)
            action = agent.begin_episode(observation)
        else:
            action = agent.step(reward, observation)
    agent.end_episode(reward, terminal)
stopwatch.report("dopamine-rl", "jax", "ale-py", "gymnasium", "numpy")
