"""Agent: the order of events, the exploration rate, and what reaches the replay memory."""

from __future__ import annotations

from collections import Counter
from itertools import groupby
from typing import Any
from unittest.mock import Mock

import numpy as np
import pytest

from fakes import FakeEnvironment, FakeNetwork, Tape, make_agent, side_by_side
from simple_dqn.agent import Agent, Step
from simple_dqn.command_line import MainOptions, require_sense
from simple_dqn.environment import CONTINUES, TERMINATED, TRUNCATED, EnvironmentOptions
from simple_dqn.errors import OptionError
from simple_dqn.games.game import make_environment
from simple_dqn.state_buffer import StateBuffer


def make(episode: int = 5, num_envs: int = 1, **options: Any) -> tuple[Agent, list[Any]]:
    tape: list[Any] = []
    environments = [FakeEnvironment(episode, tape) for _ in range(num_envs)]
    agent = make_agent(environments, FakeNetwork(tape), **(dict(random_starts=2) | options))
    agent.callbacks = [Tape(tape)]
    return agent, tape


def count(tape: list[Any], name: str) -> int:
    return sum(event == name or event[0] == name for event in tape)


def test_one_training_step_in_order() -> None:
    agent, tape = make(
        exploration_rate_start=0, exploration_rate_end=0, train_frequency=2, target_steps=4, train_repeat=2
    )
    agent.random(6)
    tape.clear()
    agent.train(4)
    names = [event if isinstance(event, str) else event[0] for event in tape]
    learn = ["train", "cost"] * 2
    assert names[:3] == ["predict", "act", "step"]
    assert [name for name in names if name not in ("act", "restart")] == [
        "predict", "step", "sync", *learn, "predict", "step", "predict", "step", *learn, "predict", "step",
    ]  # fmt: skip
    assert count(tape, "act") == 4 + 2 * count(tape, "restart")  # two no-ops


def test_callbacks_can_see_every_state_that_an_action_is_chosen_in() -> None:
    agent, tape = make(exploration_rate_test=0, episode=8)
    seen = []

    def look(*_: Any) -> None:
        seen.append(agent.state[:, 0, 0].tolist())

    agent.callbacks = [Mock(on_begin=look, on_step=look)]
    agent.test(20)
    assert seen[:-1] == [event[2] for event in tape if event[0] == "predict"]
    assert len(seen) == 21


def test_lambda_returns_are_formed_before_each_training() -> None:
    agent, tape = make(episode=20, train_frequency=3, train_repeat=2, return_lambda=0.5)
    agent.random(10)
    tape.clear()
    agent.train(4)  # after the first step and the fourth
    names = [event[0] for event in tape if event[0] in ("step", "target_arrays", "train")]
    judged = ["target_arrays"] * 3  # 9 transitions and more, 4 at a time
    assert names == ["step", *judged, "train", "train", "step", "step", "step", *judged, "train", "train"]


def test_lambda_returns_of_a_large_memory_before_each_step_are_refused() -> None:
    for size, rate, frequency in ((100, 0.5, 1), (400, 0.5, 4), (101, 0.0, 1)):
        fine = dict(replay_size=size, return_lambda=rate, train_frequency=frequency)
        require_sense(MainOptions(), fine, None)
    slow = dict(replay_size=101, return_lambda=0.5, train_frequency=1)
    require_sense(MainOptions(play_games=1), slow, None)
    with pytest.raises(OptionError, match=r"all 101 transitions of --replay_size every 1 step\."):
        require_sense(MainOptions(), slow, None)


def test_double_dqn_without_a_target_network_is_refused() -> None:
    without = dict(double_dqn=True, target_steps=0)
    require_sense(MainOptions(play_games=1), without, None)  # a network that was trained with one
    with pytest.raises(OptionError, match="--double_dqn evaluates actions with a target network"):
        require_sense(MainOptions(), without, None)


def test_learns_only_from_enough_transitions() -> None:
    agent, tape = make(batch=4, train_frequency=1)
    agent.train(10)
    first = next(i for i, event in enumerate(tape) if event[0] == "train")
    assert count(tape[:first], "step") == 5  # more than a minibatch
    assert count(tape, "train") == 6


def test_no_target_network() -> None:
    agent, tape = make(target_steps=0)
    agent.train(20)
    assert count(tape, "sync") == 0


def test_exploration_rate_falls_linearly_then_stays() -> None:
    agent, _ = make(exploration_rate_start=1, exploration_rate_end=0.1, exploration_decay_steps=100)
    rates = []
    for agent.total_train_steps in (0, 50, 99, 100, 1000):
        rates.append(agent.exploration_rate)
    assert rates == pytest.approx([1, 0.55, 0.109, 0.1, 0.1])


def test_the_network_learns_the_step_of_each_training() -> None:
    agent = make(train_frequency=3, train_repeat=2)[0]
    agent.random(10)
    agent.train(7)
    assert agent.network.annealed == [0, 3, 6]  # type: ignore[attr-defined]
    agent = make(num_envs=4, train_frequency=3)[0]
    agent.random(12)
    agent.train(8)
    assert agent.network.annealed == [0, 3, 6]  # type: ignore[attr-defined]


def test_q_values_are_those_of_the_first_game_if_it_plays() -> None:
    """Watchers see that game."""
    agent, _ = make(num_envs=2, exploration_rate_test=0)
    agent.games.begin("test", new_episode=True)
    for places, known in (([0, 1], True), ([1], False)):
        agent._choose_actions(places, 0)
        assert (agent.q_values is not None) == known


def test_explores_at_the_rate_and_evenly() -> None:
    agent, tape = make(episode=10**9, exploration_rate_test=0.6)
    agent.test(3000)
    assert count(tape, "predict") == pytest.approx(1200, abs=100)
    actions = np.bincount([event[1] for event in tape if event[0] == "step"])
    assert actions == pytest.approx([600, 600, 1800], abs=90)


@pytest.mark.parametrize(("history", "random_starts", "expected"), [(2, 6, {2, 3, 4, 5, 6}), (4, 4, {4}), (4, 0, {0})])
def test_no_ops_after_a_restart(history: int, random_starts: int, expected: set[int]) -> None:
    agent, tape = make(history=history, random_starts=random_starts, episode=10, exploration_rate_test=0)
    agent.test(600)
    numbers, since = set(), None
    for event in tape:
        if event[0] == "restart":
            since = 0
        elif event[0] == "act" and since is not None:
            since += 1
        elif event[0] == "predict" and since is not None:
            numbers.add(since)
            since = None
    assert numbers == expected


def first_state(names: list[str], random_starts: int, episode: int = 10, seed: int = 1) -> tuple[list[int], list[Any]]:
    """Shades of the first state of a game whose actions have these names, and what was done before it."""
    environment = FakeEnvironment(episode)
    environment.frame, environment.names = 100, names
    games = side_by_side([environment], 4, (4, 5), random_starts, np.random.default_rng(seed))
    games.begin("test", new_episode=True)
    return games.arrays.states[0][:, 0, 0].tolist(), environment.tape


@pytest.mark.parametrize(
    ("names", "random_starts", "no_ops", "expected"),
    [
        (["LEFT", "RIGHT", "NOOP"], 4, [2, 2, 2, 2], [101, 102, 103, 104]),
        (["NOOP", "LEFT", "RIGHT"], 1, [0], [100, 100, 100, 101]),  # the first screen fills the rest of the history
        (["0", "1", "2"], 30, [], [100, 100, 100, 100]),
    ],
)
def test_no_ops_are_the_action_called_noop(
    names: list[str], random_starts: int, no_ops: list[int], expected: list[int]
) -> None:
    state, events = first_state(names, random_starts)
    assert events == [("restart", "test"), *[("act", action) for action in no_ops]]
    assert state == expected


@pytest.mark.parametrize("episode", [1, 2, 3])
def test_no_state_spans_two_episodes_though_no_ops_end_one(episode: int) -> None:
    for seed in range(20):
        state, events = first_state(["NOOP", "LEFT", "RIGHT"], 5, episode, seed)
        since = events[::-1].index(("restart", "test"))  # no-ops in the episode under way
        last = 100 + len(events) - events.count(("restart", "test"))
        assert state == [last - min(ago, since) for ago in (3, 2, 1, 0)]


def test_the_state_goes_on_from_test_to_train_and_test_screens_stay_out_of_the_memory() -> None:
    agent, tape = make(episode=10**6, exploration_rate_start=0, exploration_rate_end=0, exploration_rate_test=0)
    agent.train(5)
    stored = agent.memory.count
    agent.test(7)
    assert agent.memory.count == stored
    assert agent.memory.terminals[stored - 1] == TRUNCATED
    last_seen = agent.state[:, 0, 0].tolist()
    tape.clear()
    agent.train(1)
    assert tape[0] == ("predict", (1, 2, 4, 5), last_seen)
    assert count(tape, "restart") == 0


def test_ends_and_time_limits_are_stored_apart() -> None:
    agent, _ = make(episode=6)
    agent.random(10)
    assert TERMINATED in agent.memory.terminals[:10]
    environment = agent.games.games[0].environment
    assert isinstance(environment, FakeEnvironment)
    environment.cut_short = True
    agent.random(10)
    assert set(agent.memory.terminals[10:20]) == {CONTINUES, TRUNCATED}


@pytest.mark.parametrize("phase", ["random", "train", "test"])
def test_games_at_their_time_limit_are_cut_in_every_phase(phase: str) -> None:
    """30 frames, 4 a step: after 7 or 8 steps."""
    options = EnvironmentOptions(game="pong", max_game_seconds=0.5, screen_width=5, screen_height=4)
    agent, _ = make()
    environment = make_environment(options, 1)
    agent.games = side_by_side([environment], 2, (4, 5), 0, np.random.default_rng(1))
    steps: list[Step] = []
    agent.callbacks = [Mock(on_step=steps.append)]
    getattr(agent, phase)(40)
    cuts = [n for n, step in enumerate(steps, 1) if step.truncated]
    assert cuts == [n for n, step in enumerate(steps, 1) if step.terminal]
    assert len(cuts) in (5, 6)
    assert len(set(np.diff([0, *cuts]).tolist())) == 1
    stored = agent.memory.terminals[: agent.memory.count].tolist()
    assert stored == ([] if phase == "test" else [TRUNCATED if step.terminal else CONTINUES for step in steps])


def test_modes() -> None:
    agent, tape = make(episode=4)
    agent.random(6)
    agent.test(6)
    agent.train(6)
    modes = [event[1] for event in tape if event[0] == "restart"]
    assert [mode for mode, _ in groupby(modes)] == ["train", "test", "train"]


def test_stops_when_interrupted() -> None:
    agent, tape = make()

    def stop_at_the_third(step: Step) -> None:
        if count(tape, "step") == 3:
            agent.stop()

    agent.callbacks = [*agent.callbacks, Mock(on_step=stop_at_the_third)]
    agent.train(100)
    assert agent.total_train_steps == 3
    assert count(tape, "step") == 3


def test_state_buffer_keeps_the_last_screens() -> None:
    screens = np.full((3, 2, 2), 9, np.uint8)
    buffer = StateBuffer(screens)
    for n in range(1, 6):
        buffer.add(np.full((2, 2), n, np.uint8))
    assert screens[:, 0, 0].tolist() == [3, 4, 5]
    buffer.fill(np.full((2, 2), 7, np.uint8))
    assert (screens == 7).all()


# Games side by side


def test_learns_while_the_games_play_as_often_as_with_one() -> None:
    agent, tape = make(num_envs=3, train_frequency=2, target_steps=6, batch=4)
    agent.random(12)
    tape.clear()
    agent.train(12)
    names = [event if isinstance(event, str) else event[0] for event in tape]
    first = [name for name in names[: names.index("act")] if name != "predict"]
    assert first == ["sync", "train", "cost", "train", "cost"]  # steps 0 and 2 of 0, 1, 2, before any of them
    assert count(tape, "step") == 12
    assert count(tape, "train") == 6
    assert count(tape, "sync") == 2


def test_takes_exactly_the_steps_asked_for() -> None:
    agent, tape = make(num_envs=3, batch=4, train_frequency=1)
    agent.random(10)
    agent.train(5)
    agent.test(4)
    assert count(tape, "step") == 19
    assert agent.total_train_steps == 5
    assert agent.memory.counts.tolist() == [6, 5, 4]  # 4 and 3 and 3, then 2 and 2 and 1


def test_one_prediction_for_all_games() -> None:
    agent, tape = make(num_envs=3, exploration_rate_test=0)
    agent.test(9)
    assert [event[1] for event in tape if event[0] == "predict"] == [(3, 2, 4, 5)] * 3


def test_each_games_screens_are_in_a_lane() -> None:
    agent, _ = make(num_envs=2, episode=4, random_starts=0)
    for number, game in enumerate(agent.games.games):
        assert isinstance(game.environment, FakeEnvironment)
        game.environment.frame = 100 * number
    agent.random(12)
    memory = agent.memory
    assert memory.screens[:6, 0, 0].tolist() == [1, 2, 3, 4, 5, 6]
    assert memory.screens[memory.lane_size : memory.lane_size + 6, 0, 0].tolist() == [101, 102, 103, 104, 105, 106]
    assert memory.terminals[:6].tolist() == [CONTINUES] * 3 + [TERMINATED] + [CONTINUES] * 2


def test_each_place_plays_its_share_of_the_games_and_rests_then() -> None:
    agent, _ = make(num_envs=3, episode=5, random_starts=0)
    for place, game in enumerate(agent.games.games):
        assert isinstance(game.environment, FakeEnvironment)
        game.environment.episode = 3 + 4 * place
    steps: list[Step] = []
    agent.callbacks = [Mock(on_step=steps.append)]
    agent.play(7)
    assert Counter(step.game for step in steps) == {0: 3 * 3, 1: 2 * 7, 2: 2 * 11}
    assert Counter(step.game for step in steps if step.terminal) == {0: 3, 1: 2, 2: 2}
    agent.play(2)
    assert Counter(step.game for step in steps if step.terminal) == {0: 4, 1: 3, 2: 2}
    assert agent.memory.count == 0
