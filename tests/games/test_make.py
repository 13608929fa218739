"""Number of processes that play the games of a run."""

from __future__ import annotations

import os
from unittest.mock import Mock

import numpy as np
import pytest

from fakes import FakeEnvironment
from simple_dqn.deepqnetwork import BackendOptions
from simple_dqn.environment import EnvironmentOptions
from simple_dqn.games import game, make, workers
from simple_dqn.games.game import GameSpec
from simple_dqn.learning import library as libraries


@pytest.mark.parametrize(
    ("cores", "number", "on_gpu", "in_turn", "processes", "left"),
    [
        (16, 32, False, False, 4, 12),  # the network has three quarters
        (3, 32, False, False, 0, None),
        (16, 32, True, False, 15, 1),  # one core starts the GPU's work
        (2, 32, True, False, 1, 1),
        (1, 32, True, False, 0, None),
        (16, 4, True, False, 4, 12),  # no more processes than games
        (16, 4, False, False, 4, 12),
        (16, 32, True, True, 16, None),  # games and network use all cores in turn
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

    monkeypatch.setattr(make, "num_cores", lambda: cores)
    monkeypatch.setattr(workers, "_start_worker", start)
    monkeypatch.setattr(game, "make_environment", lambda *_: FakeEnvironment())
    spec = GameSpec(EnvironmentOptions(game="pong"), (1, 4, 5), 0, np.random.SeedSequence(3).spawn(number))
    made = make.make_games(spec, on_gpu=on_gpu, in_turn=in_turn)
    assert (len(started), made.cores_left) == (processes, left)
    assert [n for numbers in started for n in numbers] == list(range(number if processes else 0))
    made.close()


@pytest.mark.parametrize(("device", "on_gpu"), [("cpu", False), ("cuda", True)])
def test_a_network_on_a_gpu_leaves_the_cores_to_the_games(
    device: str, on_gpu: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(libraries, "find_device", lambda _: Mock(type=device))
    monkeypatch.setattr(libraries, "find_backend", lambda _: "gpu" if on_gpu else "cpu")
    for library in ("torch", "neon"):
        assert libraries.library_of(BackendOptions(library=library))[1] == on_gpu


def test_users_may_say_how_long_threads_spin(monkeypatch: pytest.MonkeyPatch) -> None:
    for users, after in ((None, "10000"), ("7", "7")):
        monkeypatch.delenv("GOMP_SPINCOUNT", raising=False)
        if users:
            monkeypatch.setenv("GOMP_SPINCOUNT", users)
        make.leave_cores_to_games()
        assert os.environ["GOMP_SPINCOUNT"] == after
