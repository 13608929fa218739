"""ReplayMemory: what is drawn is what happened, and never a state that did not."""

from __future__ import annotations

import tracemalloc

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from simple_dqn import replay_memory
from simple_dqn.errors import OptionError
from simple_dqn.replay_memory import ReplayMemory, ReplayMemoryOptions

END, GAP = "end", "gap"


def make(size: int, history: int = 4, batch: int = 3, seed: int = 0, shape: tuple[int, int] = (2, 3)) -> ReplayMemory:
    rng = np.random.default_rng(seed)
    return ReplayMemory(ReplayMemoryOptions(replay_size=size, history_length=history), shape, batch, rng)


def fill(memory: ReplayMemory, events: list[str | None]) -> list[tuple[int, str | None]]:
    """Adds a transition an event; screen, action and reward of transition n tell n."""
    for n, event in enumerate(events):
        memory.add(n % 251, n, np.full((2, 3), n % 251, np.uint8), event == END)
        if event == GAP:
            memory.cut()
    return list(enumerate(events))


def whole_histories(past: list[tuple[int, str | None]], size: int, history: int) -> dict[int, tuple[list[int], bool]]:
    """The naive twin: all transitions that may be drawn, with the screens before and after and whether they end."""
    found = {}
    for n, event in past[-size:]:
        before = [m for m in range(n - history, n) if m >= max(0, len(past) - size)]
        wraps = n % size < history  # the original does not draw these either
        if len(before) == history and not wraps and not any(past[m][1] for m in before):
            found[n] = (before, event == END)
    return found


@settings(max_examples=150, deadline=None)
@given(
    events=st.lists(st.sampled_from([None, None, None, None, END, GAP]), min_size=6, max_size=80),
    size=st.integers(6, 30),
    history=st.integers(1, 5),
    seed=st.integers(0, 5),
)
def test_draws_exactly_the_whole_histories(events: list[str | None], size: int, history: int, seed: int) -> None:
    memory = make(size, history, batch=4, seed=seed)
    past = fill(memory, events)
    allowed = whole_histories(past, memory.size, history)
    if not memory.ready:
        return
    if not allowed:
        with pytest.raises(OptionError, match="screens of history"):
            memory.minibatch()
        return
    drawn = set()
    for _ in range(60):
        batch = memory.minibatch()
        for k, n in enumerate(batch.rewards.astype(int)):
            before, ends = allowed[n]
            assert batch.prestates[k, :, 0, 0].tolist() == [m % 251 for m in before]
            assert batch.poststates[k, :, 1, 2].tolist() == [m % 251 for m in [*before[1:], n]]
            assert batch.actions[k] == n % 251
            assert batch.terminals[k] == ends
            assert batch.indexes[k] == n % memory.size
            drawn.add(n)
    if len(allowed) < 12:
        assert drawn == set(allowed)


@settings(max_examples=100, deadline=None)
@given(
    events=st.lists(
        st.tuples(st.integers(0, 2), st.sampled_from([None, None, None, END, GAP])), min_size=10, max_size=120
    ),
    lanes=st.integers(1, 3),
    lane_size=st.integers(6, 15),
    history=st.integers(1, 4),
)
def test_lanes_are_memories_of_their_own(
    events: list[tuple[int, str | None]], lanes: int, lane_size: int, history: int
) -> None:
    """What may be drawn from a memory with lanes is what may be drawn from one memory for each."""
    rng = np.random.default_rng(1)
    options = ReplayMemoryOptions(replay_size=lanes * lane_size, history_length=history)
    memory = ReplayMemory(options, (2, 3), 4, rng, lanes=lanes)
    pasts: list[list[tuple[int, str | None]]] = [[] for _ in range(lanes)]
    for lane, event in events:
        lane %= lanes
        n = len(pasts[lane])
        memory.add(lane, n, np.full((2, 3), n, np.uint8), event == END, lane)
        if event == GAP:
            memory.cut(lane)
        pasts[lane].append((n, event))
    assert memory.count == sum(min(len(past), lane_size) for past in pasts)
    allowed = [whole_histories(past, lane_size, history) for past in pasts]
    if not memory.ready or not any(allowed):
        return
    drawn = set()
    for _ in range(60):
        batch = memory.minibatch()
        for k, n in enumerate(batch.rewards.astype(int)):
            lane = int(batch.actions[k])
            before, ends = allowed[lane][n]
            assert batch.prestates[k, :, 0, 0].tolist() == before
            assert batch.poststates[k, :, 1, 2].tolist() == [*before[1:], n]
            assert batch.terminals[k] == ends
            assert batch.indexes[k] == lane * lane_size + n % lane_size
            drawn.add((lane, n))
    if sum(map(len, allowed)) < 12:
        assert drawn == {(lane, n) for lane in range(lanes) for n in allowed[lane]}


def test_lanes_share_the_draws_evenly() -> None:
    memory = ReplayMemory(ReplayMemoryOptions(replay_size=100), (2, 3), 50, np.random.default_rng(0), lanes=2)
    for n in range(44):
        memory.add(0, 0, np.zeros((2, 3), np.uint8), False, lane=int(n > 3))  # 4 in the first, none of them whole
    for _ in range(20):
        memory.add(0, 0, np.zeros((2, 3), np.uint8), False, lane=0)
    counts = np.bincount(np.concatenate([memory.minibatch().indexes for _ in range(300)]), minlength=100)
    drawn = counts[counts > 0]
    assert len(drawn) == 20 + 36
    assert np.all(abs(drawn - drawn.mean()) < 5 * np.sqrt(drawn.mean()))


def test_cut_cuts_every_lane() -> None:
    memory = ReplayMemory(ReplayMemoryOptions(replay_size=40), (2, 3), 3, np.random.default_rng(0), lanes=2)
    for lane in (0, 1):
        memory.add(0, 0, np.zeros((2, 3), np.uint8), False, lane)
    memory.cut()
    assert memory.terminals[[0, memory.lane_size]].tolist() == [replay_memory.CUT] * 2


def test_draws_uniformly() -> None:
    memory = make(40, batch=30)
    fill(memory, [END if n % 10 == 9 else None for n in range(70)])
    counts = np.bincount(np.concatenate([memory.minibatch().indexes for _ in range(500)]), minlength=40)
    drawn = counts[counts > 0]
    expected = drawn.sum() / len(drawn)
    assert np.all(abs(drawn - expected) < 5 * np.sqrt(expected))


def test_a_cut_is_no_end() -> None:
    memory = make(20)
    memory.cut()  # an empty memory has nothing to cut
    fill(memory, [None] * 6 + [GAP] + [None] * 6)
    batch = make_batch_of_all(memory)
    assert not batch.terminals.any()
    memory.add(0, 0, np.zeros((2, 3), np.uint8), True)
    memory.cut()  # does not undo the end
    assert memory.terminals[memory.current[0] - 1] == replay_memory.TERMINAL


def make_batch_of_all(memory: ReplayMemory) -> replay_memory.Minibatch:
    memory.batch_size = 200
    return memory.minibatch()


def test_minibatch_is_a_copy_with_unit_weights() -> None:
    memory = make(30)
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
        memory = make(30, seed=7)
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
        OptionError, match=r"1000000 needs 6\.58 GiB of memory and 3\.50 GiB are free .* --replay_size 53"
    ):
        ReplayMemory(ReplayMemoryOptions(), (84, 84), 32, np.random.default_rng(0))


def test_a_short_run_takes_no_room_for_a_long_one() -> None:
    memory = ReplayMemory(ReplayMemoryOptions(), (84, 84), 32, np.random.default_rng(0), at_most=500)
    assert memory.size == 500


def test_smaller_than_a_minibatch_is_refused() -> None:
    with pytest.raises(OptionError, match=r"--replay_size 10 is too small.*at least 33"):
        ReplayMemory(ReplayMemoryOptions(replay_size=10), (84, 84), 32, np.random.default_rng(0))
