"""ReplayMemory: what is drawn is what happened, and never a state that did not."""

from __future__ import annotations

import tracemalloc
from typing import Any

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from simple_dqn import replay_memory
from simple_dqn.environment import TERMINATED, TRUNCATED
from simple_dqn.errors import OptionError
from simple_dqn.replay_memory import (
    Minibatch,
    Outlook,
    PrioritizedReplayMemory,
    ReplayMemory,
    ReplayMemoryOptions,
    memory_class,
)
from simple_dqn.saving.snapshot import plain_bytes, plain_value

END, GAP = "end", "gap"


def make(size: int, history: int = 4, batch: int = 3, seed: int = 0, lanes: int = 1, **options: Any) -> ReplayMemory:
    rng = np.random.default_rng(seed)
    own = ReplayMemoryOptions(replay_size=size, history_length=history, **options)
    return memory_class(own)(own, (2, 3), batch, rng, lanes=lanes)


def fill(memory: ReplayMemory, events: list[str | None]) -> list[tuple[int, str | None]]:
    """Adds a transition an event; screen, action and reward of transition n tell n."""
    for n, event in enumerate(events):
        memory.add(n % 251, n, np.full((2, 3), n % 251, np.uint8), event == END)
        if event == GAP:
            memory.cut()
    return list(enumerate(events))


def whole_histories(
    past: list[tuple[int, str | None]], size: int, history: int, steps: int = 1
) -> dict[int, tuple[list[int], bool]]:
    """The naive twin: all transitions that may be drawn, with the screens before and after and whether they end."""
    found = {}
    for n, event in past[-size:]:
        before = [m for m in range(n - history, n) if m >= max(0, len(past) - size)]
        known = n + steps <= len(past)
        if len(before) == history and known and not any(past[m][1] for m in before):
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
    memory = make(max(size, 2 * history + 1), history, batch=4, seed=seed)
    past = fill(memory, events)
    allowed = whole_histories(past, memory.size, history)
    assume(memory.ready)
    if not allowed:
        with pytest.raises(OptionError, match="screens of history"):
            memory.minibatch()
        return
    drawn = set()
    for _ in range(60):
        batch = memory.minibatch()
        for k, n in enumerate(batch.rewards[:, 0].astype(int)):
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
    lane_size = max(lane_size, 2 * history + 1)
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
    assume(memory.ready and any(allowed))
    drawn = set()
    for _ in range(60):
        batch = memory.minibatch()
        for k, n in enumerate(batch.rewards[:, 0].astype(int)):
            lane = int(batch.actions[k])
            before, ends = allowed[lane][n]
            assert batch.prestates[k, :, 0, 0].tolist() == before
            assert batch.poststates[k, :, 1, 2].tolist() == [*before[1:], n]
            assert batch.terminals[k] == ends
            assert batch.indexes[k] == lane * lane_size + n % lane_size
            drawn.add((lane, n))
    if sum(map(len, allowed)) < 12:
        assert drawn == {(lane, n) for lane in range(lanes) for n in allowed[lane]}


@pytest.mark.parametrize("prioritized", [False, True])
@settings(max_examples=100, deadline=None)
@given(
    events=st.lists(st.sampled_from([None, None, None, None, END, GAP]), min_size=6, max_size=80),
    size=st.integers(10, 30),
    history=st.integers(1, 4),
    steps=st.integers(1, 5),
)
def test_several_steps_are_those_up_to_the_end(
    prioritized: bool, events: list[str | None], size: int, history: int, steps: int
) -> None:
    """Of transitions that are drawn evenly, or by priority; with `multi_step`, the naive twin looks ahead."""
    size = max(size, 2 * (history + steps) - 1)
    memory = make(size, history, batch=4, multi_step=steps, prioritized_replay=prioritized)
    allowed: dict[int, tuple[list[int], bool]] = {}
    drawn: set[int] = set()
    past = []
    for n, event in enumerate(events):  # the memory is asked now and then, as a training does
        memory.add(n % 251, n, np.full((2, 3), n % 251, np.uint8), event == END)
        if event == GAP:
            memory.cut()
        past.append((n, event))
        if n % 3 and n < len(events) - 1:
            continue
        allowed = whole_histories(past, memory.size, history, steps)
        if not memory.ready or not allowed:
            continue
        for _ in range(60 if n == len(events) - 1 else 1):
            batch = memory.minibatch()
            for k, m in enumerate(batch.rewards[:, 0].astype(int)):
                assert batch.prestates[k, :, 0, 0].tolist() == allowed[m][0]
                count = next((i + 1 for i in range(steps) if past[m + i][1]), steps)
                last = m + count - 1
                assert batch.steps[k] == count
                assert batch.rewards[k, :count].tolist() == list(range(m, last + 1))
                assert batch.terminals[k] == (past[last][1] == END)
                assert batch.poststates[k, :, 1, 2].tolist() == list(range(last + 1 - history, last + 1))
                drawn.add(m)
            assert (batch.weights == 1).all()  # all priorities are equal still
    if memory.ready and len(allowed) < 12:
        assert drawn >= set(allowed)


def test_nothing_counts_after_a_reward_that_is_taken_for_an_end() -> None:
    found = []
    for on in (False, True):
        memory = make(20, history=2, multi_step=3, terminal_on_reward=on)
        for n in range(12):
            memory.add(n, -1 if n == 5 else 0, np.full((2, 3), n, np.uint8), n == 7)
        batch = make_batch_of_all(memory)
        found.append(dict(zip(batch.actions.tolist(), zip(batch.steps, batch.terminals, strict=True), strict=True)))
    usual, own = found
    assert usual == {2: (3, False), 3: (3, False), 4: (3, False), 5: (3, True), 6: (2, True), 7: (1, True)}
    assert own == usual | {3: (3, True), 4: (2, True), 5: (1, True)}
    assert (batch.rewards[batch.actions == 4] == [0, -1, 0]).all()
    for action, screens in zip(batch.actions.tolist(), batch.poststates[:, :, 0, 0].tolist(), strict=True):
        last = action + own[action][0] - 1
        assert screens == [last - 1, last]


class Oracle:
    """A judge to whom a state is worth a tenth of its last screen, and for whom the future counts half."""

    def __init__(self) -> None:
        self.largest = 0

    def outlook(self, batch: Minibatch) -> Outlook:
        self.largest = max(self.largest, len(batch.actions))
        values = batch.poststates[:, -1, 0, 0] / 10
        return Outlook(batch.rewards[:, 0] * 0.01, 0.5 * ~batch.terminals, values)


def lambda_return(n: int, past: list[tuple[int, str | None]], lam: float) -> float:
    """The naive twin, by its definition: what is known of the future, weighted by the powers of λ."""
    reward, event, value = n * 0.01, past[n][1], n % 251 / 10
    if event == END:
        return reward
    if event == GAP or n + 1 == len(past):  # nothing is known of the step after it
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
    memory = make(max(size, batch + 1), batch=batch, return_lambda=lam, prioritized_replay=by_priority)
    past = fill(memory, events)
    assume(whole_histories(past, memory.size, 4))
    judge = Oracle()
    memory.refresh(judge)
    assert judge.largest <= batch
    drawn = memory.minibatch()
    assert drawn.poststates.shape == (batch, 0, 2, 3)  # nobody asks for them any more
    expected = [lambda_return(int(n), past, lam) for n in drawn.rewards[:, 0]]
    assert drawn.targets == pytest.approx(expected, rel=1e-6)


def test_lambda_returns_keep_to_their_lane() -> None:
    memory = make(40, return_lambda=1.0, lanes=2)
    for n in range(12):
        for lane in range(2):
            memory.add(0, 100 * lane + n, np.full((2, 3), n, np.uint8), terminal=False, lane=lane)
    memory.refresh(Oracle())
    batch = make_batch_of_all(memory)
    assert batch.targets is not None
    for reward, target in zip(batch.rewards[:, 0].tolist(), batch.targets.tolist(), strict=True):
        expected, n = 1.1, int(reward) % 100  # what the last state is worth
        for later in range(11, n - 1, -1):
            expected = (reward - n + later) / 100 + 0.5 * expected
        assert target == pytest.approx(expected, rel=1e-6)


def test_lambda_returns_of_episodes_too_short_to_learn_from_are_refused_in_words() -> None:
    memory = make(20, batch=2, return_lambda=0.5)
    fill(memory, [None] * 6 + [END] * 20)
    assert memory.ready  # there was a whole transition once
    memory.refresh(Oracle())
    with pytest.raises(OptionError, match=r"none of 20 transitions in the replay memory has 4 screens of history"):
        memory.minibatch()


def test_without_lambda_nobody_is_asked() -> None:
    memory = make(20)
    fill(memory, [None] * 10)
    memory.refresh(None)  # type: ignore[arg-type]
    assert memory.minibatch().targets is None


def test_lambda_returns_and_several_steps_exclude_each_other() -> None:
    with pytest.raises(OptionError, match=r"--multi_step 3 .*: use --multi_step 1, or --return_lambda 0"):
        ReplayMemoryOptions(multi_step=3, return_lambda=0.5)


def test_it_is_ready_once_the_steps_after_a_whole_history_are_there() -> None:
    memory = make(20, history=2, batch=1, multi_step=4)
    ready = []
    for n in range(8):
        memory.add(0, n, np.zeros((2, 3), np.uint8), n == 3)  # an episode shorter than history and steps
        ready.append(memory.ready)
    assert ready == [False] * 5 + [True] * 3
    assert set(make_batch_of_all(memory).rewards[:, 0]) <= {2, 3}


def prioritized(size: int = 40, added: int = 40, **options: Any) -> PrioritizedReplayMemory:
    memory = make(size, prioritized_replay=True, **options)
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
    memory = make(60 * lanes, batch=30, lanes=lanes, prioritized_replay=True, priority_exponent=1)
    for lane in range(lanes):
        for n in range(30):
            memory.add(0, n, np.zeros((2, 3), np.uint8), False, lane)
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


@pytest.mark.parametrize(("history", "steps", "lanes"), [(4, 1, 1), (4, 1, 8), (4, 30, 1), (2, 7, 4)])
@pytest.mark.parametrize("by_priority", [False, True])
def test_the_least_memory_always_has_something_to_draw(history: int, steps: int, lanes: int, by_priority: bool) -> None:
    least = lanes * (2 * (history + steps) - 1)
    options: dict[str, Any] = dict(history=history, batch=2, lanes=lanes, multi_step=steps)
    with pytest.raises(OptionError, match=f"at least {least}"):
        make(least - 1, **options)
    memory = make(least, prioritized_replay=by_priority, **options)
    drawn = 0
    for n in range(3 * least):
        memory.add(0, n, np.zeros((2, 3), np.uint8), False, n % lanes)
        if memory.ready:
            drawn += len(memory.minibatch().indexes)
    assert drawn > 2 * least


def test_too_small_for_the_steps_says_so() -> None:
    with pytest.raises(OptionError, match=r"with 4 screens of history, --multi_step 200 needs at least 407"):
        make(100, multi_step=200)


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
    memory, other = make(30, **options), make(30, **(options | changed))
    fill(memory, [None] * 30)
    memory.update(memory.minibatch().indexes, np.full(5, 100, np.float32))
    other.restore(plain_value(plain_bytes(memory.state())))
    last = 30 - other.multi_step + 1
    assert set(make_batch_of_all(other).indexes) == set(range(4, last))
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
    memory, other = make(30, **options), make(30, seed=9, **options)
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
    even, other = make(30, batch=5), make(30, batch=5, prioritized_replay=True)
    fill(even, [None] * 20)
    other.restore(plain_value(plain_bytes(even.state())))
    assert set(make_batch_of_all(other).indexes) == set(range(4, 20))


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
    assert memory.terminals[[0, memory.lane_size]].tolist() == [TRUNCATED] * 2


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
    assert memory.terminals[memory.added[0] - 1] == TERMINATED


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
        OptionError, match=r"1000000 transitions need 6\.58 GiB of memory and 3\.50 GiB are free .* --replay_size 53"
    ):
        ReplayMemory(ReplayMemoryOptions(), (84, 84), 32, np.random.default_rng(0))


def test_a_short_run_takes_no_room_for_a_long_one() -> None:
    memory = ReplayMemory(ReplayMemoryOptions(), (84, 84), 32, np.random.default_rng(0), at_most=500)
    assert memory.size == 500


def test_smaller_than_a_minibatch_is_refused() -> None:
    with pytest.raises(OptionError, match=r"--replay_size 10 is too small.*at least 33"):
        ReplayMemory(ReplayMemoryOptions(replay_size=10), (84, 84), 32, np.random.default_rng(0))


@pytest.mark.parametrize("error", [np.nan, np.inf])
def test_errors_of_a_network_that_diverged_leave_the_priorities_alone(error: float) -> None:
    """The loss ends the training soon, and until then transitions are drawn as before."""
    options = ReplayMemoryOptions(replay_size=50, history_length=1, prioritized_replay=True)
    memory = PrioritizedReplayMemory(options, (4, 5), 8, np.random.default_rng(0))
    for n in range(40):
        memory.add(0, 0, np.full((4, 5), n, np.uint8), False)
    memory.update(memory.minibatch().indexes, np.full(8, error, np.float32))
    batch = memory.minibatch()
    assert len(set(batch.indexes.tolist())) > 1
    assert np.isfinite(batch.weights).all()
