"""Statistics: exact rows, and nan without numbers."""

from __future__ import annotations

import csv
import math
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import numpy as np
import pytest
from numpy.typing import NDArray

from fakes import HEADER, Abandons, Clock, FakeEnvironment, FakeNetwork, make_agent, side_by_side, step
from simple_dqn import statistics
from simple_dqn.agent import Agent, AgentOptions
from simple_dqn.environment import CONTINUES, TRUNCATED
from simple_dqn.errors import OptionError
from simple_dqn.reports.csv_file import CSVFile
from simple_dqn.statistics import COLUMNS, Statistics


class SumNetwork(FakeNetwork):
    """Q-values that tell the states from each other."""

    def predict(self, states: NDArray[np.uint8]) -> NDArray[np.float32]:
        sums = states.reshape(len(states), -1).sum(axis=1, dtype=np.float32)
        return np.stack([sums, sums - 1], axis=1)


def make(path: Path | None = None) -> tuple[Statistics, Agent]:
    agent = make_agent([FakeEnvironment()], SumNetwork(), history=1)
    return Statistics(agent, CSVFile(path, COLUMNS) if path else None), agent


def test_exact_rows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(statistics, "time", Clock())
    path = tmp_path / "results" / "pong.csv"
    stats, agent = make(path)
    stats.on_phase_start("random", 0, 5)
    for reward, terminal in [(1, False), (2, True), (0, True), (4, True), (7, False)]:
        stats.on_step(step(reward, terminal, rate=1))
    stats.on_phase_end()
    for _ in range(10):
        agent.memory.add(0, 0, np.full((4, 5), 1, np.uint8), False)
    agent.total_train_steps, agent.network.train_iterations = 3, 2
    stats.on_phase_start("train", 1, 3)
    for cost in (0.5, 0.25):
        stats.on_train(cost)
    stats.on_step(step(-1, True, rate=0.75))
    stats.on_phase_end()
    assert path.read_text().splitlines() == [
        HEADER,
        "0,random,5,3,2.3333333333333335,0,4,1,0,0,0.0,0,0,3.0,1.0,5.0",
        "1,train,1,1,6,6,6,0.75,3,10,20.0,0.375,2,5.0,1.0,1.0",  # a game of 7 - 1
    ]


def test_a_test_in_which_only_short_games_end_gives_a_warning(caplog: pytest.LogCaptureFixture) -> None:
    """Once, because it is the same in each epoch."""
    agent = make_agent([FakeEnvironment(), FakeEnvironment()], SumNetwork(), history=1)
    stats, warning = Statistics(agent), "Only 1 of 2 games ended within --test_steps"
    for steps, ended, warned in ((None, 1, False), (10, 2, False), (10, 1, True), (10, 1, False)):
        caplog.clear()
        stats.on_phase_start("test", 1, steps)
        for _ in range(ended):
            stats.on_step(step(1, True))
        stats.on_phase_end()
        assert (warning in caplog.text) == warned


def test_a_phase_that_goes_on_counts_the_seconds_before(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(statistics, "time", clock := Clock())
    before, _ = make()
    before.on_phase_start("train", 1, 100)
    for _ in range(40):
        before.on_step(step())
    clock.now += 18
    state = before.save_state(under_way=True)  # 19 seconds in
    rows: list[dict[str, Any]] = []
    stats, _ = make()
    monkeypatch.setattr(stats, "_log", rows.append)
    stats.on_phase_start("train", 1, 100)
    stats.restore(state, same_phase=True)
    for _ in range(60):
        stats.on_step(step())
    clock.now += 5
    stats.on_phase_end()
    assert (rows[0]["steps"], rows[0]["epoch_time"], rows[0]["steps_per_second"]) == (100, 25, 4)


def test_a_game_counts_whole_or_not_at_all() -> None:
    stats, _ = make()

    def scores(phase: str, *steps: tuple[float, bool, int]) -> list[float]:
        stats.on_phase_start(phase, 1, len(steps))
        for reward, terminal, game in steps:
            stats.on_step(step(reward, terminal, game=game))
        return stats.game_rewards

    assert scores("train", (1, False, 0), (10, False, 1)) == []
    assert scores("train", (2, True, 0), (4, False, 0)) == [3]
    assert scores("test", (5, True, 0), (20, False, 1), (1, False, 0)) == [5]  # new games
    assert scores("train", (6, True, 0), (7, True, 1), (8, True, 0), (9, True, 1)) == [8, 9]  # those of the test go on


@pytest.mark.parametrize("phase", ["train", "test"])
def test_a_game_given_up_does_not_count(phase: str) -> None:
    """Play games of 5 steps with a reward of 2 each. The first game is given up after its third step."""
    stats, agent = make()
    agent.options = AgentOptions(exploration_rate_start=0, exploration_rate_end=0, exploration_rate_test=0)
    agent.games = side_by_side([environment := FakeEnvironment()], 1, (4, 5), 0, np.random.default_rng(0))
    environment.watchers = [Abandons(3)]
    agent.network = FakeNetwork()
    agent.callbacks = [stats]
    stats.on_phase_start(phase, 1, 14)
    getattr(agent, phase)(14)
    assert (stats.num_steps, stats.num_games, stats.game_rewards) == (14, 2, [10, 10])
    if phase == "train":  # history may not reach back into the game that was given up
        assert agent.memory.terminals[:5].tolist() == [CONTINUES, CONTINUES, TRUNCATED, CONTINUES, CONTINUES]
    assert environment.tape.count(("restart", phase)) == 4  # at the start and after each of 3 games


def test_scores_are_exact_in_the_log(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    stats, _ = make()
    stats.on_phase_start("test", 1, 1)
    for reward in (1234567, -37037.0367):
        stats.on_step(step(reward, terminal=True))
    stats.on_phase_end()
    expected = "  2 games, score 598764.98 (lowest -37037.0367, highest 1234567)"
    assert expected in caplog.text


def test_no_game_finished_is_said_so(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    stats, _ = make(tmp_path / "a.csv")
    stats.on_phase_start("test", 1, 1)
    stats.on_step(step(5))
    stats.on_phase_end()
    (row,) = csv.DictReader((tmp_path / "a.csv").read_text().splitlines())
    assert [row[key] for key in ("nr_games", "average_reward", "min_game_reward", "max_game_reward")] == [
        "0", "nan", "nan", "nan",
    ]  # fmt: skip
    assert "  no game ended, so there is no score" in caplog.text
    assert "mean Q" not in caplog.text  # where nothing was learned, and nothing is remembered to judge by
    assert "loss" not in caplog.text


def test_the_costs_of_a_phase_are_its_own() -> None:
    stats, _ = make()
    for costs in ([4.0, 2.0], [], [1.0]):
        stats.on_phase_start("train", 1, 1)
        for cost in costs:
            stats.on_train(cost)
        assert stats.mean_cost == (sum(costs) / len(costs) if costs else 0)


@pytest.mark.parametrize("loss", [math.nan, math.inf])
def test_a_loss_that_is_not_finite_ends_the_phase_at_once(loss: float, tmp_path: Path) -> None:
    stats, _ = make(tmp_path / "a.csv")
    stats.on_phase_start("train", 1, 1)
    stats.on_step(step())
    stats.on_train(1.5)
    with pytest.raises(OptionError, match=r"The loss is NaN or infinite\. .* Use a smaller --learning_rate\.$"):
        stats.on_train(loss)
    with pytest.raises(OptionError, match="The loss is NaN or infinite"):
        stats.on_phase_end()
    assert (tmp_path / "a.csv").read_text() == HEADER + "\n"


def test_weights_that_the_last_update_spoiled_end_the_phase(tmp_path: Path) -> None:
    """Its loss is of the weights before it, so only the Q-values tell."""
    stats, agent = make(tmp_path / "a.csv")
    for n in range(10):
        agent.memory.add(0, 0, np.full((4, 5), n, np.uint8), False)
    agent.network = Mock(predict=lambda states: np.full((len(states), 2), np.nan), train_iterations=5)
    stats.on_phase_start("train", 1, 1)
    stats.on_step(step())
    stats.on_train(1.5)
    with pytest.raises(OptionError, match="The loss is NaN or infinite"):
        stats.on_phase_end()
    with pytest.raises(OptionError, match="The loss is NaN or infinite"):
        stats.require_finite_loss()  # before the program saves what it has
    assert (tmp_path / "a.csv").read_text() == HEADER + "\n"


def test_a_loss_on_the_gpu_is_looked_at_seldom_but_soon(monkeypatch: pytest.MonkeyPatch) -> None:
    """To look at a loss waits for the GPU. Here np.float32 stands for a loss on the GPU, because it is no float."""
    looks = Mock(side_effect=vars(Statistics)["mean_cost"].fget)
    monkeypatch.setattr(Statistics, "mean_cost", property(looks))
    stats, _ = make()
    for _ in range(1000):
        stats.on_train(np.float32(1.5))
    assert looks.call_count == 10
    for _ in range(99):
        stats.on_train(np.float32(math.nan))
    with pytest.raises(OptionError, match="The loss is NaN or infinite"):
        stats.on_train(np.float32(1.5))


@pytest.mark.parametrize(
    ("network", "updates", "warnings"), [(FakeNetwork, 5, 1), (FakeNetwork, 0, 0), (SumNetwork, 5, 0)]
)
def test_a_network_that_fell_silent_is_warned_of_once(
    network: type[FakeNetwork], updates: int, warnings: int, caplog: pytest.LogCaptureFixture
) -> None:
    """FakeNetwork has the same Q-values for all states."""
    stats, agent = make()
    agent.network = network()
    agent.network.train_iterations = updates
    for n in range(10):
        agent.memory.add(0, 0, np.full((4, 5), n, np.uint8), False)
    for phase in ("train", "test", "train"):
        stats.on_phase_start(phase, 1, 1)
        stats.on_phase_end()
    messages = [record.message for record in caplog.records if record.levelname == "WARNING"]
    assert len(messages) == warnings
    assert all("dead" in message and "smaller --learning_rate" in message for message in messages)


def test_validation_states_are_drawn_once_and_copied() -> None:
    stats, agent = make()
    for _ in range(10):
        agent.memory.add(0, 0, np.full((4, 5), 1, np.uint8), False)
    assert stats._mean_q() == 20
    agent.memory.screens.fill(9)
    assert stats._mean_q() == 20
