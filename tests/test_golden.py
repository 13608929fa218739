"""Golden trace: 500 steps of Breakout, to the bit."""

from __future__ import annotations

import hashlib

import numpy as np
import pytest

from simple_dqn.agent import AgentOptions
from simple_dqn.environment import EnvironmentOptions
from simple_dqn.games import make
from simple_dqn.games.game import GameSpec
from simple_dqn.games.games import Games
from simple_dqn.games.workers import GameWorkers
from simple_dqn.watching.watcher import Watcher

GOLDEN = "f1971a15255f04c19893074ee610bad9b783b0bf4b75a9f2b59fb74a2b346447"


def trace(made: Games) -> str:
    """SHA-256 of the states, actions, rewards, ends and screens of 500 steps of two games. Actions are random."""
    rng = np.random.default_rng(2015)
    digest = hashlib.sha256()
    made.begin("train", new_episode=False)
    digest.update(made.arrays.states.tobytes())
    for _ in range(500):
        actions = rng.integers(made.num_actions, size=2).tolist()
        digest.update(bytes(actions))
        assert made.start(actions) == actions
        made.finish()
        assert np.array_equal(made.arrays.rewards, made.arrays.rewards.round())
        for array in (made.arrays.rewards.astype("<i4"), made.arrays.ends, made.arrays.screens, made.arrays.states):
            digest.update(array.tobytes())
    return digest.hexdigest()


@pytest.mark.parametrize(("how", "cores"), [("here", 1), ("in two processes", 2), ("watched", 2)])
def test_two_games_of_breakout_are_those_of_the_golden_trace(
    how: str, cores: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Play two games with the default options: states, actions, rewards and ends have the committed hash.

    If this test fails, the agent sees other games than before. Results of earlier versions cannot be repeated.

    - All three cases have the same new hash: the emulation, the colors, the resize, the no-ops, the ends of episodes or
      the seeds have changed. If you changed them on purpose, copy the new hash from the failure to `GOLDEN`, and say so
      in CHANGELOG.md. If you only updated packages, find out which one matters. These all give the same hash on x86-64:
      ale-py 0.12.0 and 0.12.1, opencv 4.10, 4.14 and 5.0, numpy 2.1 and 2.4 (which draws actions and no-ops).
    - Only one case has a new hash: there is a fault in that way of playing. Do not change `GOLDEN`.
    """
    monkeypatch.setattr(make, "num_cores", lambda: cores)
    seeds = np.random.SeedSequence(1).spawn(2)
    spec = GameSpec(EnvironmentOptions(game="breakout"), (4, 84, 84), AgentOptions().random_starts, seeds)
    made = make.make_games(spec, watchers=[Watcher()] if how == "watched" else (), in_turn=True)
    assert type(made) is (GameWorkers if how == "in two processes" else Games)
    try:
        assert trace(made) == GOLDEN
    finally:
        made.close()
