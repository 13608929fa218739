"""Errors of Gymnasium environments: whatever goes wrong in their code becomes a GameError of one line."""

from __future__ import annotations

import contextlib
import traceback
from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from simple_dqn.errors import GameError, SimpleDQNError

_OLD_API = (
    "step returned 4 values, as in OpenAI Gym. Gymnasium needs observation, reward, terminated, truncated and info"
)


class CheckedEnv:
    """An environment whose exceptions and wrong return values become a GameError.

    Args:
        env: environment with Gymnasium's methods.
        game: its name, for the errors.
    """

    def __init__(self, env: Any, game: str) -> None:
        self._env, self._game = env, game
        self._failed = False
        self.unwrapped, self.render_mode = env.unwrapped, env.render_mode

    def reset(self, seed: int | None) -> tuple[Any, dict[str, Any]]:
        with self._errors_of("reset"):
            result = self._env.reset(seed=seed)
            if not (isinstance(result, tuple) and len(result) == 2 and isinstance(result[1], dict)):
                raise GameError(f"{self._game} must return observation and info from reset, as Gymnasium requires")
            return result[0], _with_lives(result[1])

    def step(self, action: int) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        with self._errors_of("step"):
            observation, reward, terminated, truncated, info = self._env.step(action)
            return observation, self._number(reward), bool(terminated), bool(truncated), _with_lives(info)

    def render(self) -> NDArray[np.uint8]:
        with self._errors_of("render"):
            return self._picture(self._env.render(), "renderings")

    def picture_of(self, observation: Any) -> NDArray[np.uint8]:
        """Return an observation as a picture."""
        with self._errors_of("its observations"):
            return self._picture(observation, "observations")

    def close(self) -> None:
        if not self._failed:  # because the user should read the first error
            with self._errors_of("close"):
                self._env.close()

    def _number(self, reward: Any) -> float:
        number = np.asarray(reward)
        if number.size != 1 or number.dtype.kind not in "biuf" or not np.isfinite(number).all():
            raise GameError(f"{self._game} returned the reward {reward!r:.40}. Rewards must be finite numbers.")
        return float(number.item())

    def _picture(self, raw: Any, source: str) -> NDArray[np.uint8]:
        """Return grey (height, width) or colour (height, width, 3), without transparency."""
        picture = np.asarray(raw)
        channels = picture.shape[2] if picture.ndim == 3 else 1
        if picture.dtype != np.uint8 or picture.ndim not in (2, 3) or channels not in (1, 3, 4) or not picture.size:
            found = f"{picture.dtype} of shape {picture.shape}" if isinstance(raw, np.ndarray) else type(raw).__name__
            raise GameError(
                f"The {source} of {self._game} must be pictures, not {found}. Pictures are uint8 of shape "
                "(height, width) or (height, width, 1, 3 or 4)."
            )
        if picture.ndim == 3:
            picture = picture[..., 0] if channels == 1 else picture[..., :3]
        return np.ascontiguousarray(picture)

    @contextlib.contextmanager
    def _errors_of(self, method: str) -> Iterator[None]:
        try:
            yield
        except (SimpleDQNError, MemoryError):
            self._failed = True
            raise
        except (Exception, SystemExit) as error:  # an environment's code may fail in any way
            self._failed = True
            is_old = isinstance(error, ValueError) and "(expected 5, got 4)" in str(error)
            raise GameError(f"{self._game} failed in {method}: {_OLD_API if is_old else one_line(error)}") from error


def _with_lives(info: Any) -> dict[str, Any]:
    known = info if isinstance(info, dict) else {}
    lives = np.asarray(known.get("lives"))
    one = lives.size == 1 and lives.dtype.kind in "biuf"  # an array may be of several players
    return {**known, "lives": int(lives.item()) if one else 0}


def one_line(error: BaseException) -> str:
    """Return the text of an exception in an environment's code, with file and line."""
    text = " ".join(f"{type(error).__name__}: {error}".split())
    if isinstance(error, SyntaxError):  # its text has file and line
        return text
    *_, last = traceback.extract_tb(error.__traceback__)
    return f"{text[:300].rstrip(': ')} ({last.filename.rpartition('/')[2]}, line {last.lineno})"
