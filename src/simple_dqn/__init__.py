"""Simple DQN: a small, fast, easy-to-extend deep Q-learning agent for Atari games.

Mnih et al., "Human-level control through deep reinforcement learning", Nature 518 (2015), doi:10.1038/nature14236.
"""

__version__ = "2.0.0"
