"""One game that never ends: what is made, how episodes start and end, and what is refused."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fakes import Abandons, FakeEnvironment, side_by_side
from simple_dqn.environment import ABANDONED, TERMINATED, TRUNCATED, EnvironmentOptions
from simple_dqn.errors import GameError
from simple_dqn.games.game import make_environment

SRC = Path(__file__).resolve().parents[2] / "src"


@pytest.mark.parametrize(
    ("game", "options", "noop"),
    [
        ("breakout", {}, 0),
        ("backgammon", {}, None),  # whose action 0 is FIRE, as is that of video_checkers
        ("video_checkers", {}, None),
        ("backgammon", dict(minimal_action_set=False), 0),
        ("CartPole-v1", dict(environment="gym"), None),
        ("ALE/Breakout-v5", dict(environment="gym"), 0),
        ("ALE/Backgammon-v5", dict(environment="gym"), None),
    ],
)
def test_which_action_is_a_no_op(game: str, options: dict[str, Any], noop: int | None) -> None:
    assert make_environment(EnvironmentOptions(game=game, **options), 1).noop == noop


def test_actions_by_name_may_have_the_no_op_elsewhere_or_nowhere() -> None:
    options = EnvironmentOptions(game="pong")
    assert make_environment(options, 1, actions=["RIGHT", "NOOP"]).noop == 1
    assert make_environment(options, 1, actions=["RIGHT", "LEFT"]).noop is None


def test_no_output_of_the_emulator(tmp_path: Path) -> None:
    """It greets on standard error, and pygame on standard output: neither belongs in the log of a training."""
    program = (
        "from simple_dqn.environment import EnvironmentOptions\nfrom simple_dqn.games.game import make_environment\n"
        "for game, kind in (('pong', 'ale'), ('CartPole-v1', 'gym')):\n"
        "    env = make_environment(EnvironmentOptions(game=game, environment=kind), 1)\n"
        "    env.restart(), env.screen()\n"
    )
    variables = {name: value for name, value in os.environ.items() if name not in ("DISPLAY", "XDG_RUNTIME_DIR")}
    result = subprocess.run(
        [sys.executable, "-c", program],
        env=variables | {"PYTHONPATH": str(SRC)},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert (result.returncode, result.stderr) == (0, "")


@pytest.mark.parametrize("how", ["terminal", "cut", "given up", "a new phase"])
@pytest.mark.parametrize("noops", [0, 1])
def test_a_state_holds_no_screens_of_the_episode_before(how: str, noops: int) -> None:
    environment = FakeEnvironment(episode=99 if how in ("given up", "a new phase") else 3)
    environment.cut_short = how == "cut"
    if how == "given up":
        environment.watchers = [Abandons(3)]
    made = side_by_side([environment], 4, (4, 5), noops, np.random.default_rng(1))
    made.begin("test", new_episode=True)
    for _ in range(3 - noops * (how in ("terminal", "cut"))):  # a no-op is part of the episode
        assert not made.arrays.ends[0]
        made.start([1])
        made.finish()
    if how == "a new phase":
        made.begin("test", new_episode=True)
    else:
        assert made.arrays.ends[0] == {"terminal": TERMINATED, "cut": TRUNCATED, "given up": ABANDONED}[how]
    last = environment.frame - noops  # the number of the last screen before the new episode
    assert made.arrays.states[0][:, 0, 0].tolist() == [last] * (4 - noops) + [last + 1] * noops


@pytest.mark.parametrize("screen", [np.zeros((4, 6), np.uint8), np.zeros((4, 5)), np.zeros(5, np.uint8)])
def test_screens_that_are_not_what_was_promised(screen: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(FakeEnvironment, "screen", lambda _: screen)
    made = side_by_side([FakeEnvironment()], 4, (4, 5), 0, np.random.default_rng(1))
    with pytest.raises(GameError, match=r"The game's screens are .* of shape \(.*\), not uint8 of \(4, 5\)"):
        made.begin("train", new_episode=False)


@pytest.mark.parametrize("reward", [float("nan"), float("-inf")])
def test_rewards_that_are_no_numbers(reward: float, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(FakeEnvironment, "act", lambda *_: reward)
    made = side_by_side([FakeEnvironment()], 4, (4, 5), 0, np.random.default_rng(1))
    made.begin("train", new_episode=False)
    made.start([1])
    with pytest.raises(GameError, match=f"The game's reward is {reward}"):
        made.finish()


def test_no_game_is_played_on_after_its_end_because_the_mode_changed(monkeypatch: pytest.MonkeyPatch) -> None:
    """What ends an episode in training may not end one in a test, which may stop just there."""
    monkeypatch.setattr(FakeEnvironment, "is_terminal", lambda env: env.mode == "train" and env.time >= env.episode)
    environment = FakeEnvironment(episode=2)
    made = side_by_side([environment], 4, (4, 5), 0, np.random.default_rng(1))
    made.begin("test", new_episode=True)
    for _ in range(3):
        made.start([1])
        made.finish()
    made.begin("train", new_episode=False)
    assert environment.tape == [("restart", "test"), *[("act", 1)] * 3, ("restart", "train")]
