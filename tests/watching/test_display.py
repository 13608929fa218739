"""What all displays share, and which of them shows a game."""

from __future__ import annotations

import sys
from typing import Any

import numpy as np
import pytest

from simple_dqn.errors import GameError
from simple_dqn.watching.display import QScale, block, least_height, shortened
from simple_dqn.watching.make import ViewerOptions, make_display, title
from simple_dqn.watching.terminal import Terminal


@pytest.mark.parametrize(
    ("room", "line"),
    [
        (99, "PAUSED · agent · score 7 · h: help  q: quit"),
        (33, "PAUSED · agent · h: help  q: quit"),
        (32, "PAUSED · h: help  q: quit"),
        (20, "h: help  q: quit"),
        (5, "h: help  q: quit"),
    ],
)
def test_a_short_line_still_shows_how_to_quit(room: int, line: str) -> None:
    assert shortened(("PAUSED", "agent", "score 7", "h: help  q: quit"), lambda line: len(line) <= room) == line


def test_bars_are_as_long_as_q_values_are_large() -> None:
    scale = QScale().including(np.array([-1.0, 3.0, np.nan, np.inf])).including(np.array([2.0]))
    assert scale == (-1, 3)
    assert [scale.bar(q) for q in (0, 1, 2, 3, -1)] == [(0.25, 0.25), (0.25, 0.5), (0.25, 0.75), (0.25, 1), (0, 0.25)]
    assert [scale.bar(q) for q in (np.nan, np.inf)] == [(0.25, 0.25)] * 2
    assert QScale().bar(0) == (0, 0)


@pytest.mark.parametrize(("height", "size"), [(1, (2, 1)), (2, (4, 2)), (3, (5, 3)), (4, (7, 4))])
def test_a_pixel_becomes_a_block(height: int, size: tuple[int, int]) -> None:
    assert block(1.75, height) == size
    assert block(1.0, height) == (height, height)


@pytest.mark.parametrize(("pixel_width", "height", "least"), [(1.75, 3, 3), (1.75, 2, 1), (1.75, 8, 4), (1.0, 3, 1)])
def test_the_smallest_block_of_the_same_shape(pixel_width: float, height: int, least: int) -> None:
    assert least_height(pixel_width, height) == least


@pytest.fixture
def no_display(monkeypatch: pytest.MonkeyPatch) -> None:
    import pygame

    pygame.display.quit()  # because pygame looks for no driver if an environment of Gymnasium has left one open
    for name in ("DISPLAY", "WAYLAND_DISPLAY", "SDL_VIDEODRIVER"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(sys, "platform", "linux")


@pytest.mark.usefixtures("no_display")
@pytest.mark.parametrize(
    ("display_screen", "variables", "shown"),
    [
        (False, {}, False),
        (True, {}, True),
        ("terminal", {}, True),
        (True, dict(SDL_VIDEODRIVER="nonsense"), True),
        (True, dict(DISPLAY=":54321"), True),  # a display that does not exist, for which SDL would draw invisibly
    ],
)
def test_the_terminal_shows_games_if_there_is_no_display(
    display_screen: Any, variables: dict[str, str], shown: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(Terminal, "is_possible", lambda: True)
    assert isinstance(make_display(ViewerOptions(display_screen=display_screen)), Terminal if shown else type(None))


@pytest.mark.usefixtures("no_display")
@pytest.mark.parametrize(
    ("display_screen", "text"),
    [
        (True, r"no display here \(neither DISPLAY nor WAYLAND_DISPLAY is set\), and no text terminal either"),
        ("terminal", "standard input and output are not a terminal"),
    ],
)
def test_nowhere_to_show_games(display_screen: Any, text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Terminal, "is_possible", lambda: False)
    with pytest.raises(GameError, match=text):
        make_display(ViewerOptions(display_screen=display_screen))


@pytest.mark.parametrize(
    ("game", "shown"),
    [
        ("pong", "Pong - Simple DQN"),
        ("roms/space_invaders.bin", "Space Invaders - Simple DQN"),
        ("ALE/Breakout-v5", "Breakout - Simple DQN"),
        ("my_pkg.envs:ns/CartPole-v1", "CartPole - Simple DQN"),
        ("", "Simple DQN"),
    ],
)
def test_the_title_of_a_window_names_the_game(game: str, shown: str) -> None:
    assert title(game) == shown
