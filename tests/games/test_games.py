"""Games side by side: the same games, to the pixel, as one by one, in this process or in others."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import numpy as np
import pytest
from numpy.typing import NDArray

from fakes import FakeEnvironment, GivesUp, side_by_side
from simple_dqn.deepqnetwork import BackendOptions
from simple_dqn.environment import Environment, EnvironmentOptions, Watcher
from simple_dqn.errors import GameError
from simple_dqn.games import games
from simple_dqn.games.games import Board, Games, GameWorkers, leave_cores_to_games, make_games
from simple_dqn.learning import library as network_library
from simple_dqn.replay_memory import CUT, TERMINAL

SHAPE = (4, 84, 84)
SRC = Path(games.__file__).parents[2]


def make(number: int, monkeypatch: pytest.MonkeyPatch, cores: int = 1, in_turn: bool = False, **options: Any) -> Games:
    """Games as the program makes them on a machine of so many cores."""
    monkeypatch.setattr(games, "num_cores", lambda: cores)
    env_options = EnvironmentOptions(**(dict(game="pong") | options))
    return make_games(env_options, SHAPE, 5, np.random.SeedSequence(3), number, in_turn=in_turn)


def arrays(board: Board) -> list[NDArray[Any]]:
    return list(board)


def play(made: Games, rounds: int) -> list[NDArray[Any]]:
    """All there is to see in so many rounds of random actions, the last of them for one game less."""
    rng = np.random.default_rng(1)
    made.begin("train", anew=False)
    seen = [made.board.states.copy()]
    for n in range(rounds):
        number = len(made) - (n == rounds - 1)
        made.start(rng.integers(made.num_actions, size=len(made)).tolist()[:number])
        made.finish()
        seen += [array.copy() for array in arrays(made.board)]
    made.begin("test", anew=True)
    return [*seen, made.board.states.copy()]


@pytest.mark.parametrize(
    "options",
    [
        {},
        dict(game="breakout", repeat_action_probability=0.25, color_averaging=False, frame_skip=2),
        dict(game="CartPole-v1", environment="gym"),
    ],
)
def test_processes_play_the_same_games(options: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    here = make(3, monkeypatch, cores=2, **options)
    there = make(3, monkeypatch, cores=8, **options)
    assert type(here) is Games
    assert isinstance(there, GameWorkers)
    assert there.cores_taken == 2
    assert (here.num_actions, here.action_names) == (there.num_actions, there.action_names)
    for mine, theirs in zip(play(here, 150), play(there, 150), strict=True):
        assert np.array_equal(mine, theirs)
    there.close()


def test_games_and_a_network_that_work_in_turn_have_all_cores_each(monkeypatch: pytest.MonkeyPatch) -> None:
    here, there = make(5, monkeypatch), make(5, monkeypatch, cores=2, in_turn=True)
    assert isinstance(there, GameWorkers)
    assert (len(there.processes), there.cores_left) == (2, None)
    for mine, theirs in zip(play(here, 40), play(there, 40), strict=True):
        assert np.array_equal(mine, theirs)
    there.close()


@pytest.mark.parametrize(
    ("cores", "number", "on_gpu", "in_turn", "processes", "left"),
    [
        (16, 32, False, False, 4, 12),  # the network has three quarters
        (3, 32, False, False, 0, None),
        (16, 32, True, False, 15, 1),  # a GPU needs one core to be told what to do
        (2, 32, True, False, 1, 1),
        (1, 32, True, False, 0, None),
        (16, 4, True, False, 4, 12),  # no more processes than games
        (16, 4, False, False, 4, 12),
        (16, 32, True, True, 16, None),  # games and network have all cores in turn
        (16, 32, False, True, 16, None),
        (1, 32, True, True, 0, None),
        (16, 1, True, False, 0, None),
    ],
)
def test_how_many_processes_play_and_how_many_cores_they_leave(
    cores: int,
    number: int,
    on_gpu: bool,
    in_turn: bool,
    processes: int,
    left: int | None,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    started: list[range] = []

    def start(numbers: range, memory: int) -> Mock:
        started.append(numbers)
        return Mock(numbers=numbers, receive=lambda: (1, ["NOOP"]))

    monkeypatch.setattr(games, "num_cores", lambda: cores)
    monkeypatch.setattr(games, "_start_worker", start)
    monkeypatch.setattr(games, "make_environment", lambda *_: FakeEnvironment())
    options = EnvironmentOptions(game="pong")
    made = make_games(options, (1, 4, 5), 0, np.random.SeedSequence(3), number, on_gpu, in_turn)
    assert (len(started), made.cores_left) == (processes, left)
    assert [n for numbers in started for n in numbers] == list(range(number if processes else 0))
    made.close()


@pytest.mark.parametrize(("device", "on_gpu"), [("cpu", False), ("cuda", True)])
def test_a_network_on_a_gpu_leaves_the_cores_to_the_games(
    device: str, on_gpu: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(network_library, "find_device", lambda _: Mock(type=device))
    monkeypatch.setattr(network_library, "find_backend", lambda _: "gpu" if on_gpu else "cpu")
    for library in ("torch", "neon"):
        assert network_library.library_of(BackendOptions(library=library))[1] == on_gpu


def test_users_may_say_how_long_threads_spin(monkeypatch: pytest.MonkeyPatch) -> None:
    for own, after in ((None, "10000"), ("7", "7")):
        monkeypatch.delenv("GOMP_SPINCOUNT", raising=False)
        if own:
            monkeypatch.setenv("GOMP_SPINCOUNT", own)
        leave_cores_to_games()
        assert os.environ["GOMP_SPINCOUNT"] == after


def test_a_game_is_the_same_in_any_company(monkeypatch: pytest.MonkeyPatch) -> None:
    few, many = make(2, monkeypatch), make(4, monkeypatch)
    for made in (few, many):
        made.begin("train", anew=False)
    for n in range(60):
        actions = [n % few.num_actions, (n + 1) % few.num_actions]
        few.start(actions)
        many.start([*actions, 0, 0])
        few.finish()
        many.finish()
        for mine, theirs in zip(arrays(few.board), arrays(many.board.part(0, 2)), strict=True):
            assert np.array_equal(mine, theirs)
    assert not np.array_equal(few.board.states[0], few.board.states[1])


def test_a_game_without_an_action_rests(monkeypatch: pytest.MonkeyPatch) -> None:
    one, many = make(4, monkeypatch, cores=1), make(4, monkeypatch, cores=8)
    for made in (one, many):
        made.begin("test", anew=True)
    before = one.board.states.copy()
    for made in (one, many):
        for _ in range(20):
            made.start([None, 1, None])
            made.finish()
    moved = [not np.array_equal(state, old) for state, old in zip(one.board.states, before, strict=True)]
    assert moved == [False, True, False, False]
    assert np.array_equal(many.board.states, one.board.states)
    many.close()


def test_one_game_needs_no_other_process(monkeypatch: pytest.MonkeyPatch) -> None:
    assert type(make(1, monkeypatch, cores=64)) is Games


def test_one_core_needs_no_other_process(monkeypatch: pytest.MonkeyPatch) -> None:
    assert type(make(3, monkeypatch, cores=1, in_turn=True)) is Games


class Hand(Watcher):
    """Plays action 2, wants a new game after its fifth step, and counts what it sees."""

    def __init__(self) -> None:
        self.games = self.frames = self.steps = 0

    def on_game(self) -> None:
        self.games += 1

    def on_frame(self, environment: Environment) -> None:
        self.frames += 1

    def steer(self, action: int) -> int:
        self.steps += 1
        return 2

    def wants_restart(self) -> bool:
        return self.steps == 5


def test_watchers_see_and_steer_the_first_game_in_this_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(games, "num_cores", lambda: 64)
    hand = Hand()
    made = make_games(EnvironmentOptions(game="pong"), SHAPE, 0, np.random.SeedSequence(3), 3, watchers=[hand])
    assert type(made) is Games
    made.begin("test", anew=True)
    assert list(made.start([0, 1, 1])) == [2, 1, 1]
    made.finish()
    assert (hand.games, hand.frames) == (1, 1 + 4)
    for step in range(2, 6):
        assert made.board.ends[0] == 0
        made.start([0, 0, 0])
        made.finish()
        assert hand.steps == step
    assert made.board.ends.tolist() == [games.GIVEN_UP, 0, 0]
    assert hand.games == 2


@pytest.mark.parametrize("how", ["terminal", "cut", "given up", "a new phase"])
@pytest.mark.parametrize("noops", [0, 1])
def test_a_state_holds_no_screens_of_the_episode_before(how: str, noops: int) -> None:
    environment = FakeEnvironment(episode=99 if how in ("given up", "a new phase") else 3)
    environment.cut_short = how == "cut"
    if how == "given up":
        environment.watchers = [GivesUp(3)]
    made = side_by_side([environment], 4, (4, 5), noops, np.random.default_rng(1))
    made.begin("test", anew=True)
    for _ in range(3 - noops * (how in ("terminal", "cut"))):  # a no-op is part of the episode
        assert not made.board.ends[0]
        made.start([1])
        made.finish()
    if how == "a new phase":
        made.begin("test", anew=True)
    else:
        assert made.board.ends[0] == {"terminal": TERMINAL, "cut": CUT, "given up": games.GIVEN_UP}[how]
    last = environment.frame - noops  # the number of the last screen before the new episode
    assert made.board.states[0][:, 0, 0].tolist() == [last] * (4 - noops) + [last + 1] * noops


def test_what_is_wrong_in_a_process_is_told_here(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(GameError, match="no game pongo"):
        make(2, monkeypatch, cores=8, game="pongo")


class OddError(Exception):
    """Cannot be unpickled."""

    def __init__(self, one: int, two: int) -> None:
        super().__init__("it is odd")


def make_odd(number: int) -> Environment:
    raise OddError(1, 2)


def test_a_fault_in_a_process_is_told_with_its_place() -> None:
    with pytest.raises(RuntimeError, match=r"(?s)in make_odd.*raise OddError\(1, 2\).*it is odd"):
        GameWorkers(make_odd, 1, True, 2, SHAPE, 5, [np.random.default_rng(n) for n in range(2)])


@pytest.mark.parametrize("screen", [np.zeros((4, 6), np.uint8), np.zeros((4, 5)), np.zeros(5, np.uint8)])
def test_screens_that_are_not_what_was_promised(screen: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(FakeEnvironment, "screen", lambda _: screen)
    made = side_by_side([FakeEnvironment()], 4, (4, 5), 0, np.random.default_rng(1))
    with pytest.raises(GameError, match=r"the game's screens are .* of shape \(.*\), not uint8 of \(4, 5\)"):
        made.begin("train", anew=False)


@pytest.mark.parametrize("reward", [float("nan"), float("-inf")])
def test_rewards_that_are_no_numbers(reward: float, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(FakeEnvironment, "act", lambda *_: reward)
    made = side_by_side([FakeEnvironment()], 4, (4, 5), 0, np.random.default_rng(1))
    made.begin("train", anew=False)
    made.start([1])
    with pytest.raises(GameError, match=f"the game's reward is {reward}"):
        made.finish()


def test_no_game_is_played_on_after_its_end_because_the_mode_changed(monkeypatch: pytest.MonkeyPatch) -> None:
    """What ends an episode in training may not end one in a test, which may stop just there."""
    monkeypatch.setattr(FakeEnvironment, "is_terminal", lambda env: env.mode == "train" and env.time >= env.episode)
    environment = FakeEnvironment(episode=2)
    made = side_by_side([environment], 4, (4, 5), 0, np.random.default_rng(1))
    made.begin("test", anew=True)
    for _ in range(3):
        made.start([1])
        made.finish()
    made.begin("train", anew=False)
    assert environment.tape == [("restart", "test"), *[("act", 1)] * 3, ("restart", "train")]


@pytest.mark.parametrize(
    ("signum", "text"),
    [
        (signal.SIGKILL, r"was killed \(signal 9\). .* memory .* Use fewer --num_envs"),
        (signal.SIGSEGV, r"crashed: Segmentation fault \(signal 11\)\.$"),
    ],
)
def test_the_error_says_how_a_process_ended(signum: int, text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    made = make(2, monkeypatch, cores=8)
    assert isinstance(made, GameWorkers)
    made.processes[0].send_signal(signum)
    with pytest.raises(GameError, match=text):
        made.begin("train", anew=False)
    made.close()


def make_and_exit(number: int) -> Environment:
    sys.exit(7)


def test_the_error_has_the_status_of_a_process_that_ended_by_itself() -> None:
    with pytest.raises(GameError, match="ended with status 7"):
        GameWorkers(make_and_exit, 1, True, 1, SHAPE, 5, [np.random.default_rng(1)])


def test_processes_end_with_the_games(monkeypatch: pytest.MonkeyPatch) -> None:
    made = make(4, monkeypatch, cores=8)
    assert isinstance(made, GameWorkers)
    made.begin("train", anew=False)
    made.close()
    assert [process.returncode for process in made.processes] == [0, 0]


def test_processes_play_on_when_the_whole_group_gets_a_signal(monkeypatch: pytest.MonkeyPatch) -> None:
    """The process that learns gets it, too, and needs their state to save it."""
    made = make(2, monkeypatch, cores=4, in_turn=True)
    assert isinstance(made, GameWorkers)
    for process in made.processes:
        for signum in games.ENDING_SIGNALS:
            process.send_signal(signum)
    made.begin("train", anew=False)
    assert len(made.state()) == 2
    made.close()


PLAYING = """
import os, signal, sys
import numpy as np
from simple_dqn.learning import library as network_library
from simple_dqn.games import games
from simple_dqn.deepqnetwork import BackendOptions
from simple_dqn.environment import EnvironmentOptions
games.num_cores, games._PATIENCE = lambda: 2, 0.5
made = games.make_games(EnvironmentOptions(game="pong"), (4, 84, 84), 5, np.random.SeedSequence(3), 2, in_turn=True)
made.begin("train", anew=False)
made.start([0, 0])
"""
STOP = "made.processes[1].send_signal(signal.SIGSTOP)"


@pytest.mark.parametrize(
    ("fault", "status", "text"),
    [
        ("raise ValueError('boom')", 1, "ValueError: boom\n"),
        (f"{STOP}; raise ValueError('boom')", 1, "ValueError: boom\n"),
        ("os.kill(os.getpid(), signal.SIGKILL)", -9, ""),
    ],
)
def test_program_and_processes_end_whatever_ends_the_program(fault: str, status: int, text: str) -> None:
    """The pipes close when the last process that writes to them has ended."""
    variables = os.environ | {"PYTHONPATH": str(SRC)}
    result = subprocess.run(
        [sys.executable, "-c", PLAYING + fault], env=variables, capture_output=True, text=True, timeout=120
    )
    assert (result.returncode, result.stderr.endswith(text)) == (status, True)
    assert ("Traceback" in result.stderr) == bool(text)


def test_a_file_with_the_name_of_a_standard_module_does_not_matter(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("math", "random", "token", "numpy", "socket"):
        (tmp_path / f"{name}.py").write_text("raise SystemExit('the wrong one')")
    monkeypatch.chdir(tmp_path)
    made = make(2, monkeypatch, cores=4, in_turn=True)
    assert isinstance(made, GameWorkers)
    made.close()
