"""Averages of two frames' colours are those of the emulator."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
import pytest

from fakes import ale, emulator
from simple_dqn.games import averaging

FIRE = 1  # in Breakout's minimal action set


@pytest.mark.parametrize(
    ("game", "settings"),
    [
        ("breakout", {}),
        ("breakout", dict(frame_skip=7, repeat_action_probability=0.25)),
        ("qbert", dict(frame_skip=1)),
        ("fishing_derby", dict(frame_skip=2)),  # nearly every pixel changes now and then
        ("pooyan", {}),  # 220 lines
        ("klax", {}),  # PAL, with other colours
        ("berzerk", {}),  # plays steps within a reset
        ("tic_tac_toe_3d", {}),  # thinks without a new frame
    ],
)
def test_averages_are_the_emulators_game_after_game(game: str, settings: dict[str, Any]) -> None:
    """The first screen, and the one of a game that ends within a step, included."""
    env, twin = ale(game, **settings), emulator(game, **settings)
    env.mode = "test"
    actions = twin.getMinimalActionSet()
    games = ended = 0
    np.testing.assert_array_equal(env.screen(), cv2.resize(twin.getScreenGrayscale(), (84, 84)))
    for step in range(400):
        action = FIRE if step % 3 else step % len(actions)
        assert env.act(action) == twin.act(actions[action])
        np.testing.assert_array_equal(env.screen(), cv2.resize(twin.getScreenGrayscale(), (84, 84)))
        ended += env.is_terminal()
        if env.is_terminal() or step % 150 == 149:
            games += 1
            env.restart()
            twin.reset_game()
            np.testing.assert_array_equal(env.screen(), cv2.resize(twin.getScreenGrayscale(), (84, 84)))
    assert games >= 2
    assert ended >= (game == "breakout")


def test_averages_of_two_colours() -> None:
    """Against the rule, spelled out; the colours are learned from games' screens."""
    palette: dict[int, list[int]] = {}
    for game in ("breakout", "seaquest", "qbert", "montezuma_revenge"):
        indexes, picture = (read().reshape(210 * 160, -1) for read in _readers(emulator(game, color_averaging=False)))
        palette |= {int(index): picture[(indexes == index).argmax()].tolist() for index in np.unique(indexes)}
    assert len(palette) >= 10

    def grey(color: list[int]) -> int:
        return round(0.2989 * color[0] + 0.5870 * color[1] + 0.1140 * color[2])

    every = [color.tolist() for color in averaging._PALETTE]
    for one in palette:
        assert palette[one] == every[one // 2]
        for other in palette:
            mixed = [
                (min(pair) + (max(pair) - min(pair)) * 77 // 100) // 4 * 4
                for pair in zip(palette[one], palette[other], strict=True)
            ]
            closest = min(every, key=lambda color: sum(abs(a - b) for a, b in zip(color, mixed, strict=True)))
            assert averaging.grey_averages()[one, other] == grey(closest)


def _readers(interface: Any) -> list[Any]:
    return [interface.getScreen, interface.getScreenRGB]
