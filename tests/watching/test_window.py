"""The window: its pictures, its size and place, its keys."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import pygame
import pytest

from fakes import PONG, SEAQUEST, make_decision, make_scene
from simple_dqn.watching.display import BLUE, HELP, ORANGE, Card
from simple_dqn.watching.painter import bar_height, fitted_size, panel_width
from simple_dqn.watching.window import Window


@pytest.fixture
def window(monkeypatch: pytest.MonkeyPatch) -> Iterator[Window]:
    monkeypatch.setenv("SDL_VIDEODRIVER", "dummy")
    monkeypatch.setenv("SDL_AUDIODRIVER", "dummy")
    made = Window()
    monkeypatch.setattr(pygame.display, "get_desktop_sizes", lambda: [(1920, 1080)])
    yield made
    made.close()


def pixels(window: Window) -> Any:
    return pygame.surfarray.array3d(window._screen).transpose(1, 0, 2)  # (height, width, 3)


def resize(window: Window, size: tuple[int, int]) -> None:
    pygame.display.set_mode(size, pygame.RESIZABLE)
    pygame.event.clear()
    window._painter = None


def test_window_shows_every_pixel_as_a_crisp_block(window: Window) -> None:
    scene = make_scene()
    window.draw(scene)
    assert pixels(window).shape == (659, 800, 3)
    np.testing.assert_array_equal(pixels(window)[:630], scene.picture.repeat(3, axis=0).repeat(5, axis=1))


def test_window_makes_room_for_decision_and_help(window: Window) -> None:
    scene, decision = make_scene(), make_decision()
    window.draw(scene)
    window.draw(scene._replace(decision=decision, help=HELP))
    picture = pixels(window)
    assert picture.shape == (659, 1162, 3)
    np.testing.assert_array_equal(picture[:60, :800], scene.picture.repeat(3, axis=0).repeat(5, axis=1)[:60])
    assert (picture[:, 800:] == 77).all(axis=2).sum() in [4 * side**2 for side in range(130, 180)]
    window.draw(scene)
    assert pixels(window).shape == (659, 800, 3)
    for inside in (scene, scene._replace(decision=decision), scene):  # what the full screen showed last
        window.toggle_fullscreen()
        window.draw(inside)
        window.toggle_fullscreen()
        window.draw(inside)
        assert pixels(window).shape == (659, 1162 if inside.decision else 800, 3)


@pytest.mark.parametrize("names", [PONG, SEAQUEST * 2])
@pytest.mark.parametrize("screen", [(3840, 2160), (1920, 1080), (1280, 800), (1024, 768), (800, 600), (320, 240)])
def test_window_fits_the_screen_and_keeps_its_place(
    screen: tuple[int, int], names: list[str], window: Window, monkeypatch: pytest.MonkeyPatch
) -> None:
    display = pygame.display
    monkeypatch.setattr(display, "get_desktop_sizes", lambda: [screen])
    set_mode = display.set_mode

    def moved_by_its_frame(*how: Any) -> Any:
        left, top = display.get_window_position()
        made = set_mode(*how)
        display.set_window_position((left + 1, top + 20))
        return made

    def inside() -> tuple[int, int]:
        (left, top), (width, height) = display.get_window_position(), display.get_window_size()
        assert 0 <= left <= left + width <= screen[0]
        assert 0 <= top <= top + height <= screen[1] - 20
        return left, top

    scene = make_scene()
    with_panel = scene._replace(decision=make_decision(names))
    window.draw(scene)
    size = display.get_window_size()
    display.set_window_position(((screen[0] - size[0]) // 2, 24))
    place = inside()
    monkeypatch.setattr(display, "set_mode", moved_by_its_frame)
    for _ in range(3):
        window.draw(with_panel)
        assert inside()[1] == place[1]
        assert display.get_window_size()[0] == min(size[0] + panel_width(size[1]), screen[0] - 16)
        window.draw(scene)
        assert (inside(), display.get_window_size()) == (place, size)
        window.toggle_fullscreen()
        window.draw(with_panel)
        window.toggle_fullscreen()
        window.draw(scene)
        assert (inside(), display.get_window_size()) == (place, size)
    window.draw(with_panel)
    display.set_window_position((0, 26))  # by hand
    window.draw(scene)
    assert inside() == (0, 26)
    window.draw(with_panel)
    display.set_mode((200, 100), 0)  # by hand
    window.draw(scene)
    assert display.get_window_size() == (200, 100)


@pytest.mark.parametrize("size", [(800, 658), (1920, 1080), (300, 200), (320, 30), (1, 1)])
def test_window_draws_only_what_changed(size: tuple[int, int], window: Window, monkeypatch: pytest.MonkeyPatch) -> None:
    """And shows the same as if it drew everything."""
    scene = make_scene(status=("score 0", "h: help"))
    window.draw(scene)
    resize(window, size)
    window.draw(scene)
    drawn: list[pygame.Rect] = []
    whole = pygame.Rect(0, 0, *size)
    monkeypatch.setattr(pygame.display, "update", drawn.extend)
    monkeypatch.setattr(pygame.display, "flip", lambda: drawn.append(whole))
    other = scene.picture.copy()
    other[7:9, 80:], other[100:103, 5] = 255, 0
    for now in (scene._replace(picture=other), scene, scene._replace(status=("score 1", "h: help")), scene):
        drawn.clear()
        window.draw(now)
        picture, share = pixels(window), sum(rect.width * rect.height for rect in drawn) / (size[0] * size[1])
        assert share < 0.1 or size[1] < 400
        window._painter = None
        window.draw(now)
        np.testing.assert_array_equal(pixels(window), picture)
    drawn.clear()
    window.draw(scene)
    assert drawn == []
    pygame.event.post(pygame.event.Event(pygame.WINDOWEXPOSED))  # another window lay over it
    assert list(window.pressed()) == []
    window.draw(scene)
    assert drawn == [whole]


@pytest.mark.parametrize("size", [(304, 192), (640, 448), (150, 100)])
def test_the_decision_does_not_cover_the_status_in_a_small_window(size: tuple[int, int], window: Window) -> None:
    scene = make_scene(status=("h: help  q: quit",))
    bars = []
    for decision in (None, make_decision([f"ACTION{n}" for n in range(18)], 12)):
        window.draw(scene._replace(decision=decision))
        resize(window, size)
        window.draw(scene._replace(decision=decision))
        bars.append(pixels(window)[-bar_height(*size) :])
    np.testing.assert_array_equal(*bars)
    assert (
        (pixels(window)[: -bar_height(*size)] == BLUE).all(axis=2).any()
    )  # the chosen action, a random one, is among those shown


@pytest.mark.parametrize("worst", [np.nan, np.inf, -np.inf])
def test_the_decision_of_a_network_that_diverged_is_shown(worst: float, window: Window) -> None:
    window.draw(make_scene(decision=make_decision(worst=worst)))
    assert (pixels(window) == ORANGE).all(axis=2).any()  # the chosen action


def test_window_has_room_for_the_screens_beside_18_actions(window: Window) -> None:
    window.draw(make_scene(decision=make_decision([str(n) for n in range(18)])))
    assert (pixels(window)[:630, 800:] == 77).all(axis=2).sum() > 4 * 80**2


@pytest.mark.parametrize("users", [None, "1"])
def test_window_needs_no_opengl_on_x11(users: str | None, window: Window, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a GPU that takes 20 times as long. A value that the user has set is kept."""
    monkeypatch.setenv("SDL_FRAMEBUFFER_ACCELERATION", users or "")  # so that it is restored after the test
    if users is None:
        monkeypatch.delenv("SDL_FRAMEBUFFER_ACCELERATION")
    monkeypatch.setattr(pygame.display, "get_driver", lambda: "x11")
    monkeypatch.setattr(pygame.display, "get_wm_info", lambda: {"display": None})
    window.draw(make_scene())
    assert os.environ["SDL_FRAMEBUFFER_ACCELERATION"] == (users or "0")


@pytest.mark.parametrize(("size", "pages"), [((800, 658), 1), ((304, 192), 1), ((240, 120), 2)])
def test_all_of_the_help_can_be_read(size: tuple[int, int], pages: int, window: Window) -> None:
    scene = make_scene(np.full((210, 160, 3), 200, np.uint8))
    window.draw(scene)
    resize(window, size)
    help: Sequence[tuple[str, str]] = HELP
    count = 0
    while help:
        count += 1
        window.draw(scene._replace(help=help))
        inked = (pixels(window)[: size[1] - bar_height(*size)] > 210).all(axis=2)  # only letters are as bright
        lines = np.flatnonzero(np.diff(inked.any(axis=1), prepend=False, append=False)).reshape(-1, 2)
        assert len(lines) >= window.help_page_length(help)
        assert not np.concatenate([inked[0], inked[-1], inked[:, 0], inked[:, -1]]).any()  # no letter is cut
        help = help[window.help_page_length(help) :]
    assert count == pages


TWO_SCORES = Card(
    [("you", "-13"), ("agent", "6")], [("steps", "1856"), ("best so far", "7 (this game)"), ("q", "quit")]
)


@pytest.mark.parametrize("size", [(3824, 1888), (1920, 1080), (800, 658), (304, 192)])
@pytest.mark.parametrize("panel", [False, True])
def test_the_scores_of_a_card_are_the_largest_text_of_the_window(
    panel: bool, size: tuple[int, int], window: Window
) -> None:
    scene = make_scene(np.zeros((210, 160, 3), np.uint8), decision=make_decision() if panel else None)
    window.draw(scene)
    resize(window, size)
    window.draw(scene._replace(card=TWO_SCORES))
    room = size[0] - (min(panel_width(size[1]), size[0] // 2) if panel else 0)
    heights = []
    for colour in (BLUE, ORANGE):
        inked = (pixels(window)[: size[1] - bar_height(*size), :room] == colour).all(axis=2)
        lines = np.flatnonzero(np.diff(inked.any(axis=1), prepend=False, append=False)).reshape(-1, 2)
        heights.append((lines[-1, 1] - lines[-1, 0]) / size[1])
    assert min(heights) > 0.12  # of the window
    inked = (pixels(window)[: size[1] - bar_height(*size), :room] > 200).all(axis=2)  # the other lines
    assert len(np.flatnonzero(np.diff(inked.any(axis=1), prepend=False, append=False))) // 2 >= len(TWO_SCORES.lines)
    assert not np.concatenate([inked[0], inked[-1], inked[:, 0], inked[:, -1]]).any()  # no letter is cut


def test_help_covers_a_card(window: Window) -> None:
    scene = make_scene(help=HELP)
    window.draw(scene)
    before = pixels(window)
    window.draw(scene._replace(card=TWO_SCORES))
    np.testing.assert_array_equal(pixels(window), before)


def test_window_keys(window: Window) -> None:
    assert list(window.pressed()) == []
    window.draw(make_scene())
    pygame.event.clear()
    for key, text in (
        (pygame.K_UP, ""),
        (pygame.K_SPACE, " "),
        (pygame.K_m, "M"),
        (pygame.K_ESCAPE, "\x1b"),
        (pygame.K_8, "["),  # as on German keyboards
    ):
        pygame.event.post(pygame.event.Event(pygame.KEYDOWN, key=key, unicode=text, mod=0))
    pygame.event.post(pygame.event.Event(pygame.QUIT))
    assert list(window.pressed()) == ["up", "space", "m", "escape", "[", "q"]
    assert window.held() == set()


def test_sound_that_would_come_too_late_is_dropped(window: Window) -> None:
    for _ in range(20):
        window.play(np.full(512, 200, np.uint8), 60)
    assert window._speaker
    assert 0 < window._speaker.waiting <= 6 * 512


@pytest.mark.parametrize(
    ("width", "height", "size"),
    [(800, 630, (800, 630)), (1300, 900, (1120, 840)), (700, 1000, (640, 420)), (200, 200, (200, 150)), (1, 1, (1, 1))],
)
def test_picture_fits(width: int, height: int, size: tuple[int, int]) -> None:
    assert fitted_size(210, 160, 1.75, width, height) == pytest.approx(size, abs=1)
