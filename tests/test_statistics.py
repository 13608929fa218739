"""Statistics: exact rows, whole files, honest numbers where there are none."""

from __future__ import annotations

import csv
import math
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from fakes import Abandons, FakeEnvironment, FakeNetwork, make_agent, side_by_side, step
from simple_dqn import statistics
from simple_dqn.agent import Agent, AgentOptions
from simple_dqn.environment import CONTINUES, TRUNCATED
from simple_dqn.errors import OptionError, OutputError
from simple_dqn.reports.progress import Progress
from simple_dqn.statistics import COLUMNS, CSVFile, Statistics

HEADER = (
    "epoch,phase,steps,nr_games,average_reward,min_game_reward,max_game_reward,last_exploration_rate,"
    "total_train_steps,replay_memory_count,meanq,meancost,weight_updates,total_time,epoch_time,steps_per_second"
)


class Clock:
    """A second passes between any two looks at it."""

    def __init__(self) -> None:
        self.now = 100.0

    def monotonic(self) -> float:
        self.now += 1
        return self.now


class SumNetwork(FakeNetwork):
    """Q-values that tell the states from each other."""

    def predict(self, states: NDArray[np.uint8]) -> NDArray[np.float32]:
        sums = states.reshape(len(states), -1).sum(axis=1, dtype=np.float32)
        return np.stack([sums, sums - 1], axis=1)


def make(path: Path | None, keep: int | None = None) -> tuple[Statistics, Agent]:
    agent = make_agent([FakeEnvironment()], SumNetwork(), history=1)
    return Statistics(agent, CSVFile(path, keep) if path else None), agent


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


def test_a_phase_that_goes_on_counts_the_seconds_before(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(statistics, "time", clock := Clock())
    before, _ = make(None)
    before.on_phase_start("train", 1, 100)
    for _ in range(40):
        before.on_step(step())
    clock.now += 18
    state = before.save_state(under_way=True)  # 19 seconds in
    rows: list[dict[str, Any]] = []
    stats, _ = make(None)
    monkeypatch.setattr(stats, "_log", rows.append)
    stats.on_phase_start("train", 1, 100)
    stats.restore(state, same_phase=True)
    for _ in range(60):
        stats.on_step(step())
    clock.now += 5
    stats.on_phase_end()
    assert (rows[0]["steps"], rows[0]["epoch_time"], rows[0]["steps_per_second"]) == (100, 25, 4)


def test_games_side_by_side_have_scores_of_their_own() -> None:
    stats, _ = make(None)
    for reward, terminal, game in [(1, False, 0), (10, False, 1), (2, True, 0), (5, False, 0), (20, True, 1)]:
        stats.on_step(step(reward, terminal, game=game))
    assert stats.game_rewards == [3, 30]
    stats.on_step(step(1, True, game=0))
    assert stats.game_rewards == [3, 30, 6]


def test_a_game_counts_whole_or_not_at_all() -> None:
    stats, _ = make(None)

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
    stats, agent = make(None)
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


def test_games_of_a_checkpoint_that_does_not_tell_their_phase_do_not_count() -> None:
    before, _ = make(None)
    before.on_phase_start("test", 1, 1)
    before.on_step(step(5))
    older = before.save_state(under_way=False)
    del older["phase"]
    stats, _ = make(None)
    stats.restore(older, same_phase=False)
    stats.on_phase_start("train", 2, 2)
    for _ in range(2):
        stats.on_step(step(1, True))
    assert stats.game_rewards == [1]


def test_scores_are_exact_in_the_log(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    stats, _ = make(None)
    stats.on_phase_start("test", 1, 1)
    for reward in (1234567, -37037.0367):
        stats.on_step(step(reward, terminal=True))
    stats.on_phase_end()
    expected = "average_reward: 598764.98, min_game_reward: -37037.0367, max_game_reward: 1234567"
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
    assert "num_games: 0, so no average" in caplog.text
    assert "meanq" not in caplog.text  # where nothing was learned, and nothing is remembered to judge by
    assert "meancost" not in caplog.text


def test_the_costs_of_a_phase_are_its_own() -> None:
    stats, _ = make(None)
    for costs in ([4.0, 2.0], [], [1.0]):
        stats.on_phase_start("train", 1, 1)
        for cost in costs:
            stats.on_train(cost)
        assert stats.mean_cost == (sum(costs) / len(costs) if costs else 0)


class CostOnGPU:
    """A cost that is still being computed; to look at it takes long."""

    looks = 0

    def __init__(self, value: float) -> None:
        self.value = value

    def __radd__(self, other: float) -> CostOnGPU:
        return CostOnGPU(other + self.value)

    def __add__(self, other: CostOnGPU) -> CostOnGPU:
        return CostOnGPU(self.value + other.value)

    def __float__(self) -> float:
        CostOnGPU.looks += 1
        return self.value


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


def test_a_loss_on_the_gpu_is_looked_at_seldom_but_soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(CostOnGPU, "looks", 0)
    stats, _ = make(None)
    for _ in range(1000):
        stats.on_train(CostOnGPU(1.5))  # type: ignore[arg-type]
    assert CostOnGPU.looks == 10
    for _ in range(99):
        stats.on_train(CostOnGPU(math.nan))  # type: ignore[arg-type]
    with pytest.raises(OptionError, match="The loss is NaN or infinite"):
        stats.on_train(CostOnGPU(1.5))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("network", "updates", "warnings"), [(FakeNetwork, 5, 1), (FakeNetwork, 0, 0), (SumNetwork, 5, 0)]
)
def test_a_network_that_fell_silent_is_warned_of_once(
    network: type[FakeNetwork], updates: int, warnings: int, caplog: pytest.LogCaptureFixture
) -> None:
    """FakeNetwork has the same Q-values for all states."""
    stats, agent = make(None)
    agent.network = network()
    agent.network.train_iterations = updates
    for n in range(10):
        agent.memory.add(0, 0, np.full((4, 5), n, np.uint8), False)
    for phase in ("train", "test", "train"):
        stats.on_phase_start(phase, 1, 1)
        stats.on_phase_end()
    messages = [record.message for record in caplog.records if record.levelname == "WARNING"]
    assert len(messages) == warnings
    assert all("fell silent" in message and "smaller --learning_rate" in message for message in messages)


def test_validation_states_are_drawn_once_and_copied() -> None:
    stats, agent = make(None)
    for _ in range(10):
        agent.memory.add(0, 0, np.full((4, 5), 1, np.uint8), False)
    assert stats._mean_q() == 20
    agent.memory.screens.fill(9)
    assert stats._mean_q() == 20


def test_an_earlier_file_is_kept(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    for content in ("first", "second"):
        path.write_text(content)
        CSVFile(path)
        assert path.read_text() == HEADER + "\n"
    assert (tmp_path / "a.csv.1").read_text() == "first"
    assert (tmp_path / "a.csv.2").read_text() == "second"


def rows(*epochs: int) -> str:
    lines = [",".join([str(e), "test", *["0"] * 6, str(e * 100), *["0"] * 4, str(e * 10.5), "0", "0"]) for e in epochs]
    return "\n".join([HEADER, *lines, ""])


def test_goes_on_from_an_earlier_file(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text(rows(0, 1, 2))
    file = CSVFile(path, keep_steps=200)
    assert file.total_time == 21
    file.write(dict.fromkeys(COLUMNS, 700) | {"phase": "train"})
    grown = rows(0, 1, 2) + ",".join(["700", "train", *["700"] * 14]) + "\n"
    assert path.read_text() == grown
    assert list(tmp_path.iterdir()) == [path]
    CSVFile(path, keep_steps=100)  # later epochs will be run again
    assert path.read_text() == rows(0, 1)
    assert (tmp_path / "a.csv.1").read_text() == grown


@pytest.mark.parametrize("unfinished", ["", "3,train,50"])
def test_goes_on_before_a_phase_whatever_else_the_file_lacks(tmp_path: Path, unfinished: str) -> None:
    path = tmp_path / "a.csv"
    path.write_text(rows(0, 2) + unfinished)  # epoch 1 may stand in another file
    file = CSVFile(path, keep_before=(3, "train"))
    assert path.read_text() == rows(0, 2)
    assert file.total_time == 21
    CSVFile(path, keep_before=(2, "test"))  # the phase that is done again was no more than one row
    assert path.read_text() == rows(0)
    assert list(tmp_path.iterdir()) == [path]
    path.write_text(rows(0, 1, 2, 3))
    CSVFile(path, keep_before=(2, "train"))
    assert path.read_text() == rows(0, 1)
    assert (tmp_path / "a.csv.1").read_text() == rows(0, 1, 2, 3)


def real_row(epoch: int, steps: int = 500) -> str:
    values = dict.fromkeys(COLUMNS, "0") | dict(epoch=str(epoch), phase="test", steps=str(steps))
    values |= dict(total_train_steps=str(epoch * 100), total_time=str(epoch * 10.5))
    return ",".join((values | dict(epoch_time="3.25", steps_per_second=str(steps / 3.25))).values())


def test_the_last_row_is_kept_although_an_editor_took_its_line_end_off(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "a.csv"
    path.write_text("\n".join([HEADER, real_row(1), real_row(2)]))
    CSVFile(path, keep_steps=300)
    assert path.read_text() == "\n".join([HEADER, real_row(1), real_row(2), ""])
    path.write_text("\n".join([HEADER, real_row(1), real_row(2)])[:-14])  # 153. of 153.846...
    CSVFile(path, keep_steps=300)
    assert path.read_text() == "\n".join([HEADER, real_row(1), ""])
    assert f"The last row of {path} is unfinished" in caplog.text


@pytest.mark.parametrize("keep", [dict(keep_steps=300), dict(keep_before=(3, "train"))])
def test_a_file_that_a_spreadsheet_saved_loses_nothing(tmp_path: Path, keep: dict[str, Any]) -> None:
    path = tmp_path / "a.csv"
    lines = [HEADER + ",note", real_row(1) + ",gr\xf6\xdfer", real_row(2) + ',"two\nlines"']
    quoted = lines[0].replace("phase", '"phase"').replace("epoch,", '"epoch",')
    saved = "\r\n".join([quoted, *lines[1:], "," * 16])
    for content in (saved.encode("latin1"), saved.encode("utf-8-sig")):
        path.write_bytes(content)
        CSVFile(path, **keep)
        assert path.read_text(encoding="utf-8") == "\n".join([*lines, ""])


def test_a_row_is_not_glued_to_one_whose_line_end_an_editor_took_off(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    file = CSVFile(path)
    file.write(dict.fromkeys(COLUMNS, 1))
    path.write_text(path.read_text().rstrip())
    file.write(dict.fromkeys(COLUMNS, 2))
    assert path.read_text().splitlines() == [HEADER, ",".join("1" * 16), ",".join("2" * 16)]


@pytest.mark.parametrize("keep", [dict(keep_steps=300), dict(keep_before=(3, "train"))])
def test_columns_of_the_user_stay_in_place(tmp_path: Path, keep: dict[str, Any]) -> None:
    path = tmp_path / "a.csv"
    header, *lines = rows(0, 1, 2).splitlines()
    lines = [f"{n},{line},mine,{n}" for n, line in enumerate(lines)]
    earlier = "\n".join([f"nr,{header},note,note", *lines, ""])
    path.write_text(earlier)
    CSVFile(path, **keep).write(dict.fromkeys(COLUMNS, 7))
    assert path.read_text() == earlier + "," + "7," * 16 + ",\n"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("keep", [dict(keep_steps=300), dict(keep_before=(3, "train"))])
def test_a_column_that_an_older_file_lacks_is_empty_in_its_rows(tmp_path: Path, keep: dict[str, Any]) -> None:
    path = tmp_path / "a.csv"
    without = [line.rsplit(",", 1)[0] for line in rows(0, 1, 2).splitlines()]
    path.write_text("\n".join(without))  # an editor took the last line end off
    CSVFile(path, **keep).write(dict.fromkeys(COLUMNS, 7))
    assert path.read_text().splitlines() == [HEADER, *(f"{line}," for line in without[1:]), ",".join("7" * 16)]
    assert list(tmp_path.iterdir()) == [path]


def test_rows_shorter_or_longer_than_the_first_line(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text(f"{HEADER},note\n{real_row(1)}\n{real_row(2)},good,really\n")
    CSVFile(path, keep_steps=300)
    assert path.read_text() == f"{HEADER},note,\n{real_row(1)},,\n{real_row(2)},good,really\n"


@pytest.mark.parametrize("column", ["epoch", "phase", "total_train_steps", "total_time"])
def test_a_file_without_a_column_that_resuming_needs_is_refused(tmp_path: Path, column: str) -> None:
    (tmp_path / "a.csv").write_text(HEADER.replace(column, "mine") + "\n")
    with pytest.raises(OutputError, match=rf"no statistics of this program \(it has no column {column}\); move it"):
        CSVFile(tmp_path / "a.csv", keep_steps=300)


def test_the_error_names_semicolons(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text(rows(0, 1).replace(",", ";"))
    with pytest.raises(OutputError, match=r"\(its values are separated by ;\); save it with commas, or move it"):
        CSVFile(tmp_path / "a.csv", keep_steps=300)


@pytest.mark.parametrize(
    "content", ["a,b\n1,2\n", HEADER + "\nx,y\n", f'{HEADER},a\n{rows(1)[len(HEADER) + 1 : -1]},"b\n', "\0\xff"]
)
def test_does_not_go_on_from_what_is_no_statistics(tmp_path: Path, content: str) -> None:
    (tmp_path / "a.csv").write_text(content)
    with pytest.raises(OutputError, match="it holds no statistics of this program"):
        CSVFile(tmp_path / "a.csv", keep_steps=300)
    assert (tmp_path / "a.csv").read_text() == content


def test_half_a_row_is_taken_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.csv"
    file = CSVFile(path)
    file.write(dict.fromkeys(COLUMNS, 1))
    whole = path.read_bytes()
    real_open = Path.open

    def small_disk(self: Path, *args: Any, **kwargs: Any) -> Any:
        opened = real_open(self, *args, **kwargs)
        return HalfFile(opened)

    monkeypatch.setattr(Path, "open", small_disk)
    with pytest.raises(OutputError, match=r"cannot write to .*a\.csv: .*its earlier rows are whole"):
        file.write(dict.fromkeys(COLUMNS, 2))
    monkeypatch.undo()
    assert path.read_bytes() == whole


class HalfFile:
    """A file on a disk that has room for ten more bytes."""

    def __init__(self, file: Any) -> None:
        self.file = file

    def __enter__(self) -> HalfFile:
        return self

    def __exit__(self, *_: object) -> None:
        self.file.close()

    def write(self, content: bytes) -> int:
        return int(self.file.write(content[:10]))

    def __getattr__(self, name: str) -> Any:
        return getattr(self.file, name)


def test_progress_without_a_terminal_is_a_line_now_and_then(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    caplog.set_level("INFO")
    monkeypatch.setattr("simple_dqn.reports.progress._LINE_INTERVAL", 0.0)
    monkeypatch.setattr(sys, "stderr", None)  # who closed it wants no bar either
    stats, _ = make(None)
    progress = Progress(stats, 3)
    for callback in (stats, progress):
        callback.on_phase_start("train", 2, 4)
    stats.on_train(0.125)
    for n in range(2):
        for callback in (stats, progress):
            callback.on_step(step(3, terminal=n == 0))
    progress.on_phase_end()
    line = caplog.messages[-1]
    assert "train 2/3: 2/4 steps" in line
    assert "1 games, score 3.0, loss 0.12, ε 0.500" in line
    assert "left" in line


def test_progress_of_a_phase_that_goes_on_has_the_speed_since_then(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    caplog.set_level("INFO")
    monkeypatch.setattr("simple_dqn.reports.progress._LINE_INTERVAL", 0.0)
    monkeypatch.setattr("simple_dqn.reports.progress.time", Clock())
    stats, _ = make(None)
    progress = Progress(stats, 3)
    for callback in (stats, progress):
        callback.on_phase_start("train", 2, 1000)
    stats.num_steps = 900
    progress.on_begin()
    stats.on_step(step())
    progress.on_step(step())  # a second later
    progress.on_phase_end()
    assert "train 2/3: 901/1000 steps, 1 steps/s" in caplog.messages[-1]
    assert "01:39 left" in caplog.messages[-1]


def test_mean_reward_of_no_games_is_not_a_number() -> None:
    stats, _ = make(None)
    stats.on_phase_start("test", 1, 1)
    assert math.isnan(stats.mean_reward)
