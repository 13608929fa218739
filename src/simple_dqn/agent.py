"""The agent: chooses actions, stores what they led to, and lets the network learn from it. No tensors, no files.

Mnih et al. 2015, Algorithm 1, in the four phases of the original: random, train, test, play.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from simple_dqn.environment import Environment, Screen
from simple_dqn.options import Options, option
from simple_dqn.replay_memory import Minibatch, ReplayMemory
from simple_dqn.state_buffer import StateBuffer


@dataclass(frozen=True)
class AgentOptions(Options):
    title = "Agent"
    exploration_rate_start: float = option(1.0, "exploration rate at the beginning of its decay", at_least=0, at_most=1)
    exploration_rate_end: float = option(0.1, "exploration rate at the end of its decay", at_least=0, at_most=1)
    exploration_decay_steps: int = option(1_000_000, "steps over which it decays", at_least=0, at_most=10**12)
    exploration_rate_test: float = option(0.05, "exploration rate in testing and playing", at_least=0, at_most=1)
    train_frequency: int = option(4, "train after this many game steps", at_least=1, at_most=10**9)
    train_repeat: int = option(1, "minibatches per training", at_least=1, at_most=10**6)
    target_steps: int = option(
        10_000, "game steps between syncs of the target network; 0: no target network", at_least=0, at_most=10**12
    )
    random_starts: int = option(30, "at most this many no-op actions after a restart", at_least=0, at_most=10**6)


class Step(NamedTuple):
    """One step of the game."""

    action: int
    reward: float
    screen: Screen  # after the action
    terminal: bool
    truncated: bool  # terminal, yet only broken off
    exploration_rate: float


class Callback:
    """Is told what happens; subclasses override what they care for."""

    def on_phase_start(self, phase: str, epoch: int, steps: int | None) -> None:
        """A phase of so many steps begins (None: nobody knows how many)."""

    def on_step(self, step: Step) -> None:
        """The agent took a step."""

    def on_train(self, cost: float) -> None:
        """The network learned from a minibatch, at this cost."""

    def on_phase_end(self) -> None:
        """The phase is over, or was broken off."""


class Network(Protocol):
    """What the agent asks of a Q-network; `DeepQNetwork` is one."""

    train_iterations: int  # minibatches learned from so far

    def predict(self, states: NDArray[np.uint8]) -> NDArray[np.floating[Any]]:
        """Q-values (n, num_actions) of states (n, history, height, width)."""

    def train(self, batch: Minibatch) -> Any:
        """Learns from a minibatch; returns its cost and errors."""

    def update_target_network(self) -> None:
        """Copies the weights to the target network."""


class Agent:
    """Plays `environment`, fills `memory` and trains `network`.

    Args:
        environment, memory, network: what it works with.
        options: its options.
        rng: of its explorations and random starts.
        callbacks: told of every step and every training.
    """

    def __init__(
        self,
        environment: Environment,
        memory: ReplayMemory,
        network: Network,
        options: AgentOptions,
        rng: np.random.Generator,
        callbacks: Sequence[Callback] = (),
    ) -> None:
        self.environment = environment
        self.memory = memory
        self.network = network
        self.options = options
        self.callbacks = callbacks
        self.total_train_steps = 0
        self.interrupted = False  # set from outside: stop after this step
        self._rng = rng
        self._state = StateBuffer(memory.history_length, memory.screens.shape[1:])
        self._started = False

    def random(self, steps: int) -> None:
        """Plays at random for `steps` steps and stores what happens."""
        self._begin("train")
        for _ in range(steps):
            self._store(self._step(exploration_rate=1))
            if self.interrupted:
                return

    def train(self, steps: int) -> None:
        """Plays and learns for `steps` steps, going on with the game and the state that the last phase left."""
        self._begin("train")
        for _ in range(steps):
            self._store(self._step(self.exploration_rate))
            if self.options.target_steps and self.total_train_steps % self.options.target_steps == 0:
                self.network.update_target_network()
            if self.total_train_steps % self.options.train_frequency == 0 and self.memory.ready:
                for _ in range(self.options.train_repeat):
                    self._learn()
            self.total_train_steps += 1
            if self.interrupted:
                return

    def test(self, steps: int) -> None:
        """Plays for `steps` steps, from a new game on; nothing is stored or learned."""
        self._begin("test")
        self._restart()
        for _ in range(steps):
            self._step(self.options.exploration_rate_test)
            if self.interrupted:
                return

    def play(self, games: int) -> None:
        """Plays `games` games to their end; nothing is stored or learned."""
        self._begin("test")
        self._restart()
        while games and not self.interrupted:
            games -= self._step(self.options.exploration_rate_test).terminal

    @property
    def state(self) -> NDArray[np.uint8]:
        """What the agent sees now, (history, height, width); a view that its next step changes."""
        return self._state.state()

    @property
    def exploration_rate(self) -> float:
        """The probability of a random action in training: falls linearly, then stays."""
        o = self.options
        if self.total_train_steps >= o.exploration_decay_steps:
            return o.exploration_rate_end
        fall = o.exploration_rate_start - o.exploration_rate_end
        return o.exploration_rate_start - fall * self.total_train_steps / o.exploration_decay_steps

    def _begin(self, mode: str) -> None:
        self.environment.mode = "train" if mode == "train" else "test"
        if not self._started:
            self._restart()
        if mode == "test":
            self.memory.cut()  # what training meets next does not follow what it met last

    def _step(self, exploration_rate: float) -> Step:
        action = self._choose_action(exploration_rate)
        reward = self.environment.act(action)
        screen = self.environment.screen()
        terminal = self.environment.is_terminal()
        truncated = terminal and self.environment.truncated
        step = Step(action, reward, screen, terminal, truncated, exploration_rate)
        self._state.add(screen)
        if terminal:
            self._restart()
        for callback in self.callbacks:
            callback.on_step(step)
        return step

    def _choose_action(self, exploration_rate: float) -> int:
        """ε-greedy: at random with probability ε, else the action of the highest Q-value."""
        if self._rng.random() < exploration_rate:
            return int(self._rng.integers(self.environment.num_actions))
        return int(self.network.predict(self._state.state()[None])[0].argmax())

    def _store(self, step: Step) -> None:
        self.memory.add(step.action, step.reward, step.screen, step.terminal and not step.truncated)
        if step.truncated:
            self.memory.cut()

    def _learn(self) -> None:
        batch = self.memory.minibatch()
        cost, errors = self.network.train(batch)
        self.memory.update(batch.indexes, errors)
        for callback in self.callbacks:
            callback.on_train(cost)

    def _restart(self) -> None:
        """Begins an episode with a random number of no-ops, so that games differ; they also fill the state."""
        self._started = True
        self._state.reset()
        self.environment.restart()
        self._state.add(self.environment.screen())
        least = min(self.memory.history_length, self.options.random_starts)
        for _ in range(self._rng.integers(least, self.options.random_starts, endpoint=True)):
            self.environment.act(0)
            if self.environment.is_terminal():
                self.environment.restart()
            self._state.add(self.environment.screen())
