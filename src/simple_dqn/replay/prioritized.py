"""Prioritized experience replay: transitions with large TD errors are sampled more often."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from simple_dqn.replay.sum_tree import SumTree
from simple_dqn.replay_memory import ReplayMemory, ReplayMemoryOptions

_LEAST = 1e-6  # priority at a TD error of 0


def memory_class(options: ReplayMemoryOptions) -> type[ReplayMemory]:
    """Return the class of replay memory that `options` ask for."""
    return PrioritizedReplayMemory if options.prioritized_replay else ReplayMemory


class PrioritizedReplayMemory(ReplayMemory):
    """Samples transition i with probability P(i) = p_i^α / Σ p^α, where p_i is |TD error| + 1e-6.

    New transitions have the highest priority so far. The weights (N · P(i))^-β, divided by the largest of the
    minibatch, correct the bias; completely at β = 1. Schaul, Quan, Antonoglou and Silver, "Prioritized Experience
    Replay", ICLR 2016, arXiv:1511.05952: the proportional variant.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._tree = SumTree(self.size)  # p^α of each transition; 0 if it cannot be sampled
        self._highest = 1.0  # p^α so far
        self._entered = [0] * len(self.added)  # in each lane, transitions whose entry in the tree is final

    def update(self, indexes: NDArray[np.int64], errors: NDArray[np.float32]) -> None:
        priorities = (np.abs(np.asarray(errors, np.float64)) + _LEAST) ** self.options.priority_exponent  # (batch,)
        if not np.isfinite(priorities).all():
            return  # because nothing could be sampled any more; the loss is not finite either and ends the training
        self._highest = max(self._highest, float(priorities.max()))
        self._tree[indexes] = priorities

    def _sample_indexes(self) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        self._enter_new()
        indexes = self._sample_valid()
        priorities = self._tree[indexes]
        done = min(1, (self.steps_before + int(self.added.sum())) / self.options.importance_steps)
        beta = self.options.importance_exponent + (1 - self.options.importance_exponent) * done
        return indexes, ((priorities.min() / priorities) ** beta).astype(np.float32)

    def _enter_new(self) -> None:
        """Give new transitions the highest priority, or 0 if they are not valid, or not yet: see `_entered`."""
        added: list[int] = self.added.tolist()
        final = [max(0, n - self.multi_step + 1) for n in added]
        if final == self._entered:  # nothing is new, because several updates follow one step of many games
            return
        first = [max(known, n - self.lane_size) for known, n in zip(self._entered, added, strict=True)]
        indexes = np.concatenate([self.indexes(lane, range(first[lane], n)) for lane, n in enumerate(added)])
        self._tree[indexes] = self._highest * self.is_valid(indexes)
        self._entered = final

    def _propose(self) -> NDArray[np.int64]:
        """Draw one index from each of `batch_size` equal parts of the sum of priorities, in random order."""
        parts = self._rng.permutation(self.batch_size) + self._rng.random(self.batch_size)
        return self._tree.find(parts / self.batch_size * self._tree.total)

    def state(self) -> dict[str, Any]:
        priorities = [self._tree[self.indexes(lane, range(n))] for lane, n in enumerate(self.counts)]
        return super().state() | dict(
            priorities=priorities, highest=self._highest, entered=list(self._entered), meaning=self._priority_options
        )

    def restore(self, state: dict[str, Any]) -> None:
        super().restore(state)
        if state.get("meaning") != self._priority_options:
            return  # all transitions enter again as new ones, because their priorities meant something else
        for lane, priorities in enumerate(state["priorities"]):
            self._tree[self.indexes(lane, range(len(priorities)))] = priorities
        self._highest, self._entered = state["highest"], list(state["entered"])

    @property
    def _priority_options(self) -> list[float]:
        """The options on which priorities depend."""
        o = self.options
        return [o.priority_exponent, o.multi_step, o.terminal_on_reward, o.return_lambda]
