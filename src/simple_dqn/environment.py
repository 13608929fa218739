"""Games. To add one, write a class with the five methods of `Environment` and name it in `make_environment`."""

from __future__ import annotations

import contextlib
import difflib
import hashlib
import importlib
import importlib.metadata
import os
import re
import sys
import warnings
import wave
from abc import ABC, abstractmethod
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from simple_dqn.errors import GameError, OptionError, OutputError
from simple_dqn.files import require_writable
from simple_dqn.options import Options, option

_SAMPLES_PER_FRAME = 512  # of the emulator's sound, 8 bits each
Mode = Literal["train", "test"]
Screen = NDArray[np.uint8]


@dataclass(frozen=True)
class EnvironmentOptions(Options):
    title = "Environment"
    game: str = option("", "ROM file, name of a game, or environment id with --environment gym", positional=True)
    environment: str = option(
        "ale", "where the game comes from: the Atari emulator or Gymnasium", choices=("ale", "gym")
    )
    display_screen: bool = option(False, "show the game while training, testing or playing")
    frame_skip: int = option(4, "frames for which each action is repeated", at_least=1, at_most=1000)
    repeat_action_probability: float = option(
        0.0, "probability, at each frame, that the last action is repeated instead (sticky actions)",
        at_least=0, at_most=1,
    )  # fmt: skip
    minimal_action_set: bool = option(True, "only the actions that do something in this game, not all 18")
    color_averaging: bool = option(True, "average each frame's colours with those of the frame before")
    screen_width: int = option(84, "width of a screen after the resize, pixels", at_least=1, at_most=4096)
    screen_height: int = option(84, "height of a screen after the resize, pixels", at_least=1, at_most=4096)
    record_screen_path: str | None = option(None, "folder for the game's frames as PNG")
    record_sound_filename: str | None = option(None, "WAV file for the game's sound")


class Environment(ABC):
    """A game as the agent plays it.

    `mode` is "train" where losing a life ends an episode, "test" where only the end of the game does.
    """

    mode: Mode = "train"

    @property
    @abstractmethod
    def num_actions(self) -> int:
        """How many actions there are; action 0 does nothing, where the game has such a one."""

    @property
    def action_names(self) -> list[str]:
        """What the actions are called."""
        return [str(action) for action in range(self.num_actions)]

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

    def close(self) -> None:  # noqa: B027  (most games have nothing to close)
        """Frees what the game holds."""


def make_environment(options: EnvironmentOptions, seed: int) -> Environment:
    """The game that `options` name.

    Raises:
        GameError: there is no such game, or it cannot be played.
        OptionError: an option does not go with the game.
        OutputError: what is to be recorded cannot be written.
    """
    if options.display_screen:
        _require_display()
    else:  # SDL, which draws and sounds for the games, must neither look for a screen nor complain that there is none
        os.environ.setdefault("SDL_VIDEODRIVER", "dummy")
        os.environ.setdefault("SDL_AUDIODRIVER", "dummy")
    if options.record_screen_path:
        require_writable(Path(options.record_screen_path, "000000.png"))
    if options.record_sound_filename:
        require_writable(Path(options.record_sound_filename))
    return ALEEnvironment(options, seed) if options.environment == "ale" else GymEnvironment(options, seed)


class ALEEnvironment(Environment):
    """An Atari 2600 game in the Arcade Learning Environment (Bellemare et al. 2013, doi:10.1613/jair.3912).

    Args:
        options: its options; `game` is a ROM file, or the name of a game whose ROM ships with ale-py.
        seed: of the sticky actions.
    """

    def __init__(self, options: EnvironmentOptions, seed: int) -> None:
        import ale_py
        import cv2

        self._resize: Any = cv2.resize
        self._size = (options.screen_width, options.screen_height)
        rom = find_rom(options.game)
        ale_py.ALEInterface.setLoggerMode(ale_py.LoggerMode.Error)
        self._ale = ale = ale_py.ALEInterface()
        ale.setInt("random_seed", seed)
        ale.setInt("frame_skip", options.frame_skip)
        ale.setFloat("repeat_action_probability", options.repeat_action_probability)
        ale.setBool("color_averaging", options.color_averaging)
        ale.setBool("display_screen", options.display_screen)
        ale.setBool("sound", options.display_screen)
        if options.record_screen_path:
            ale.setString("record_screen_dir", options.record_screen_path)
        self._sound_filename = options.record_sound_filename
        self._sound: Any = None  # its file, opened as the first game begins: until then an earlier one is safe
        if self._sound_filename:  # the emulator gives out the sound of one frame at a time
            ale.setBool("sound_obs", True)
            ale.setInt("frame_skip", 1)
        self._frame_skip = options.frame_skip
        ale.loadROM(rom)
        self._actions = ale.getMinimalActionSet() if options.minimal_action_set else ale.getLegalActionSet()
        self._lives = ale.lives()
        self._life_lost = False
        self._before_game: Any = None  # the emulator's state at the last reset
        self._played = bytearray()  # the actions since
        height, width = ale.getScreenDims()
        self._frame = np.empty((height, width), np.uint8)

    @property
    def num_actions(self) -> int:
        return len(self._actions)

    @property
    def action_names(self) -> list[str]:
        return [action.name for action in self._actions]

    def restart(self) -> None:
        if self._sound_filename and not self._sound:
            self._sound = _open_wave(self._sound_filename)
        if self.mode == "test" or not self._life_lost or self._ale.game_over():
            self._before_game = self._ale.cloneState(include_rng=True)
            self._played.clear()
            self._ale.reset_game()
        self._life_lost = False
        self._lives = self._ale.lives()

    def act(self, action: int) -> float:
        reward: int = self._act_aloud(action) if self._sound else self._ale.act(self._actions[action])
        self._played.append(action)
        lives = self._ale.lives()
        self._life_lost = lives < self._lives
        self._lives = lives
        return reward

    def screen(self) -> Screen:
        self._ale.getScreenGrayscale(self._frame)
        resized: Screen = self._resize(self._frame, self._size)  # bilinear, as in the original
        return resized

    def is_terminal(self) -> bool:
        return bool(self._ale.game_over()) or (self.mode == "train" and self._life_lost)

    def state(self) -> dict[str, Any]:
        # The emulator's own state lacks the last screens and action and, in some games, more: it is played anew.
        before = self._before_game and np.frombuffer(self._before_game.__getstate__(), np.uint8)
        return dict(before=before, played=np.array(self._played), life_lost=self._life_lost, lives=self._lives)

    def restore(self, state: dict[str, Any]) -> None:
        if state["before"] is not None:
            import ale_py

            self._before_game = ale_py.ALEState.__new__(ale_py.ALEState)
            self._before_game.__setstate__(state["before"].tobytes())
            self._ale.restoreState(self._before_game)
            self._ale.reset_game()
            for action in state["played"].tolist():
                self._ale.act(self._actions[action])
        self._played = bytearray(state["played"])
        self._life_lost, self._lives = state["life_lost"], state["lives"]

    def close(self) -> None:
        if self._sound:
            self._sound.close()

    def _act_aloud(self, action: int) -> int:
        reward = 0
        for _ in range(self._frame_skip):
            reward += self._ale.act(self._actions[action])
            self._sound.writeframes(self._ale.getAudio().tobytes())
            if self._ale.game_over():
                break
        return reward


class GymEnvironment(Environment):
    """A Gymnasium environment (https://gymnasium.farama.org) with discrete actions, seen through its pixels.

    The screen is the observation where that is an image, else the picture that the environment renders.
    The environment's own frame skip and sticky actions apply.

    Args:
        options: its options; `game` is the environment's id.
        seed: of the environment's first reset.
    """

    def __init__(self, options: EnvironmentOptions, seed: int) -> None:
        import cv2

        if options.record_sound_filename:
            raise OptionError("--record_sound_filename: a Gymnasium environment has no sound to record")
        self._cv2: Any = cv2
        self._size = (options.screen_width, options.screen_height)
        self._record_path = Path(options.record_screen_path) if options.record_screen_path else None
        self._frames = 0
        self._gym, self._sees_observation = _make_gym(options)
        self._actions = _discrete_actions(self._gym, options.game)
        self._seed: int | None = seed
        self._observation: Any = None
        self._terminated = self._truncated = False

    @property
    def num_actions(self) -> int:
        return len(self._actions)

    def restart(self) -> None:
        self._observation, _ = self._gym.reset(seed=self._seed)
        self._seed = None  # later games follow from the first
        self._terminated = self._truncated = False
        self._record()

    def act(self, action: int) -> float:
        self._observation, reward, self._terminated, self._truncated, _ = self._gym.step(self._actions[action])
        self._record()
        return float(reward)

    def screen(self) -> Screen:
        picture = self._picture()
        if picture.ndim == 3:
            picture = (
                picture[..., 0] if picture.shape[-1] == 1 else self._cv2.cvtColor(picture, self._cv2.COLOR_RGB2GRAY)
            )
        resized: Screen = self._cv2.resize(picture, self._size)
        return resized

    def is_terminal(self) -> bool:
        return self._terminated or self._truncated

    @property
    def truncated(self) -> bool:
        return self._truncated and not self._terminated

    def close(self) -> None:
        self._gym.close()

    def _picture(self) -> Screen:
        picture = self._observation if self._sees_observation else self._gym.render()
        return np.ascontiguousarray(picture)

    def _record(self) -> None:
        if self._record_path:
            self._frames += 1
            picture = self._picture()
            picture = picture[..., ::-1] if picture.ndim == 3 else picture  # OpenCV writes blue first
            file = self._record_path / f"{self._frames:06d}.png"
            if not self._cv2.imwrite(str(file), picture):
                raise OutputError(f"cannot write {file}: is the disk full?")


def _open_wave(filename: str) -> Any:
    file = wave.open(filename, "wb")  # noqa: SIM115  (stays open as long as the game)
    file.setnchannels(1)
    file.setsampwidth(1)
    file.setframerate(_SAMPLES_PER_FRAME * 60)
    return file


def game_of(stem: str) -> str:
    """The game that a snapshot's name begins with: its name up to the first _, or further where that is a game."""
    from ale_py import roms

    parts, names = stem.split("_"), roms.get_all_rom_ids()
    longer = ("_".join(parts[:n]) for n in range(len(parts), 1, -1))
    return next((name for name in longer if name in names), parts[0])


def find_rom(game: str) -> Path:
    """The ROM file that `game` names: a path, else the ROM that ale-py ships under the path's stem.

    Raises:
        GameError: there is no such file or game, or the file is not an Atari game.
    """
    from ale_py import ALEInterface, roms

    path, names = Path(game), roms.get_all_rom_ids()
    name = path.stem.lower().replace("-", "_").replace(" ", "_")
    shadowed = path.is_dir() and game == name and name in names  # a folder called breakout is not meant
    if path.exists() and not path.is_file() and not shadowed:
        kind = "a folder" if path.is_dir() else "no file"
        raise GameError(f"{game} is {kind}, not a ROM: name a file such as roms/breakout.bin, or a game")
    if shadowed or not path.exists():
        if name in names:
            rom = Path(str(roms.get_rom_path(name)))
            if not ALEInterface.isSupportedROM(rom):
                raise GameError(f"{name} is a game for two, which the emulator cannot play alone: choose another")
            return rom
        close = difflib.get_close_matches(name, names, n=3)
        hint = f"closest are {', '.join(close)}" if close else "games are breakout, pong, space_invaders and others"
        gym_hint = "; for a Gymnasium environment add --environment gym" if _looks_like_gym(game) else ""
        raise GameError(f"no ROM file {game} and no game {name!r}: {hint}{gym_hint}")
    # The emulator exits the whole process on a ROM it cannot read, so the file is looked at first.
    content = path.read_bytes()
    advice = f": remove it to play the {name} that ships with ale-py" if name in names else ""
    if not content:
        raise GameError(f"{game} is empty, not an Atari 2600 ROM{advice}")
    if not ALEInterface.isSupportedROM(path):
        md5 = hashlib.md5(content, usedforsecurity=False).hexdigest()
        raise GameError(
            f"{game} is not an Atari 2600 game that the emulator knows (MD5 {md5}, {len(content)} bytes){advice}"
        )
    return path


def _looks_like_gym(game: str) -> bool:
    return bool(game) and game[-1].isdigit() and "-v" in game


def _require_display() -> None:
    if sys.platform.startswith("linux") and not (os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")):
        raise GameError("--display_screen true: there is no display here (neither DISPLAY nor WAYLAND_DISPLAY is set)")


def _make_gym(options: EnvironmentOptions) -> tuple[Any, bool]:
    """The environment, and whether what it observes is an image (else its rendering is)."""
    env = _find_gym(options.game, "human" if options.display_screen else "rgb_array")
    sees_observation = _is_image(env.observation_space)
    if not sees_observation and options.display_screen:
        raise OptionError(
            f"--display_screen true: {options.game} is learned from its rendering, so no window can show it"
        )
    if not sees_observation and env.render_mode != "rgb_array":
        raise GameError(
            f"{options.game} has no image observations ({env.observation_space}) and no rgb_array rendering: "
            "there are no pixels to learn from"
        )
    return env, sees_observation


def _find_gym(game: str, render_mode: str) -> Any:
    import ale_py
    import gymnasium
    from gymnasium.error import UnregisteredEnv

    ale_py.ALEInterface.setLoggerMode(ale_py.LoggerMode.Error)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that Breakout-v0 is out of date is known to who asks for it
        gymnasium.register_envs(ale_py)
        try:
            try:
                gymnasium.spec(game)
            except UnregisteredEnv:
                _import_packages_with_environments()
            if render_mode in _render_modes(gymnasium.spec(game)):
                return gymnasium.make(game, render_mode=render_mode, disable_env_checker=True)
            return gymnasium.make(game, disable_env_checker=True)
        except Exception as error:  # an environment's own code may fail in any way
            reason = str(error).strip().split("\n")[0] or type(error).__name__
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


def _discrete_actions(env: Any, game: str) -> range:
    from gymnasium.spaces import Discrete

    space = env.action_space
    if not isinstance(space, Discrete):
        raise GameError(f"{game} has actions {space}: deep Q-learning needs a Discrete action space")
    if space.n > 256:
        raise GameError(f"{game} has {space.n} actions: at most 256 are supported")
    return range(int(space.start), int(space.start + space.n))
