"""Games on a cluster: the same games, to the pixel, as in one process, also if players are lost at any moment."""

from __future__ import annotations

import logging
import pickle
import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from simple_dqn.cluster import games as cluster_games
from simple_dqn.cluster.games import ClusterGames, ClusterOptions
from simple_dqn.cluster.machines import PlayerLost, RemotePlayer
from simple_dqn.cluster.player import Message, Player
from simple_dqn.environment import ABANDONED, EnvironmentOptions
from simple_dqn.errors import GameError, OptionError
from simple_dqn.games.game import GameSpec
from simple_dqn.games.games import Games, SharedArrays, games_here


class FakePlayer:
    """A player in this process, which may die. Messages and answers are pickled, as on their way to a machine."""

    def __init__(self, machines: FakeMachines) -> None:
        self.player: Player | None = Player()
        self.machines = machines
        self.waits = machines.free_cores() <= machines.promised
        machines.players.append(self)

    def ask(self, message: Message, expected_bytes: int = 0) -> Any:
        self.machines.asked += 1
        if self.machines.asked in self.machines.deaths:
            self.player = None
        if self.player is None or self.waits:
            return PlayerLost
        try:
            return pickle.dumps(self.player.answer(pickle.loads(pickle.dumps(message))))
        except GameError as error:
            return error

    def wait(self, reference: Any, seconds: float) -> bool:
        return not self.waits

    def get(self, reference: Any) -> Any:
        if reference is PlayerLost:
            raise PlayerLost("it died")
        if isinstance(reference, GameError):
            raise reference
        return pickle.loads(reference)

    def close(self) -> None:
        self.player = None
        if self in self.machines.players:
            self.machines.players.remove(self)


class FakeMachines:
    """Machines with so many cores. Players die at those of all messages that have the numbers in `deaths`.

    Cores that are only `promised` seem to be free, and are not.
    """

    def __init__(self, cores: int, promised: int = 0) -> None:
        self.cores, self.promised = cores, promised
        self.players: list[FakePlayer] = []
        self.asked = 0
        self.deaths: set[int] = set()

    def start_player(self) -> RemotePlayer:
        return FakePlayer(self)

    def free_cores(self) -> int:
        return max(0, self.cores - len(self.players)) + self.promised

    def close(self) -> None:
        self.players.clear()


def spec(number: int = 5, **options: Any) -> GameSpec:
    defaults: dict[str, Any] = dict(game="breakout", repeat_action_probability=0.25, color_averaging=False)
    env_options = EnvironmentOptions(**(defaults | options))
    return GameSpec(env_options, (4, 84, 84), 5, np.random.SeedSequence(3).spawn(number))


def here(number: int = 5, **options: Any) -> Games:
    games = spec(number, **options)
    return games_here(games, range(number), SharedArrays.make(number, games.state_shape))


def play(games: Games, steps: int, happens: Callable[[int], None] = lambda _: None) -> Iterator[list[NDArray[Any]]]:
    """Yield all arrays after each step: of training, in which games rest at times, then of a test."""
    rng = np.random.default_rng(1)
    for mode, new in (("train", False), ("test", True), ("train", False)):
        games.begin(mode, new)  # type: ignore[arg-type]
        yield [games.arrays.states.copy()]
        for n in range(steps):
            happens(n)
            actions: list[int | None] = rng.integers(games.num_actions, size=len(games)).tolist()
            games.start([None, *actions[1:3]] if n % 7 == 6 else actions)
            games.finish()
            yield [array.copy() for array in games.arrays]
        yield [np.array([state["environment"]["played"].size for state in games.state()])]


def assert_same(games: Games, twin: Games, steps: int, happens: Callable[[int], None] = lambda _: None) -> None:
    for mine, theirs in zip(play(games, steps, happens), play(twin, steps), strict=True):
        assert all(np.array_equal(a, b) for a, b in zip(mine, theirs, strict=True))


@pytest.fixture(autouse=True)
def short(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    """States are taken often, so that games are restored from all kinds of moments."""
    monkeypatch.setattr(cluster_games, "_STEPS_PER_STATE", 13)
    caplog.set_level(logging.INFO)


def test_a_cluster_plays_the_same_games() -> None:
    games = ClusterGames(spec(), FakeMachines(3))
    assert (games.num_actions, games.action_names) == (here().num_actions, here().action_names)
    assert_same(games, here(), 30)


def test_lost_players_change_nothing(caplog: pytest.LogCaptureFixture) -> None:
    machines = FakeMachines(3)
    machines.deaths = set(np.random.default_rng(5).integers(300, size=12).tolist()) | {2, 4, 5, 9, 10, 11}
    assert_same(ClusterGames(spec(), machines), here(), 30)
    assert machines.asked > 300
    assert "Lost game 1, on" in caplog.text
    assert "Restored games 4 to 5 in " in caplog.text


def test_without_a_free_core_games_are_played_here_and_join_the_cluster_again(caplog: pytest.LogCaptureFixture) -> None:
    machines = FakeMachines(3)
    games = ClusterGames(spec(), machines)

    def happens(step: int) -> None:
        if step == 7:  # a machine is removed
            machines.cores = 1
            for player in machines.players[1:]:
                player.player = None
        if step == 15:
            machines.cores = 0
            machines.players[0].player = None
        if step == 22:
            machines.cores = 4
            games._next_look = 0

    assert_same(games, here(), 30, happens)
    assert "No core of the cluster is free for games 2 to 3. This process plays until one is" in caplog.text
    assert "5 games on 1 core of" in caplog.text
    assert "5 games on 4 cores" in caplog.text


def test_a_core_that_only_seems_to_be_free_does_not_spread_the_games_again_and_again(
    caplog: pytest.LogCaptureFixture,
) -> None:
    games = ClusterGames(spec(), FakeMachines(2, promised=1))
    assert_same(games, here(), 10)
    assert caplog.text.count("5 games on 3 cores of the cluster") == 1
    assert games._next_look > time.monotonic() + 50


def test_a_checkpoint_continues_on_more_or_fewer_cores() -> None:
    first, twin = ClusterGames(spec(), FakeMachines(3)), here()
    for a, b in zip(play(first, 20), play(twin, 20), strict=True):
        assert all(np.array_equal(mine, theirs) for mine, theirs in zip(a, b, strict=True))
    states = pickle.dumps(first.state())
    more, fewer = ClusterGames(spec(), FakeMachines(5)), ClusterGames(spec(), FakeMachines(2), most_cores=1)
    assert more.restore(pickle.loads(states))
    assert fewer.restore(pickle.loads(states))
    assert np.array_equal(more.arrays.states, twin.arrays.states)
    assert_same(more, fewer, 20)


def test_gymnasium_games_that_are_lost_begin_again(caplog: pytest.LogCaptureFixture) -> None:
    machines = FakeMachines(2)
    games = ClusterGames(spec(4, game="CartPole-v1", environment="gym", repeat_action_probability=0), machines)
    games.begin("train", False)
    games.start([0, 0, 0, 0])
    games.finish()
    states, screens = games.arrays.states.copy(), games.arrays.screens.copy()
    machines.players[1].player = None
    games.start([0, 0, None, 0])
    games.finish()
    assert "Lost games 3 to 4, on" in caplog.text
    assert "new games begin" in caplog.text
    assert games.arrays.ends.tolist() == [0, 0, 0, ABANDONED]
    assert np.array_equal(games.arrays.screens[3], screens[3])
    assert (games.arrays.states[2:] == games.arrays.states[2:, :1]).all()  # as at the start of a game
    assert not np.array_equal(games.arrays.states[2:], states[2:])
    games.start([0, 0, 0, 0])
    games.finish()
    assert games.arrays.ends.tolist() == [0, 0, ABANDONED, 0]


def test_a_game_that_kills_every_process_ends_the_run() -> None:
    machines = FakeMachines(1)
    games = ClusterGames(spec(1), machines)
    machines.deaths = set(range(machines.asked, 1000))
    with pytest.raises(GameError, match=r"plays game 1 died 5 times in sequence, at last on .*: it died$"):
        games.begin("train", False)


def test_errors_of_games_are_raised_here() -> None:
    with pytest.raises(GameError, match="no game pongo"):
        ClusterGames(spec(game="pongo"), FakeMachines(2))


def test_options_of_clusters_are_checked() -> None:
    for address in ("auto", "local", "10.0.0.1:6379", "[::1]:6379"):
        assert ClusterOptions(address, 3).cluster == address
    for address in ("somewhere", "ray://head:10001", ":"):
        with pytest.raises(OptionError, match="use auto, local, or HOST:PORT"):
            ClusterOptions(address)
    with pytest.raises(OptionError, match=r"--cluster_cores 2 .* add --cluster auto"):
        ClusterOptions(cluster_cores=2)
