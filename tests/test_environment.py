"""The contract of `Environment`, kept by each kind of game."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import numpy as np
import pytest

from fakes import Catch, Eye, FakeEnvironment, ale
from simple_dqn.environment import Environment, EnvironmentOptions
from simple_dqn.games.game import make_environment

KINDS: dict[str, Callable[[], Environment]] = {
    "emulator": ale,
    "Gymnasium": partial(make_environment, EnvironmentOptions(game="CartPole-v1", environment="gym"), 1),
    "fake": FakeEnvironment,
    "Catch": lambda: Catch(np.random.default_rng(1)),
}


@pytest.mark.parametrize("kind", KINDS)
def test_episodes_start_and_end(kind: str) -> None:
    env = KINDS[kind]()
    rng = np.random.default_rng(1)
    for _ in range(3):
        env.restart()
        assert not env.is_terminal()
        shape = env.screen().shape
        while not env.is_terminal():
            assert not env.truncated
            assert np.isfinite(env.act(int(rng.integers(env.num_actions))))
            assert env.screen().shape == shape
            assert env.picture().shape[2] == 3
            assert {array.dtype for array in (env.screen(), env.picture(), env.sound())} == {np.dtype(np.uint8)}
    assert len(env.action_names) == env.num_actions
    env.close()


def test_defaults_of_a_new_game() -> None:
    env = Catch(np.random.default_rng(1))
    assert (env.action_names, env.noop, env.truncated, env.state()) == (["0", "1", "2"], None, False, None)
    assert (env.picture() == env.screen()[..., None]).all()
    assert env.sound().size == 0
    with pytest.raises(NotImplementedError):
        env.restore({})


def test_watchers_see_a_new_game_and_its_frames() -> None:
    env = FakeEnvironment()
    env.watchers = [eye, _] = [Eye(), Eye()]
    env._show_new_game()
    env.act(1)
    env._show()
    assert (eye.games, len(eye.pictures)) == (1, 2)
    assert [picture[0, 0, 0] for picture in eye.pictures] == [0, 1]
