"""Experience replay (Lin 1992; Mnih et al. 2015): past transitions, drawn at random to learn from.

`PrioritizedReplayMemory` draws by how much there is to learn (Schaul et al. 2016). To draw in another way, subclass
`ReplayMemory` as it does.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from simple_dqn.environment import CONTINUES as GOES_ON
from simple_dqn.environment import TERMINATED as TERMINAL
from simple_dqn.environment import TRUNCATED as CUT
from simple_dqn.errors import OptionError
from simple_dqn.machine import available_memory
from simple_dqn.options import Options, option
from simple_dqn.replay.sum_tree import SumTree

_HEADROOM = 512 * 2**20  # bytes left for the network and the emulator
_NEVER = 2**62
_LEAST = 1e-6  # priority of a transition on which no error was made


@dataclass(frozen=True)
class ReplayMemoryOptions(Options):
    title = "Replay memory"
    replay_size: int = option(
        1_000_000, "transitions kept, 7 kB each at 84x84; the oldest make way", at_least=1, at_most=10**10
    )
    history_length: int = option(4, "screens in a state", at_least=1, at_most=64, kept="network")
    multi_step: int = option(
        1, "steps whose rewards count in a target before the Q-value of the state then", at_least=1, at_most=1000
    )
    return_lambda: float = option(
        0.0,
        "λ of targets that weigh returns of all numbers of steps; formed anew before each training, for all that the "
        "memory holds: keep it small; 0: targets of --multi_step",
        at_least=0,
        at_most=1,
    )
    terminal_on_reward: bool = option(
        False, "learning counts nothing after a reward, as if it ended the episode: in Pong each point by itself"
    )
    prioritized_replay: bool = option(
        False, "draw transitions in proportion to the error that the network made on them, not evenly"
    )
    priority_exponent: float = option(
        0.6, "how much that error counts: 0 nothing, 1 in proportion", at_least=0, at_most=10
    )
    importance_exponent: float = option(
        0.4, "how much of the bias of such draws is taken back, at the beginning; it rises to 1", at_least=0, at_most=1
    )
    importance_steps: int = option(
        1_000_000, "steps over which it rises to 1, random ones too", at_least=1, at_most=10**12
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.return_lambda and self.multi_step > 1:
            raise OptionError(
                f"--multi_step {self.multi_step} does not go with --return_lambda, where returns of all numbers of "
                "steps count: use --multi_step 1, or --return_lambda 0"
            )


class Minibatch(NamedTuple):
    """Transitions to learn from, each field's first axis the batch."""

    prestates: Any  # (batch, history, height, width) uint8: an array, or a tensor where the screens are on the GPU
    actions: NDArray[np.uint8]  # (batch,)
    rewards: NDArray[np.float32]  # (batch, multi_step) of the action and of those after it; not clipped
    poststates: Any  # as prestates
    terminals: NDArray[np.bool_]  # (batch,), whether nothing after the poststate counts, as at the end of an episode
    indexes: NDArray[np.int64]  # (batch,), where they lie in the memory
    weights: NDArray[np.float32]  # (batch,), importance of each in the gradient
    steps: NDArray[np.int64]  # (batch,) from prestate to poststate: multi_step, or fewer where what counts ends before
    targets: NDArray[np.float32] | None = None  # (batch,), where the memory has formed them; poststates are empty then


class Outlook(NamedTuple):
    """What the target of each transition is made of: returns + discounts · values. Arrays (batch,)."""

    returns: NDArray[np.floating[Any]]  # discounted sum of its clipped rewards
    discounts: NDArray[np.floating[Any]]  # of the poststate, 0 where nothing after it counts
    values: NDArray[np.floating[Any]]  # of the poststate


class Judge(Protocol):
    """What forms λ-returns asks of a network."""

    def outlook(self, batch: Minibatch) -> Outlook:
        """What targets of `batch`, of at most `batch_size` transitions, are made of."""


class ReplayMemory:
    """A ring of transitions in which every screen is stored once; states are put together when they are drawn.

    Of several games each has a lane, a ring of its own: lane n is at indexes from n · lane_size to before
    (n + 1) · lane_size, and a screen follows the one before it in its lane.

    Args:
        options: its options.
        screen_shape: (height, width) of a screen.
        batch_size: transitions in a minibatch.
        rng: where the random draws come from.
        at_most: no more transitions than this will ever be added (a short run needs no room for a long one).
        lanes: games that are played side by side.

    Raises:
        OptionError: the memory is smaller than a minibatch needs, or larger than the machine's.
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
        self.history_length = options.history_length
        self.multi_step = options.multi_step
        self.return_lambda = options.return_lambda
        self._terminal_on_reward = options.terminal_on_reward
        self.batch_size = batch_size
        self._rng = rng
        window = options.history_length + options.multi_step  # what a transition spans
        least = max(batch_size + 1, lanes * (2 * window - 1))
        if options.replay_size < least:
            needs = f", --multi_step {options.multi_step}" if options.multi_step > 1 else ""
            needs += f" of each of {lanes} games" if lanes > 1 else ""
            raise OptionError(
                f"--replay_size {options.replay_size} is too small: a minibatch of {batch_size} transitions with "
                f"{options.history_length} screens of history{needs} needs at least {least}"
            )
        size = options.replay_size if at_most is None else min(options.replay_size, max(at_most, least))
        self.lane_size = size // lanes
        self.size = size = self.lane_size * lanes
        _require_memory(size, screen_shape)
        self.actions = np.empty(size, np.uint8)
        self.rewards = np.empty(size, np.float32)
        self.screens: Any = np.empty((size, *screen_shape), np.uint8)  # the network may put them on the GPU
        self.terminals = np.empty(size, np.uint8)  # GOES_ON, TERMINAL or CUT
        self._targets = np.empty(size if options.return_lambda else 0, np.float32)  # as `refresh` formed them
        self.added = np.zeros(lanes, np.int64)  # transitions ever added, to each lane
        self._runs = [0] * lanes  # screens since the last end or cut
        self.steps_before = 0  # of the training, whose transitions were lost
        self._first_whole = [_NEVER] * lanes  # number of the first transition whose history was whole
        self._history = np.arange(-self.history_length, 0)  # where a transition's prestate lies, seen from it
        self._ahead = np.arange(self.multi_step)  # where the transition and those after it lie

    @property
    def counts(self) -> NDArray[np.int64]:
        """Transitions held, in each lane."""
        return np.minimum(self.added, self.lane_size)

    @property
    def count(self) -> int:
        """Transitions held."""
        return int(self.counts.sum())

    @property
    def _oldest(self) -> NDArray[np.int64]:
        """Where in each lane the oldest transition lies, the next to make way once the lane is full."""
        return (self.added - self.counts) % self.lane_size

    @property
    def ready(self) -> bool:
        """Whether there is enough to draw a minibatch from."""
        whole = any(first + self.multi_step <= n for first, n in zip(self._first_whole, self.added, strict=True))
        return whole and self.count > max(self.batch_size, self.history_length)

    def add(self, action: int, reward: float, screen: NDArray[np.uint8], terminal: bool, lane: int = 0) -> None:
        """Adds a transition: `action` earned `reward` and led to `screen` (height, width), the last if `terminal`."""
        index = lane * self.lane_size + int(self.added[lane]) % self.lane_size
        self.actions[index] = action
        self.rewards[index] = reward
        self.screens[index] = screen
        self.terminals[index] = TERMINAL if terminal else GOES_ON
        if self._first_whole[lane] == _NEVER and self._runs[lane] >= self.history_length:
            self._first_whole[lane] = int(self.added[lane])
        self._runs[lane] = 0 if terminal else self._runs[lane] + 1
        self.added[lane] += 1

    def cut(self, lane: int | None = None) -> None:
        """Tells that the next screen, in `lane` or in all, does not follow the last: no state will span the two."""
        for n in range(len(self.added)) if lane is None else (lane,):
            last = n * self.lane_size + (self.added[n] - 1) % self.lane_size
            if self.added[n] and self.terminals[last] == GOES_ON:
                self.terminals[last] = CUT
                self._runs[n] = 0

    def minibatch(self) -> Minibatch:
        """Draws `batch_size` transitions.

        Raises:
            OptionError: the memory holds no transition whose history is whole.
        """
        indexes, weights = self._sample_indexes()
        return self._transitions(indexes, weights, self._targets[indexes] if self.return_lambda else None)

    def refresh(self, network: Judge) -> None:
        """Forms the λ-return of every transition, by what `network` thinks now; without `return_lambda` nothing.

        G_t = r_t + γ · ((1 − λ) · V(s_t+1) + λ · G_t+1), where V is what a target says of a state; at an end r_t, and
        where nothing is known of the next step r_t + γ · V(s_t+1). Peng and Williams 1994, doi:10.1007/BF00114731;
        formed anew as the network learns: Daley and Amato 2019, arXiv:1810.09967.
        """
        if not self.return_lambda:
            return
        lanes = [self._places(n, range(max(0, a - self.lane_size), a)) for n, a in enumerate(self.added.tolist())]
        places = np.concatenate(lanes)  # of each lane the oldest first
        places = places[self._is_whole(places)]
        if not len(places):  # `minibatch` will say so
            return
        parts = np.resize(places, (-(-len(places) // self.batch_size), self.batch_size))  # the last one is filled up
        outlooks = [network.outlook(self._transitions(part, np.ones(self.batch_size, np.float32))) for part in parts]
        returns, discounts, values = (np.concatenate(field).tolist() for field in zip(*outlooks, strict=True))
        goes_on = (self.terminals[places] == GOES_ON) & (self._beside(places, 1) == np.append(places[1:], -1))
        target = 0.0
        for k in reversed(range(len(places))):
            later = values[k] + self.return_lambda * (target - values[k]) if goes_on[k] else values[k]
            self._targets[places[k]] = target = returns[k] + discounts[k] * later

    def _transitions(
        self, indexes: NDArray[np.int64], weights: NDArray[np.float32], targets: NDArray[np.float32] | None = None
    ) -> Minibatch:
        """Those at `indexes`; without poststates, where the targets are known."""
        ahead = self._beside(indexes[:, None], self._ahead)  # (batch, multi_step)
        rewards = self.rewards[ahead]  # likewise
        ends = self.terminals[ahead]  # likewise
        if self._terminal_on_reward:  # Karpathy 2016, "Deep Reinforcement Learning: Pong from Pixels"
            ends[rewards != 0] = TERMINAL
        ended = ends != GOES_ON
        steps = np.where(ended.any(axis=1), ended.argmax(axis=1) + 1, self.multi_step)
        offsets = np.broadcast_to(self._history, (len(indexes), self.history_length))
        if targets is None:
            offsets = np.concatenate([offsets, steps[:, None] + self._history], axis=1)
        screens = self.screens[self._beside(indexes[:, None], offsets)]  # (batch, history or twice that, height, width)
        return Minibatch(
            screens[:, : self.history_length],
            self.actions[indexes],
            rewards,
            screens[:, self.history_length :],
            ends[np.arange(len(ends)), steps - 1] == TERMINAL,
            indexes,
            weights,
            steps,
            targets,
        )

    # For checkpoints

    def state(self) -> dict[str, Any]:
        """All but the transitions' screens, actions and rewards."""
        return dict(
            added=self.added.tolist(),
            lane_size=self.lane_size,
            ends=[self.terminals[lane * self.lane_size :][:n].copy() for lane, n in enumerate(self.counts)],
            runs=list(self._runs),
            first_whole=list(self._first_whole),
            steps_before=self.steps_before,
            rng=self._rng.bit_generator.state,
        )

    def fits(self, state: dict[str, Any]) -> bool:
        """Whether the transitions of a memory in `state` have the same places here."""
        full = max(state["added"]) > min(self.lane_size, state["lane_size"])
        return len(state["added"]) == len(self.added) and (not full or state["lane_size"] == self.lane_size)

    def restore(self, state: dict[str, Any]) -> None:
        """Takes over a state that fits; the transitions are put back with `set_transitions`."""
        self.added[:] = state["added"]
        for lane, ends in enumerate(state["ends"]):
            self.terminals[lane * self.lane_size :][: len(ends)] = ends
        self._runs, self._first_whole = list(state["runs"]), list(state["first_whole"])
        self.steps_before = state["steps_before"]
        self._rng.bit_generator.state = state["rng"]

    def transitions(self, lane: int, numbers: range) -> list[NDArray[Any]]:
        """Actions, rewards and screens of the transitions that `lane` received as these numbers, from 0."""
        places = self._places(lane, numbers)
        return [self.actions[places], self.rewards[places], as_array(self.screens[places])]

    def set_transitions(self, lane: int, numbers: range, arrays: Sequence[NDArray[Any]]) -> None:
        """Puts back what `transitions` gave."""
        places = self._places(lane, numbers)
        for own, array in zip((self.actions, self.rewards, self.screens), arrays, strict=True):
            own[places] = array

    def _places(self, lane: int, numbers: range) -> NDArray[np.int64]:
        return lane * self.lane_size + np.arange(numbers.start, numbers.stop) % self.lane_size

    def _beside(self, indexes: NDArray[np.int64], offset: NDArray[np.int64] | int) -> NDArray[np.int64]:
        """Where the transitions lie that were added to the same lane so many later, or earlier."""
        place = indexes % self.lane_size
        return indexes - place + (place + offset) % self.lane_size

    def update(self, indexes: NDArray[np.int64], errors: NDArray[np.float32]) -> None:
        """Told the error, (batch,), of each transition just learned from; uniform sampling has no use for it."""

    def _sample_indexes(self) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        """Indexes (batch,) of transitions and their weights (batch,); uniform over those that are whole."""
        return self._draw_whole(), np.ones(self.batch_size, np.float32)

    def _draw_whole(self) -> NDArray[np.int64]:
        """Indexes (batch,) as `_draw` draws them, but of whole transitions only."""
        found = np.empty(0, np.int64)
        for _ in range(100):
            drawn = self._draw()
            found = np.concatenate([found, drawn[self._is_whole(drawn)]])
            if len(found) >= self.batch_size:
                return found[: self.batch_size]
        # Next to none can be used: look at all of them.
        everything = np.arange(self.size)
        whole = everything[self._is_whole(everything)]
        if not len(whole):
            raise OptionError(
                f"none of {self.count} transitions in the replay memory has {self.history_length} screens of history "
                f"and {self.multi_step} known steps: the episodes are too short for this --history_length and "
                "--random_starts, or the memory for this --multi_step"
            )
        return self._rng.choice(whole, self.batch_size)

    def _draw(self) -> NDArray[np.int64]:
        """Indexes (batch,), uniform over what the lanes hold but for the oldest `history_length`."""
        usable = np.maximum(self.counts - self.history_length, 0)
        bounds = usable.cumsum()
        drawn = self._rng.integers(max(1, bounds[-1]), size=self.batch_size)
        lane = np.minimum(bounds.searchsorted(drawn, side="right"), len(bounds) - 1)
        age = self.history_length + drawn - (bounds - usable)[lane]
        return self._beside(lane * self.lane_size + self._oldest[lane], age)

    def _is_whole(self, indexes: NDArray[np.int64]) -> NDArray[np.bool_]:
        """Whether each transition has its history, within one game, and the steps after it that count, (batch,)."""
        lane, place = np.divmod(indexes, self.lane_size)
        age = (place - self._oldest[lane]) % self.lane_size  # 0: the oldest
        ended = self.terminals[self._beside(indexes[:, None], self._history)].any(axis=1)  # its own may end the game
        return (age >= self.history_length) & (age + self.multi_step <= self.counts[lane]) & ~ended


class PrioritizedReplayMemory(ReplayMemory):
    """Draws transition i with probability p_i^α / Σ p^α, where p_i is the size of the error last made on it, plus 1e-6.

    Those not yet learned from have the highest priority there was. The weights (N · P(i))^-β, here in relation to the
    largest of the minibatch, take the bias back, wholly at β = 1. Schaul, Quan, Antonoglou and Silver, "Prioritized
    Experience Replay", ICLR 2016, arXiv:1511.05952: the proportional variant.
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
        super().__init__(options, screen_shape, batch_size, rng, at_most, lanes)
        self._options = options
        self._tree = SumTree(self.size)  # of priorities to the power α; 0 where a transition cannot be drawn
        self._highest = 1.0  # the highest of them that there ever was
        self._entered = [0] * len(self.added)  # in each lane, transitions that the tree knows for good

    def update(self, indexes: NDArray[np.int64], errors: NDArray[np.float32]) -> None:
        priorities = (np.abs(np.asarray(errors, np.float64)) + _LEAST) ** self._options.priority_exponent
        if not np.isfinite(priorities).all():
            return  # because else nothing could be drawn any more; the loss is not finite either and ends the training
        self._highest = max(self._highest, float(priorities.max()))
        self._tree[indexes] = priorities

    def state(self) -> dict[str, Any]:
        priorities = [self._tree[self._places(lane, range(n))] for lane, n in enumerate(self.counts)]
        own = dict(priorities=priorities, highest=self._highest, entered=list(self._entered), meaning=self._meaning)
        return super().state() | own

    def restore(self, state: dict[str, Any]) -> None:
        super().restore(state)
        if state.get("meaning") != self._meaning:  # drawn from otherwise till now: all enter anew
            return
        for lane, priorities in enumerate(state["priorities"]):
            self._tree[self._places(lane, range(len(priorities)))] = priorities
        self._highest, self._entered = state["highest"], list(state["entered"])

    @property
    def _meaning(self) -> list[float]:
        """The options that priorities hang on."""
        return [self._options.priority_exponent, self.multi_step, self._terminal_on_reward, self.return_lambda]

    def _sample_indexes(self) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        self._enter()
        indexes = self._draw_whole()
        priorities = self._tree[indexes]
        options = self._options
        done = min(1, (self.steps_before + int(self.added.sum())) / options.importance_steps)
        beta = options.importance_exponent + (1 - options.importance_exponent) * done
        return indexes, ((priorities.min() / priorities) ** beta).astype(np.float32)

    def _enter(self) -> None:
        """Gives what was added since the last draw the highest priority; what cannot be drawn, or not yet, has none."""
        added: list[int] = self.added.tolist()
        entered = [max(0, n - self.multi_step + 1) for n in added]
        if entered == self._entered:  # as in all but the first of the updates between two steps of many games
            return
        first = [max(known, n - self.lane_size) for known, n in zip(self._entered, added, strict=True)]
        new = [self._places(lane, range(known, added[lane])) for lane, known in enumerate(first)]
        places = np.concatenate(new)
        self._tree[places] = self._highest * self._is_whole(places)
        self._entered = entered

    def _draw(self) -> NDArray[np.int64]:
        """One from each of as many equal parts of the sum of priorities, in any order."""
        parts = self._rng.permutation(self.batch_size) + self._rng.random(self.batch_size)
        return self._tree.find(parts / self.batch_size * self._tree.total)


def memory_class(options: ReplayMemoryOptions) -> type[ReplayMemory]:
    """The class of the memory that `options` ask for."""
    return PrioritizedReplayMemory if options.prioritized_replay else ReplayMemory


def as_array(screens: Any) -> NDArray[np.uint8]:
    """Screens that were taken out of a memory, as an array, wherever the memory has them."""
    array: NDArray[np.uint8] = screens if isinstance(screens, np.ndarray) else screens.cpu().numpy()
    return array


def _require_memory(size: int, screen_shape: tuple[int, int]) -> None:
    need = size * (screen_shape[0] * screen_shape[1] + 6)
    have = available_memory() - _HEADROOM
    if need > have:
        fits = max(0, int(have / need * size))
        raise OptionError(
            f"{size} transitions need {need / 2**30:.2f} GiB of memory and {max(0, have) / 2**30:.2f} GiB are free "
            f"for it: use at most --replay_size {fits}, or smaller screens"
        )
