"""Finding a Gymnasium environment, and what there is to see and do in it."""

from __future__ import annotations

import contextlib
import importlib
import importlib.metadata
import re
import warnings
from typing import Any

import numpy as np

from simple_dqn.errors import GameError


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
    from gymnasium.error import UnregisteredEnv

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
                gymnasium.spec(game)
            except UnregisteredEnv:
                _import_packages_with_environments()
            if render_mode in _render_modes(gymnasium.spec(game)):
                return gymnasium.make(game, render_mode=render_mode, disable_env_checker=True)
            return gymnasium.make(game, disable_env_checker=True)
        except Exception as error:  # an environment's own code may fail in any way
            reason = str(error).strip().split("\n")[0] or type(error).__name__
            atari = f"ALE/{game.title().replace('_', '')}-v5"  # as ale-py names what it calls space_invaders elsewhere
            reason += f" Gymnasium's name for it is {atari}." if atari in gymnasium.registry else ""
            raise GameError(f"Gymnasium cannot make {game!r}: {reason}") from error


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


def steps_per_second(env: Any, atari_frames: int) -> float:
    """As the environment says; those of the Arcade Learning Environment all say 30, whatever their frame skip is.

    An Atari makes `atari_frames` a second.
    """
    skip = getattr(env.unwrapped, "_frameskip", None)
    if skip:
        return atari_frames / float(np.mean(skip if isinstance(skip, int) else range(*skip)))
    return float(env.metadata.get("render_fps") or 30)
