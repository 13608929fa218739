"""Games. To add one, write a class with the five methods of `Environment` and name it in `make_environment`."""

from __future__ import annotations

import logging
import os
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from simple_dqn.errors import GameError
from simple_dqn.games import gymnasium_games
from simple_dqn.games.averaging import LastFrames, average_after_reset, can_average
from simple_dqn.games.roms import find_rom
from simple_dqn.options import Options, option

logger = logging.getLogger(__name__)

_FRAMES_PER_SECOND = 60  # of an Atari in America
_SAMPLES_PER_FRAME = 512  # of the emulator's sound, 8 bits each
_SILENCE = 128
# Bytes of RAM that are all 0 only when no game is on. These cartridges end a game with lives left, which the emulator
# does not see, and only the console's RESET begins another one. Breakout counts frames from the reset in 16 bits and
# ends its game when the count overflows. Pitfall has a clock of 20 minutes.
_GAME_ON = {"breakout": [52], "pitfall": [88, 89]}
_STEPS_PER_LOOK = 64  # at these bytes, because a look takes 2 µs
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
        0.0, "probability, at each frame, that the last action is repeated instead (sticky actions)",
        at_least=0, at_most=1, kept="task",
    )  # fmt: skip
    minimal_action_set: bool = option(True, "only the actions that do something in this game, not all 18", kept="task")
    color_averaging: bool = option(True, "average each frame's colours with those of the frame before", kept="task")
    screen_width: int = option(
        84, "width of a screen after the resize, pixels", at_least=1, at_most=4096, kept="network"
    )
    screen_height: int = option(
        84, "height of a screen after the resize, pixels", at_least=1, at_most=4096, kept="network"
    )
    max_game_seconds: float = option(
        1800.0, "time limit of a game, in seconds of 60 frames (or 60 steps of Gymnasium); 0: no limit",
        at_least=0, at_most=10**6,
    )  # fmt: skip


class Watcher:
    """Sees a game frame by frame, and may steer it; subclasses override what they care for."""

    def meet(self, environment: Environment) -> None:
        """It is going to watch `environment`; raises OptionError where it cannot."""

    def on_game(self) -> None:
        """A game begins; its first frame follows."""

    def on_frame(self, environment: Environment) -> None:
        """There is a new frame: `environment` has its picture and its sound."""

    def steer(self, action: int) -> int:
        """The action to play where the agent chose `action`."""
        return action

    def wants_restart(self) -> bool:
        """Whether the game is to be given up and begun anew; asked once a step."""
        return False

    def finish(self) -> None:
        """The run has come to its end, as it should."""

    def close(self) -> None:
        """Frees what it holds; what is not finished by now is lost."""


class Environment(ABC):
    """A game as the agent plays it.

    What an agent needs are five methods; the rest is for who watches, and has defaults that do.

    Attributes:
        mode: "train" where losing a life ends an episode, "test" where only the end of the game does.
        watchers: see every frame, if `_show` is called after each.
        frames_per_second: at the game's natural speed.
        pixel_width: of a picture's pixel as it should be seen, in heights.
        lives: left; 0 if they are unknown.
    """

    mode: Mode = "train"
    watchers: Sequence[Watcher] = ()
    frames_per_second: float = _FRAMES_PER_SECOND
    pixel_width: float = 1.0
    lives: int = 0

    @property
    @abstractmethod
    def num_actions(self) -> int:
        """How many actions there are."""

    @property
    def action_names(self) -> list[str]:
        """What the actions are called."""
        return [str(action) for action in range(self.num_actions)]

    @property
    def noop(self) -> int | None:
        """The action called NOOP, which is played at random before a game; None if no action has this name."""
        names = self.action_names
        return names.index("NOOP") if "NOOP" in names else None

    @abstractmethod
    def restart(self) -> None:
        """Begins an episode: the game goes on after a lost life, and starts anew otherwise."""

    @abstractmethod
    def act(self, action: int) -> float:
        """Plays `action`, 0 ≤ action < num_actions, and returns its reward. Not after a terminal: restart first."""

    @abstractmethod
    def screen(self) -> Screen:
        """The screen as it is now, (height, width) uint8 grey levels."""

    @abstractmethod
    def is_terminal(self) -> bool:
        """Whether the episode is over."""

    @property
    def truncated(self) -> bool:
        """Whether the episode, though over, was only broken off (a time limit): its last state had a future."""
        return False

    def state(self) -> dict[str, Any] | None:
        """What `restore` needs to go on exactly here, in plain values; None where the game cannot tell."""
        return None

    def restore(self, state: dict[str, Any]) -> None:
        """Goes on exactly where a game in the same environment was."""
        raise NotImplementedError

    def picture(self) -> Picture:
        """The last frame in colour, (height, width, 3)."""
        return np.repeat(self.screen()[..., None], 3, axis=2)

    def sound(self) -> Sound:
        """The last frame's sound, the same number of samples every time; none where the game is mute."""
        return np.empty(0, np.uint8)

    def close(self) -> None:  # noqa: B027  (most games have nothing to close)
        """Frees what the game holds."""

    def _show(self) -> None:
        for watcher in self.watchers:
            watcher.on_frame(self)

    def _show_new_game(self) -> None:
        for watcher in self.watchers:
            watcher.on_game()
        self._show()


def make_environment(
    options: EnvironmentOptions, seed: int, watchers: Sequence[Watcher] = (), actions: Sequence[str] | None = None
) -> Environment:
    """The game that `options` name, seen by `watchers`; in the emulator with these `actions`, where they are given.

    Raises:
        GameError: there is no such game, or it cannot be played.
        OptionError: it is not for one of the watchers.
    """
    if not watchers:  # SDL, with which some games draw, must neither look for a screen nor complain that there is none
        os.environ.setdefault("SDL_VIDEODRIVER", "dummy")
        os.environ.setdefault("SDL_AUDIODRIVER", "dummy")
    environment: Environment
    if options.environment == "ale":
        environment = ALEEnvironment(options, seed, watchers, actions)
    else:
        environment = GymEnvironment(options, seed, watchers)
    for watcher in watchers:
        watcher.meet(environment)
    return environment


class ALEEnvironment(Environment):
    """An Atari 2600 game in the Arcade Learning Environment (Bellemare et al. 2013, doi:10.1613/jair.3912).

    Args:
        options: its options; `game` is a ROM file, or the name of a game whose ROM ships with ale-py.
        seed: of the sticky actions.
        watchers: see its frames, those of repeated actions too; they change nothing for the agent.
        actions: by name, in place of those that `minimal_action_set` chooses.
    """

    pixel_width = 1.75  # 160x210 pixels fill a screen of 4:3

    def __init__(
        self,
        options: EnvironmentOptions,
        seed: int,
        watchers: Sequence[Watcher] = (),
        actions: Sequence[str] | None = None,
    ) -> None:
        import ale_py
        import cv2

        self._resize: Any = cv2.resize
        self._size = (options.screen_width, options.screen_height)
        self._rom = rom = find_rom(options.game)
        ale_py.ALEInterface.setLoggerMode(ale_py.LoggerMode.Error)
        self._ale = ale = ale_py.ALEInterface()
        ale.setInt("random_seed", seed)
        averages = options.color_averaging and not watchers and can_average(rom)
        # Watchers need every frame, and averaging the last two: then the environment repeats the action itself.
        self._repeats, frame_skip = (options.frame_skip, 1) if watchers or averages else (1, options.frame_skip)
        ale.setInt("frame_skip", frame_skip)
        most_frames = max(round(options.max_game_seconds * _FRAMES_PER_SECOND), options.max_game_seconds > 0)
        ale.setInt("max_num_frames_per_episode", most_frames)
        ale.setFloat("repeat_action_probability", options.repeat_action_probability)
        ale.setBool("color_averaging", options.color_averaging and not averages)
        ale.setBool("sound_obs", bool(watchers))
        self.watchers = watchers
        ale.loadROM(rom)
        self._frames = LastFrames(ale) if averages else None  # the emulator averages all frames, which is slow
        self._actions = ale.getMinimalActionSet() if options.minimal_action_set else ale.getLegalActionSet()
        if actions:
            self._actions = _named(actions, ale.getLegalActionSet(), options.game)
        self.lives = ale.lives()
        self._life_lost = False
        self._name = str(ale.isSupportedROM(rom))
        self._game_on = _GAME_ON.get(self._name)
        self._stopped = False  # whether the cartridge ended the game with lives left
        self._before_game: Any = None  # the emulator's state at the last reset
        self._played = bytearray()  # the actions since
        self._silent = True  # until the first frame after a reset has sounded
        height, width = ale.getScreenDims()
        self._frame = np.empty((height, width), np.uint8)

    @property
    def num_actions(self) -> int:
        return len(self._actions)

    @property
    def action_names(self) -> list[str]:
        return [action.name for action in self._actions]

    def restart(self) -> None:
        reset = self.mode == "test" or not self._life_lost or self._stopped or self._ale.game_over()
        if reset:
            self._before_game = self._ale.cloneState(include_rng=True)
            self._played.clear()
            self._reset()
        self._life_lost = self._stopped = False
        self.lives = self._ale.lives()
        if reset:
            self._silent = True
            self._show_new_game()

    def act(self, action: int) -> float:
        reward = 0
        lives = self.lives
        self._played.append(action)
        for earned in self._play(action):
            reward += earned
            self.lives = self._ale.lives()
            self._silent = False
            self._show()
        self._life_lost = self.lives < lives
        if self._game_on is not None and len(self._played) % _STEPS_PER_LOOK == 0 and self.lives:
            self._stopped = not self._ale.getRAM()[self._game_on].any()
            if self._stopped:
                _tell_of_stop(self._name)
        return reward

    def screen(self) -> Screen:
        if self._frames is None:
            self._ale.getScreenGrayscale(self._frame)
        elif self._played or self._before_game is None:
            self._frames.average(self._frame)
        else:
            average_after_reset(self._rom, self._before_game, self._frame)
        resized: Screen = self._resize(self._frame, self._size)  # bilinear, as in the original
        return resized

    def is_terminal(self) -> bool:
        return self._stopped or bool(self._ale.game_over()) or (self.mode == "train" and self._life_lost)

    def state(self) -> dict[str, Any]:
        # The emulator's own state lacks the last screens and action and, in some games, more: it is played anew.
        before = self._before_game and np.frombuffer(self._before_game.__getstate__(), np.uint8)
        return dict(before=before, played=np.array(self._played), life_lost=self._life_lost, lives=self.lives)

    def restore(self, state: dict[str, Any]) -> None:
        if state["before"] is not None:
            import ale_py

            self._before_game = ale_py.ALEState.__new__(ale_py.ALEState)
            self._before_game.__setstate__(state["before"].tobytes())
            self._ale.restoreState(self._before_game)
            self._reset()
            for action in state["played"].tolist():
                deque(self._play(action), maxlen=0)
        self._played = bytearray(state["played"])
        self._life_lost, self.lives = state["life_lost"], state["lives"]

    def _reset(self) -> None:
        self._ale.reset_game()
        if self._frames:
            self._frames.add()

    def _play(self, action: int) -> Iterator[int]:
        """Plays `action` until it has been repeated often enough or the game is over; yields the rewards."""
        for _ in range(self._repeats):
            over = self._ale.game_over()
            reward = self._ale.act(self._actions[action])  # even after the end, because each call draws random numbers
            if not over:
                if self._frames:
                    self._frames.add()
                yield reward

    @property
    def truncated(self) -> bool:
        lost = self._life_lost and self.mode == "train"
        return (
            (self._stopped or bool(self._ale.game_truncated()))
            and not lost
            and not self._ale.game_over(with_truncation=False)
        )

    def picture(self) -> Picture:
        picture: Picture = self._ale.getScreenRGB()
        return picture

    def sound(self) -> Sound:
        if self._silent:
            return np.full(_SAMPLES_PER_FRAME, _SILENCE, np.uint8)
        sound: Sound = self._ale.getAudio()
        return sound


class GymEnvironment(Environment):
    """A Gymnasium environment (https://gymnasium.farama.org) with discrete actions, seen through its pixels.

    The screen is the observation where that is an image, else the picture that the environment renders.
    The environment's own frame skip and sticky actions apply.

    Args:
        options: its options; `game` is the environment's id.
        seed: of the environment's first reset.
        watchers: see its frames, one a step.
    """

    def __init__(self, options: EnvironmentOptions, seed: int, watchers: Sequence[Watcher] = ()) -> None:
        import cv2

        self.watchers = watchers
        self._cv2: Any = cv2
        self._size = (options.screen_width, options.screen_height)
        env, self._sees_observation = gymnasium_games.make(options.game)
        self._actions = gymnasium_games.actions(env, options.game)
        self.frames_per_second = gymnasium_games.steps_per_second(env, _FRAMES_PER_SECOND)
        self._gym = gymnasium_games.Checked(env, options.game)
        atari = hasattr(self._gym.unwrapped, "ale")
        self.pixel_width = ALEEnvironment.pixel_width if atari else 1.0
        # Elsewhere a step counts as a frame, because 4 pictures a second do not mean that a game has few steps.
        self._most_steps = options.max_game_seconds * (self.frames_per_second if atari else _FRAMES_PER_SECOND)
        self._steps = 0  # of this game
        self._terminated = self._truncated = False
        # The first game begins here, so that unusable pictures are refused before the training.
        self._first: Any = self._gym.reset(seed=seed)  # later games follow from it
        self._observation: Any = self._first[0]
        self.screen()
        if watchers:
            self.picture()

    @property
    def num_actions(self) -> int:
        return len(self._actions)

    @property
    def action_names(self) -> list[str]:
        return gymnasium_games.action_names(self._gym, self.num_actions) or super().action_names

    def restart(self) -> None:
        self._observation, info = self._first or self._gym.reset(seed=None)
        self._first = None
        self.lives = int(info.get("lives", 0))
        self._terminated = self._truncated = False
        self._steps = 0
        self._show_new_game()

    def act(self, action: int) -> float:
        self._observation, reward, self._terminated, self._truncated, info = self._gym.step(self._actions[action])
        self.lives = int(info.get("lives", 0))
        self._steps += 1
        self._truncated |= 0 < self._most_steps <= self._steps
        self._show()
        return reward

    def screen(self) -> Screen:
        picture = self._seen()
        if picture.ndim == 3:
            picture = self._cv2.cvtColor(picture, self._cv2.COLOR_RGB2GRAY)
        resized: Screen = self._cv2.resize(picture, self._size)
        return resized

    def picture(self) -> Picture:
        """The environment's rendering where it has one: observations may be grey, or small."""
        picture = self._gym.render() if self._gym.render_mode == "rgb_array" else self._seen()
        picture = picture[..., None] if picture.ndim == 2 else picture
        return np.ascontiguousarray(np.broadcast_to(picture, (*picture.shape[:2], 3)), np.uint8)

    def is_terminal(self) -> bool:
        return self._terminated or self._truncated

    @property
    def truncated(self) -> bool:
        return self._truncated and not self._terminated

    def close(self) -> None:
        self._gym.close()

    def _seen(self) -> Screen:
        return self._gym.observed(self._observation) if self._sees_observation else self._gym.render()


@cache  # once a process
def _tell_of_stop(game: str) -> None:
    logger.warning(
        "%s stopped with lives left, as its cartridge does after a time. This game is cut; a new one begins.", game
    )


def _named(names: Sequence[str], legal: Sequence[Any], game: str) -> list[Any]:
    """The emulator's actions of these names."""
    by_name = {action.name: action for action in legal}
    for name in names:
        if name not in by_name:
            raise GameError(f"{game} has no action {name!r}: there are {' '.join(by_name)}")
    return [by_name[name] for name in names]
