"""Watching a game: its speed, who plays, and what the agent thinks, for a window or a text terminal to show.

`Viewer` decides what there is to see and what keys mean; a `Display` shows it: `window.Window` or `terminal.Terminal`.
"""

from __future__ import annotations

import logging
import os
import sys
import time
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from simple_dqn.agent import Agent, Callback, Step
from simple_dqn.environment import Environment, Picture, Sound
from simple_dqn.errors import GameError
from simple_dqn.learning.guided import guided_q_value, read_network, saliency
from simple_dqn.options import Options, option
from simple_dqn.reports.scores import score_text
from simple_dqn.saving.snapshot import Layer
from simple_dqn.watching.watcher import Watcher

logger = logging.getLogger(__name__)

HELP = (
    ("m", "take over, give back"),
    ("arrows, space", "joystick and button"),
    ("0 to 9", "play that action"),
    ("a, s", "slower, faster"),
    ("[, ]", "volume"),
    ("p", "pause"),
    ("n", "one step"),
    ("r", "restart the game"),
    ("v", "what the agent thinks"),
    ("f", "full screen"),
    ("h", "this help"),
    ("q, Esc", "quit"),
)
_SPEEDS = (1 / 16, 1 / 8, 1 / 4, 1 / 2, 1.0, 2.0, 4.0, 8.0, 16.0, float("inf"))  # inf: as fast as it goes
_REFRESH = 1 / 60  # seconds between two pictures at most, where the game is faster
_LATE = 0.1  # seconds: what a slow machine lost beyond this is not made up for
_JOYSTICK = ("up", "down", "left", "right", "space")


@dataclass(frozen=True)
class ViewerOptions(Options):
    title = "Viewer"
    display_screen: bool | str = option(
        False, "show the game in a window; terminal, or true without a display: show it as text",
        choices=("true", "false", "terminal"), kept="never",
    )  # fmt: skip


class Mind(NamedTuple):
    """What the agent thinks of a state."""

    names: Sequence[str]  # of the actions
    q: NDArray[np.floating[Any]]  # (num_actions,)
    chosen: int  # the action that it chose, at random perhaps
    state: NDArray[np.uint8]  # (history, height, width)


class Scene(NamedTuple):
    """What there is to see."""

    picture: Picture
    pixel_width: float  # in heights
    status: Sequence[str]  # parts, the most important first, but the keys for help and quitting last; see `shortened`
    help: Sequence[tuple[str, str]]  # keys and what they do, from this page on; empty unless asked for
    mind: Mind | None


class Display(Protocol):
    """Shows scenes, plays sounds and has keys."""

    @property
    def idle(self) -> Collection[str]:
        """The keys of HELP that do nothing here."""

    def draw(self, scene: Scene) -> None:
        """Shows `scene`.

        Raises:
            GameError: there is nothing any more to show it on.
        """

    def play(self, sound: Sound, frames_per_second: float) -> None:
        """Plays a frame's sound after those before."""

    def pressed(self) -> Iterable[str]:
        """The keys pressed since the last call: characters, or up, down, left, right, space, escape."""

    def held(self) -> set[str]:
        """The keys that are down now, by the same names."""

    def room_for(self, help: Sequence[tuple[str, str]]) -> int:
        """How many lines of `help`, from the first on, can be read at once: at least one."""

    def toggle_fullscreen(self) -> None:
        """Fills the screen, or no longer."""

    def close(self) -> None:
        """Leaves everything as it was before."""


Explain = Callable[[Mind], NDArray[np.floating[Any]]]


class Saliency:
    """Finds the pixels that the Q-value of the chosen action hangs on, from 0 to 1.

    Args:
        layers: tells the network's layers, as a snapshot has them.
        version: tells when they have changed.
    """

    def __init__(self, layers: Callable[[], Sequence[Layer]], version: Callable[[], int]) -> None:
        self._layers, self._version = layers, version
        self._known = -1

    def __call__(self, mind: Mind) -> NDArray[np.floating[Any]]:
        if self._known != self._version():
            self._known = self._version()
            self._network = read_network(self._layers())
        guided = guided_q_value(self._network, mind.state[None], np.array([mind.chosen]))
        return saliency(guided.pixels)[0]


class Viewer(Watcher, Callback):
    """Shows a game frame by frame and lets a human play it.

    Args:
        display: where.
        clock, sleep: seconds, for tests.

    Attributes:
        quit: the user closed the display.
    """

    def __init__(
        self,
        display: Display,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self.quit = False
        self._display = display
        self._clock, self._sleep = clock, sleep
        self._agent: Agent | None = None
        self._explain: Explain | None = None
        self._environment: Environment | None = None
        self._manual = self._paused = self._stepping = self._thoughtful = self._restart = False
        self._help: Sequence[tuple[str, str]] = ()  # the lines of this page and of those after it
        self._speed = _SPEEDS.index(1)
        self._volume = 10  # of 10
        self._taps: set[str] = set()  # keys pressed since the last step: none is too short to count
        self._score, self._rate = 0.0, float("nan")
        self._action: int | None = None  # the last that the agent chose
        self._mind: Mind | None = None
        self._heat: NDArray[np.floating[Any]] | None = None
        self._due = self._drawn = float("-inf")

    def attach(self, agent: Agent, explain: Explain | None = None) -> None:
        """Tells who plays, and what shows the pixels that count, (height, width) from 0 to 1."""
        self._agent, self._explain = agent, explain

    def meet(self, environment: Environment) -> None:
        self._environment = environment

    def on_step(self, step: Step) -> None:
        if step.game == 0:
            self._rate = step.exploration_rate
            self._score = 0.0 if step.terminal or step.truncated else self._score + step.reward

    def on_frame(self, environment: Environment) -> None:
        self._environment = environment
        self._listen()
        self._wait_for_frame(environment.frames_per_second)
        if _SPEEDS[self._speed] == 1 and self._volume:
            self._sound(environment)
        self._draw_if_due()
        self._wait_while(lambda: self._paused and not self._stepping)

    def steer(self, action: int) -> int:
        self._stepping = False
        self._action = action
        self._think()
        self._wait_while(lambda: self._paused and not self._stepping)
        taps, self._taps = self._taps, set()
        if not self._manual or not self._environment:
            return action
        return joystick(self._display.held() | taps, self._environment.action_names)

    def wants_restart(self) -> bool:
        wanted, self._restart = self._restart, False
        return wanted

    def close(self) -> None:
        self._display.close()

    def _listen(self) -> None:
        for key in self._display.pressed():
            self._press(key)

    def _press(self, key: str) -> None:
        if key in self._idle():
            return
        if key in ("a", "s"):
            self._speed = min(max(self._speed + (1 if key == "s" else -1), 0), len(_SPEEDS) - 1)
        elif key in ("[", "]"):
            self._volume = min(max(self._volume + (1 if key == "]" else -1), 0), 10)
        elif key == "m":
            self._manual = not self._manual
        elif key == "p":
            self._paused = not self._paused
        elif key == "n":
            self._paused = self._stepping = True
        elif key == "r":
            self._restart, self._stepping = True, self._paused
        elif key == "h":
            if self._help:
                self._help = self._help[self._display.room_for(self._help) :]
            else:
                idle = self._idle()
                self._help = [(keys, text) for keys, text in HELP if not idle.issuperset(keys.split(", "))]
        elif key == "v":
            self._thoughtful = not self._thoughtful
            self._mind = self._heat = None
            self._think()  # who has paused wants to see now what was thought
        elif key == "f":
            self._display.toggle_fullscreen()
        elif key in ("q", "escape"):
            self.quit = True
            self._leave()
        elif key == "hangup":  # no user asked for it: the run ends as if interrupted
            self._leave()
        elif key in _JOYSTICK or key.isdigit():
            self._taps.add(key)
        self._drawn = float("-inf")  # what a key did is to be seen

    def _idle(self) -> set[str]:
        """Keys of HELP that do nothing in this game on this display."""
        idle = set(self._display.idle)
        if self._environment and not self._environment.sound().size:
            idle |= {"[", "]"}
        if self._environment and not any(joystick({key}, self._environment.action_names) for key in _JOYSTICK):
            idle |= {"arrows", "space"}
        return idle

    def _leave(self) -> None:
        if self._agent:
            self._agent.interrupted = True

    def _wait_for_frame(self, frames_per_second: float) -> None:
        now = self._clock()
        self._due += 1 / (frames_per_second * _SPEEDS[self._speed])
        if self._due < now - _LATE:
            self._due = now
        while now < self._due and not self._ending:
            self._sleep(min(self._due - now, _REFRESH))
            self._listen()
            now = self._clock()

    def _wait_while(self, condition: Callable[[], bool]) -> None:
        while condition() and not self._ending:
            self._draw_if_due()
            self._sleep(_REFRESH)
            self._listen()

    @property
    def _ending(self) -> bool:
        return self.quit or bool(self._agent and self._agent.interrupted)

    def _sound(self, environment: Environment) -> None:
        sound = environment.sound()
        if sound.size:
            loud = (sound.astype(np.int16) - 128) * self._volume // 10 + 128
            self._display.play(loud.astype(np.uint8), environment.frames_per_second)

    def _draw_if_due(self) -> None:
        now = self._clock()
        if self._environment and (now - self._drawn >= _REFRESH or _SPEEDS[self._speed] <= 1):
            self._drawn = now
            self._display.draw(self._scene(self._environment))

    def _scene(self, environment: Environment) -> Scene:
        picture = environment.picture()
        if self._heat is not None:
            picture = overlaid(picture, self._heat)
        return Scene(picture, environment.pixel_width, self._status(environment), self._help, self._mind)

    def _status(self, environment: Environment) -> list[str]:
        speed = _SPEEDS[self._speed]
        pace = "max" if speed == float("inf") else f"{speed:g}x" if speed >= 1 else f"1/{1 / speed:g}x"
        hint = "help"
        if self._help:
            hint = "more" if self._display.room_for(self._help) < len(self._help) else "close"
        parts = (
            "PAUSED" if self._paused else "",
            "YOU" if self._manual else "agent",
            f"score {score_text(self._score)}",
            f"lives {environment.lives}" if environment.lives else "",
            f"speed {pace}",
            f"volume {self._volume}" if self._volume < 10 else "",
            f"ε {self._rate:.2f}",
            f"h: {hint}  q: quit",
        )
        return [part for part in parts if part]

    def _think(self) -> None:
        """Shows the agent's thoughts, if the user wants to see them and there are any yet."""
        agent = self._agent
        if not self._thoughtful or not agent or self._action is None:
            return
        q = agent.network.predict(agent.state[None])[0]
        self._mind = Mind(agent.games.action_names, q, self._action, agent.state.copy())
        self._heat = self._explain(self._mind) if self._explain else None


def joystick(keys: set[str], names: Sequence[str]) -> int:
    """The action that `keys` stand for, among those called `names`; 0 if they stand for none.

    Where a game knows left and right only, up is right and down is left, as Pong has them.
    """
    digits = sorted(int(key) for key in keys if key.isdigit() and int(key) < len(names))
    if digits:
        return digits[0]
    up_down = [key.upper() for key in ("up", "down") if key in keys]
    left_right = [key.upper() for key in ("left", "right") if key in keys]
    vertical = up_down[0] if len(up_down) == 1 else ""
    horizontal = left_right[0] if len(left_right) == 1 else ""
    turned = {"UP": "RIGHT", "DOWN": "LEFT"}.get(vertical, "") if not horizontal and "UP" not in names else ""
    fire = "FIRE" if "space" in keys else ""
    moves = (vertical + horizontal, horizontal or turned, vertical)
    wanted = [move + fire for move in moves] + list(moves) + [fire]
    return next((names.index(name) for name in wanted if name and name in names), 0)


def shortened(status: Sequence[str], fits: Callable[[str], bool]) -> str:
    """The parts of `status` that fit on a line: the last one, and before it as many of the first as fit."""
    lines = ["  ".join([*status[:count], status[-1]]) for count in range(len(status))]
    return next((line for line in reversed(lines) if fits(line)), status[-1])


def overlaid(picture: Picture, heat: NDArray[np.floating[Any]]) -> Picture:
    """`picture`, darkened, with what `heat` (0 to 1, of any size) says is hot, in orange."""
    import cv2

    height, width, _ = picture.shape
    weight = cv2.resize(heat.astype(np.float32), (width, height))[..., None]
    mixed = picture * (0.6 * (1 - weight)) + np.array([255, 140, 0]) * weight
    return np.asarray(mixed, np.uint8)


def make_display(options: ViewerOptions) -> Display | None:
    """Where to show games, if anywhere: a window if there is a display, else the text terminal.

    Raises:
        GameError: there is neither.
    """
    if not options.display_screen:
        return None
    from simple_dqn.watching.terminal import Terminal

    if options.display_screen == "terminal":
        if not Terminal.is_possible():
            raise GameError("--display_screen terminal: standard input and output are no terminal")
        return Terminal()
    why = "neither DISPLAY nor WAYLAND_DISPLAY is set"
    if _has_display():
        from simple_dqn.watching.window import Window

        try:
            return Window()
        except GameError as error:
            why = str(error)
    if not Terminal.is_possible():
        raise GameError(f"--display_screen true: there is no display here ({why}), and no text terminal either")
    logger.info("There is no display here (%s): the game is shown in the terminal", why)
    return Terminal()


def _has_display() -> bool:
    linux = sys.platform.startswith("linux")
    named = any(os.environ.get(name) for name in ("DISPLAY", "WAYLAND_DISPLAY", "SDL_VIDEODRIVER"))
    return named or not linux
