"""Atari games: what the agent sees of them and when an episode ends, on the ROMs that ale-py includes."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from fakes import Eye, ale, emulator
from simple_dqn.environment import Environment, EnvironmentOptions, Mode
from simple_dqn.errors import GameError
from simple_dqn.games.ale import ALEEnvironment, _log_stop
from simple_dqn.games.game import Game, make_environment
from simple_dqn.saving.snapshot import plain_bytes, plain_value
from simple_dqn.state_buffer import StateBuffer
from simple_dqn.watching.watcher import Watcher

ROOT = Path(__file__).resolve().parents[2]
NEON = ROOT.parent / "shared" / "reference" / "neon"
FIRE, RIGHT, LEFT = 1, 2, 3  # in Breakout's minimal action set


# What the agent sees


@pytest.mark.parametrize(
    ("game", "size", "settings"),
    [
        ("pong", (84, 84), dict(frame_skip=1, color_averaging=False)),
        ("space_invaders", (100, 60), dict(frame_skip=3)),
        ("breakout", (60, 100), dict(color_averaging=False)),
        ("seaquest", (84, 84), dict(repeat_action_probability=0.25)),
    ],
)
def test_screens_are_the_emulators_resized(game: str, size: tuple[int, int], settings: dict[str, Any]) -> None:
    env = ale(game, seed=5, screen_width=size[0], screen_height=size[1], **settings)
    twin = emulator(game, seed=5, **settings)
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


def test_action_sets() -> None:
    assert ale("breakout").action_names == ["NOOP", "FIRE", "RIGHT", "LEFT"]
    full = ale("breakout", minimal_action_set=False)
    assert full.num_actions == len(full.action_names) == 18
    assert full.action_names[:2] == ["NOOP", "FIRE"]
    assert full.act(17) == 0


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
    with pytest.raises(GameError, match=r"pong has no action 'JUMP'\. Its actions: NOOP FIRE"):
        make_environment(options, seed=1, actions=["NOOP", "JUMP"])


@pytest.mark.parametrize("name", ["traj_breakout_alepy0121", "traj_pong_ale060"])
def test_trajectories_recorded_elsewhere(name: str) -> None:
    if not (NEON / f"{name}.npz").exists():
        pytest.skip(f"{NEON} with the recorded trajectories is not here")
    with np.load(NEON / f"{name}.npz") as recorded:
        expected = {key: recorded[key] for key in ("action_index", "action_set", "rewards", "lives", "game_over")}
        hashes, screens = recorded["resized_sha1"].tolist(), recorded["resized_first200"]
    env = ale(name.split("_")[1], seed=123)
    env.mode = "test"
    codes = [action.value for action in env._actions]
    for step in range(1000):
        assert env.act(codes.index(expected["action_set"][expected["action_index"][step]])) == expected["rewards"][step]
        assert env._ale.lives() == expected["lives"][step]
        assert env.is_terminal() == expected["game_over"][step]
        assert hashlib.sha1(env.screen().tobytes()).hexdigest().encode() == hashes[step]
        if step < len(screens):
            np.testing.assert_array_equal(env.screen(), screens[step])
        if env.is_terminal():
            env.restart()


# When an episode ends


def lose_lives(env: ALEEnvironment, lives: int) -> None:
    """Serve and stand still until `lives` are left."""
    for _ in range(2000):
        if env._ale.lives() == lives:
            return
        env.act(FIRE)
        if env.is_terminal() and env._ale.lives() != lives:
            env.restart()
    raise AssertionError("Breakout did not end")


def frames_played(env: ALEEnvironment) -> int:
    """Since the game began."""
    return int(env._ale.getEpisodeFrameNumber())


def test_lost_life_ends_an_episode_in_training_but_the_game_goes_on() -> None:
    env = ale()
    lose_lives(env, lives=4)
    assert env.is_terminal()
    assert not env.truncated
    played = frames_played(env)
    env.restart()
    assert not env.is_terminal()
    assert (env._ale.lives(), frames_played(env)) == (4, played)


def test_lost_life_ends_nothing_in_testing() -> None:
    env = ale()
    env.mode = "test"
    lose_lives(env, lives=3)
    assert not env.is_terminal()
    env.restart()  # and a test begins with a game of its own
    assert (env._ale.lives(), frames_played(env)) == (5, 0)


def test_life_lost_in_testing_does_not_end_the_training_that_follows() -> None:
    env = ale()
    env.mode = "test"
    lose_lives(env, lives=4)
    env.act(0)
    env.mode = "train"
    env.act(0)
    assert not env.is_terminal()
    env.restart()  # a restart in mid-game resets
    assert frames_played(env) == 0


@pytest.mark.parametrize("mode", ["train", "test"])
def test_game_over_ends_an_episode_and_restart_resets(mode: Any) -> None:
    env = ale()
    env.mode = mode
    lose_lives(env, lives=0)
    assert env.is_terminal()
    env.restart()
    assert not env.is_terminal()
    assert (env._ale.lives(), frames_played(env)) == (5, 0)


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


@pytest.mark.parametrize(
    ("options", "frames"),
    [
        ({}, 108_000),  # 30 minutes at 60 frames a second (Machado et al. 2018)
        (dict(max_game_seconds=0), 0),
        (dict(max_game_seconds=7200), 432_000),
        (dict(max_game_seconds=0.001), 1),  # not 0, which means no limit
    ],
)
def test_most_frames_of_a_game(options: dict[str, Any], frames: int) -> None:
    assert ale("pong", **options)._ale.getInt("max_num_frames_per_episode") == frames


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
    _log_stop.cache_clear()
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
            assert steps < 200, f"{game} does not end"
            env.act((RIGHT, LEFT)[steps % 2] if game == "breakout" else 0)
            steps += 1
        assert (env.truncated, env.lives) == (True, lives)
    env.restart()
    assert (env.is_terminal(), env.truncated, frames_played(env)) == (False, False, 0)
    assert caplog.text.count(f"{game} stopped") == 1


# Watchers


def test_a_watcher_sees_and_hears_every_frame() -> None:
    eye = Eye()
    env = make_environment(EnvironmentOptions(game="pong", repeat_action_probability=0.25), 1, [eye])
    twin = emulator("pong", frame_skip=1, repeat_action_probability=0.25)
    env.restart()
    np.testing.assert_array_equal(eye.pictures[0], twin.getScreenRGB())
    assert (eye.sounds[0] == 128).all()  # nothing has sounded yet
    for action in np.random.default_rng(0).integers(env.num_actions, size=60).tolist():
        env.act(action)
        for picture in eye.pictures[-4:]:
            twin.act(twin.getMinimalActionSet()[action])
            np.testing.assert_array_equal(picture, twin.getScreenRGB())
    assert (len(eye.pictures), eye.games) == (1 + 60 * 4, 1)
    assert {sound.shape for sound in eye.sounds} == {(512,)}


@pytest.mark.parametrize("mode", ["train", "test"])
def test_watching_changes_nothing(mode: Mode) -> None:
    """Even if a life or the game ends within a step. Each frame left in the step draws a random number too."""
    options = EnvironmentOptions(game="breakout", repeat_action_probability=0.25, frame_skip=7)
    watched, still = make_environment(options, 1, [Eye()]), make_environment(options, 1)
    for environment in (watched, still):
        environment.mode = mode
        environment.restart()
    rng = np.random.default_rng(0)
    lives = []
    for action in rng.integers(still.num_actions, size=700).tolist():
        assert watched.act(action) == still.act(action)
        assert (watched.is_terminal(), watched.lives) == (still.is_terminal(), still.lives)
        np.testing.assert_array_equal(watched.screen(), still.screen())
        if still.is_terminal():
            lives.append(still.lives)
            watched.restart()
            still.restart()
    assert lives.count(0) > 2
    assert set(lives) == ({0, 1, 2, 3, 4} if mode == "train" else {0})


# Resumed games


def seen(environment: Environment, actions: Iterable[int]) -> list[Any]:
    """Rewards, ends and screens of these actions, episode after episode."""
    found: list[Any] = []
    for action in actions:
        found += [environment.act(action), environment.is_terminal(), environment.screen().tobytes()]
        if environment.is_terminal():
            environment.restart()
    return found


def restore(other: Environment, one: Environment) -> None:
    """Bring `other` to where `one` is, with the state as a checkpoint has it."""
    other.restore(plain_value(plain_bytes(one.state())))


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
    restore(other, one)
    assert seen(one, actions[600:]) == seen(other, actions[600:])
    assert plain_bytes(other.state()) == plain_bytes(one.state())


@pytest.mark.parametrize("watched", [True, False])
def test_games_whose_reset_depends_on_watchers_are_not_restored_in_another_state(watched: bool) -> None:
    options = EnvironmentOptions(game="double_dunk")
    environments = [make_environment(options, 1, watchers) for watchers in ([Watcher()], [])]
    saved, other = environments if watched else reversed(environments)
    rng = np.random.default_rng(1)
    games = [Game(one, StateBuffer(np.zeros((4, 84, 84), np.uint8)), 5, rng) for one in (saved, other)]
    for game in games:
        game.begin("train", new_episode=True)
    assert not games[1].restore(games[0].state())
    unwatched = games[1] if watched else games[0]
    assert unwatched.restore(unwatched.state())


def test_a_game_that_has_not_begun_can_be_restored() -> None:
    one, other = (make_environment(EnvironmentOptions(game="pong"), seed=1) for _ in range(2))
    restore(other, one)
    for environment in (one, other):
        environment.restart()
    assert seen(one, [1, 2, 3]) == seen(other, [1, 2, 3])


def test_the_first_screen_of_a_restored_game() -> None:
    one, other = (make_environment(EnvironmentOptions(game="qbert"), seed=seed) for seed in (1, 2))
    for action in range(2):
        one.restart()
        first = one.screen()
        restore(other, one)
        np.testing.assert_array_equal(other.screen(), first)
        one.act(action)
