"""Games: what the agent sees of them and when an episode ends, on the ROMs that ship with ale-py."""

from __future__ import annotations

import hashlib
import math
import os
import subprocess
import sys
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import ale_py
import cv2
import gymnasium
import numpy as np
import pytest
from gymnasium.spaces import Box, Discrete

from simple_dqn.environment import (
    ALEEnvironment,
    Environment,
    EnvironmentOptions,
    GymEnvironment,
    Mode,
    Watcher,
    _tell_of_stop,
    make_environment,
)
from simple_dqn.errors import GameError
from simple_dqn.games import averaging, gymnasium_games
from simple_dqn.games.roms import find_rom, game_of, same_game
from simple_dqn.saving.snapshot import plain_bytes, plain_value

ROOT = Path(__file__).resolve().parent.parent
NEON = ROOT.parent / "shared" / "reference" / "neon"
FIRE, RIGHT, LEFT = 1, 2, 3  # in Breakout's minimal action set


def ale(game: str = "breakout", seed: int = 1, **options: Any) -> ALEEnvironment:
    env = make_environment(EnvironmentOptions(game=game, **options), seed)
    assert isinstance(env, ALEEnvironment)
    env.restart()
    return env


def emulator(game: str = "breakout", seed: int = 1, **settings: Any) -> Any:
    """The emulator itself, as the environment should set it up."""
    ale_py.ALEInterface.setLoggerMode(ale_py.LoggerMode.Error)
    interface = ale_py.ALEInterface()
    interface.setInt("random_seed", seed)
    interface.setInt("frame_skip", settings.get("frame_skip", 4))
    interface.setFloat("repeat_action_probability", settings.get("repeat_action_probability", 0.0))
    interface.setBool("color_averaging", settings.get("color_averaging", True))
    interface.loadROM(find_rom(game))
    interface.reset_game()
    return interface


# What the agent sees


@pytest.mark.parametrize(
    ("game", "size", "settings"),
    [
        ("breakout", (84, 84), {}),
        ("pong", (84, 84), dict(frame_skip=1, color_averaging=False)),
        ("space_invaders", (100, 60), dict(frame_skip=3)),
        ("breakout", (60, 100), dict(color_averaging=False)),
        ("seaquest", (84, 84), dict(repeat_action_probability=0.25)),
    ],
)
def test_screens_are_the_emulators_resized(game: str, size: tuple[int, int], settings: dict[str, Any]) -> None:
    env = ale(game, screen_width=size[0], screen_height=size[1], **settings)
    twin = emulator(game, **settings)
    actions = twin.getMinimalActionSet()
    rng = np.random.default_rng(0)
    seen = []
    for _ in range(60):
        action = int(rng.integers(env.num_actions))
        assert env.act(action) == twin.act(actions[action])
        screen = env.screen()
        assert screen.dtype == np.uint8
        assert screen.shape == (size[1], size[0])
        np.testing.assert_array_equal(screen, cv2.resize(twin.getScreenGrayscale(), size))
        seen.append(screen)
    assert not (seen[0] == seen[-1]).all()
    assert not np.shares_memory(seen[0], seen[-1])  # a screen stays as it was when it was taken


def test_colour_averaging_shows_what_moves_in_two_places() -> None:
    whole = dict(frame_skip=1, screen_width=160, screen_height=210)
    mixed, plain = (ale("breakout", color_averaging=averaging, **whole) for averaging in (True, False))
    before = plain.screen()
    frames_with_ghosts = 0
    for step in range(30):
        for env in (mixed, plain):
            env.act(RIGHT if step else FIRE)
        now, averaged = plain.screen(), mixed.screen()
        changed = before != now
        assert (averaged == now)[~changed].all()
        frames_with_ghosts += bool((averaged != now)[changed].any())
        before = now
    assert frames_with_ghosts > 10


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


def test_action_sets() -> None:
    assert ale("breakout").action_names == ["NOOP", "FIRE", "RIGHT", "LEFT"]
    full = ale("breakout", minimal_action_set=False)
    assert full.num_actions == len(full.action_names) == 18
    assert full.action_names[:2] == ["NOOP", "FIRE"]
    assert full.act(17) == 0


@pytest.mark.parametrize("name", ["traj_breakout_alepy0121", "traj_pong_ale060"])
def test_trajectories_recorded_elsewhere(name: str) -> None:
    if not (NEON / f"{name}.npz").exists():
        pytest.skip(f"{NEON} with the recorded trajectories is not here")
    with np.load(NEON / f"{name}.npz") as recorded:
        told = {key: recorded[key] for key in ("action_index", "action_set", "rewards", "lives", "game_over")}
        hashes, screens = recorded["resized_sha1"].tolist(), recorded["resized_first200"]
    env = ale(name.split("_")[1], seed=123)
    env.mode = "test"
    codes = [action.value for action in env._actions]
    for step in range(1000):
        assert env.act(codes.index(told["action_set"][told["action_index"][step]])) == told["rewards"][step]
        assert env._ale.lives() == told["lives"][step]
        assert env.is_terminal() == told["game_over"][step]
        assert hashlib.sha1(env.screen().tobytes()).hexdigest().encode() == hashes[step]
        if step < len(screens):
            np.testing.assert_array_equal(env.screen(), screens[step])
        if env.is_terminal():
            env.restart()


# When an episode ends


def play(env: ALEEnvironment, lives: int) -> None:
    """Serves, and stands still, until `lives` are left."""
    for _ in range(2000):
        if env._ale.lives() == lives:
            return
        env.act(FIRE)
        if env.is_terminal() and env._ale.lives() != lives:
            env.restart()
    raise AssertionError("Breakout went on and on")


def frames_played(env: ALEEnvironment) -> int:
    """Since the game began."""
    return int(env._ale.getEpisodeFrameNumber())


def test_lost_life_ends_an_episode_in_training_but_the_game_goes_on() -> None:
    env = ale()
    play(env, lives=4)
    assert env.is_terminal()
    assert not env.truncated
    played = frames_played(env)
    env.restart()
    assert not env.is_terminal()
    assert (env._ale.lives(), frames_played(env)) == (4, played)


def test_lost_life_ends_nothing_in_testing() -> None:
    env = ale()
    env.mode = "test"
    play(env, lives=3)
    assert not env.is_terminal()
    env.restart()  # and a test begins with a game of its own
    assert (env._ale.lives(), frames_played(env)) == (5, 0)


def test_life_lost_in_testing_does_not_end_the_training_that_follows() -> None:
    env = ale()
    env.mode = "test"
    play(env, lives=4)
    env.act(0)
    env.mode = "train"
    env.act(0)
    assert not env.is_terminal()
    env.restart()  # a restart in mid-game resets
    assert frames_played(env) == 0


def test_restart_in_mid_game_resets() -> None:
    env = ale()
    fresh = env.screen()
    for action in (FIRE, RIGHT, RIGHT, RIGHT):
        env.act(action)
    assert (env.screen() != fresh).any()
    env.restart()
    assert frames_played(env) == 0
    np.testing.assert_array_equal(env.screen(), fresh)


@pytest.mark.parametrize("mode", ["train", "test"])
def test_game_over_ends_an_episode_and_restart_resets(mode: Any) -> None:
    env = ale()
    env.mode = mode
    play(env, lives=0)
    assert env.is_terminal()
    env.restart()
    assert not env.is_terminal()
    assert (env._ale.lives(), frames_played(env)) == (5, 0)


# Sticky actions


def test_sticky_actions_are_those_of_the_seed() -> None:
    def trace(seed: int, probability: float) -> list[bytes]:
        env = ale(seed=seed, repeat_action_probability=probability)
        trace = []
        for step in range(60):
            env.act((FIRE, RIGHT, LEFT)[step % 3])
            trace.append(env.screen().tobytes())
        return trace

    assert trace(1, 0.5) == trace(1, 0.5)
    assert trace(1, 0.5) != trace(2, 0.5)
    assert trace(1, 0.0) == trace(2, 0.0)


# ROMs


def test_rom_that_is_a_file(tmp_path: Path) -> None:
    rom = tmp_path / "My Game.BIN"
    rom.write_bytes(Path(str(ale_py.roms.get_rom_path("pong"))).read_bytes())
    assert find_rom(str(rom)) == rom
    assert ale(str(rom)).num_actions == 6


@pytest.mark.parametrize(
    "game", ["breakout", "Breakout", "roms/breakout.bin", "no/such/folder/BREAKOUT.ROM", "./breakout.a26"]
)
def test_rom_that_ships_with_ale_py(game: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert find_rom(game) == Path(str(ale_py.roms.get_rom_path("breakout")))


@pytest.mark.parametrize("game", ["space_invaders", "space-invaders", "Space Invaders", "roms/Space_Invaders.bin"])
def test_rom_of_two_words(game: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert find_rom(game).stem == "space_invaders"


@pytest.mark.parametrize(
    ("game", "words"),
    [
        ("brekout", r"^there is no game brekout: did you mean breakout\?$"),
        ("montezuma", r"did you mean montezuma_revenge\?$"),
        (
            "roms/spaceinvaders.bin",
            r"^there is no file roms/spaceinvaders.bin, and ale-py has no game spaceinvaders: did you mean space_inv",
        ),
        ("roms/doom.bin", "^there is no file roms/doom.bin, and ale-py has no game doom: name a ROM file, or a game"),
        ("my_game.bin", "^there is no file my_game.bin, and ale-py has no game my_game: name a ROM file, or a game"),
        ("Breakout-v5", "^there is no game Breakout-v5: for Gymnasium's ALE/Breakout-v5 add --environment gym$"),
        ("cartpole", "for Gymnasium's CartPole-v1 add --environment gym$"),
        ("my_pkg.envs:A-v0", "for Gymnasium's my_pkg.envs:A-v0 add --environment gym$"),
        ("0", "^there is no game 0: name a ROM file, or a game such as breakout, pong or space_invaders$"),
    ],
)
def test_unknown_game(game: str, words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(GameError, match=words):
        find_rom(game)


BAD_ROMS = {
    "empty": (b"", "is empty"),
    "text": (b"this is no game\n" * 20, "is not an Atari 2600 game that the emulator knows"),
    "random": (np.random.default_rng(0).bytes(4096), "4096 bytes.: remove it to play the breakout that ships"),
}


@pytest.mark.parametrize("kind", BAD_ROMS)
def test_file_that_is_no_rom(kind: str, tmp_path: Path) -> None:
    content, words = BAD_ROMS[kind]
    rom = tmp_path / "breakout.bin"
    rom.write_bytes(content)
    with pytest.raises(GameError, match=words):
        make_environment(EnvironmentOptions(game=str(rom)), seed=1)
    assert rom.read_bytes() == content
    if kind == "random":
        other = rom.rename(tmp_path / "unheard of.bin")
        with pytest.raises(GameError, match=r"4096 bytes\)$"):
            find_rom(str(other))


def test_folder_or_pipe_is_no_rom(tmp_path: Path) -> None:
    with pytest.raises(GameError, match="is a folder"):
        find_rom(str(tmp_path))
    os.mkfifo(tmp_path / "breakout.bin")
    with pytest.raises(GameError, match="is no file"):
        find_rom(str(tmp_path / "breakout.bin"))


# No-ops


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


# Watching and limits


class Eye(Watcher):
    """Keeps what it sees and hears."""

    def __init__(self) -> None:
        self.pictures: list[Any] = []
        self.sounds: list[Any] = []
        self.games = 0

    def on_game(self) -> None:
        self.games += 1

    def on_frame(self, environment: Environment) -> None:
        self.pictures.append(environment.picture())
        self.sounds.append(environment.sound())


def test_a_watcher_sees_every_frame_and_changes_nothing() -> None:
    eye = Eye()
    options = EnvironmentOptions(game="pong", repeat_action_probability=0.25)
    watched, still = make_environment(options, 1, [eye]), make_environment(options, 1)
    twin = emulator("pong", frame_skip=1, repeat_action_probability=0.25)
    for environment in (watched, still):
        environment.restart()
    np.testing.assert_array_equal(eye.pictures[0], twin.getScreenRGB())
    assert (eye.sounds[0] == 128).all()  # nothing has sounded yet
    rng = np.random.default_rng(0)
    for action in rng.integers(still.num_actions, size=60).tolist():
        assert watched.act(action) == still.act(action)
        np.testing.assert_array_equal(watched.screen(), still.screen())
        for picture in eye.pictures[-4:]:
            twin.act(twin.getMinimalActionSet()[action])
            np.testing.assert_array_equal(picture, twin.getScreenRGB())
    assert (len(eye.pictures), eye.games) == (1 + 60 * 4, 1)
    assert {sound.shape for sound in eye.sounds} == {(512,)}


def test_a_watched_game_that_ends_within_a_step_changes_nothing_in_the_next() -> None:
    """Sticky actions are drawn at random, for the frames that a step has left, too."""
    options = EnvironmentOptions(game="breakout", repeat_action_probability=0.25, frame_skip=7)
    watched, still = make_environment(options, 1, [Eye()]), make_environment(options, 1)
    for environment in (watched, still):
        environment.mode = "test"
        environment.restart()
    rng = np.random.default_rng(0)
    games = 0
    for action in rng.integers(still.num_actions, size=700).tolist():
        assert watched.act(action) == still.act(action)
        np.testing.assert_array_equal(watched.screen(), still.screen())
        if still.is_terminal():
            games += 1
            watched.restart()
            still.restart()
    assert games > 2


def test_a_life_lost_between_frames_counts_for_who_is_watched() -> None:
    told: list[list[tuple[bool, int]]] = []
    for watchers in ([Eye()], []):
        env = make_environment(EnvironmentOptions(game="breakout"), 1, watchers)
        env.restart()
        told.append([])
        for _ in range(200):
            env.act(FIRE)
            told[-1].append((env.is_terminal(), env.lives))
            if env.is_terminal():
                env.restart()
    assert told[0] == told[1]
    assert sum(ended for ended, _ in told[0]) == 8
    assert {lives for _, lives in told[0]} == {0, 1, 2, 3, 4, 5}


@pytest.mark.parametrize("watched", [True, False])
def test_games_of_limited_time(watched: bool) -> None:
    env = make_environment(EnvironmentOptions(game="pong", max_game_seconds=1.5), 1, [Eye()] if watched else [])
    env.mode = "test"
    for _ in range(2):
        env.restart()
        steps = 0
        while not env.is_terminal():
            assert not env.truncated
            env.act(0)
            steps += 1
        assert (steps * 4 in (88, 92), env.truncated) == (True, True)  # 90 frames


def test_an_end_at_the_time_limit_is_an_end() -> None:
    """A life lost with the last frame that there is time for."""

    def until_the_end(seconds: float) -> tuple[ALEEnvironment, int]:
        env = ALEEnvironment(EnvironmentOptions(game="breakout", max_game_seconds=seconds), 1)
        env.restart()
        steps = 0
        while not env.is_terminal():
            env.act(1)
            steps += 1
        return env, steps

    env, steps = until_the_end(0)
    assert not env.truncated
    for limit, truncated in ((4 * steps, False), (4 * steps - 4, True)):
        env, _ = until_the_end(limit / 60)
        assert (env._ale.game_truncated(), env.truncated) == (True, truncated)


def test_a_game_has_108_000_frames_by_default() -> None:
    """30 minutes at 60 frames a second (Machado et al. 2018), in the emulator and in Gymnasium's Atari games."""
    for options, frames in (({}, 108_000), (dict(max_game_seconds=0), 0), (dict(max_game_seconds=7200), 432_000)):
        assert ale("pong", **options)._ale.getInt("max_num_frames_per_episode") == frames
    env = gym("ALE/Breakout-v5")
    env._steps = 26_998  # of 4 frames
    env.act(0)
    assert not env.is_terminal()
    env.act(0)
    assert (env.is_terminal(), env.truncated) == (True, True)


@pytest.mark.parametrize("watched", [True, False])
@pytest.mark.parametrize("mode", ["train", "test"])
@pytest.mark.parametrize(
    ("game", "clock"),
    [
        ("breakout", {91: 255}),  # the high byte of a count of frames, which ends the game when it overflows
        ("pitfall", {88: 0, 89: 3}),  # minutes and seconds left
    ],
)
def test_a_game_that_stopped_with_lives_left_is_cut_and_begins_again(
    game: str, clock: dict[int, int], mode: Mode, watched: bool, caplog: pytest.LogCaptureFixture
) -> None:
    _tell_of_stop.cache_clear()
    env = make_environment(EnvironmentOptions(game=game, max_game_seconds=0), 1, [Eye()] if watched else [])
    assert isinstance(env, ALEEnvironment)
    env.mode = mode
    for _ in range(2):
        env.restart()
        lives = env.lives
        env.act(0)
        for byte, value in clock.items():
            env._ale.setRAM(byte, value)
        steps = 1
        while not env.is_terminal():
            assert steps < 200, f"{game} stands still for ever"
            env.act((RIGHT, LEFT)[steps % 2] if game == "breakout" else 0)
            steps += 1
        assert (env.truncated, env.lives) == (True, lives)
    env.restart()
    assert (env.is_terminal(), env.truncated, frames_played(env)) == (False, False, 0)
    assert caplog.text.count(f"{game} stopped") == 1


def test_a_time_limit_shorter_than_a_frame_is_one() -> None:
    env = make_environment(EnvironmentOptions(game="pong", max_game_seconds=0.001), 1)
    env.mode = "test"
    env.restart()
    env.act(0)
    assert env.truncated


def test_no_output_of_the_emulator(tmp_path: Path) -> None:
    """It greets on standard error, and pygame on standard output: neither belongs in the log of a training."""
    program = (
        "from simple_dqn.environment import *\n"
        "for game, kind in (('pong', 'ale'), ('CartPole-v1', 'gym')):\n"
        "    env = make_environment(EnvironmentOptions(game=game, environment=kind), 1)\n"
        "    env.restart(), env.screen()\n"
    )
    variables = {name: value for name, value in os.environ.items() if name not in ("DISPLAY", "XDG_RUNTIME_DIR")}
    result = subprocess.run(
        [sys.executable, "-c", program],
        env=variables | {"PYTHONPATH": str(ROOT / "src")},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert (result.returncode, result.stderr) == (0, "")


# Gymnasium


class Small(gymnasium.Env[Any, Any]):
    """Counts its steps, and shows them as a shade of grey; ends after 5, or is broken off after `limit`."""

    metadata = {"render_modes": ["rgb_array"], "render_fps": 30}  # noqa: RUF012  (as Gymnasium has it)

    def __init__(
        self, render_mode: str | None = None, channels: int | None = 3, actions: Any = None, limit: int = 99
    ) -> None:
        self.render_mode = render_mode
        self.channels = channels
        self.action_space = actions or Discrete(3)
        shape = (12, 10) if channels == 0 else (12, 10, channels or 0)
        self.observation_space = Box(0, 255, shape, np.uint8) if channels is not None else Box(-1, 1, (4,), np.float32)
        self.limit = limit
        self.steps = 0
        self.seeds: list[int | None] = []
        self.actions: list[int] = []

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[Any, dict[str, Any]]:
        self.seeds.append(seed)
        self.steps = 0
        return self.observe(), {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        assert action in self.action_space
        self.actions.append(action)
        self.steps += 1
        return self.observe(), 0.5 * self.steps, self.steps == 5, self.steps >= self.limit, {}

    def observe(self) -> Any:
        shape = self.observation_space.shape
        if self.channels is None:
            return np.zeros(shape, np.float32)
        return self.picture() if self.channels == 3 else np.full(shape, self.steps, np.uint8)

    def picture(self) -> Any:
        picture = np.zeros((12, 10, 3), np.uint8)
        picture[..., 0] = 20 * self.steps  # red
        return picture

    def render(self) -> Any:
        return self.picture() + np.uint8(3) if self.channels is None else self.picture()


class Blind(Small):
    metadata = {"render_modes": ["ansi"], "render_fps": 30}  # noqa: RUF012

    def render(self) -> str:
        return "nothing to see"


class Broken(Small):
    def __init__(self, **_: Any) -> None:
        raise RuntimeError("no such luck\nmore of it")


class Unseen(Small):
    def render(self) -> None:
        return None


class Odd(Small):
    """Returns or raises `returns` from the method `where`: from step as the part of that number, from the 3rd on."""

    def __init__(self, where: str, returns: Any, part: int | None = None, **_: Any) -> None:
        super().__init__("rgb_array", channels=3 if where == "observe" else None)
        self.where, self.returns, self.part = where, returns, part

    def _odd(self, where: str, plain: Any) -> Any:
        if where != self.where:
            return plain
        if isinstance(self.returns, BaseException):
            raise self.returns
        return self.returns

    def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
        return self._odd("reset", super().reset(seed=seed))

    def step(self, action: Any) -> Any:
        result = super().step(action)
        if self.part is not None:
            return (*result[: self.part], self.returns, *result[self.part + 1 :]) if self.steps >= 3 else result
        return self._odd("step", result) if self.steps >= 3 else result

    def observe(self) -> Any:
        return self._odd("observe", super().observe())

    def render(self) -> Any:
        return self._odd("render", super().picture())

    def close(self) -> None:
        self._odd("close", None)


@pytest.fixture
def odd() -> Iterator[Callable[..., GymEnvironment]]:
    """Makes an environment that is odd in one way."""

    def make(where: str, returns: Any = None, part: int | None = None, **options: Any) -> GymEnvironment:
        gymnasium.registry.pop("Odd-v0", None)
        kwargs = dict(where=where, returns=returns, part=part)
        gymnasium.register("Odd-v0", Odd, kwargs=kwargs)  # type: ignore[arg-type]
        return gym("Odd-v0", **options)

    yield make
    gymnasium.registry.pop("Odd-v0", None)


@pytest.fixture
def registered() -> Iterator[None]:
    kinds: dict[str, tuple[type[Small], dict[str, Any]]] = {
        "Rgb": (Small, {}),
        "Grey": (Small, dict(channels=0)),
        "GreyPlane": (Small, dict(channels=1)),
        "State": (Small, dict(channels=None)),
        "Blind": (Blind, dict(channels=None)),
        "Broken": (Broken, {}),
        "Unseen": (Unseen, dict(channels=None)),
        "Continuous": (Small, dict(actions=Box(-1, 1, (2,), np.float32))),
        "Many": (Small, dict(actions=Discrete(257))),
        "Offset": (Small, dict(actions=Discrete(3, start=-1))),
        "BrokenOff": (Small, dict(limit=3)),
        "Both": (Small, dict(limit=5)),
    }
    for name, (kind, arguments) in kinds.items():
        gymnasium.register(f"Small{name}-v0", kind, kwargs=arguments)  # type: ignore[arg-type]
    yield
    for name in kinds:
        del gymnasium.registry[f"Small{name}-v0"]


def gym(game: str, seed: int = 7, **options: Any) -> GymEnvironment:
    env = make_environment(EnvironmentOptions(game=game, environment="gym", **options), seed)
    assert isinstance(env, GymEnvironment)
    env.restart()
    return env


def small(env: GymEnvironment) -> Small:
    inner = env._gym.unwrapped
    assert isinstance(inner, Small)
    return inner


def grey(red: int, other: int = 0) -> int:
    pixel = np.array([[[red, other, other]]], np.uint8)
    return int(cv2.cvtColor(pixel, cv2.COLOR_RGB2GRAY).item())


@pytest.mark.usefixtures("registered")
@pytest.mark.parametrize(
    ("game", "shade"),
    [
        ("SmallRgb-v0", grey(40)),
        ("SmallGrey-v0", 2),
        ("SmallGreyPlane-v0", 2),
        ("SmallState-v0", grey(43, 3)),  # what is rendered, not what is observed
    ],
)
def test_gym_screen(game: str, shade: int) -> None:
    env = gym(game, screen_width=8, screen_height=6)
    assert [env.act(1), env.act(2)] == [0.5, 1.0]
    assert not env.is_terminal()
    screen = env.screen()
    assert screen.dtype == np.uint8
    np.testing.assert_array_equal(screen, np.full((6, 8), shade))
    env.close()


@pytest.mark.usefixtures("registered")
def test_gym_is_seeded_once() -> None:
    env = gym("SmallRgb-v0", seed=11)
    env.restart()
    env.restart()
    assert small(env).seeds == [11, None, None]


@pytest.mark.usefixtures("registered")
@pytest.mark.parametrize("mode", ["train", "test"])
@pytest.mark.parametrize(
    ("game", "steps", "truncated"),
    [("SmallRgb-v0", 5, False), ("SmallBrokenOff-v0", 3, True), ("SmallBoth-v0", 5, False)],
)
def test_gym_end_and_time_limit(game: str, steps: int, truncated: bool, mode: Any) -> None:
    env = gym(game)
    env.mode = mode
    for step in range(steps):
        assert not env.is_terminal(), step
        assert not env.truncated, step
        env.act(0)
    assert env.is_terminal()
    assert env.truncated == truncated
    env.restart()
    assert not env.is_terminal()
    assert not env.truncated
    assert small(env).steps == 0


@pytest.mark.usefixtures("registered")
def test_gym_actions_that_do_not_start_at_zero() -> None:
    env = gym("SmallOffset-v0")
    assert env.num_actions == 3
    for action in range(3):
        env.act(action)
    assert small(env).actions == [-1, 0, 1]


@pytest.mark.usefixtures("registered")
@pytest.mark.parametrize(
    ("game", "words"),
    [
        ("SmallContinuous-v0", "needs a Discrete action space"),
        ("SmallMany-v0", "has 257 actions: at most 256"),
        ("SmallBlind-v0", "no pixels to learn from"),
        ("SmallBroken-v0", "cannot make 'SmallBroken-v0': RuntimeError: no such luck more of it \\(test_env"),
        ("SmallRgb-v9", "cannot make 'SmallRgb-v9'"),
        ("NoSuchThing-v0", "cannot make 'NoSuchThing-v0'"),
        ("no_such_package:Thing-v0", "cannot make"),
        ("breakout", "cannot make 'breakout'.* Gymnasium's name for it is ALE/Breakout-v5"),
        ("space_invaders", "Gymnasium's name for it is ALE/SpaceInvaders-v5"),
        ("", "cannot make ''"),
    ],
)
def test_gym_that_cannot_be_played(game: str, words: str) -> None:
    with pytest.raises(GameError, match=words) as caught:
        gym(game)
    assert "\n" not in str(caught.value)


@pytest.mark.usefixtures("registered")
def test_gym_that_renders_no_pictures() -> None:
    with pytest.raises(GameError, match="SmallUnseen-v0 renders no pictures"):
        gym("SmallUnseen-v0")


@pytest.mark.parametrize("shape", [(12, 10), (12, 10, 1), (12, 10, 3), (12, 10, 4)])
@pytest.mark.parametrize("where", ["render", "observe"])
def test_gym_pictures_of_every_usual_shape(where: str, shape: tuple[int, ...], odd: Any) -> None:
    picture = np.full(shape, 50, np.uint8)
    if shape[-1] == 4:
        picture[..., 3] = 255  # opaque
    env = odd(where, picture, screen_width=8, screen_height=6)
    env.act(1)
    assert (env.screen() == np.full((6, 8), 50)).all()
    assert env.picture().shape == (12, 10, 3)
    if where == "render":
        assert (env.picture() == 50).all()


def test_gym_observations_of_four_channels_may_be_four_screens() -> None:
    kinds = {(12, 10): True, (12, 10, 1): True, (12, 10, 3): True, (12, 10, 4): False, (4, 12, 10): False}
    for shape, is_image in kinds.items():
        assert gymnasium_games._is_image(Box(0, 255, shape, np.uint8)) == is_image


@pytest.mark.parametrize(
    ("returns", "words"),
    [
        (None, "NoneType"),
        (np.zeros((12, 10, 3)), r"float64 of shape \(12, 10, 3\)"),
        (np.zeros((12, 10, 3), int), "int64 of shape"),
        (np.zeros((12, 10, 2), np.uint8), r"uint8 of shape \(12, 10, 2\)"),
        (np.zeros((0, 0, 3), np.uint8), "uint8 of shape"),
        ("text", "str"),
    ],
)
@pytest.mark.parametrize(("where", "verb"), [("render", "renders"), ("observe", "observes")])
def test_gym_pictures_that_are_none_are_refused_at_once(
    where: str, verb: str, returns: Any, words: str, odd: Any
) -> None:
    with pytest.raises(GameError, match=f"^Odd-v0 {verb} no pictures but {words}.*: pictures are uint8 of shape"):
        odd(where, returns)


@pytest.mark.parametrize(
    ("where", "error", "words"),
    [
        ("reset", KeyError("level"), r"Odd-v0 failed in reset: KeyError: 'level' \(test_environment.py, line \d+\)"),
        ("render", RuntimeError("no\n  context"), r"Odd-v0 failed in render: RuntimeError: no context \("),
        ("render", OSError(), r"Odd-v0 failed in render: OSError \("),
        ("observe", SystemExit(3), r"Odd-v0 failed in reset: SystemExit: 3 \("),
        ("reset", None, "Odd-v0 must return observation and info from reset"),
        ("reset", (1, 2), "Odd-v0 must return observation and info from reset"),
    ],
)
def test_gym_that_fails_at_once(where: str, error: Any, words: str, odd: Any) -> None:
    with pytest.raises(GameError, match=words) as caught:
        odd(where, error)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("returns", "part", "words"),
    [
        (KeyError(35), None, r"Odd-v0 failed in step: KeyError: 35 \(test_environment.py, line \d+\)"),
        ((0, 0.0, False, {}), None, "Odd-v0 failed in step: its step returns 4 values, as in OpenAI Gym"),
        ((0, 0.0), None, "Odd-v0 failed in step: ValueError: not enough values"),
        (None, 1, "Odd-v0 gives a reward of None: rewards must be finite numbers"),
        (math.nan, 1, "a reward of nan"),
        (-math.inf, 1, "a reward of -inf"),
        ("1", 1, "a reward of '1'"),
        (np.zeros(2), 1, r"a reward of array\(\[0., 0.\]\)"),
        (np.zeros(2, bool), 2, "Odd-v0 failed in step: ValueError"),
    ],
)
def test_gym_that_fails_later(returns: Any, part: int | None, words: str, odd: Any) -> None:
    env = odd("step", returns, part)
    assert [env.act(0), env.act(0)] == [0.5, 1.0]
    with pytest.raises(GameError, match=words) as caught:
        env.act(0)
    assert "\n" not in str(caught.value)
    env.close()


@pytest.mark.parametrize(
    ("returns", "number"), [(np.array([2.0]), 2), (True, 1), (np.float32(0.5), 0.5), (np.int64(-3), -3)]
)
def test_gym_rewards_are_numbers_of_any_kind(returns: Any, number: float, odd: Any) -> None:
    env = odd("step", returns, part=1)
    reward = [env.act(0) for _ in range(3)][-1]
    assert (type(reward), reward) == (float, number)


@pytest.mark.parametrize(("info", "lives"), [(None, 0), ({"lives": None}, 0), ({"lives": np.int64(3)}, 3)])
def test_gym_lives_are_known_or_not(info: Any, lives: int, odd: Any) -> None:
    env = odd("step", info, part=4)
    for _ in range(3):
        env.act(0)
    assert env.lives == lives


def test_gym_that_fails_at_closing_says_so_unless_it_has_failed_before(odd: Any) -> None:
    env = odd("close", OSError("server gone"))
    with pytest.raises(GameError, match="Odd-v0 failed in close: OSError: server gone"):
        env.close()
    env = odd("close", OSError("server gone"))
    small(env).action_space = Discrete(1)
    with pytest.raises(GameError, match="in step: AssertionError"):
        env.act(2)
    env.close()


@pytest.mark.parametrize(
    ("told", "rate"),
    [
        (0.5, 0.5),
        (29.97, 29.97),
        (0, 30),
        (None, 30),
        (-3, 30),
        ("fast", 30),
        (math.nan, 30),
        (1e-9, 0.01),
        (1e9, 1000),
        ([1], 30),
    ],
)
def test_gym_frame_rates_are_limited_to_those_of_films(told: Any, rate: float) -> None:
    assert gymnasium_games.steps_per_second(SimpleNamespace(unwrapped=None, metadata=dict(render_fps=told)), 60) == rate


@pytest.mark.parametrize("lacking", ["action_space", "observation_space"])
def test_gym_that_lacks_a_space(lacking: str, monkeypatch: pytest.MonkeyPatch, odd: Any) -> None:
    plain = Odd.__init__

    def init(self: Odd, **arguments: Any) -> None:
        plain(self, **arguments)
        delattr(self, lacking)

    monkeypatch.setattr(Odd, "__init__", init)
    with pytest.raises(
        GameError, match=f"cannot make 'Odd-v0': AttributeError: 'Odd' object has no attribute '{lacking}'"
    ):
        odd("nowhere")


@pytest.mark.parametrize(
    ("meanings", "names"),
    [
        (lambda: ["a", "b", "c"], ["a", "b", "c"]),
        (lambda: [7, 8, 9], ["7", "8", "9"]),
        (lambda: ["a"], ["0", "1", "2"]),
        (lambda: None, ["0", "1", "2"]),
        (lambda: 1 // 0, ["0", "1", "2"]),
        ("a b c", ["0", "1", "2"]),
    ],
)
def test_gym_action_names_are_words_or_numbers(meanings: Any, names: list[str], odd: Any) -> None:
    env = odd("nowhere")
    small(env).get_action_meanings = meanings  # type: ignore[attr-defined]
    assert env.action_names == names


def test_gym_environment_without_a_version_is_the_newest() -> None:
    assert gym("CartPole")._gym.unwrapped.spec.id == "CartPole-v1"
    assert gym("ALE/Pong")._gym.unwrapped.spec.id == "ALE/Pong-v5"
    with pytest.raises(GameError, match=r"cannot make 'cartpole'.*`CartPole`"):
        gym("cartpole")


def test_gym_environment_of_a_module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In Gymnasium's own words for it."""
    lines = ["import gymnasium", "from test_environment import Small", "gymnasium.register('Mine-v0', Small)"]
    (tmp_path / "games_of_mine.py").write_text("\n".join(lines))
    monkeypatch.syspath_prepend(tmp_path)
    assert gym("games_of_mine:Mine-v0").num_actions == 3
    del gymnasium.registry["Mine-v0"]


def test_atari_games_of_gymnasium_name_their_actions() -> None:
    assert gym("ALE/Breakout-v5").action_names == ale("breakout").action_names
    assert gym("CartPole-v1").action_names == ["0", "1"]


@pytest.mark.parametrize("game", ["Breakout-v0", "ALE/Breakout-v5"])
def test_gym_breakout(game: str) -> None:
    env: Environment = gym(game)
    other = gym(game)
    assert env.num_actions == 4
    for step in range(10):
        action = step % 4
        assert env.act(action) == other.act(action)
        assert env.screen().shape == (84, 84)
        np.testing.assert_array_equal(env.screen(), other.screen())
    assert env.screen().any()
    assert not env.is_terminal()


@pytest.mark.parametrize("name", ["combat", "joust", "warlords"])
def test_a_game_for_two_is_refused(name: str) -> None:
    with pytest.raises(GameError, match=f"{name} is a game for two"):
        find_rom(name)


@pytest.mark.parametrize(
    ("stem", "game"),
    [("pong_141", "pong"), ("pong_fast_3", "pong"), ("space_invaders_126", "space_invaders"),
     ("ms_pacman_label_2", "ms_pacman"), ("Breakout-v0_77", "Breakout-v0"), ("mine", "mine")],
)  # fmt: skip
def test_the_game_in_a_snapshots_name(stem: str, game: str) -> None:
    assert game_of(stem) == game


def test_games_that_are_the_same_and_environments_that_are_not() -> None:
    assert same_game("ale", "roms/breakout.bin", "Breakout")
    assert same_game("ale", "Space-Invaders", "my.roms/space_invaders.bin")
    assert not same_game("ale", "my.roms/breakout.v2.bin", "my.roms/breakout.bin")
    assert same_game("gym", "my_pkg.envs:A-v0", "my_pkg.envs:A-v0")
    for other in ("my_pkg.envs:B-v0", "my_pkg.envs:A-v1", "my_pkg.envs:ns/A-v0"):
        assert not same_game("gym", "my_pkg.envs:A-v0", other)
    assert not same_game("gym", "ns/A-v0", "other/A-v0")


def test_a_folder_called_like_a_game_does_not_hide_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "breakout").mkdir()
    assert find_rom("breakout").name == "breakout.bin"
    with pytest.raises(GameError, match="is a folder"):
        find_rom("./breakout")


# Going on exactly where a game was


def seen(environment: Environment, actions: Iterable[int]) -> list[Any]:
    """What comes of actions, episode after episode."""
    found: list[Any] = []
    for action in actions:
        found += [environment.act(action), environment.is_terminal(), environment.screen().tobytes()]
        if environment.is_terminal():
            environment.restart()
    return found


@pytest.mark.parametrize(
    "options",
    [
        dict(game="qbert", repeat_action_probability=0.25),  # whose cartridge remembers more than the emulator's state
        dict(game="breakout"),
        dict(game="space_invaders", frame_skip=1),
        dict(game="pong", color_averaging=False, minimal_action_set=False),
    ],
)
@pytest.mark.parametrize("mode", ["train", "test"])
def test_a_restored_game_goes_on_as_the_other_does(options: dict[str, Any], mode: Mode) -> None:
    rng = np.random.default_rng(1)
    one, other = (make_environment(EnvironmentOptions(**options), seed=seed) for seed in (1, 2))
    one.mode = other.mode = mode
    one.restart()
    actions = rng.integers(one.num_actions, size=900).tolist()
    seen(one, actions[:600])
    state = one.state()
    assert state is not None
    other.restore(plain_value(plain_bytes(state)))
    assert seen(one, actions[600:]) == seen(other, actions[600:])
    again = plain_bytes(other.state())
    assert again == plain_bytes(one.state())


def test_a_game_that_has_not_begun_can_be_restored() -> None:
    one, other = (make_environment(EnvironmentOptions(game="pong"), seed=1) for _ in range(2))
    state = one.state()
    assert state is not None
    other.restore(plain_value(plain_bytes(state)))
    for environment in (one, other):
        environment.restart()
    assert seen(one, [1, 2, 3]) == seen(other, [1, 2, 3])


def test_the_first_screen_of_a_restored_game() -> None:
    one, other = (make_environment(EnvironmentOptions(game="qbert"), seed=seed) for seed in (1, 2))
    for action in range(2):
        one.restart()
        first = one.screen()
        state = one.state()
        assert state is not None
        other.restore(plain_value(plain_bytes(state)))
        np.testing.assert_array_equal(other.screen(), first)
        one.act(action)


def test_an_environment_of_gymnasium_cannot_tell_where_it_is() -> None:
    assert make_environment(EnvironmentOptions(game="CartPole-v1", environment="gym"), seed=1).state() is None


@pytest.mark.usefixtures("registered")
def test_gym_games_of_limited_time_and_their_frames() -> None:
    eye = Eye()
    env = make_environment(EnvironmentOptions(game="SmallState-v0", environment="gym", max_game_seconds=0.05), 1, [eye])
    env.restart()
    for _ in range(3):  # a step counts as one frame of 60 a second
        assert not env.is_terminal()
        env.act(0)
    assert (env.is_terminal(), env.truncated, env.frames_per_second) == (True, True, 30)
    assert len(eye.pictures) == 4
    np.testing.assert_array_equal(eye.pictures[-1], env.picture())
    assert env.picture().shape == (12, 10, 3)
    assert env.sound().size == 0


def test_games_on_a_grid_are_not_cut_because_few_pictures_a_second_show_them() -> None:
    env = gym("CliffWalking-v1")  # 4 a second; at random a game takes 7000 steps, and some take 20,000
    env.restart()
    for _ in range(7201):
        env.act(0)
    assert (env.frames_per_second, env.is_terminal()) == (4, False)


def test_a_step_of_gym_atari_counts_as_the_frames_that_it_takes() -> None:
    env = make_environment(EnvironmentOptions(game="ALE/Pong-v5", environment="gym", max_game_seconds=0.2), 1)
    env.restart()
    ends = [env.act(0) or env.is_terminal() for _ in range(3)]  # of 4 frames each
    assert (ends, env.truncated) == ([False, False, True], True)


def test_gym_atari_looks_and_moves_like_atari() -> None:
    env = gym("ALE/Breakout-v5")
    assert (env.frames_per_second, env.pixel_width, env.lives) == (15, 1.75, 5)
    assert env.picture().shape == (210, 160, 3)


def test_actions_by_name_are_played_in_their_order() -> None:
    options = EnvironmentOptions(game="pong")
    env = make_environment(options, seed=1, actions=["NOOP", "RIGHT", "LEFT"])
    assert env.action_names == ["NOOP", "RIGHT", "LEFT"]
    minimal = make_environment(options, seed=1)
    places = [minimal.action_names.index(name) for name in env.action_names]
    env.restart()
    minimal.restart()
    for n in range(200):
        assert env.act(n // 7 % 3) == minimal.act(places[n // 7 % 3])
        assert np.array_equal(env.screen(), minimal.screen())
    with pytest.raises(GameError, match="pong has no action 'JUMP': there are NOOP FIRE"):
        make_environment(options, seed=1, actions=["NOOP", "JUMP"])
