"""ReplayMemory: it samples what happened, and never a state that did not."""

from __future__ import annotations

import contextlib
import tracemalloc
from typing import Any

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from fakes import END, GAP, fill, large_batch, make_memory
from simple_dqn import replay_memory
from simple_dqn.environment import TERMINATED, TRUNCATED
from simple_dqn.errors import OptionError
from simple_dqn.replay_memory import ReplayMemory, ReplayMemoryOptions


def valid_transitions(past: list[str | None], size: int, history: int, steps: int) -> set[int]:
    """The naive twin of `ReplayMemory.is_valid`: numbers of the transitions that may be sampled."""
    held = range(max(0, len(past) - size), len(past))
    return {n for n in held[history:] if n + steps <= len(past) and not any(past[n - history : n])}


@pytest.mark.parametrize("prioritized", [False, True])
@settings(max_examples=150, deadline=None)
@given(
    events=st.lists(
        st.tuples(st.integers(0, 2), st.sampled_from([None, None, None, None, END, GAP])), min_size=8, max_size=100
    ),
    lanes=st.integers(1, 3),
    lane_size=st.integers(6, 25),
    history=st.integers(1, 5),
    steps=st.sampled_from([1, 1, 2, 5]),
)
def test_samples_exactly_the_valid_transitions(
    prioritized: bool, events: list[tuple[int, str | None]], lanes: int, lane_size: int, history: int, steps: int
) -> None:
    lane_size = max(lane_size, 2 * (history + steps) - 1)
    memory = make_memory(
        lanes * lane_size, history, batch=4, lanes=lanes, multi_step=steps, prioritized_replay=prioritized
    )
    pasts: list[list[str | None]] = [[] for _ in range(lanes)]
    found = False
    for k, (lane, event) in enumerate(events):
        fill(memory, [event], lane % lanes)
        pasts[lane % lanes].append(event)
        found |= bool(valid_transitions(pasts[lane % lanes], lane_size, history, steps))
        assert memory.ready == (found and memory.count > max(4, history))
        if memory.ready and k % 3 == 0:  # as in training
            with contextlib.suppress(OptionError):
                memory.minibatch()
    assert memory.count == sum(min(len(past), lane_size) for past in pasts)
    valid = {(lane, n) for lane, past in enumerate(pasts) for n in valid_transitions(past, lane_size, history, steps)}
    assume(memory.ready and valid)
    sampled = set()
    for _ in range(60):
        batch = memory.minibatch()
        assert (batch.weights == 1).all()  # all priorities are still equal
        for k, (index, n) in enumerate(zip(batch.indexes.tolist(), batch.rewards[:, 0].astype(int), strict=True)):
            past = pasts[lane := index // lane_size]
            count = next((i + 1 for i in range(steps) if past[n + i]), steps)
            last = n + count - 1
            assert index == lane * lane_size + n % lane_size
            assert batch.actions[k] == n
            assert batch.prestates[k, :, 0, 0].tolist() == list(range(n - history, n))
            assert batch.steps[k] == count
            assert batch.rewards[k, :count].tolist() == list(range(n, last + 1))
            assert batch.terminals[k] == (past[last] == END)
            assert batch.poststates[k, :, 1, 2].tolist() == list(range(last + 1 - history, last + 1))
            sampled.add((lane, n))
    assert sampled <= valid
    if len(valid) < 12:
        assert sampled == valid


def test_episodes_too_short_to_learn_from_are_refused_in_words() -> None:
    memory = make_memory(20, batch=2)
    fill(memory, [None] * 6 + [END] * 20)
    assert memory.ready  # because there was a valid transition once
    with pytest.raises(OptionError, match=r"None of 20 .* 4 screens of history .* smaller --history_length"):
        memory.minibatch()


def test_nothing_counts_after_a_reward_that_is_taken_for_an_end() -> None:
    found = []
    for on in (False, True):
        memory = make_memory(20, history=2, multi_step=3, terminal_on_reward=on)
        for n in range(12):
            memory.add(n, -1 if n == 5 else 0, np.full((2, 3), n, np.uint8), n == 7)
        batch = large_batch(memory)
        found.append(dict(zip(batch.actions.tolist(), zip(batch.steps, batch.terminals, strict=True), strict=True)))
    usual, own = found
    assert usual == {2: (3, False), 3: (3, False), 4: (3, False), 5: (3, True), 6: (2, True), 7: (1, True)}
    assert own == usual | {3: (3, True), 4: (2, True), 5: (1, True)}
    assert (batch.rewards[batch.actions == 4] == [0, -1, 0]).all()
    for action, screens in zip(batch.actions.tolist(), batch.poststates[:, :, 0, 0].tolist(), strict=True):
        last = action + own[action][0] - 1
        assert screens == [last - 1, last]


def test_it_is_ready_once_the_steps_after_a_whole_history_are_there() -> None:
    memory = make_memory(20, history=2, batch=1, multi_step=4)
    ready = []
    for n in range(8):
        memory.add(0, n, np.zeros((2, 3), np.uint8), n == 3)  # an episode shorter than history and steps
        ready.append(memory.ready)
    assert ready == [False] * 5 + [True] * 3
    assert set(large_batch(memory).rewards[:, 0]) <= {2, 3}


@pytest.mark.parametrize(("history", "steps", "lanes"), [(4, 1, 1), (4, 1, 8), (4, 30, 1), (2, 7, 4)])
@pytest.mark.parametrize("by_priority", [False, True])
def test_the_least_memory_always_has_something_to_draw(history: int, steps: int, lanes: int, by_priority: bool) -> None:
    least = lanes * (2 * (history + steps) - 1)
    options: dict[str, Any] = dict(history=history, batch=2, lanes=lanes, multi_step=steps)
    with pytest.raises(OptionError, match=f"at least {least}"):
        make_memory(least - 1, **options)
    memory = make_memory(least, prioritized_replay=by_priority, **options)
    drawn = 0
    for n in range(3 * least):
        memory.add(0, n, np.zeros((2, 3), np.uint8), False, n % lanes)
        if memory.ready:
            drawn += len(memory.minibatch().indexes)
    assert drawn > 2 * least


def test_lanes_share_the_draws_evenly() -> None:
    memory = make_memory(100, batch=50, lanes=2)
    fill(memory, [None] * 24, lane=0)
    fill(memory, [None] * 40, lane=1)
    counts = np.bincount(np.concatenate([memory.minibatch().indexes for _ in range(300)]), minlength=100)
    drawn = counts[counts > 0]
    assert len(drawn) == 20 + 36
    assert np.all(abs(drawn - drawn.mean()) < 5 * np.sqrt(drawn.mean()))


def test_cut_cuts_every_lane() -> None:
    memory = make_memory(40, lanes=2)
    for lane in (0, 1):
        fill(memory, [None], lane)
    memory.cut()
    assert memory.terminals[[0, memory.lane_size]].tolist() == [TRUNCATED] * 2


def test_draws_uniformly() -> None:
    memory = make_memory(40, batch=30)
    fill(memory, [END if n % 10 == 9 else None for n in range(70)])
    counts = np.bincount(np.concatenate([memory.minibatch().indexes for _ in range(500)]), minlength=40)
    drawn = counts[counts > 0]
    expected = drawn.sum() / len(drawn)
    assert np.all(abs(drawn - expected) < 5 * np.sqrt(expected))


def test_a_cut_is_no_end() -> None:
    memory = make_memory(20)
    memory.cut()  # an empty memory has nothing to cut
    fill(memory, [None] * 6 + [GAP] + [None] * 6)
    batch = large_batch(memory)
    assert not batch.terminals.any()
    memory.add(0, 0, np.zeros((2, 3), np.uint8), True)
    memory.cut()  # does not undo the end
    assert memory.terminals[memory.added[0] - 1] == TERMINATED


def test_minibatch_is_a_copy_with_unit_weights() -> None:
    memory = make_memory(30)
    fill(memory, [None] * 30)
    batch = memory.minibatch()
    before = batch.prestates.copy()
    memory.screens.fill(77)
    assert np.array_equal(batch.prestates, before)
    assert batch.weights.tolist() == [1, 1, 1]
    assert [str(field.dtype) for field in batch[:5]] == ["uint8", "uint8", "float32", "uint8", "bool"]
    memory.update(batch.indexes, np.zeros(3, np.float32))


def test_same_seed_same_draws() -> None:
    draws = []
    for _ in range(2):
        memory = make_memory(30, seed=7)
        fill(memory, [None] * 25)
        draws.append([memory.minibatch().indexes.tolist() for _ in range(5)])
    assert draws[0] == draws[1]


def test_a_million_transitions_take_at_most_6_7_gib(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(replay_memory, "available_memory", lambda: 2**40)
    options = ReplayMemoryOptions()
    tracemalloc.start()  # counts what NumPy asks for; the pages are not touched
    memory = ReplayMemory(options, (84, 84), 32, np.random.default_rng(0))
    asked = tracemalloc.get_traced_memory()[0]
    tracemalloc.stop()
    assert memory.size == 1_000_000
    assert asked <= 6.7 * 2**30


def test_more_than_the_machine_has_is_refused_with_the_numbers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(replay_memory, "available_memory", lambda: 4 * 2**30)
    with pytest.raises(
        OptionError,
        match=r"transitions in this run\) needs 6\.58 GiB of memory and 3\.50 GiB are free .* --replay_size 53",
    ):
        ReplayMemory(ReplayMemoryOptions(), (84, 84), 32, np.random.default_rng(0))


def test_the_refused_size_is_that_of_the_run_and_of_the_option(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(replay_memory, "available_memory", lambda: 2**30)
    options = ReplayMemoryOptions(replay_size=5_000_000)
    with pytest.raises(
        OptionError, match=r"^--replay_size 5000000 \(1000000 transitions in this run\) needs 6\.58 GiB"
    ):
        ReplayMemory(options, (84, 84), 32, np.random.default_rng(0), at_most=1_000_000)


def test_a_short_run_takes_no_room_for_a_long_one() -> None:
    memory = ReplayMemory(ReplayMemoryOptions(), (84, 84), 32, np.random.default_rng(0), at_most=500)
    assert memory.size == 500


@pytest.mark.parametrize(
    ("size", "batch", "steps", "message"),
    [
        (10, 32, 1, r"--replay_size 10 is too small.*at least 33"),
        (100, 3, 200, r"with 4 screens of history, --multi_step 200 needs at least 407"),
    ],
)
def test_too_small_a_memory_is_refused(size: int, batch: int, steps: int, message: str) -> None:
    with pytest.raises(OptionError, match=message):
        make_memory(size, batch=batch, multi_step=steps)
