"""Atari 2600 games in the Arcade Learning Environment."""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Iterator, Sequence
from functools import cache
from typing import Any

import numpy as np

from simple_dqn.environment import FRAMES_PER_SECOND, Environment, EnvironmentOptions, Picture, Screen, Sound
from simple_dqn.errors import GameError
from simple_dqn.games.averaging import STEPS_IN_RESET, LastFrames, average_after_reset, can_average
from simple_dqn.games.roms import find_rom
from simple_dqn.watching.watcher import Watcher

logger = logging.getLogger(__name__)

_SAMPLES_PER_FRAME = 512  # of the emulator's sound, 8 bits each
_SILENCE = 128
# Addresses in RAM where at least one byte is above 0 during a game. These cartridges end a game with lives left. The
# emulator does not notice, and only the console's RESET starts another game. Breakout counts frames in 16 bits and
# ends its game when the count overflows. Pitfall has a clock of 20 minutes.
_ABOVE_0_IN_GAME = {"breakout": [52], "pitfall": [88, 89]}
_STEPS_PER_CHECK = 64  # of these bytes, because a check takes 2 µs


class ALEEnvironment(Environment):
    """An Atari 2600 game in the Arcade Learning Environment (Bellemare et al. 2013, doi:10.1613/jair.3912).

    Args:
        options: `game` is a ROM file, or the name of a game that ale-py includes.
        seed: seed of the sticky actions.
        watchers: see all frames, those of repeated actions too. The agent sees the same with and without them, except
            in the games `STEPS_IN_RESET`, which begin some frames earlier with them.
        actions: names of the actions, instead of those that `minimal_action_set` selects.
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
        # Watchers need every frame and averaging needs the last two, so the environment repeats the action itself.
        self._repeats, frame_skip = (options.frame_skip, 1) if watchers or averages else (1, options.frame_skip)
        ale.setInt("frame_skip", frame_skip)
        most_frames = max(round(options.max_game_seconds * FRAMES_PER_SECOND), options.max_game_seconds > 0)
        ale.setInt("max_num_frames_per_episode", most_frames)
        ale.setFloat("repeat_action_probability", options.repeat_action_probability)
        ale.setBool("color_averaging", options.color_averaging and not averages)
        ale.setBool("sound_obs", bool(watchers))
        self.watchers = watchers
        ale.loadROM(rom)
        self._frames = LastFrames(ale) if averages else None  # because the emulator's averages are slow
        self._actions = ale.getMinimalActionSet() if options.minimal_action_set else ale.getLegalActionSet()
        if actions:
            self._actions = _named(actions, ale.getLegalActionSet(), options.game)
        self.lives = ale.lives()
        self._life_lost = False
        self._name = str(ale.isSupportedROM(rom))
        self._above_0_in_game = _ABOVE_0_IN_GAME.get(self._name)
        self._stopped = False  # the cartridge ended the game with lives left
        self._before_game: Any = None  # state of the emulator at the last reset
        self._played = bytearray()  # actions since then
        self._silent = True  # until the first frame after a reset
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
        for frame_reward in self._frame_rewards(action):
            reward += frame_reward
            self.lives = self._ale.lives()
            self._silent = False
            self._show()
        self._life_lost = self.lives < lives
        if self._above_0_in_game and len(self._played) % _STEPS_PER_CHECK == 0 and self.lives:
            self._stopped = not self._ale.getRAM()[self._above_0_in_game].any()
            if self._stopped:
                _log_stop(self._name)
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

    def state(self) -> dict[str, Any] | None:
        if self.watchers and self._name in STEPS_IN_RESET:
            return None  # because without watchers the same actions would lead to another state
        # The emulator's state lacks the last screens, the last action and, in some games, more. So `restore` plays the
        # game again from its reset.
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
                deque(self._frame_rewards(action), maxlen=0)
        self._played = bytearray(state["played"])
        self._life_lost, self.lives = state["life_lost"], state["lives"]

    def _reset(self) -> None:
        self._ale.reset_game()
        if self._frames:
            self._frames.add()

    def _frame_rewards(self, action: int) -> Iterator[int]:
        """Play `action` in all frames of a step. Yield the reward of each, up to the end of the game."""
        for _ in range(self._repeats):
            over = self._ale.game_over()
            reward = self._ale.act(self._actions[action])  # after the end too, because each call draws random numbers
            if not over:
                if self._frames:
                    self._frames.add()
                yield reward

    @property
    def truncated(self) -> bool:
        cut = self._stopped or bool(self._ale.game_truncated())
        lost = self._life_lost and self.mode == "train"
        return cut and not lost and not self._ale.game_over(with_truncation=False)

    def picture(self) -> Picture:
        picture: Picture = self._ale.getScreenRGB()
        return picture

    def sound(self) -> Sound:
        if self._silent:
            return np.full(_SAMPLES_PER_FRAME, _SILENCE, np.uint8)
        sound: Sound = self._ale.getAudio()
        return sound


@cache  # because once per process is enough
def _log_stop(game: str) -> None:
    logger.warning(
        "%s stopped with lives left, as its cartridge does after a time. The game is cut short. A new one starts.", game
    )


def _named(names: Sequence[str], legal: Sequence[Any], game: str) -> list[Any]:
    """Return the emulator's actions of these names."""
    by_name = {action.name: action for action in legal}
    for name in names:
        if name not in by_name:
            raise GameError(f"{game} has no action {name!r}. Its actions: {' '.join(by_name)}")
    return [by_name[name] for name in names]
