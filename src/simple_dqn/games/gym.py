"""Gymnasium environments: find them, and play them through their pixels."""

from __future__ import annotations

import contextlib
import importlib
import math
import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np

from simple_dqn.environment import FRAMES_PER_SECOND, Environment, EnvironmentOptions, Picture, Screen
from simple_dqn.errors import GameError
from simple_dqn.games.ale import ALEEnvironment
from simple_dqn.games.gym_errors import CheckedEnv, one_line
from simple_dqn.watching.watcher import Watcher


class GymEnvironment(Environment):
    """A Gymnasium environment (https://gymnasium.farama.org) with discrete actions.

    The screen is the observation if that is an image, else the rendering of the environment. The environment sets
    frame skip and sticky actions.

    Args:
        options: `game` is the id of the environment.
        seed: seed of the first reset.
        watchers: see one frame per step.
    """

    def __init__(self, options: EnvironmentOptions, seed: int, watchers: Sequence[Watcher] = ()) -> None:
        import cv2

        self.watchers = watchers
        self._cv2: Any = cv2
        self._size = (options.screen_width, options.screen_height)
        env = _make(options.game)
        self._sees_observation = _is_image(env.observation_space)
        if not self._sees_observation and env.render_mode != "rgb_array":
            raise GameError(
                f"{options.game} has no pixels to learn from: its observations are not images "
                f"({env.observation_space}), and it has no rgb_array rendering. Choose another environment."
            )
        self._actions = _actions(env, options.game)
        self.frames_per_second = steps_per_second(env)
        self._gym = CheckedEnv(env, options.game)
        is_atari = hasattr(self._gym.unwrapped, "ale")
        self.pixel_width = ALEEnvironment.pixel_width if is_atari else 1.0
        # In other environments a step counts as a frame, because a low frame rate does not mean short games.
        self._most_steps = options.max_game_seconds * (self.frames_per_second if is_atari else FRAMES_PER_SECOND)
        self._steps = 0  # of this game
        self._terminated = self._truncated = False
        # The first game starts here, because unusable pictures should end the run before the training.
        self._first: Any = self._gym.reset(seed=seed)  # later resets continue its randomness
        self._observation: Any = self._first[0]
        self.screen()
        if watchers:
            self.picture()

    @property
    def num_actions(self) -> int:
        return len(self._actions)

    @property
    def action_names(self) -> list[str]:
        with contextlib.suppress(Exception):  # an environment's code may fail in any way
            names = [str(name) for name in self._gym.unwrapped.get_action_meanings()]
            if len(names) == self.num_actions:
                return names
        return super().action_names

    def restart(self) -> None:
        self._observation, info = self._first or self._gym.reset(seed=None)
        self._first = None
        self.lives = info["lives"]
        self._terminated = self._truncated = False
        self._steps = 0
        self._show_new_game()

    def act(self, action: int) -> float:
        self._observation, reward, self._terminated, self._truncated, info = self._gym.step(self._actions[action])
        self.lives = info["lives"]
        self._steps += 1
        self._truncated |= 0 < self._most_steps <= self._steps
        self._show()
        return reward

    def screen(self) -> Screen:
        picture = self._raw_screen()
        if picture.ndim == 3:
            picture = self._cv2.cvtColor(picture, self._cv2.COLOR_RGB2GRAY)
        resized: Screen = self._cv2.resize(picture, self._size)
        return resized

    def picture(self) -> Picture:
        """Rendering of the environment if it has one, because observations may be grey or small."""
        picture = self._gym.render() if self._gym.render_mode == "rgb_array" else self._raw_screen()
        picture = picture[..., None] if picture.ndim == 2 else picture
        return np.ascontiguousarray(np.broadcast_to(picture, (*picture.shape[:2], 3)), np.uint8)

    def is_terminal(self) -> bool:
        return self._terminated or self._truncated

    @property
    def truncated(self) -> bool:
        return self._truncated and not self._terminated

    def close(self) -> None:
        self._gym.close()

    def _raw_screen(self) -> Screen:
        return self._gym.picture_of(self._observation) if self._sees_observation else self._gym.render()


def _make(game: str) -> Any:
    """Make the environment, with an rgb_array rendering if it has one.

    Raises:
        GameError: no environment has this name, or it cannot be made.
    """
    import ale_py
    import gymnasium

    ale_py.ALEInterface.setLoggerMode(ale_py.LoggerMode.Error)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # because users who type Breakout-v0 know that it is out of date
        gymnasium.register_envs(ale_py)
        try:
            spec = _find_spec(game)
            rendering: dict[str, Any] = dict(render_mode="rgb_array") if "rgb_array" in _render_modes(spec) else {}
            env = gymnasium.make(spec.id, disable_env_checker=True, **rendering)
            _ = env.action_space, env.observation_space  # because some environments lack them
            return env
        except (Exception, SystemExit) as error:  # an environment's code may fail in any way
            raise GameError(f"Gymnasium cannot make {game!r}: {_reason(error, game)}") from error


def _find_spec(game: str) -> Any:
    """Return what Gymnasium knows of an environment. A name without a version means the newest one."""
    import gymnasium
    from gymnasium.envs.registration import find_highest_version, get_env_id, parse_env_id

    module, _, name = game.rpartition(":")  # as in my_package:MyGame-v0
    if module:
        importlib.import_module(module)  # registers its environments
    if name not in gymnasium.registry:
        namespace, stem, version = parse_env_id(name)
        newest = find_highest_version(namespace, stem) if version is None else None
        name = name if newest is None else get_env_id(namespace, stem, newest)
    return gymnasium.spec(name)


def _render_modes(spec: Any) -> list[str]:
    from gymnasium.envs.registration import load_env_creator

    creator = load_env_creator(spec.entry_point) if isinstance(spec.entry_point, str) else spec.entry_point
    return list(getattr(creator, "metadata", {}).get("render_modes", []))


def _reason(error: BaseException, game: str) -> str:
    """Return in one line why Gymnasium cannot make `game`, and what to type instead."""
    import gymnasium

    from_gymnasium = isinstance(error, gymnasium.error.Error | ImportError)
    reason = str(error).strip().split("\n")[0] if from_gymnasium and str(error).strip() else one_line(error)
    atari = f"ALE/{game.title().replace('_', '')}-v5"  # ale-py's name of space_invaders is ALE/SpaceInvaders-v5
    if atari in gymnasium.registry:
        return f"{reason} Gymnasium's name for it is {atari}."
    unknown = isinstance(error, gymnasium.error.NameNotFound | gymnasium.error.NamespaceNotFound)
    if unknown and ":" not in game and "Did you mean" not in reason:
        return f"{reason} If a package adds it, name its module too, as in my_package:{game}."
    return reason


def _is_image(space: Any) -> bool:
    """Whether observations are pictures. Four channels may be four screens, so the agent sees the rendering instead."""
    shape = list(getattr(space, "shape", None) or ())
    return getattr(space, "dtype", None) == np.uint8 and (len(shape) == 2 or (len(shape) == 3 and shape[2] in (1, 3)))


def _actions(env: Any, game: str) -> range:
    """Return the actions of the environment.

    Raises:
        GameError: they are not discrete, or more than 256.
    """
    from gymnasium.spaces import Discrete

    space = env.action_space
    if not isinstance(space, Discrete):
        raise GameError(f"{game} has actions {space}. Deep Q-learning needs a Discrete action space.")
    if space.n > 256:
        raise GameError(f"{game} has {space.n} actions. At most 256 are supported.")
    return range(int(space.start), int(space.start + space.n))


def steps_per_second(env: Any) -> float:
    """Return the natural speed of an environment, within the limits of films."""
    # Atari environments claim 30 whatever their frame skip is.
    skip = getattr(env.unwrapped, "_frameskip", None)
    if skip:
        return FRAMES_PER_SECOND / float(np.mean(skip if isinstance(skip, int) else range(*skip)))
    try:
        rate = float(env.metadata.get("render_fps"))
    except (AttributeError, TypeError, ValueError):
        return 30.0
    return min(max(rate, 0.01), 1000.0) if rate > 0 and math.isfinite(rate) else 30.0
