"""λ-returns: each target by its definition."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from fakes import END, GAP, fill, large_batch, make_memory
from simple_dqn.errors import OptionError
from simple_dqn.replay.returns import refresh_targets
from simple_dqn.replay_memory import Minibatch, ReplayMemoryOptions, TargetParts


class Oracle:
    """A network with a discount of 0.5. The value of a state is a tenth of its last screen."""

    def __init__(self) -> None:
        self.largest = 0

    def target_arrays(self, batch: Minibatch) -> TargetParts:
        self.largest = max(self.largest, len(batch.actions))
        values = batch.poststates[:, -1, 0, 0] / 10
        return TargetParts(batch.rewards[:, 0] * 0.01, 0.5 * ~batch.terminals, values)


def lambda_return(n: int, past: list[str | None], lam: float) -> float:
    """The naive twin, by definition."""
    reward, event, value = n * 0.01, past[n], n % 251 / 10
    if event == END:
        return reward
    if event == GAP or n + 1 == len(past):  # the next step is unknown
        return reward + 0.5 * value
    return reward + 0.5 * ((1 - lam) * value + lam * lambda_return(n + 1, past, lam))


@settings(max_examples=100, deadline=None)
@given(
    events=st.lists(st.sampled_from([None, None, None, None, END, GAP]), min_size=10, max_size=80),
    size=st.integers(9, 40),
    lam=st.sampled_from([0.3, 0.9, 1.0]),
    batch=st.integers(1, 8),
    by_priority=st.booleans(),
)
def test_lambda_returns_are_those_of_the_definition(
    events: list[str | None], size: int, lam: float, batch: int, by_priority: bool
) -> None:
    memory = make_memory(max(size, batch + 1), batch=batch, return_lambda=lam, prioritized_replay=by_priority)
    fill(memory, events)
    assume(memory.is_valid(np.arange(memory.size)).any())
    network = Oracle()
    refresh_targets(memory, network)
    assert network.largest <= batch
    drawn = memory.minibatch()
    assert drawn.poststates.shape == (batch, 0, 2, 3)  # because targets replace them
    expected = [lambda_return(int(n), events, lam) for n in drawn.rewards[:, 0]]
    assert drawn.targets == pytest.approx(expected, rel=1e-6)


def test_lambda_returns_keep_to_their_lane() -> None:
    memory = make_memory(40, return_lambda=1.0, lanes=2)
    for n in range(12):
        for lane in range(2):
            memory.add(0, 100 * lane + n, np.full((2, 3), n, np.uint8), terminal=False, lane=lane)
    refresh_targets(memory, Oracle())
    batch = large_batch(memory)
    assert batch.targets is not None
    for reward, target in zip(batch.rewards[:, 0].tolist(), batch.targets.tolist(), strict=True):
        expected, n = 1.1, int(reward) % 100  # the value of the last state
        for later in range(11, n - 1, -1):
            expected = (reward - n + later) / 100 + 0.5 * expected
        assert target == pytest.approx(expected, rel=1e-6)


def test_without_lambda_there_are_no_targets() -> None:
    memory = make_memory(20)
    fill(memory, [None] * 10)
    refresh_targets(memory, None)  # type: ignore[arg-type]
    assert memory.minibatch().targets is None


def test_lambda_returns_and_several_steps_exclude_each_other() -> None:
    with pytest.raises(OptionError, match=r"--multi_step 3 .*: use --multi_step 1, or --return_lambda 0"):
        ReplayMemoryOptions(multi_step=3, return_lambda=0.5)


def test_without_valid_transitions_nothing_changes() -> None:
    memory = make_memory(20, batch=2, return_lambda=0.5)
    fill(memory, [END] * 20)
    network = Oracle()
    refresh_targets(memory, network)
    assert network.largest == 0
