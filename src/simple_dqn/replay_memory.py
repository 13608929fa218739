"""Experience replay (Lin 1992; Mnih et al. 2015): past transitions, sampled at random to learn from.

To sample in another way, subclass `ReplayMemory`, like `PrioritizedReplayMemory` in replay/prioritized.py.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from simple_dqn.environment import CONTINUES, TERMINATED, TRUNCATED
from simple_dqn.errors import OptionError
from simple_dqn.machine import available_memory
from simple_dqn.options import Options, option
from simple_dqn.wording import count

_HEADROOM = 512 * 2**20  # bytes left for the network and the emulator
_NEVER = 2**62


@dataclass(frozen=True)
class ReplayMemoryOptions(Options):
    title = "Replay memory"
    replay_size: int = option(
        1_000_000, "transitions kept, 7 kB each at 84x84; new ones overwrite the oldest", at_least=1, at_most=10**10
    )
    history_length: int = option(4, "screens in a state", at_least=1, at_most=64, kept="network")
    multi_step: int = option(
        1, "n of n-step returns: number of rewards in a target before the bootstrap value", at_least=1, at_most=1000
    )
    return_lambda: float = option(
        0.0,
        "λ of λ-returns, which average n-step returns of all n. They are computed for the whole memory before each "
        "training: use a small --replay_size. 0: n-step returns", at_least=0, at_most=1,
    )  # fmt: skip
    terminal_on_reward: bool = option(
        False, "targets treat a reward as the end of the episode, so that in Pong each point counts alone"
    )
    prioritized_replay: bool = option(False, "sample transitions in proportion to their TD errors, not uniformly")
    priority_exponent: float = option(
        0.6, "exponent of the TD error: 0 uniform, 1 proportional", at_least=0, at_most=10
    )
    importance_exponent: float = option(
        0.4, "start of β, the exponent of the importance weights (0: no correction, 1: full). It rises to 1",
        at_least=0, at_most=1,
    )  # fmt: skip
    importance_steps: int = option(
        1_000_000, "steps until β reaches 1, random steps included", at_least=1, at_most=10**12
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.return_lambda and self.multi_step > 1:
            raise OptionError(
                f"--multi_step {self.multi_step} does not go with --return_lambda, which averages n-step returns of "
                "all n: use --multi_step 1, or --return_lambda 0"
            )


class Minibatch(NamedTuple):
    """Transitions to learn from. The first axis of each field is the batch."""

    prestates: Any  # (batch, history, height, width) uint8: an array, or a tensor if the screens are on the GPU
    actions: NDArray[np.uint8]  # (batch,)
    rewards: NDArray[np.float32]  # (batch, multi_step), of the action and of those after it; not clipped
    poststates: Any  # like prestates
    terminals: NDArray[np.bool_]  # (batch,), whether the poststate has no bootstrap value, as at an episode's end
    indexes: NDArray[np.int64]  # (batch,), their places in the memory
    weights: NDArray[np.float32]  # (batch,), importance-sampling weights
    steps: NDArray[np.int64]  # (batch,), from prestate to poststate: multi_step, or fewer if the episode ends before
    targets: NDArray[np.float32] | None = None  # (batch,), λ-returns; then poststates are empty


class TargetParts(NamedTuple):
    """The parts of each transition's target, returns + discounts · values. Arrays (batch,)."""

    returns: NDArray[np.floating[Any]]  # discounted sum of its clipped rewards
    discounts: NDArray[np.floating[Any]]  # of the bootstrap value; 0 at the end of an episode
    values: NDArray[np.floating[Any]]  # bootstrap values


class HasTargets(Protocol):
    """The part of a network that λ-returns need."""

    def target_arrays(self, batch: Minibatch) -> TargetParts:
        """Return the parts of the targets of `batch`, of at most `batch_size` transitions."""


class ReplayMemory:
    """A ring buffer of transitions that stores every screen once. States are assembled at sampling.

    Only valid transitions are sampled: those with their history and their next `multi_step` steps in the memory.
    Each game has a lane, which is a separate ring buffer: lane n has the indexes from n · lane_size to before
    (n + 1) · lane_size.

    Args:
        options: its options.
        screen_shape: (height, width).
        batch_size: transitions in a minibatch.
        rng: its source of randomness.
        at_most: an upper bound of the transitions that will ever be added, because a short run needs less memory.
        lanes: number of games.

    Raises:
        OptionError: the memory is too small for a minibatch, or too large for the machine.
    """

    def __init__(
        self,
        options: ReplayMemoryOptions,
        screen_shape: tuple[int, int],
        batch_size: int,
        rng: np.random.Generator,
        at_most: int | None = None,
        lanes: int = 1,
    ) -> None:
        self.options = options
        self.history_length, self.multi_step = options.history_length, options.multi_step
        self.batch_size = batch_size
        self._rng = rng
        span = options.history_length + options.multi_step  # screens of a transition
        least = max(batch_size + 1, lanes * (2 * span - 1))
        if options.replay_size < least:
            needs = f", --multi_step {options.multi_step}" if options.multi_step > 1 else ""
            needs += f" of each of {lanes} games" if lanes > 1 else ""
            raise OptionError(
                f"--replay_size {options.replay_size} is too small: a minibatch of {count(batch_size, 'transition')} "
                f"with {count(options.history_length, 'screen')} of history{needs} needs at least {least}"
            )
        size = options.replay_size if at_most is None else min(options.replay_size, max(at_most, least))
        self.lane_size = size // lanes
        self.size = size = self.lane_size * lanes
        _require_memory(size, screen_shape, options.replay_size)
        self.actions = np.empty(size, np.uint8)
        self.rewards = np.empty(size, np.float32)
        self.screens: Any = np.empty((size, *screen_shape), np.uint8)  # the network may move them to the GPU
        self.terminals = np.empty(size, np.uint8)  # CONTINUES, TERMINATED or TRUNCATED
        self.targets = np.empty(size, np.float32) if options.return_lambda else None  # see replay/returns.py
        self.added = np.zeros(lanes, np.int64)  # transitions ever added, to each lane
        self.counts = np.zeros(lanes, np.int64)  # transitions in each lane
        self.steps_before = 0  # of a resumed training whose transitions were lost
        self._was_ready = False
        self._first_valid = [_NEVER] * lanes  # number of the first transition that has its history
        self._history = np.arange(-self.history_length, 0)  # offsets of the prestate's screens from a transition
        self._steps = np.arange(self.multi_step)  # offsets of the transition and of those after it

    @property
    def count(self) -> int:
        """Number of transitions in the memory."""
        return int(self.counts.sum())

    @property
    def ready(self) -> bool:
        """Whether there are enough transitions for a minibatch, and one was valid at some time."""
        if not self._was_ready:  # a memory stays ready
            found = any(first + self.multi_step <= n for first, n in zip(self._first_valid, self.added, strict=True))
            self._was_ready = found and self.count > max(self.batch_size, self.history_length)
        return self._was_ready

    def why_not_ready(self) -> str:
        """Return in words what a minibatch lacks, if it is not `ready`."""
        if self.count <= max(self.batch_size, self.history_length):
            return f"{count(self.count, 'transition')} are too few for a minibatch of {self.batch_size}"
        what = f"{count(self.count, 'transition')} of {count(len(self.added), 'game')}"
        return f"{what} hold no state with its history and return (see --history_length and --multi_step)"

    def add(self, action: int, reward: float, screen: NDArray[np.uint8], terminal: bool, lane: int = 0) -> None:
        """Add a transition: `action` earned `reward` and led to `screen` (height, width), the last if `terminal`."""
        number = int(self.added[lane])
        index = lane * self.lane_size + number % self.lane_size
        self.actions[index] = action
        self.rewards[index] = reward
        self.screens[index] = screen
        self.terminals[index] = TERMINATED if terminal else CONTINUES
        if self._first_valid[lane] == _NEVER and number >= self.history_length:
            ended = self.terminals[self.after(index, self._history)].any()
            self._first_valid[lane] = _NEVER if ended else number
        self.added[lane] += 1
        self.counts[lane] = min(number + 1, self.lane_size)

    def cut(self, lane: int | None = None) -> None:
        """Mark that the next screen, in `lane` or in all, does not follow the last one. No state will hold both."""
        for n in range(len(self.added)) if lane is None else (lane,):
            last = n * self.lane_size + (self.added[n] - 1) % self.lane_size
            if self.added[n] and self.terminals[last] == CONTINUES:
                self.terminals[last] = TRUNCATED

    def minibatch(self) -> Minibatch:
        """Sample `batch_size` transitions.

        Raises:
            OptionError: no transition is valid.
        """
        indexes, weights = self._sample_indexes()
        return self.assemble(indexes, weights, None if self.targets is None else self.targets[indexes])

    def update(self, indexes: NDArray[np.int64], errors: NDArray[np.float32]) -> None:
        """Receive the TD errors (batch,) of the minibatch at `indexes`. Ignored by uniform sampling."""

    def assemble(
        self, indexes: NDArray[np.int64], weights: NDArray[np.float32], targets: NDArray[np.float32] | None = None
    ) -> Minibatch:
        """Return the transitions at `indexes` (batch,); without poststates if `targets` are given."""
        following = self.after(indexes[:, None], self._steps)  # (batch, multi_step)
        rewards, ends = self.rewards[following], self.terminals[following]
        if self.options.terminal_on_reward:  # Karpathy 2016, "Deep Reinforcement Learning: Pong from Pixels"
            ends[rewards != 0] = TERMINATED
        ended = ends != CONTINUES
        steps = np.where(ended.any(axis=1), ended.argmax(axis=1) + 1, self.multi_step)  # (batch,)
        offsets = np.broadcast_to(self._history, (len(indexes), self.history_length))
        if targets is None:
            offsets = np.concatenate([offsets, steps[:, None] + self._history], axis=1)  # (batch, 2 · history)
        screens = self.screens[self.after(indexes[:, None], offsets)]  # (batch, history or 2 · history, height, width)
        return Minibatch(
            screens[:, : self.history_length],
            self.actions[indexes],
            rewards,
            screens[:, self.history_length :],
            ends[np.arange(len(ends)), steps - 1] == TERMINATED,
            indexes,
            weights,
            steps,
            targets,
        )

    def is_valid(self, indexes: NDArray[np.int64]) -> NDArray[np.bool_]:
        """Return whether each transition has its history, in one episode, and its next `multi_step` steps, (batch,)."""
        lane, place = np.divmod(indexes, self.lane_size)
        counts = self.counts  # (lanes,)
        age = (place - (self.added - counts)[lane]) % self.lane_size  # 0: the oldest
        ended = self.terminals[self.after(indexes[:, None], self._history)].any(axis=1)  # before the transition
        return (age >= self.history_length) & (age + self.multi_step <= counts[lane]) & ~ended

    def after(self, indexes: Any, steps: NDArray[np.int64] | int) -> NDArray[np.int64]:
        """Return the indexes of the transitions `steps` after those at `indexes`, in the same lanes."""
        place = indexes % self.lane_size
        return indexes - place + (place + steps) % self.lane_size

    def indexes(self, lane: int, numbers: range) -> NDArray[np.int64]:
        """Return the indexes of the transitions that `lane` received with these numbers, counted from 0."""
        return lane * self.lane_size + np.arange(numbers.start, numbers.stop) % self.lane_size

    def _sample_indexes(self) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        """Sample valid transitions: indexes (batch,) and importance-sampling weights (batch,)."""
        return self._sample_valid(), np.ones(self.batch_size, np.float32)

    def _sample_valid(self) -> NDArray[np.int64]:
        """Sample indexes (batch,) by rejection: `_propose` draws until enough are valid."""
        valid = np.empty(0, np.int64)
        for _ in range(100):
            proposed = self._propose()
            valid = np.concatenate([valid, proposed[self.is_valid(proposed)]])
            if len(valid) >= self.batch_size:
                return valid[: self.batch_size]
        everything = np.arange(self.size)  # because hardly any is valid
        valid = everything[self.is_valid(everything)]
        if not len(valid):
            raise OptionError(
                f"None of {count(self.count, 'transition')} in the replay memory has "
                f"{count(self.history_length, 'screen')} of history and {count(self.multi_step, 'known step')}. "
                "Use a smaller --history_length, --multi_step or --random_starts, or a larger --replay_size."
            )
        return self._rng.choice(valid, self.batch_size)

    def _propose(self) -> NDArray[np.int64]:
        """Draw indexes (batch,) uniformly, but not the oldest `history_length` of a lane, which lack their history."""
        counts = self.counts
        usable = np.maximum(counts - self.history_length, 0)  # (lanes,)
        stops = usable.cumsum()
        drawn = self._rng.integers(max(1, stops[-1]), size=self.batch_size)
        lane = np.minimum(stops.searchsorted(drawn, side="right"), len(stops) - 1)  # (batch,)
        oldest = lane * self.lane_size + (self.added - counts)[lane] % self.lane_size
        return self.after(oldest, self.history_length + drawn - (stops - usable)[lane])

    # For checkpoints

    def state(self) -> dict[str, Any]:
        """Return everything except the screens, actions and rewards of the transitions."""
        return dict(
            added=self.added.tolist(),
            lane_size=self.lane_size,
            ends=[self.terminals[lane * self.lane_size :][:n].copy() for lane, n in enumerate(self.counts)],
            first_whole=list(self._first_valid),
            steps_before=self.steps_before,
            rng=self._rng.bit_generator.state,
        )

    def fits(self, state: dict[str, Any]) -> bool:
        """Return whether the transitions of the memory with this `state` have the same indexes here."""
        full = max(state["added"]) > min(self.lane_size, state["lane_size"])
        return len(state["added"]) == len(self.added) and (not full or state["lane_size"] == self.lane_size)

    def restore(self, state: dict[str, Any]) -> None:
        """Take over a state that fits. `set_transitions` restores the transitions."""
        self.added[:] = state["added"]
        self.counts[:] = np.minimum(self.added, self.lane_size)
        self._was_ready = False
        for lane, ends in enumerate(state["ends"]):
            self.terminals[lane * self.lane_size :][: len(ends)] = ends
        self._first_valid = list(state["first_whole"])
        self.steps_before = state["steps_before"]
        self._rng.bit_generator.state = state["rng"]

    def transitions(self, lane: int, numbers: range) -> list[NDArray[Any]]:
        """Return the actions, rewards and screens of the transitions that `lane` received with these numbers."""
        indexes = self.indexes(lane, numbers)
        return [self.actions[indexes], self.rewards[indexes], as_array(self.screens[indexes])]

    def set_transitions(self, lane: int, numbers: range, arrays: Sequence[NDArray[Any]]) -> None:
        """Restore what `transitions` returned."""
        indexes = self.indexes(lane, numbers)
        self.actions[indexes], self.rewards[indexes], self.screens[indexes] = arrays


def as_array(screens: Any) -> NDArray[np.uint8]:
    """Return screens from a memory as an array, also if the memory keeps them on the GPU."""
    array: NDArray[np.uint8] = screens if isinstance(screens, np.ndarray) else screens.cpu().numpy()
    return array


def _require_memory(size: int, screen_shape: tuple[int, int], replay_size: int) -> None:
    need = size * (screen_shape[0] * screen_shape[1] + 6)
    have = available_memory() - _HEADROOM
    if need > have:
        fits = max(0, int(have / need * size))
        raise OptionError(
            f"--replay_size {replay_size} ({size} transitions in this run) needs {need / 2**30:.2f} GiB of memory and "
            f"{max(0, have) / 2**30:.2f} GiB are free for it: use at most --replay_size {fits}, or smaller screens"
        )
