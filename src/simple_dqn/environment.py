"""The contract between the agent and a game. To add a game, see `make_environment` in games/game.py."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from simple_dqn.options import Options, option

if TYPE_CHECKING:  # only here, because watchers import this module
    from simple_dqn.watching.watcher import Watcher

FRAMES_PER_SECOND = 60  # of an NTSC Atari
# How an episode stands after a step. Checkpoints contain these numbers.
CONTINUES, TERMINATED, TRUNCATED = 0, 1, 2
ABANDONED = 3  # a watcher restarted the game, which does not count
Mode = Literal["train", "test"]
Screen = NDArray[np.uint8]
Picture = NDArray[np.uint8]  # (height, width, 3) red, green and blue
Sound = NDArray[np.uint8]  # (samples,), silent at 128


@dataclass(frozen=True)
class EnvironmentOptions(Options):
    title = "Environment"
    game: str = option(
        "", "ROM file, name of a game, or environment id with --environment gym", positional=True, kept="task"
    )
    environment: str = option(
        "ale", "where the game comes from: the Atari emulator or Gymnasium", choices=("ale", "gym"), kept="task"
    )
    frame_skip: int = option(4, "frames for which each action is repeated", at_least=1, at_most=1000, kept="task")
    repeat_action_probability: float = option(
        0.0, "sticky actions: probability at each frame that the last action is repeated instead of the chosen one",
        at_least=0, at_most=1, kept="task",
    )  # fmt: skip
    minimal_action_set: bool = option(True, "only the actions that do something in this game, not all 18", kept="task")
    color_averaging: bool = option(True, "average each frame's colours with those of the frame before", kept="task")
    screen_width: int = option(
        84, "width of a screen after resizing, in pixels", at_least=1, at_most=4096, kept="network"
    )
    screen_height: int = option(
        84, "height of a screen after resizing, in pixels", at_least=1, at_most=4096, kept="network"
    )
    max_game_seconds: float = option(
        1800.0, "time limit of a game in seconds of 60 frames (in Gymnasium, except Atari, 60 steps). 0: no limit",
        at_least=0, at_most=10**6,
    )  # fmt: skip


class Environment(ABC):
    """A game as the agent plays it.

    A new game needs the five abstract methods. The others serve watchers and resumed runs, and have defaults.

    Attributes:
        mode: "train": losing a life ends the episode. "test": only the end of the game does.
        watchers: see every frame, if the environment calls `_show` and `_show_new_game`.
        frames_per_second: natural speed of the game.
        pixel_width: width of a picture's pixel on a screen, in pixel heights.
        lives: lives left; 0: unknown.
    """

    mode: Mode = "train"
    watchers: Sequence[Watcher] = ()
    frames_per_second: float = FRAMES_PER_SECOND
    pixel_width: float = 1.0
    lives: int = 0

    @property
    @abstractmethod
    def num_actions(self) -> int:
        """Number of actions."""

    @abstractmethod
    def restart(self) -> None:
        """Start an episode. After a lost life the same game continues, else a new game starts."""

    @abstractmethod
    def act(self, action: int) -> float:
        """Play `action`, 0 ≤ action < num_actions, and return its reward. After a terminal, restart first."""

    @abstractmethod
    def screen(self) -> Screen:
        """Current screen, (height, width) uint8 grey levels."""

    @abstractmethod
    def is_terminal(self) -> bool:
        """Whether the episode is over."""

    @property
    def truncated(self) -> bool:
        """Whether the episode was cut short, by a time limit for example. Its last state then has a bootstrap value."""
        return False

    @property
    def action_names(self) -> list[str]:
        """Names of the actions."""
        return [str(action) for action in range(self.num_actions)]

    @property
    def noop(self) -> int | None:
        """The action called NOOP, which `--random_starts` repeats. None: no action has this name."""
        names = self.action_names
        return names.index("NOOP") if "NOOP" in names else None

    def state(self) -> dict[str, Any] | None:
        """What `restore` needs to continue exactly here, in plain values. None: the game has no such state."""
        return None

    def restore(self, state: dict[str, Any]) -> None:
        """Continue exactly where another environment with the same options was."""
        raise NotImplementedError

    def picture(self) -> Picture:
        """Last frame in colour, (height, width, 3)."""
        return np.repeat(self.screen()[..., None], 3, axis=2)

    def sound(self) -> Sound:
        """Sound of the last frame, the same number of samples each time. Empty: the game has no sound."""
        return np.empty(0, np.uint8)

    def close(self) -> None:  # noqa: B027  (most games have nothing to close)
        """Free what the game holds."""

    def _show(self) -> None:
        for watcher in self.watchers:
            watcher.on_frame(self)

    def _show_new_game(self) -> None:
        for watcher in self.watchers:
            watcher.on_game()
        self._show()
