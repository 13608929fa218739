"""Finding a Gymnasium environment, and what there is to see and do in it."""

from __future__ import annotations

import contextlib
import importlib
import importlib.metadata
import math
import re
import traceback
import warnings
from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from simple_dqn.errors import GameError, SimpleDQNError

_OLD_API = (
    "its step returns 4 values, as in OpenAI Gym: Gymnasium wants observation, reward, terminated, truncated and info"
)


class Checked:
    """An environment whose exceptions and wrong return values become a GameError of one line.

    Args:
        env: the environment, with Gymnasium's methods.
        game: its name, for the errors.
    """

    def __init__(self, env: Any, game: str) -> None:
        self._env, self._game = env, game
        self._failed = False
        self.unwrapped, self.render_mode = env.unwrapped, env.render_mode

    def reset(self, seed: int | None) -> tuple[Any, dict[str, Any]]:
        with self._blaming("reset"):
            result = self._env.reset(seed=seed)
            if not (isinstance(result, tuple) and len(result) == 2 and isinstance(result[1], dict)):
                raise GameError(
                    f"{self._game} must return observation and info from reset, as Gymnasium has it since 0.26"
                )
            return result[0], _info(result[1])

    def step(self, action: int) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        with self._blaming("step"):
            observation, reward, terminated, truncated, info = self._env.step(action)
            return observation, self._number(reward), bool(terminated), bool(truncated), _info(info)

    def render(self) -> NDArray[np.uint8]:
        with self._blaming("render"):
            return self._picture(self._env.render(), "renders")

    def observed(self, observation: Any) -> NDArray[np.uint8]:
        """An observation as a picture."""
        with self._blaming("what it observes"):
            return self._picture(observation, "observes")

    def close(self) -> None:
        if not self._failed:  # because the user should read the first error
            with self._blaming("close"):
                self._env.close()

    def _number(self, reward: Any) -> float:
        number = np.asarray(reward)
        if number.size != 1 or number.dtype.kind not in "biuf" or not np.isfinite(number).all():
            raise GameError(f"{self._game} gives a reward of {reward!r:.40}: rewards must be finite numbers")
        return float(number.item())

    def _picture(self, raw: Any, does: str) -> NDArray[np.uint8]:
        """Grey (height, width) or colour (height, width, 3), without transparency."""
        picture = np.asarray(raw)
        channels = picture.shape[2] if picture.ndim == 3 else 1
        if picture.dtype != np.uint8 or picture.ndim not in (2, 3) or channels not in (1, 3, 4) or not picture.size:
            found = f"{picture.dtype} of shape {picture.shape}" if isinstance(raw, np.ndarray) else type(raw).__name__
            raise GameError(
                f"{self._game} {does} no pictures but {found}: pictures are uint8 of shape (height, width) or "
                "(height, width, 1, 3 or 4)"
            )
        if picture.ndim == 3:
            picture = picture[..., 0] if channels == 1 else picture[..., :3]
        return np.ascontiguousarray(picture)

    @contextlib.contextmanager
    def _blaming(self, where: str) -> Iterator[None]:
        try:
            yield
        except (SimpleDQNError, MemoryError):
            self._failed = True
            raise
        except (Exception, SystemExit) as error:  # an environment's own code may fail in any way
            self._failed = True
            old = isinstance(error, ValueError) and "(expected 5, got 4)" in str(error)
            raise GameError(f"{self._game} failed in {where}: {_OLD_API if old else _failure(error)}") from error


def _info(info: Any) -> dict[str, Any]:
    known = info if isinstance(info, dict) else {}
    return {**known, "lives": int(known.get("lives") or 0)}


def _failure(error: BaseException) -> str:
    """Text of an exception in an environment's own code, with file and line, in one line."""
    words = " ".join(f"{type(error).__name__}: {error}".split())
    if isinstance(error, SyntaxError):  # it says where it is
        return words
    *_, last = traceback.extract_tb(error.__traceback__)
    return f"{words[:300].rstrip(': ')} ({last.filename.rpartition('/')[2]}, line {last.lineno})"


def make(game: str) -> tuple[Any, bool]:
    """The environment, and whether what it observes is an image (else its rendering is).

    Raises:
        GameError: there is none of this name, or nothing to see in it.
    """
    env = _find(game, "rgb_array")
    sees_observation = _is_image(env.observation_space)
    if not sees_observation and env.render_mode != "rgb_array":
        raise GameError(
            f"{game} has no image observations ({env.observation_space}) and no rgb_array rendering: "
            "there are no pixels to learn from"
        )
    return env, sees_observation


def _find(game: str, render_mode: str) -> Any:
    import ale_py
    import gymnasium
    from gymnasium.error import Error, UnregisteredEnv

    ale_py.ALEInterface.setLoggerMode(ale_py.LoggerMode.Error)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that Breakout-v0 is out of date is known to who asks for it
        gymnasium.register_envs(ale_py)
        try:
            module, _, name = game.rpartition(":")  # as in my_package:MyGame-v0
            if module:
                importlib.import_module(module)
                game = name
            try:
                spec = _spec(game)
            except UnregisteredEnv:
                _import_packages_with_environments()
                spec = _spec(game)
            mode: dict[str, Any] = dict(render_mode=render_mode) if render_mode in _render_modes(spec) else {}
            env = gymnasium.make(spec.id, disable_env_checker=True, **mode)
            _ = env.action_space, env.observation_space  # which some lack
            return env
        except (Exception, SystemExit) as error:  # an environment's own code may fail in any way
            known = isinstance(error, Error | ImportError)
            reason = str(error).strip().split("\n")[0] if known and str(error).strip() else _failure(error)
            atari = f"ALE/{game.title().replace('_', '')}-v5"  # as ale-py names what it calls space_invaders elsewhere
            reason += f" Gymnasium's name for it is {atari}." if atari in gymnasium.registry else ""
            raise GameError(f"Gymnasium cannot make {game!r}: {reason}") from error


def _spec(game: str) -> Any:
    """What Gymnasium knows of an environment; a name without version stands for the newest."""
    import gymnasium
    from gymnasium.envs.registration import find_highest_version, get_env_id, parse_env_id

    if game not in gymnasium.registry:
        namespace, name, version = parse_env_id(game)
        newest = find_highest_version(namespace, name) if version is None else None
        game = game if newest is None else get_env_id(namespace, name, newest)
    return gymnasium.spec(game)


def _render_modes(spec: Any) -> list[str]:
    from gymnasium.envs.registration import load_env_creator

    creator = load_env_creator(spec.entry_point) if isinstance(spec.entry_point, str) else spec.entry_point
    return list(getattr(creator, "metadata", {}).get("render_modes", []))


def _import_packages_with_environments() -> None:
    """Imports what is installed on top of Gymnasium: environments are registered as their package is imported."""
    for distribution in importlib.metadata.distributions():
        if any(re.match(r"gymnasium\b", requirement) for requirement in distribution.requires or []):
            with contextlib.suppress(Exception):  # one broken package must not hide the others' environments
                importlib.import_module(distribution.metadata["Name"].replace("-", "_"))


def _is_image(space: Any) -> bool:
    """Whether observations are pictures. Four channels may be four screens, so the agent sees the rendering instead."""
    shape = list(getattr(space, "shape", None) or ())
    return getattr(space, "dtype", None) == np.uint8 and (len(shape) == 2 or (len(shape) == 3 and shape[2] in (1, 3)))


def actions(env: Any, game: str) -> range:
    """The actions of the environment.

    Raises:
        GameError: they are not discrete, or too many.
    """
    from gymnasium.spaces import Discrete

    space = env.action_space
    if not isinstance(space, Discrete):
        raise GameError(f"{game} has actions {space}: deep Q-learning needs a Discrete action space")
    if space.n > 256:
        raise GameError(f"{game} has {space.n} actions: at most 256 are supported")
    return range(int(space.start), int(space.start + space.n))


def action_names(env: Any, number: int) -> list[str] | None:
    """What the environment calls its actions; None if it has no names for so many."""
    with contextlib.suppress(Exception):  # an environment's own code may fail in any way
        names = [str(name) for name in env.unwrapped.get_action_meanings()]
        return names if len(names) == number else None
    return None


def steps_per_second(env: Any, atari_frames: int) -> float:
    """As the environment says; those of the Arcade Learning Environment all say 30, whatever their frame skip is.

    An Atari makes `atari_frames` a second.
    """
    skip = getattr(env.unwrapped, "_frameskip", None)
    if skip:
        return atari_frames / float(np.mean(skip if isinstance(skip, int) else range(*skip)))
    try:
        rate = float(env.metadata.get("render_fps"))
    except (AttributeError, TypeError, ValueError):
        return 30.0
    return min(max(rate, 0.01), 1000.0) if rate > 0 and math.isfinite(rate) else 30.0  # the rates that a film can have
