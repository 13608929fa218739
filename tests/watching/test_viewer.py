"""Watching: what keys do, and what the window and the terminal show."""

from __future__ import annotations

import fcntl
import os
import pty
import re
import select
import signal
import struct
import subprocess
import sys
import termios
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fakes import FakeEnvironment, make_agent, step
from simple_dqn.environment import Sound
from simple_dqn.errors import GameError
from simple_dqn.saving.snapshot import Layer
from simple_dqn.watching import terminal
from simple_dqn.watching.display import HELP, Decision, Scene, shortened
from simple_dqn.watching.make import ViewerOptions, make_display
from simple_dqn.watching.terminal import Terminal, blocks, changes, keys
from simple_dqn.watching.viewer import Saliency, Viewer, joystick, overlaid

PONG = ["NOOP", "FIRE", "RIGHT", "LEFT", "RIGHTFIRE", "LEFTFIRE"]
SEAQUEST = ["NOOP", "FIRE", "UP", "RIGHT", "LEFT", "DOWN", "UPRIGHT", "UPRIGHTFIRE", "DOWNFIRE"]


class FakeDisplay:
    """Keeps what it receives. `script` has the keys that each call of `pressed` returns."""

    def __init__(self, script: dict[int, str | list[str]] | None = None) -> None:
        self.script = script or {}
        self.looks = 0
        self.typed: list[str] = []  # to be pressed at the next look
        self.scenes: list[Scene] = []
        self.sounds: list[Sound] = []
        self.down: set[str] = set()
        self.unused_keys: set[str] = set()
        self.room = 99  # lines of help
        self.fullscreen = self.closed = 0

    def draw(self, scene: Scene) -> None:
        self.scenes.append(scene)

    def play(self, sound: Sound, frames_per_second: float) -> None:
        self.sounds.append(sound)

    def pressed(self) -> list[str]:
        self.looks += 1
        typed, self.typed = self.typed, []
        return [*typed, *self.script.get(self.looks, [])]

    def held(self) -> set[str]:
        return self.down

    def help_page_length(self, help: Sequence[tuple[str, str]]) -> int:
        return min(self.room, len(help))

    def toggle_fullscreen(self) -> None:
        self.fullscreen += 1

    def status(self) -> str:
        return "  ".join(self.scenes[-1].status)

    def close(self) -> None:
        self.closed += 1


class Loud(FakeEnvironment):
    """Has a sound: 128 + 100."""

    lives = 3

    @property
    def action_names(self) -> list[str]:
        return ["NOOP", "RIGHT", "LEFT"]

    def sound(self) -> Sound:
        return np.full(8, 228, np.uint8)


class Time:
    """A clock that only `sleep` moves."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds


def watch(display: FakeDisplay) -> tuple[Viewer, Time]:
    time = Time()
    seen = Viewer(display, time, time.sleep)
    seen.meet(Loud())
    return seen, time


# Keys


@pytest.mark.parametrize(
    ("names", "held", "action"),
    [
        (PONG, {"right"}, "RIGHT"),
        (PONG, {"up"}, "RIGHT"),
        (PONG, {"down", "space"}, "LEFTFIRE"),
        (PONG, {"left", "right"}, "NOOP"),
        (PONG, {"left", "up"}, "LEFT"),
        (PONG, {"space"}, "FIRE"),
        (PONG, set(), "NOOP"),
        (PONG, {"4"}, "RIGHTFIRE"),
        (PONG, {"9"}, "NOOP"),
        (SEAQUEST, {"up"}, "UP"),
        (SEAQUEST, {"up", "right", "space"}, "UPRIGHTFIRE"),
        (SEAQUEST, {"down", "space"}, "DOWNFIRE"),
        (SEAQUEST, {"down", "left"}, "LEFT"),
        (["NOOP", "RIGHT", "LEFT"], {"right", "space"}, "RIGHT"),
    ],
)
def test_joystick(names: list[str], held: set[str], action: str) -> None:
    assert joystick(held, names) == names.index(action)


def test_a_human_takes_over_and_gives_back() -> None:
    display = FakeDisplay()
    seen, _ = watch(display)
    env = Loud()
    assert seen.steer(1) == 1
    display.down = {"right"}
    display.typed = ["m", "left"]
    seen.on_frame(env)
    assert display.status().startswith("YOU  score 0  lives 3")
    assert seen.steer(0) == 0  # left and right at once are neither
    assert seen.steer(0) == 1  # held on
    seen.on_frame(env)
    display.down = set()
    assert seen.steer(1) == 0
    display.typed = ["m"]
    seen.on_frame(env)
    assert seen.steer(1) == 1
    assert display.status().startswith("agent  ")


def test_speed() -> None:
    display = FakeDisplay()
    seen, time = watch(display)
    seen.on_frame(Loud())
    for typed, shown, frames in (("", "1x", 60), ("a", "1/2x", 120), ("ss", "2x", 30), ("s" * 20, "max", 0)):
        display.typed = list(typed)
        start = time.now
        for _ in range(60):
            seen.on_frame(Loud())
        assert f"speed {shown} " in display.status()
        assert (time.now - start) * 60 == pytest.approx(frames, abs=0.5)


def test_a_slow_machine_skips_long_delays() -> None:
    seen, time = watch(FakeDisplay())
    seen.on_frame(Loud())
    time.now += 5
    start = time.now
    for _ in range(61):
        seen.on_frame(Loud())
    assert time.now - start == pytest.approx(1, abs=0.01)


def test_every_frame_is_shown_at_the_natural_speed_with_its_sound() -> None:
    display = FakeDisplay()
    seen, _ = watch(display)
    env = Loud()
    for frame, typed in enumerate(("", "[[[[[", "[[[[[[[", "]", "a"), 1):  # silent at volume 0, and when slow
        env.frame = frame
        display.typed = list(typed)
        seen.on_frame(env)
    assert [int(scene.picture[0, 0, 0]) for scene in display.scenes] == [1, 2, 3, 4, 5]
    assert [int(sound[0]) for sound in display.sounds] == [228, 178, 138]


def test_pause_step_and_go_on() -> None:
    display = FakeDisplay({2: "p", 40: "n", 80: "p"})
    seen, _ = watch(display)
    env, looks = Loud(), []
    for _ in range(4):
        seen.steer(0)
        for _ in range(2):
            seen.on_frame(env)
        looks.append(display.looks)
    assert looks[0] == 40  # paused in the first step until n
    assert looks[1] >= 80  # which plays this one step, and stops before the next until p
    assert looks[3] - looks[1] < 10
    assert any("PAUSED" in scene.status for scene in display.scenes)
    assert "PAUSED" not in display.scenes[-1].status


def test_restart_help_fullscreen_and_quit() -> None:
    display = FakeDisplay({1: ["r", "h", "f"], 3: "h", 4: "q"})
    seen, _ = watch(display)
    agent = make_agent([Loud()])
    seen.attach(agent)
    seen.on_frame(Loud())
    assert [seen.wants_restart(), seen.wants_restart()] == [True, False]
    assert dict(display.scenes[-1].help)["m"] == "take over, give back"
    assert display.fullscreen == 1
    for _ in range(3):
        seen.on_frame(Loud())
    assert not display.scenes[-1].help
    assert (seen.quit, agent.interrupted) == (True, True)
    seen.close()
    assert display.closed == 1


def test_a_hang_up_interrupts_but_the_user_did_not_quit() -> None:
    seen, _ = watch(FakeDisplay({1: ["hangup"]}))
    agent = make_agent([Loud()])
    seen.attach(agent)
    seen.on_frame(Loud())
    assert (seen.quit, agent.interrupted) == (False, True)


def test_a_pause_ends_with_ctrl_c() -> None:
    display = FakeDisplay({1: "p"})
    seen, time = watch(display)
    agent = make_agent([Loud()])
    seen.attach(agent)
    sleep = time.sleep

    def interrupted(seconds: float) -> None:
        sleep(seconds)
        agent.interrupted = time.now > 1

    seen._sleep = interrupted
    seen.on_frame(Loud())
    assert time.now < 1.1


def test_status() -> None:
    display = FakeDisplay()
    seen, _ = watch(display)
    for played in (step(2), step(5, game=1), step(1.5)):
        seen.on_step(played)
    seen.on_frame(Loud())
    assert display.status() == "agent  score 3.5  lives 3  speed 1x  ε 0.50  h: help  q: quit"
    seen.on_step(step(1, truncated=True))
    seen.on_frame(Loud())
    assert "score 0  " in display.status()


def test_a_large_score_has_all_its_digits() -> None:
    display = FakeDisplay()
    seen, _ = watch(display)
    for reward in (1234567, 0.1, 0.2):
        seen.on_step(step(reward))
    seen.on_frame(Loud())
    assert "score 1234567.3  " in display.status()


def test_a_short_line_still_shows_how_to_quit() -> None:
    status = ("PAUSED", "agent", "score 7", "h: help  q: quit")

    def line(room: int) -> str:
        return shortened(status, lambda line: len(line) <= room)

    assert line(99) == "PAUSED  agent  score 7  h: help  q: quit"
    assert line(31) == "PAUSED  agent  h: help  q: quit"
    assert line(30) == "PAUSED  h: help  q: quit"
    assert line(20) == line(5) == "h: help  q: quit"


def test_help_has_as_many_pages_as_it_needs() -> None:
    display = FakeDisplay()
    display.room = 5
    seen, _ = watch(display)
    pages: list[tuple[str, str]] = []
    hints = []
    for _ in range(4):
        display.typed = ["h"]
        seen.on_frame(Loud())
        pages += display.scenes[-1].help[:5]
        hints.append(display.scenes[-1].status[-1])
    assert pages == list(HELP)
    assert hints == ["h: more  q: quit", "h: more  q: quit", "h: close  q: quit", "h: help  q: quit"]


def test_keys_that_do_nothing_are_not_offered_and_do_nothing() -> None:
    display = FakeDisplay()
    display.unused_keys = {"f"}
    mute = FakeEnvironment()
    mute.names = ["0", "1", "2"]
    for env, missing in ((Loud(), {"f"}), (mute, {"f", "[, ]", "arrows, space"})):
        seen, _ = watch(display)
        seen.meet(env)
        display.typed = ["f", "[", "h"]
        seen.on_frame(env)
        offered = {keys for keys, _ in display.scenes[-1].help}
        assert {keys for keys, _ in HELP} - offered == missing
        assert ("volume 9" in display.status()) == ("[, ]" in offered)
    assert display.fullscreen == 0


# The agent's decision


def test_decision() -> None:
    display = FakeDisplay()
    display.typed = ["v"]
    seen, _ = watch(display)
    agent = make_agent([Loud()])
    agent.games.begin("test", new_episode=True)
    seen.attach(agent, lambda decision: np.ones(decision.state.shape[1:]))
    env = Loud()
    env.frame = 200
    seen.on_frame(env)
    seen.steer(1)
    seen.on_frame(env)
    scene = display.scenes[-1]
    assert scene.decision
    assert (list(scene.decision.action_names), scene.decision.q_values.tolist(), scene.decision.action) == (
        ["NOOP", "RIGHT", "LEFT"],
        [0, 1, 2],
        1,
    )
    assert scene.decision.state.shape == (2, 4, 5)
    assert scene.picture[0, 0].tolist() == [255, 140, 0]  # all of it counts
    display.typed = ["v"]
    seen.on_frame(env)
    assert (display.scenes[-1].decision, display.scenes[-1].picture[0, 0].tolist()) == (None, [200, 200, 200])


def test_decision_during_a_pause() -> None:
    """It is shown at once, not after the next step."""
    display = FakeDisplay({2: "p", 20: "v", 40: "p"})
    seen, _ = watch(display)
    agent = make_agent([Loud()])
    agent.games.begin("test", new_episode=True)
    seen.attach(agent)
    seen.steer(2)
    for _ in range(3):
        seen.on_frame(Loud())
    paused = [scene for scene in display.scenes if "PAUSED" in scene.status]
    assert [scene.decision and scene.decision.action for scene in (paused[0], paused[-1])] == [None, 2]


def test_saliency_is_that_of_the_chosen_action_and_of_the_network_as_it_is() -> None:
    from simple_dqn.deepqnetwork import BackendOptions, DeepQNetwork, DeepQNetworkOptions

    networks = [
        DeepQNetwork(3, (4, 84, 84), DeepQNetworkOptions(), BackendOptions(backend="cpu"), seed) for seed in (1, 2)
    ]
    version = [0]
    explain = Saliency(lambda: networks[version[0]].layers(), lambda: version[0])
    state = np.random.default_rng(0).integers(256, size=(4, 84, 84), dtype=np.uint8)
    heats = [explain(Decision(["a", "b", "c"], np.zeros(3), chosen, state)) for chosen in (0, 1)]
    for heat in heats:
        assert heat.shape == (84, 84)
        assert heat.min() >= 0
        assert heat.max() == 1
    assert not np.array_equal(heats[0], heats[1])
    version[0] = 1
    assert not np.array_equal(explain(Decision(["a", "b", "c"], np.zeros(3), 0, state)), heats[0])


def test_a_layer_that_saliency_cannot_explain_is_named_in_the_log_and_the_game_continues(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level("INFO")
    display = FakeDisplay()
    seen, _ = watch(display)
    agent = make_agent([Loud()])
    agent.games.begin("test", new_episode=True)
    noisy = Layer("Noisy", {}, {"W": np.zeros((3, 4)), "sigma": np.zeros((3, 4))}, [])
    seen.attach(agent, Saliency(lambda: [noisy], lambda: 0))
    for typed in ("v", "", "v"):
        display.typed = list(typed)
        seen.on_frame(Loud())
        seen.steer(1)
    assert "no saliency for this network (see the log)" in display.scenes[1].status
    assert display.scenes[1].decision
    assert "no saliency" not in display.status()
    assert caplog.text.count("cannot explain a Noisy with W, sigma") == 1


def test_what_is_hot_is_orange_and_the_rest_dark() -> None:
    picture = np.full((4, 6, 3), 100, np.uint8)
    mixed = overlaid(picture, np.array([[1.0, 0.0], [0.0, 0.0]]))
    assert mixed[0, 0].tolist() == [255, 140, 0]
    assert mixed[-1, -1].tolist() == [60, 60, 60]


# The window


@pytest.fixture
def window(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    monkeypatch.setenv("SDL_VIDEODRIVER", "dummy")
    monkeypatch.setenv("SDL_AUDIODRIVER", "dummy")
    import pygame

    from simple_dqn.watching.window import Window

    made = Window()
    monkeypatch.setattr(pygame.display, "get_desktop_sizes", lambda: [(1920, 1080)])
    yield made
    made.close()


def scene(picture: Any = None, **parts: Any) -> Scene:
    picture = np.random.default_rng(0).integers(256, size=(210, 160, 3), dtype=np.uint8) if picture is None else picture
    return Scene(
        *{**dict(picture=picture, pixel_width=1.75, status=("h: help",), help=(), decision=None), **parts}.values()
    )


def shown(window: Any) -> Any:
    import pygame

    return pygame.surfarray.array3d(window._screen).transpose(1, 0, 2)  # (height, width, 3)


def test_window_shows_every_pixel_as_a_crisp_block(window: Any) -> None:
    one = scene()
    window.draw(one)
    assert shown(window).shape == (630 + 28, 800, 3)
    np.testing.assert_array_equal(shown(window)[:630], one.picture.repeat(3, axis=0).repeat(5, axis=1))


def test_window_makes_room_for_decision_and_help(window: Any) -> None:
    one = scene()
    window.draw(one)
    decision = Decision(PONG, np.arange(6.0), 5, np.full((4, 84, 84), 77, np.uint8))
    window.draw(one._replace(decision=decision, help=HELP))
    picture = shown(window)
    assert picture.shape == (658, 1100, 3)
    np.testing.assert_array_equal(picture[:60, :800], one.picture.repeat(3, axis=0).repeat(5, axis=1)[:60])
    assert (picture[:, 800:] == 77).all(axis=2).sum() == 4 * 138**2
    window.draw(one)
    assert shown(window).shape == (658, 800, 3)
    for inside in (one, one._replace(decision=decision), one):  # what the full screen showed last
        window.toggle_fullscreen()
        window.draw(inside)
        window.toggle_fullscreen()
        window.draw(inside)
        assert shown(window).shape == (658, 1100 if inside.decision else 800, 3)


@pytest.mark.parametrize("names", [PONG, SEAQUEST * 2])
@pytest.mark.parametrize("screen", [(3840, 2160), (1920, 1080), (1280, 800), (1024, 768), (800, 600), (320, 240)])
def test_window_fits_the_screen_and_keeps_its_place(
    screen: tuple[int, int], names: list[str], window: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    from pygame import display

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

    one = scene()
    window.draw(one)
    size = display.get_window_size()
    display.set_window_position(((screen[0] - size[0]) // 2, 24))
    place = inside()
    monkeypatch.setattr(display, "set_mode", moved_by_its_frame)
    panel_shown = one._replace(
        decision=Decision(names, np.arange(float(len(names))), 5, np.zeros((4, 84, 84), np.uint8))
    )
    for _ in range(3):
        window.draw(panel_shown)
        assert inside()[1] == place[1]
        assert display.get_window_size()[0] == min(size[0] + 300, screen[0] - 16)
        window.draw(one)
        assert (inside(), display.get_window_size()) == (place, size)
        window.toggle_fullscreen()
        window.draw(panel_shown)
        window.toggle_fullscreen()
        window.draw(one)
        assert (inside(), display.get_window_size()) == (place, size)
    window.draw(panel_shown)
    display.set_window_position((0, 26))  # by hand
    window.draw(one)
    assert inside() == (0, 26)
    window.draw(panel_shown)
    display.set_mode((200, 100), 0)  # by hand
    window.draw(one)
    assert display.get_window_size() == (200, 100)


@pytest.mark.parametrize("size", [(800, 658), (1920, 1080), (300, 200), (320, 30), (1, 1)])
def test_window_draws_only_what_changed(size: tuple[int, int], window: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """And shows the same as if it drew everything."""
    import pygame

    window.draw(scene())
    pygame.display.set_mode(size, pygame.RESIZABLE)
    pygame.event.clear()
    window._drawn = None
    one = scene(status=("score 0", "h: help"))
    window.draw(one)
    drawn: list[pygame.Rect] = []
    monkeypatch.setattr(pygame.display, "update", drawn.extend)
    monkeypatch.setattr(pygame.display, "flip", lambda: drawn.append(pygame.Rect(0, 0, *size)))
    two = one.picture.copy()
    two[7:9, 80:], two[100:103, 5] = 255, 0
    for now in (one._replace(picture=two), one, one._replace(status=("score 1", "h: help")), one):
        drawn.clear()
        window.draw(now)
        picture, share = shown(window), sum(rect.width * rect.height for rect in drawn) / (size[0] * size[1])
        assert share < 0.1 or size[1] < 400
        window._drawn = None
        window.draw(now)
        np.testing.assert_array_equal(shown(window), picture)
    drawn.clear()
    window.draw(one)
    assert drawn == []
    pygame.event.post(pygame.event.Event(pygame.WINDOWEXPOSED))  # another window lay over it
    assert list(window.pressed()) == []
    window.draw(one)
    assert drawn == [pygame.Rect(0, 0, *size)]


@pytest.mark.parametrize("size", [(304, 192), (640, 448), (150, 100)])
def test_the_decision_does_not_cover_the_status_in_a_small_window(size: tuple[int, int], window: Any) -> None:
    import pygame

    one = scene(status=("h: help  q: quit",))
    window.draw(one)
    decision = Decision([f"ACTION{n}" for n in range(18)], np.arange(18.0), 12, np.zeros((4, 84, 84), np.uint8))
    bars = []
    for now in (one, one._replace(decision=decision)):
        window.draw(now)
        pygame.display.set_mode(size, pygame.RESIZABLE)
        window._drawn = None
        window.draw(now)
        bars.append(shown(window)[-28:])
    np.testing.assert_array_equal(*bars)
    assert (shown(window)[:-28] == (255, 170, 60)).all(axis=2).any()  # the chosen action is among those shown


@pytest.mark.parametrize(("set_to", "kept"), [(None, "0"), ("1", "1")])
def test_window_needs_no_opengl_on_x11(
    set_to: str | None, kept: str, window: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without a GPU that takes 20 times as long. A value that the user has set is kept."""
    import pygame

    monkeypatch.setenv("SDL_FRAMEBUFFER_ACCELERATION", set_to or "")  # to be as before afterwards
    if set_to is None:
        monkeypatch.delenv("SDL_FRAMEBUFFER_ACCELERATION")
    monkeypatch.setattr(pygame.display, "get_driver", lambda: "x11")
    monkeypatch.setattr(pygame.display, "get_wm_info", lambda: {"display": None})
    window.draw(scene())
    assert os.environ["SDL_FRAMEBUFFER_ACCELERATION"] == kept


@pytest.mark.parametrize(("size", "pages"), [((800, 658), 1), ((304, 192), 1), ((240, 120), 2)])
def test_all_of_the_help_can_be_read(size: tuple[int, int], pages: int, window: Any) -> None:
    import pygame

    one = scene(np.full((210, 160, 3), 200, np.uint8))
    window.draw(one)
    pygame.display.set_mode(size, pygame.RESIZABLE)
    help: Sequence[tuple[str, str]] = HELP
    count = 0
    while help:
        count += 1
        window.draw(one._replace(help=help))
        inked = (shown(window)[: size[1] - 28] > 210).all(axis=2)  # only letters are as bright
        lines = np.flatnonzero(np.diff(inked.any(axis=1), prepend=False, append=False)).reshape(-1, 2)
        assert len(lines) >= window.help_page_length(help)
        assert not inked[0].any()
        assert not inked[-1].any()
        assert not inked[:, 0].any()
        assert not inked[:, -1].any()
        help = help[window.help_page_length(help) :]
    assert count == pages


def test_window_has_room_for_the_screens_beside_18_actions(window: Any) -> None:
    decision = Decision([str(n) for n in range(18)], np.arange(18.0), 5, np.full((4, 84, 84), 77, np.uint8))
    window.draw(scene()._replace(decision=decision))
    assert (shown(window)[:630, 800:] == 77).all(axis=2).sum() > 4 * 84**2


def test_window_keys(window: Any) -> None:
    import pygame

    assert list(window.pressed()) == []
    window.draw(scene())
    pygame.event.clear()
    for key, text in ((pygame.K_UP, ""), (pygame.K_SPACE, " "), (pygame.K_m, "M"), (pygame.K_ESCAPE, "\x1b")):
        pygame.event.post(pygame.event.Event(pygame.KEYDOWN, key=key, unicode=text, mod=0))
    pygame.event.post(pygame.event.Event(pygame.KEYDOWN, key=pygame.K_8, unicode="[", mod=0))  # as on German keyboards
    pygame.event.post(pygame.event.Event(pygame.QUIT))
    assert list(window.pressed()) == ["up", "space", "m", "escape", "[", "q"]
    assert window.held() == set()


def test_sound_that_would_come_too_late_is_dropped(window: Any) -> None:
    window.draw(scene())
    for _ in range(20):
        window.play(np.full(512, 200, np.uint8), 60)
    assert 0 < window._speaker.waiting <= 6 * 512


def speak(program: str, **variables: str) -> None:
    """Runs a program that has a class Speaker, with a time limit: a deadlock heeds no signal."""
    program = f"""
import os, time
import numpy as np
from simple_dqn.watching.speaker import Speaker
{program}
"""
    variables = os.environ | {"PYTHONPATH": str(Path(terminal.__file__).parents[2])} | variables
    subprocess.run([sys.executable, "-c", program], env=variables, check=True, capture_output=True, timeout=60)


def test_sounds_follow_each_other_without_a_gap(tmp_path: Path) -> None:
    program = """
speaker = Speaker(512, 30720)
for loudness in (200, 201, 202):
    speaker.play(np.full(512, loudness, np.uint8))
while speaker.waiting:
    time.sleep(0.01)
speaker.close()
"""
    file = tmp_path / "sound"
    speak(program, SDL_AUDIODRIVER="disk", SDL_DISKAUDIOFILE=str(file), SDL_DISKAUDIODELAY="1")
    heard = file.read_bytes()
    assert heard.strip(b"\x80") == b"".join(bytes([loudness]) * 512 for loudness in (200, 201, 202))


def test_the_sound_device_closes_while_python_is_busy() -> None:
    """SDL's thread must not wait for Python's lock then, which the main thread has."""
    program = """
import sys
sys.setswitchinterval(100)
for _ in range(3):
    speaker = Speaker(512, 30720)
    end = time.monotonic() + 0.1
    while time.monotonic() < end:
        pass
    speaker.close()
"""
    speak(program, SDL_AUDIODRIVER="dummy")


@pytest.mark.parametrize(
    ("width", "height", "size"),
    [(800, 630, (800, 630)), (1300, 900, (1120, 840)), (700, 1000, (640, 420)), (200, 200, (200, 150)), (1, 1, (1, 1))],
)
def test_picture_fits(width: int, height: int, size: tuple[int, int]) -> None:
    from simple_dqn.watching.window import fitted_size

    assert fitted_size(210, 160, 1.75, width, height) == pytest.approx(size, abs=1)


# The terminal


def test_keys_of_a_terminal() -> None:
    typed = b"m \x1b[A\x1bOB\x1b[C\x1b[D[]Q\x1b[1;2Pn\x1b"
    assert list(keys(typed)) == ["m", "space", "up", "down", "right", "left", "[", "]", "q", "n", "escape"]
    assert list(keys("ä\x01".encode())) == []


def test_blocks_fill_the_terminal_in_the_games_shape() -> None:
    assert blocks(np.zeros((210, 160, 3), np.uint8), 1.75, 80, 21).shape == (21, 56, 2, 3)
    assert blocks(np.zeros((210, 160, 3), np.uint8), 1.75, 40, 50).shape == (15, 40, 2, 3)
    assert blocks(np.zeros((210, 160, 3), np.uint8), 1.75, 1, 1).shape == (1, 1, 2, 3)


def test_only_what_changed_is_written() -> None:
    cells = np.zeros((2, 3, 2, 3), np.uint8)
    black, red = "\x1b[38;2;0;0;0;48;2;0;0;0m", "\x1b[38;2;255;0;0;48;2;0;0;0m"
    assert changes(cells, None, True) == f"\x1b[1;1H{black}▀▀▀\x1b[2;1H{black}▀▀▀"
    other = cells.copy()
    other[1, 2, 0, 0] = 255  # the upper half
    assert changes(other, cells, True) == f"\x1b[2;3H{red}▀"
    assert changes(other, cells, False) == "\x1b[2;3H\x1b[38;5;196;48;5;16m▀"
    assert changes(other, other, True) == ""


@pytest.mark.parametrize(
    ("colour", "number"),
    [((255, 255, 255), 231), ((0, 0, 0), 16), ((128, 128, 128), 244), ((0, 255, 0), 46), ((144, 72, 17), 94)],
)
def test_colours_of_a_plain_terminal(colour: tuple[int, int, int], number: int) -> None:
    assert terminal._of_256(*colour) == number


@pytest.fixture
def tty() -> Iterator[Callable[[pytest.MonkeyPatch], int]]:
    """Makes standard input and output a terminal of 20x8; returns its other end."""
    there, here = pty.openpty()
    fcntl.ioctl(here, termios.TIOCSWINSZ, struct.pack("HHHH", 8, 20, 0, 0))
    raw = open(here, "r+b", buffering=0)  # noqa: SIM115  (closed below)

    def take(monkeypatch: pytest.MonkeyPatch) -> int:
        monkeypatch.setattr(sys, "stdin", raw)
        monkeypatch.setattr(sys, "stdout", raw)
        monkeypatch.setenv("COLORTERM", "truecolor")
        monkeypatch.setenv("TERM", "xterm")
        return there

    yield take
    raw.close()
    os.close(there)


def said(there: int) -> str:
    """What came through the terminal: it may take its time, and come in pieces."""
    text = b""
    while select.select([there], [], [], 2 if not text else 0.2)[0]:
        text += os.read(there, 1 << 16)
    return text.decode()


def test_terminal_is_taken_over_and_given_back(tty: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    there = tty(monkeypatch)
    monkeypatch.setattr(terminal, "_INTERVAL", 0)
    before = termios.tcgetattr(there)
    shown = Terminal()
    picture = np.zeros((4, 8, 3), np.uint8)
    shown.draw(scene(picture, pixel_width=1.0, status=("agent", "score 12345", "h: help")))
    text = said(there)
    assert text.startswith("\r\x1b[K\x1b[?1049h\x1b[?25l\x1b[2J")  # the progress bar is not to be seen afterwards
    assert "\x1b[7;8r" in text  # the log scrolls in the last two lines
    assert text.count("▀") == 20 * 5
    assert "\x1b[6;1H\x1b[0m\x1b[Kagent  h: help\x1b8" in text  # what there is room for
    shown.draw(scene(picture, pixel_width=1.0, status=("agent",)))
    assert "▀" not in said(there)
    os.write(there, b"p\x1b[A")
    assert list(shown.pressed()) == ["p", "up"]
    assert "up" in shown.held()
    decision = Decision(PONG, np.arange(6.0), 4, np.zeros((4, 84, 84), np.uint8))
    shown.draw(scene(picture, pixel_width=1.0, decision=decision))
    assert re.search(r"\x1b\[2;1H FIRE        1.000 ", said(there))
    shown.close()
    assert said(there) == "\x1b[r\x1b[0m\x1b[?25h\x1b[?1049l"
    assert termios.tcgetattr(there) == before


def test_terminal_is_given_back_while_the_program_is_stopped(tty: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ctrl-Z, and fg."""
    there = tty(monkeypatch)
    monkeypatch.setattr(terminal, "_INTERVAL", 0)
    before, handler = termios.tcgetattr(there), signal.getsignal(signal.SIGTSTP)
    shown = Terminal()
    picture = scene(np.zeros((4, 8, 3), np.uint8), pixel_width=1.0)
    shown.draw(picture)
    said(there)
    stops: list[Any] = []
    monkeypatch.setattr(os, "kill", lambda *what: stops.append((what, said(there), termios.tcgetattr(there) == before)))
    signal.raise_signal(signal.SIGTSTP)
    assert stops == [((os.getpid(), signal.SIGSTOP), "\x1b[r\x1b[0m\x1b[?25h\x1b[?1049l", True)]
    assert said(there) == "\r\x1b[K\x1b[?1049h\x1b[?25l\x1b[2J"
    shown.draw(picture)
    assert said(there).count("▀") == 20 * 5
    shown.close()
    assert signal.getsignal(signal.SIGTSTP) == handler


@pytest.mark.parametrize("noticed", ["while drawing", "while reading keys"])
def test_a_closed_terminal_is_reported(noticed: str, monkeypatch: pytest.MonkeyPatch) -> None:
    there, here = pty.openpty()
    monkeypatch.setattr(terminal, "_INTERVAL", 0)
    with open(here, "r+b", buffering=0) as raw:
        monkeypatch.setattr(sys, "stdin", raw)
        monkeypatch.setattr(sys, "stdout", raw)
        shown = Terminal()
        picture = scene(np.zeros((4, 8, 3), np.uint8), pixel_width=1.0)
        shown.draw(picture)
        assert list(shown.pressed()) == []
        os.close(there)
        if noticed == "while drawing":
            shown.draw(picture)
        assert list(shown.pressed()) == list(shown.pressed()) == ["hangup"]
        shown.draw(picture)
        shown.close()


class Page:
    """What a terminal shows after what was written to it."""

    def __init__(self, columns: int, lines: int) -> None:
        self.columns, self.lines = columns, lines
        self.cells = [[" "] * columns for _ in range(lines)]
        self.row = self.column = 0
        self.kept = self.other = (0, 0, self.cells)

    def write(self, text: str) -> None:
        for code, arguments, letter, character in re.findall(r"\x1b(\[\??([0-9;]*)([A-Za-z])|[78])|([^\x1b])", text):
            if character == "\r":
                self.column = 0
            elif character == "\n":
                self.row, self.column = self.row + 1, 0
            elif character:
                if self.column == self.columns:
                    self.row, self.column = self.row + 1, 0
                self.cells[self.row][self.column] = character
                self.column += 1
            elif code == "7":
                self.kept = self.row, self.column, self.cells
            elif code == "8":
                self.row, self.column, _ = self.kept
            elif letter == "H":
                self.row, self.column = (int(number) - 1 for number in arguments.split(";"))
            elif letter == "K":
                column = min(self.column, self.columns - 1)
                self.cells[self.row][column:] = " " * (self.columns - column)
            elif code == "[2J":
                self.cells[:] = [[" "] * self.columns for _ in range(self.lines)]
            elif code == "[?1049h":
                self.other = self.row, self.column, self.cells
                self.cells = [[" "] * self.columns for _ in range(self.lines)]
            elif code == "[?1049l":
                self.row, self.column, self.cells = self.other

    def text(self) -> list[str]:
        return ["".join(line).rstrip() for line in self.cells]


def paged(monkeypatch: pytest.MonkeyPatch, columns: int, lines: int) -> tuple[Terminal, Page]:
    """A terminal of this size, and what it shows."""
    shown, page = Terminal(), Page(columns, lines)
    monkeypatch.setattr(terminal, "_INTERVAL", 0)
    monkeypatch.setattr(os, "get_terminal_size", lambda _: os.terminal_size((columns, lines)))
    monkeypatch.setattr(shown, "_open", lambda: None)
    monkeypatch.setattr(shown, "_write", page.write)
    return shown, page


@pytest.mark.parametrize("size", [(80, 24), (40, 12), (20, 6), (200, 60), (37, 5)])
def test_a_terminal_of_any_size_shows_all_of_the_help_and_how_to_quit(
    size: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    shown, page = paged(monkeypatch, *size)
    status = ("agent", "score 12", "lives 3", "speed 1x", "ε 0.05", "h: more  q: quit")
    one = scene(status=status)
    shown.draw(one)
    help: Sequence[tuple[str, str]] = HELP
    words: list[str] = []
    while help:
        shown.draw(one._replace(help=help))
        assert page.text()[size[1] - 3].endswith("h: more  q: quit")
        count = shown.help_page_length(help)
        words += " ".join(page.text()[: size[1] - 3]).replace("▀", "").replace(":", "").split()
        help = help[count:]
    assert words == " ".join(f"{keys} {text}" for keys, text in HELP).split()


def test_nothing_is_left_of_the_help_or_of_the_decision_in_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    shown, page = paged(monkeypatch, 80, 24)
    decision = Decision(PONG, np.arange(6.0), 5, np.zeros((4, 84, 84), np.uint8))
    one = scene()
    shown.draw(one)
    bare = page.text()
    for now in (one._replace(help=HELP), one._replace(decision=decision), one._replace(help=HELP[:1]), one):
        shown.draw(now)
        left_over = page.text()
        monkeypatch.setattr(shown, "_cells", None)  # all is drawn
        shown.draw(now)
        assert left_over == page.text()
    assert page.text() == bare


def test_what_follows_a_game_in_a_terminal_has_a_line_of_its_own(tty: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    there, page = tty(monkeypatch), Page(20, 8)
    sys.stdout.write(b"play: 0step [00:00]")  # type: ignore[arg-type]  # the progress bar, which has no end of line
    shown = Terminal()
    shown.draw(scene(np.zeros((4, 8, 3), np.uint8)))
    shown.close()
    sys.stdout.write(b"num_games: 1")  # type: ignore[arg-type]
    page.write(said(there))
    assert page.text()[0] == "num_games: 1"


def test_q_values_in_a_terminal() -> None:
    decision = Decision(["NOOP", "RIGHTFIRE"], np.array([-1.0, 0.25]), 1, np.zeros((4, 84, 84), np.uint8))
    assert terminal.q_value_lines(decision, 2) == [" NOOP       -1.000 █    ", ">RIGHTFIRE   0.250 █████"]
    assert terminal.q_value_lines(decision, 1) == [">RIGHTFIRE   0.250 █████"]  # the chosen action


@pytest.mark.parametrize("worst", [np.nan, np.inf, -np.inf])
def test_the_decision_of_a_network_that_diverged_is_shown(worst: float, window: Any) -> None:
    decision = Decision(PONG, np.array([worst, 1, 2, 3, 4, 5], np.float32), 5, np.full((4, 84, 84), 77, np.uint8))
    window.draw(scene(decision=decision))
    assert (shown(window) == (255, 170, 60)).all(axis=2).any()  # the chosen action
    assert terminal.q_value_lines(decision, 6)[5] == ">LEFTFIRE    5.000 █████"


# Where


def test_where_games_are_shown(tty: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    import pygame

    pygame.display.quit()  # an environment of Gymnasium may have left it open, and then no driver is looked for
    tty(monkeypatch)
    for name in ("DISPLAY", "WAYLAND_DISPLAY", "SDL_VIDEODRIVER"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(sys, "platform", "linux")
    assert make_display(ViewerOptions()) is None
    assert isinstance(make_display(ViewerOptions(display_screen=True)), Terminal)
    assert isinstance(make_display(ViewerOptions(display_screen="terminal")), Terminal)
    monkeypatch.setenv("SDL_VIDEODRIVER", "nonsense")
    assert isinstance(make_display(ViewerOptions(display_screen=True)), Terminal)
    monkeypatch.delenv("SDL_VIDEODRIVER")
    monkeypatch.setenv("DISPLAY", ":77")  # a display that does not exist, for which SDL would draw invisibly
    assert isinstance(make_display(ViewerOptions(display_screen=True)), Terminal)


def test_nowhere_to_show_games(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("DISPLAY", "WAYLAND_DISPLAY", "SDL_VIDEODRIVER"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.setattr(sys, "stdin", Path("/dev/null").open())  # noqa: SIM115
    with pytest.raises(GameError, match=r"there is no display here .*, and no text terminal either"):
        make_display(ViewerOptions(display_screen=True))
    with pytest.raises(GameError, match="standard input and output are no terminal"):
        make_display(ViewerOptions(display_screen="terminal"))
    sys.stdin.close()
