"""Gymnasium environments: good ones are played, and bad ones give one clear line."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import cv2
import gymnasium
import numpy as np
import pytest
from gymnasium.spaces import Box, Discrete

from fakes import Eye, ale
from simple_dqn.environment import EnvironmentOptions, Mode
from simple_dqn.errors import GameError
from simple_dqn.games import gym as gym_module
from simple_dqn.games.game import make_environment
from simple_dqn.games.gym import GymEnvironment


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


Make = Callable[..., GymEnvironment]


def gym(game: str, seed: int = 7, **options: Any) -> GymEnvironment:
    env = make_environment(EnvironmentOptions(game=game, environment="gym", **options), seed)
    assert isinstance(env, GymEnvironment)
    env.restart()
    return env


@pytest.fixture
def small() -> Iterator[Make]:
    """Makes a Gymnasium environment of a class, with these arguments for the class."""
    before = gymnasium.registry.copy()

    def make(kind: Any = Small, arguments: dict[str, Any] | None = None, **options: Any) -> GymEnvironment:
        name = f"{kind.__name__}-v0"
        gymnasium.registry.pop(name, None)
        gymnasium.register(name, kind, kwargs=arguments or {})
        return gym(name, **options)

    yield make
    gymnasium.registry.clear()
    gymnasium.registry.update(before)


@pytest.fixture
def odd(small: Make) -> Make:
    """Makes an environment that is odd in one way."""

    def make(where: str, returns: Any = None, part: int | None = None, **options: Any) -> GymEnvironment:
        return small(Odd, dict(where=where, returns=returns, part=part), **options)

    return make


def inner(env: GymEnvironment) -> Small:
    unwrapped = env._gym.unwrapped
    assert isinstance(unwrapped, Small)
    return unwrapped


def grey(red: int, other: int = 0) -> int:
    pixel = np.array([[[red, other, other]]], np.uint8)
    return int(cv2.cvtColor(pixel, cv2.COLOR_RGB2GRAY).item())


@pytest.mark.parametrize(
    ("channels", "shade"),
    [(3, grey(40)), (0, 2), (1, 2), (None, grey(43, 3))],  # None: what is rendered, not what is observed
)
def test_gym_screen(channels: int | None, shade: int, small: Make) -> None:
    env = small(Small, dict(channels=channels), screen_width=8, screen_height=6)
    assert [env.act(1), env.act(2)] == [0.5, 1.0]
    assert not env.is_terminal()
    screen = env.screen()
    assert screen.dtype == np.uint8
    np.testing.assert_array_equal(screen, np.full((6, 8), shade))
    env.close()


def test_gym_is_seeded_once(small: Make) -> None:
    env = small(seed=11)
    env.restart()
    env.restart()
    assert inner(env).seeds == [11, None, None]


@pytest.mark.parametrize("mode", ["train", "test"])
@pytest.mark.parametrize(("limit", "steps", "truncated"), [(99, 5, False), (3, 3, True), (5, 5, False)])
def test_gym_end_and_time_limit(limit: int, steps: int, truncated: bool, mode: Mode, small: Make) -> None:
    env = small(Small, dict(limit=limit))
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
    assert inner(env).steps == 0


def test_gym_actions_that_do_not_start_at_zero(small: Make) -> None:
    env = small(Small, dict(actions=Discrete(3, start=-1)))
    assert env.num_actions == 3
    for action in range(3):
        env.act(action)
    assert inner(env).actions == [-1, 0, 1]


@pytest.mark.parametrize(
    ("kind", "arguments", "words"),
    [
        (Small, dict(actions=Box(-1, 1, (2,), np.float32)), "needs a Discrete action space"),
        (Small, dict(actions=Discrete(257)), r"has 257 actions\. At most 256"),
        (Blind, dict(channels=None), "has no pixels to learn from"),
        (Broken, {}, "cannot make 'Broken-v0': RuntimeError: no such luck more of it \\(test_gym"),
    ],
)
def test_gym_that_cannot_be_played(kind: Any, arguments: dict[str, Any], words: str, small: Make) -> None:
    with pytest.raises(GameError, match=words) as caught:
        small(kind, arguments)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("game", "words"),
    [
        ("CartPole-v9", "cannot make 'CartPole-v9'"),
        ("NoSuchThing-v0", "cannot make 'NoSuchThing-v0'.* name its module too, as in my_package:NoSuchThing-v0"),
        ("no_such_package:Thing-v0", "cannot make"),
        ("breakout", "cannot make 'breakout'.* Gymnasium's name for it is ALE/Breakout-v5"),
        ("space_invaders", "Gymnasium's name for it is ALE/SpaceInvaders-v5"),
        ("", "cannot make ''"),
    ],
)
def test_gym_that_cannot_be_found(game: str, words: str) -> None:
    with pytest.raises(GameError, match=words) as caught:
        gym(game)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("shape", [(12, 10), (12, 10, 1), (12, 10, 3), (12, 10, 4)])
@pytest.mark.parametrize("where", ["render", "observe"])
def test_gym_pictures_of_every_usual_shape(where: str, shape: tuple[int, ...], odd: Make) -> None:
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
        assert gym_module._is_image(Box(0, 255, shape, np.uint8)) == is_image


@pytest.mark.parametrize(
    ("returns", "words"),
    [
        (None, "NoneType"),
        (np.zeros((12, 10, 3)), r"float64 of shape \(12, 10, 3\)"),
        (np.zeros((12, 10, 3), int), "int64 of shape"),
        (np.zeros((12, 10, 2), np.uint8), r"uint8 of shape \(12, 10, 2\)"),
        (np.zeros((0, 0, 3), np.uint8), "uint8 of shape"),
        (np.zeros(10, np.uint8), r"uint8 of shape \(10,\)"),
        ("text", "str"),
    ],
)
@pytest.mark.parametrize(("where", "source"), [("render", "renderings"), ("observe", "observations")])
def test_gym_pictures_that_are_none_are_refused_at_once(
    where: str, source: str, returns: Any, words: str, odd: Any
) -> None:
    with pytest.raises(
        GameError, match=rf"^The {source} of Odd-v0 must be pictures, not {words}.*\. Pictures are uint8 of shape"
    ):
        odd(where, returns)


@pytest.mark.parametrize(
    ("where", "error", "words"),
    [
        ("reset", KeyError("level"), r"Odd-v0 failed in reset: KeyError: 'level' \(test_gym.py, line \d+\)"),
        ("render", RuntimeError("no\n  context"), r"Odd-v0 failed in render: RuntimeError: no context \("),
        ("render", OSError(), r"Odd-v0 failed in render: OSError \("),
        ("observe", SystemExit(3), r"Odd-v0 failed in reset: SystemExit: 3 \("),
        ("reset", None, "Odd-v0 must return observation and info from reset"),
        ("reset", (1, 2), "Odd-v0 must return observation and info from reset"),
    ],
)
def test_gym_that_fails_at_once(where: str, error: Any, words: str, odd: Make) -> None:
    with pytest.raises(GameError, match=words) as caught:
        odd(where, error)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("returns", "part", "words"),
    [
        (KeyError(35), None, r"Odd-v0 failed in step: KeyError: 35 \(test_gym.py, line \d+\)"),
        ((0, 0.0, False, {}), None, "Odd-v0 failed in step: step returned 4 values, as in OpenAI Gym"),
        ((0, 0.0), None, "Odd-v0 failed in step: ValueError: not enough values"),
        (None, 1, "Odd-v0 returned the reward None. Rewards must be finite numbers"),
        (math.nan, 1, "the reward nan"),
        (-math.inf, 1, "the reward -inf"),
        ("1", 1, "the reward '1'"),
        (np.zeros(2), 1, r"the reward array\(\[0., 0.\]\)"),
        (np.zeros(2, bool), 2, "Odd-v0 failed in step: ValueError"),
    ],
)
def test_gym_that_fails_later(returns: Any, part: int | None, words: str, odd: Make) -> None:
    env = odd("step", returns, part)
    assert [env.act(0), env.act(0)] == [0.5, 1.0]
    with pytest.raises(GameError, match=words) as caught:
        env.act(0)
    assert "\n" not in str(caught.value)
    env.close()


@pytest.mark.parametrize(
    ("returns", "number"), [(np.array([2.0]), 2), (True, 1), (np.float32(0.5), 0.5), (np.int64(-3), -3)]
)
def test_gym_rewards_are_numbers_of_any_kind(returns: Any, number: float, odd: Make) -> None:
    env = odd("step", returns, part=1)
    reward = [env.act(0) for _ in range(3)][-1]
    assert (type(reward), reward) == (float, number)


@pytest.mark.parametrize(
    ("info", "lives"),
    [
        (None, 0),
        ({"lives": None}, 0),
        ({"lives": np.int64(3)}, 3),
        ({"lives": np.array([3.0])}, 3),
        ({"lives": np.array([3, 3])}, 0),
    ],
)
def test_gym_lives_are_known_or_not(info: Any, lives: int, odd: Make) -> None:
    env = odd("step", info, part=4)
    for _ in range(3):
        env.act(0)
    assert env.lives == lives


def test_gym_that_fails_at_closing_says_so_unless_it_has_failed_before(odd: Make) -> None:
    env = odd("close", OSError("server gone"))
    with pytest.raises(GameError, match="Odd-v0 failed in close: OSError: server gone"):
        env.close()
    env = odd("close", OSError("server gone"))
    inner(env).action_space = Discrete(1)
    with pytest.raises(GameError, match="in step: AssertionError"):
        env.act(2)
    env.close()


@pytest.mark.parametrize(
    ("fps", "rate"),
    [
        *[(0.5, 0.5), (29.97, 29.97), (1e-9, 0.01), (1e9, 1000)],
        *[(unknown, 30) for unknown in (0, None, -3, "fast", math.nan, [1])],
    ],
)
def test_gym_frame_rates_are_limited_to_those_of_films(fps: Any, rate: float) -> None:
    assert gym_module.steps_per_second(SimpleNamespace(unwrapped=None, metadata=dict(render_fps=fps))) == rate


@pytest.mark.parametrize("lacking", ["action_space", "observation_space"])
def test_gym_that_lacks_a_space(lacking: str, monkeypatch: pytest.MonkeyPatch, odd: Make) -> None:
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
def test_gym_action_names_are_words_or_numbers(meanings: Any, names: list[str], odd: Make) -> None:
    env = odd("nowhere")
    inner(env).get_action_meanings = meanings  # type: ignore[attr-defined]
    assert env.action_names == names


def test_gym_environment_without_a_version_is_the_newest() -> None:
    assert gym("CartPole")._gym.unwrapped.spec.id == "CartPole-v1"
    assert gym("ALE/Pong")._gym.unwrapped.spec.id == "ALE/Pong-v5"
    with pytest.raises(GameError, match=r"cannot make 'cartpole'.*`CartPole`"):
        gym("cartpole")


def test_gym_environment_of_a_module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In Gymnasium's own words for it."""
    lines = ["import gymnasium", "from test_gym import Small", "gymnasium.register('Mine-v0', Small)"]
    (tmp_path / "games_of_mine.py").write_text("\n".join(lines))
    monkeypatch.syspath_prepend(tmp_path)
    assert gym("games_of_mine:Mine-v0").num_actions == 3
    del gymnasium.registry["Mine-v0"]


@pytest.mark.parametrize(("game", "steps_per_second"), [("Breakout-v0", 20), ("ALE/Breakout-v5", 15)])
def test_gym_atari_looks_and_moves_like_atari(game: str, steps_per_second: float) -> None:
    env, other = gym(game), gym(game)
    assert (env.frames_per_second, env.pixel_width, env.lives) == (steps_per_second, 1.75, 5)
    assert env.action_names == ale("breakout").action_names
    assert env.picture().shape == (210, 160, 3)
    for step in range(10):
        assert env.act(step % 4) == other.act(step % 4)
        assert env.screen().shape == (84, 84)
        np.testing.assert_array_equal(env.screen(), other.screen())
    assert env.screen().any()
    assert not env.is_terminal()


def test_gym_games_of_limited_time_and_their_frames(small: Make) -> None:
    env = small(Small, dict(channels=None), max_game_seconds=0.05)
    env.watchers = [eye] = [Eye()]
    env.restart()
    for _ in range(3):  # a step counts as one frame of 60 a second
        assert not env.is_terminal()
        env.act(0)
    assert (env.is_terminal(), env.truncated, env.frames_per_second) == (True, True, 30)
    assert len(eye.pictures) == 4
    np.testing.assert_array_equal(eye.pictures[-1], env.picture())
    assert env.picture().shape == (12, 10, 3)
    assert env.sound().size == 0


def test_an_environment_of_gymnasium_cannot_tell_where_it_is() -> None:
    assert make_environment(EnvironmentOptions(game="CartPole-v1", environment="gym"), seed=1).state() is None


def test_a_gym_atari_game_has_108_000_frames_by_default() -> None:
    env = gym("ALE/Breakout-v5")
    env._steps = 26_998  # of 4 frames
    env.act(0)
    assert not env.is_terminal()
    env.act(0)
    assert (env.is_terminal(), env.truncated) == (True, True)
