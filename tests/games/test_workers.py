"""Games in worker processes: the same games, to the pixel, as in one process, and nothing is left of the workers."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from fakes import make_real_games
from simple_dqn.environment import EnvironmentOptions
from simple_dqn.errors import GameError
from simple_dqn.games import workers
from simple_dqn.games.game import Game, GameSpec
from simple_dqn.games.games import Games
from simple_dqn.games.workers import GameWorkers
from simple_dqn.interrupts import ENDING_SIGNALS

SRC = Path(workers.__file__).parents[2]


def play(made: Games, rounds: int) -> list[NDArray[Any]]:
    """All arrays after each of `rounds` steps with random actions. The last step is without the last game."""
    rng = np.random.default_rng(1)
    made.begin("train", new_episode=False)
    seen = [made.arrays.states.copy()]
    for n in range(rounds):
        number = len(made) - (n == rounds - 1)
        made.start(rng.integers(made.num_actions, size=len(made)).tolist()[:number])
        made.finish()
        seen += [array.copy() for array in made.arrays]
    made.begin("test", new_episode=True)
    return [*seen, made.arrays.states.copy()]


@pytest.fixture
def make(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., GameWorkers]]:
    """Makes games in two processes, and ends these after the test."""
    with contextlib.ExitStack() as stack:

        def make_games(number: int, **options: Any) -> GameWorkers:
            made = make_real_games(number, monkeypatch, cores=8, **options)
            assert isinstance(made, GameWorkers)
            stack.callback(made.close)
            assert (len(made.workers), made.cores_left) == (2, 6)
            return made

        yield make_games


@pytest.mark.parametrize(
    "options",
    [
        {},
        dict(game="breakout", repeat_action_probability=0.25, color_averaging=False, frame_skip=2),
        dict(game="CartPole-v1", environment="gym"),
    ],
)
def test_processes_play_the_same_games(options: dict[str, Any], make: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    here, there = make_real_games(3, monkeypatch, cores=2, **options), make(3, **options)
    assert type(here) is Games
    assert (here.num_actions, here.action_names) == (there.num_actions, there.action_names)
    for mine, theirs in zip(play(here, 150), play(there, 150), strict=True):
        assert np.array_equal(mine, theirs)


def test_a_game_without_an_action_rests(make: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    one, many = make_real_games(4, monkeypatch, cores=1), make(4)
    for made in (one, many):
        made.begin("test", new_episode=True)
    before = one.arrays.states.copy()
    for made in (one, many):
        for _ in range(20):
            made.start([None, 1, None])
            made.finish()
    moved = [not np.array_equal(state, old) for state, old in zip(one.arrays.states, before, strict=True)]
    assert moved == [False, True, False, False]
    assert np.array_equal(many.arrays.states, one.arrays.states)


def test_a_game_error_in_a_worker_is_raised_here(make: Any) -> None:
    with pytest.raises(GameError, match="no game pongo"):
        make(2, game="pongo")


class OddError(Exception):
    """Cannot be unpickled."""

    def __init__(self, one: int, two: int) -> None:
        super().__init__("it is odd")


class OddSpec(GameSpec):
    """Games that cannot be made."""

    def make(self, *_: Any) -> Game:
        raise OddError(1, 2)


class ExitingSpec(GameSpec):
    """Games that end their process."""

    def make(self, *_: Any) -> Game:
        sys.exit(7)


def two(kind: type[GameSpec]) -> GameSpec:
    return kind(EnvironmentOptions(game="pong"), (4, 84, 84), 5, np.random.SeedSequence(3).spawn(2))


def test_a_fault_in_a_worker_is_raised_here_with_its_place() -> None:
    with pytest.raises(RuntimeError, match=r"(?s)in make\n.*raise OddError\(1, 2\).*it is odd"):
        GameWorkers(two(OddSpec), 1)


@pytest.mark.parametrize(
    ("signum", "text"),
    [
        (signal.SIGKILL, r"was killed \(signal 9\). .* memory .* Use fewer --num_envs"),
        (signal.SIGSEGV, r"crashed: Segmentation fault \(signal 11\)\.$"),
    ],
)
def test_the_error_says_how_a_process_ended(signum: int, text: str, make: Any) -> None:
    made = make(2)
    made.workers[0].process.send_signal(signum)
    with pytest.raises(GameError, match=text):
        made.begin("train", new_episode=False)


def test_the_error_has_the_status_of_a_process_that_ended_by_itself() -> None:
    with pytest.raises(GameError, match="ended with status 7"):
        GameWorkers(two(ExitingSpec), 1)


def test_processes_end_with_the_games(make: Any) -> None:
    made = make(4)
    made.begin("train", new_episode=False)
    made.close()
    assert [worker.process.returncode for worker in made.workers] == [0, 0]


def test_processes_play_on_when_the_whole_group_gets_a_signal(make: Any) -> None:
    """The process that learns gets it too, and needs their state to save it."""
    made = make(2)
    for worker in made.workers:
        for signum in ENDING_SIGNALS:
            worker.process.send_signal(signum)
    made.begin("train", new_episode=False)
    assert len(made.state()) == 2


PLAYING = """
import os, signal, sys
import numpy as np

from simple_dqn.games import make, workers
from simple_dqn.games.game import GameSpec
from simple_dqn.deepqnetwork import BackendOptions
from simple_dqn.environment import EnvironmentOptions
make.num_cores, workers._PATIENCE = lambda: 2, 0.5
seeds = np.random.SeedSequence(3).spawn(2)
made = make.make_games(GameSpec(EnvironmentOptions(game="pong"), (4, 84, 84), 5, seeds), in_turn=True)
made.begin("train", new_episode=False)
made.start([0, 0])
"""
STOP = "made.workers[1].process.send_signal(signal.SIGSTOP)"


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
    tmp_path: Path, make: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("math", "random", "token", "numpy", "socket"):
        (tmp_path / f"{name}.py").write_text("raise SystemExit('the wrong one')")
    monkeypatch.chdir(tmp_path)
    make(2)
