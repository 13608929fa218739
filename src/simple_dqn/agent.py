"""The agent: chooses actions, stores transitions and trains the network. No tensors, no files.

Mnih et al. 2015, Algorithm 1, in the four phases of the original: random, train, test, play.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from simple_dqn.environment import ABANDONED, TERMINATED, TRUNCATED, Mode, Screen
from simple_dqn.games.games import Games
from simple_dqn.options import Options, option
from simple_dqn.replay.returns import refresh_targets
from simple_dqn.replay_memory import HasTargets, Minibatch, ReplayMemory


@dataclass(frozen=True)
class AgentOptions(Options):
    title = "Agent"
    exploration_rate_start: float = option(1.0, "exploration rate ε at the first training step", at_least=0, at_most=1)
    exploration_rate_end: float = option(0.1, "ε after --exploration_decay_steps", at_least=0, at_most=1)
    exploration_decay_steps: int = option(1_000_000, "steps of the linear decay of ε", at_least=0, at_most=10**12)
    exploration_rate_test: float = option(0.05, "exploration rate in testing and playing", at_least=0, at_most=1)
    train_frequency: int = option(4, "game steps between two trainings", at_least=1, at_most=10**9)
    train_repeat: int = option(1, "minibatches per training", at_least=1, at_most=10**6)
    target_steps: int = option(
        10_000, "game steps between updates of the target network; 0: no target network", at_least=0, at_most=10**12
    )
    num_envs: int = option(
        1, "games played side by side. With 2 or more, updates use only earlier steps and can run while the games play",
        at_least=1, at_most=1024,
    )  # fmt: skip
    random_starts: int = option(
        30, "at most this many no-op actions after a restart; none if no action is called NOOP",
        at_least=0, at_most=10**6, kept="play",
    )  # fmt: skip

    @property
    def learns_in_bursts(self) -> bool:
        """Whether updates are so rare that games and learning seldom need the processor at the same time."""
        return self.train_frequency >= 8 * self.num_envs


class Step(NamedTuple):
    """One step of a game."""

    action: int
    reward: float
    screen: Screen  # after the action; a view that changes with the next step
    terminal: bool  # the end of an episode
    truncated: bool  # the episode was cut; if it is not terminal, its score does not count
    exploration_rate: float
    game: int = 0  # its number among parallel games


NEW_GAMES = ("play", "test")  # phases that begin with new games


class Callback:
    """Receives events of a run. Subclasses override the methods that they need."""

    def on_phase_start(self, phase: str, epoch: int, steps: int | None) -> None:
        """A phase begins; `steps` is None if its length is unknown."""

    def on_begin(self) -> None:
        """The games of the phase have begun. `Agent.state` is the first state."""

    def on_step(self, step: Step) -> None:
        """The agent took a step. `Agent.state` is the next state."""

    def on_train(self, cost: float) -> None:
        """The network learned from a minibatch with this loss."""

    def on_phase_end(self) -> None:
        """The phase ended or was interrupted."""


class Network(HasTargets, Protocol):
    """The part of a Q-network that the agent needs, such as `DeepQNetwork`."""

    train_iterations: int  # updates so far

    def predict(self, states: NDArray[np.uint8]) -> NDArray[np.floating[Any]]:
        """Return Q-values (n, num_actions) of states (n, history, height, width)."""

    def train(self, batch: Minibatch) -> Any:
        """Learn from a minibatch; return its loss and TD errors."""

    def anneal(self, step: int) -> None:
        """Set the learning rate for the updates of this training step."""

    def update_target_network(self) -> None:
        """Copy the weights to the target network."""


class Agent:
    """Plays `games`, fills `memory` and trains `network`.

    A single game takes its step before the network learns, as in the original. Several games step in parallel while
    the network does the updates that are due, with the memory as it was before these steps. So results do not depend
    on timing or on the number of processes.

    Args:
        games, memory, network: its parts; the memory has a lane for each game.
        options: its options.
        rng: its source of randomness.
        callbacks: receive every step and every update.

    Attributes:
        total_train_steps: steps of training so far, all games counted.
        interrupted: end the phase after the current step.
        q_values: of `state`, (num_actions,), while watchers steer. None: no prediction was needed.
    """

    def __init__(
        self,
        games: Games,
        memory: ReplayMemory,
        network: Network,
        options: AgentOptions,
        rng: np.random.Generator,
        callbacks: Sequence[Callback] = (),
    ) -> None:
        self.games = games
        self.memory = memory
        self.network = network
        self.options = options
        self.callbacks = callbacks
        self.total_train_steps = 0
        self.interrupted = False
        self.q_values: NDArray[np.floating[Any]] | None = None
        self._rng = rng

    def random(self, steps: int) -> None:
        """Play at random for `steps` steps and store the transitions."""
        self._begin("train")
        for number in self._rounds(steps):
            actions = self._start(range(number), exploration_rate=1)
            self._store(self._finish(actions, exploration_rate=1))

    def train(self, steps: int) -> None:
        """Play and learn for `steps` steps, and continue the games of the last phase."""
        self._begin("train")
        for number in self._rounds(steps):
            rate = self.exploration_rate
            actions = self._start(range(number), rate)
            if len(self.games) > 1:
                self._learn(number)
            self._store(self._finish(actions, rate))
            if len(self.games) == 1:
                self._learn(number)
            self.total_train_steps += number

    def test(self, steps: int) -> None:
        """Play new games for `steps` steps; nothing is stored or learned."""
        self._begin("test")
        for number in self._rounds(steps):
            self._play(range(number))

    def play(self, games: int) -> None:
        """Play `games` new games to their end; nothing is stored or learned.

        Each of the parallel games plays a fixed share, because otherwise short games would end first and count more.
        """
        self._begin("test")
        places = len(self.games)
        left = [games // places + (place < games % places) for place in range(places)]
        while any(left) and not self.interrupted:
            for step in self._play([place for place in range(places) if left[place]]):
                left[step.game] -= step.terminal

    def stop(self) -> None:
        """End the phase after the step under way."""
        self.interrupted = True

    def save_state(self) -> dict[str, Any]:
        """Return the state of the agent without its parts."""
        return dict(total_train_steps=self.total_train_steps, rng=self._rng.bit_generator.state)

    def restore(self, state: dict[str, Any]) -> None:
        """Take over the state of an agent."""
        self.total_train_steps = state["total_train_steps"]
        self._rng.bit_generator.state = state["rng"]

    @property
    def state(self) -> NDArray[np.uint8]:
        """The state of the first game, (history, height, width); a view that changes with the next step."""
        return self.games.arrays.states[0]

    @property
    def exploration_rate(self) -> float:
        """ε, the probability of a random action in training: it falls linearly, then stays."""
        o = self.options
        if self.total_train_steps >= o.exploration_decay_steps:
            return o.exploration_rate_end
        fall = o.exploration_rate_start - o.exploration_rate_end
        return o.exploration_rate_start - fall * self.total_train_steps / o.exploration_decay_steps

    def _begin(self, mode: Mode) -> None:
        self.games.begin(mode, new_episode=mode == "test")
        if mode == "test":
            self.memory.cut()  # because training continues in other games
        for callback in self.callbacks:
            callback.on_begin()

    def _rounds(self, steps: int) -> Iterator[int]:
        """Yield how many games step in each round, `steps` in all, until the agent is interrupted."""
        while steps > 0 and not self.interrupted:
            number = min(steps, len(self.games))
            yield number
            steps -= number

    def _play(self, places: Sequence[int]) -> list[Step]:
        rate = self.options.exploration_rate_test
        return self._finish(self._start(places, rate), rate)

    def _start(self, places: Sequence[int], exploration_rate: float) -> Sequence[int | None]:
        actions: list[int | None] = [None] * (places[-1] + 1)
        for place, action in zip(places, self._choose_actions(places, exploration_rate), strict=True):
            actions[place] = action
        return self.games.start(actions)

    def _finish(self, actions: Sequence[int | None], exploration_rate: float) -> list[Step]:
        self.games.finish()
        arrays = self.games.arrays
        ends = arrays.ends.tolist()
        steps = []
        for game, action in enumerate(actions):
            if action is None:
                continue
            end = ends[game]
            terminal, truncated = end in (TERMINATED, TRUNCATED), end in (TRUNCATED, ABANDONED)
            reward, screen = float(arrays.rewards[game]), arrays.screens[game]
            steps.append(Step(action, reward, screen, terminal, truncated, exploration_rate, game))
        for step in steps:
            for callback in self.callbacks:
                callback.on_step(step)
        return steps

    def _choose_actions(self, places: Sequence[int], exploration_rate: float) -> list[int]:
        """Choose ε-greedily for the games at `places`: at random with probability ε, else the highest Q-value."""
        actions = [
            int(self._rng.integers(self.games.num_actions)) if self._rng.random() < exploration_rate else None
            for _ in places
        ]
        self.q_values = None
        if None not in actions:
            return [action for action in actions if action is not None]
        states = self.games.arrays.states
        # A slice where possible, because indexing copies: megabytes per step with many games.
        seen = states[: len(places)] if isinstance(places, range) else states[places]
        q = self.network.predict(seen)  # (places, num_actions)
        if places[0] == 0:
            self.q_values = q[0]
        return [int(best) if action is None else action for action, best in zip(actions, q.argmax(axis=1), strict=True)]

    def _store(self, steps: Sequence[Step]) -> None:
        for step in steps:
            self.memory.add(step.action, step.reward, step.screen, step.terminal and not step.truncated, step.game)
            if step.truncated:
                self.memory.cut(step.game)

    def _learn(self, number: int) -> None:
        """Do the updates that are due for the next `number` training steps."""
        options = self.options
        for step in range(self.total_train_steps, self.total_train_steps + number):
            if options.target_steps and step % options.target_steps == 0:
                self.network.update_target_network()
            if step % options.train_frequency == 0 and self.memory.ready:
                self.network.anneal(step)
                refresh_targets(self.memory, self.network)
                for _ in range(options.train_repeat):
                    batch = self.memory.minibatch()
                    cost, errors = self.network.train(batch)
                    self.memory.update(batch.indexes, errors)
                    for callback in self.callbacks:
                        callback.on_train(cost)
