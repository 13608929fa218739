"""Games side by side in one process: each is the same as alone."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
import pytest

from fakes import Abandons, make_real_games
from simple_dqn.environment import ABANDONED, EnvironmentOptions
from simple_dqn.games import make
from simple_dqn.games.game import GameSpec
from simple_dqn.games.games import Games


def test_a_game_is_the_same_beside_any_number_of_games(monkeypatch: pytest.MonkeyPatch) -> None:
    few, many = make_real_games(2, monkeypatch), make_real_games(4, monkeypatch)
    for made in (few, many):
        made.begin("train", new_episode=False)
    for n in range(60):
        actions = [n % few.num_actions, (n + 1) % few.num_actions]
        few.start(actions)
        many.start([*actions, 0, 0])
        few.finish()
        many.finish()
        pairs: Iterable[tuple[Any, Any]] = zip(few.arrays, many.arrays, strict=True)
        assert all(np.array_equal(mine, theirs[:2]) for mine, theirs in pairs)
    assert not np.array_equal(few.arrays.states[0], few.arrays.states[1])


class Hand(Abandons):
    """Plays action 2, too."""

    def steer(self, action: int) -> int:
        return 2


def test_watchers_see_and_steer_the_first_game_in_this_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(make, "num_cores", lambda: 64)
    hand = Hand(5)
    spec = GameSpec(EnvironmentOptions(game="pong"), (4, 84, 84), 0, np.random.SeedSequence(3).spawn(3))
    made = make.make_games(spec, watchers=[hand])
    assert type(made) is Games
    made.begin("test", new_episode=True)
    assert list(made.start([0, 1, 1])) == [2, 1, 1]
    made.finish()
    assert (hand.games, len(hand.pictures)) == (1, 1 + 4)
    for _ in range(4):
        assert made.arrays.ends[0] == 0
        made.start([0, 0, 0])
        made.finish()
    assert made.arrays.ends.tolist() == [ABANDONED, 0, 0]
    assert hand.games == 2
