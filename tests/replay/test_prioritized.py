"""PrioritizedReplayMemory: samples in proportion to TD errors, and corrects the bias."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from fakes import END, fill, large_batch, make_memory
from simple_dqn.replay.prioritized import PrioritizedReplayMemory
from simple_dqn.saving.snapshot import plain_bytes, plain_value


def prioritized(size: int = 40, added: int = 40, **options: Any) -> PrioritizedReplayMemory:
    memory = make_memory(size, prioritized_replay=True, **options)
    assert isinstance(memory, PrioritizedReplayMemory)
    fill(memory, [None] * added)
    return memory


def test_draws_in_proportion_to_the_errors_power() -> None:
    memory = prioritized(batch=30, priority_exponent=0.5, importance_exponent=0.4, importance_steps=80)
    memory.minibatch()
    errors = np.linspace(-3, 3, 40, dtype=np.float32)
    memory.update(np.arange(4, 40), errors[4:])
    batches = [memory.minibatch() for _ in range(800)]
    wanted = np.abs(errors[4:].astype(np.float64)) ** 0.5
    counts = np.bincount(np.concatenate([batch.indexes for batch in batches]), minlength=40)[4:]
    expected = 30 * 800 * wanted / wanted.sum()
    assert np.all(abs(counts - expected) < 5 * np.sqrt(expected))
    beta = 0.4 + 0.6 * 40 / 80  # half way
    for batch in batches[:5]:
        weights = (1 / wanted[batch.indexes - 4]) ** beta
        assert batch.weights == pytest.approx(weights / weights.max(), rel=1e-3)
        assert batch.weights.dtype == np.float32


def test_at_exponent_0_priorities_do_not_count() -> None:
    memory = prioritized(batch=30, priority_exponent=0)
    memory.minibatch()
    memory.update(np.arange(4, 40), np.arange(36, dtype=np.float32))
    batches = [memory.minibatch() for _ in range(300)]
    counts = np.bincount(np.concatenate([batch.indexes for batch in batches]), minlength=40)[4:]
    assert np.all(abs(counts - 250) < 5 * np.sqrt(250))
    assert all((batch.weights == 1).all() for batch in batches)


@pytest.mark.parametrize("lanes", [1, 3])
def test_what_is_new_has_the_highest_priority_there_was(lanes: int) -> None:
    memory = make_memory(60 * lanes, batch=30, lanes=lanes, prioritized_replay=True, priority_exponent=1)
    for lane in range(lanes):
        fill(memory, [None] * 30, lane)
    first = memory.minibatch()
    memory.update(first.indexes, np.full(30, 5, np.float32))
    memory.update(first.indexes, np.full(30, 1e-3, np.float32))
    memory.add(0, 99, np.zeros((2, 3), np.uint8), False, lanes - 1)
    new = np.mean([(memory.minibatch().rewards == 99).mean() for _ in range(300)])
    left = (26 * lanes - len(set(first.indexes))) * 1.0  # of priority 1, as at the beginning
    assert new == pytest.approx(5 / (5 + left), rel=0.25)


def test_what_overwrites_a_transition_does_not_inherit_its_priority() -> None:
    memory = prioritized(batch=30, priority_exponent=1)
    memory.minibatch()
    memory.update(np.arange(4, 40), np.full(36, 1e-3, np.float32))
    fill(memory, [None] * 20)  # over the places 0 to 19
    drawn = np.concatenate([memory.minibatch().indexes for _ in range(20)])
    assert (drawn < 20).mean() > 0.9


def test_one_is_drawn_from_each_part_of_the_sum_in_any_order() -> None:
    memory = prioritized(size=68, added=68, batch=16)  # 64 can be drawn, 4 in each part
    firsts = []
    for _ in range(20):
        indexes = memory.minibatch().indexes
        assert sorted((indexes - 4) // 4) == list(range(16))
        firsts.append(indexes[0])
    assert len(set(firsts)) > 5


@pytest.mark.parametrize(
    ("multi_step", "changed"),
    [
        (2, dict(priority_exponent=0.0)),
        (2, dict(multi_step=1)),
        (2, dict(multi_step=3)),
        (1, dict(return_lambda=0.5)),
        (2, dict(terminal_on_reward=True)),
        (2, dict(prioritized_replay=False)),
    ],
)
def test_with_other_options_all_enter_anew(multi_step: int, changed: dict[str, Any]) -> None:
    options: dict[str, Any] = dict(batch=5, multi_step=multi_step, prioritized_replay=True)
    memory, other = make_memory(30, **options), make_memory(30, **(options | changed))
    fill(memory, [None] * 30)
    memory.update(memory.minibatch().indexes, np.full(5, 100, np.float32))
    other.restore(plain_value(plain_bytes(memory.state())))
    last = 30 - other.multi_step + 1
    assert set(large_batch(other).indexes) == set(range(4, last))
    assert (other.minibatch().weights == 1).all()


def test_the_bias_goes_on_being_taken_back_after_the_memory_was_lost() -> None:
    memory = prioritized(batch=30, importance_exponent=0, importance_steps=80)
    memory.minibatch()
    memory.update(np.arange(4, 40), np.arange(36, dtype=np.float32))
    half = memory.minibatch().weights
    memory.steps_before = 40
    assert memory.minibatch().weights.min() < half.min()


def test_priorities_go_on_from_a_state_bit_for_bit() -> None:
    options: dict[str, Any] = dict(batch=5, multi_step=2, prioritized_replay=True)
    memory, other = make_memory(30, **options), make_memory(30, seed=9, **options)
    fill(memory, [END if n % 11 == 10 else None for n in range(45)])
    for n in range(20):
        batch = memory.minibatch()
        memory.update(batch.indexes, np.sin(batch.indexes + n).astype(np.float32))
    memory.add(1, 45, np.zeros((2, 3), np.uint8), False)
    state = plain_value(plain_bytes(memory.state()))
    assert other.fits(state)
    other.restore(state)
    numbers = range(int(memory.added[0] - memory.counts[0]), int(memory.added[0]))
    other.set_transitions(0, numbers, memory.transitions(0, numbers))
    for _ in range(5):
        one, same = memory.minibatch(), other.minibatch()
        assert all(np.array_equal(a, b) for a, b in zip(one, same, strict=True))
        memory.update(one.indexes, one.rewards[:, 0])
        other.update(same.indexes, same.rewards[:, 0])


def test_a_memory_drawn_from_evenly_goes_on_by_priority() -> None:
    even, other = make_memory(30, batch=5), make_memory(30, batch=5, prioritized_replay=True)
    fill(even, [None] * 20)
    other.restore(plain_value(plain_bytes(even.state())))
    assert set(large_batch(other).indexes) == set(range(4, 20))


@pytest.mark.parametrize("error", [np.nan, np.inf])
def test_errors_of_a_network_that_diverged_leave_the_priorities_alone(error: float) -> None:
    """The loss ends the training soon, and until then transitions are drawn as before."""
    memory = prioritized(batch=8)
    memory.update(memory.minibatch().indexes, np.full(8, error, np.float32))
    batch = memory.minibatch()
    assert len(set(batch.indexes.tolist())) > 1
    assert np.isfinite(batch.weights).all()
