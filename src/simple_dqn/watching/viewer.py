"""Shows a game while it is played. The user sets its speed, steers it, and sees the agent's decisions.

`Viewer` decides what is shown and what the keys do. A `Display` draws it: `Window` or `Terminal`.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from simple_dqn.agent import Agent, Callback, Step
from simple_dqn.environment import Environment, Picture
from simple_dqn.errors import SnapshotError
from simple_dqn.learning.guided import guided_q_value, read_network, saliency
from simple_dqn.reports.scores import score_text
from simple_dqn.saving.snapshot import Layer
from simple_dqn.watching.display import HELP, Decision, Display, QScale, Scene
from simple_dqn.watching.watcher import Watcher

logger = logging.getLogger(__name__)

_SPEEDS = (1 / 16, 1 / 8, 1 / 4, 1 / 2, 1.0, 2.0, 4.0, 8.0, 16.0, float("inf"))  # inf: as fast as possible
_REFRESH = 1 / 60  # minimum seconds between two pictures at speeds above 1
_MAX_DELAY = 0.1  # seconds that a slow machine catches up; the rest is skipped
_JOYSTICK = ("up", "down", "left", "right", "space")

Heat = NDArray[np.floating[Any]]  # (height, width), how much each pixel influenced the action, from 0 to 1
Explain = Callable[[Decision], Heat]


class Saliency:
    """Finds the pixels that influenced the Q-value of the chosen action most.

    Args:
        layers: returns the network's layers, in the form that snapshots have.
        version: returns a number that changes whenever the weights change.
    """

    def __init__(self, layers: Callable[[], Sequence[Layer]], version: Callable[[], int]) -> None:
        self._layers, self._version = layers, version
        self._read_version = -1

    def __call__(self, decision: Decision) -> Heat:
        """Return the heat. Raises SnapshotError if guided back-propagation does not know a layer."""
        version = self._version()
        if self._read_version != version:
            self._network = read_network(self._layers())
            self._read_version = version
        guided = guided_q_value(self._network, decision.state[None], np.array([decision.action]))
        return saliency(guided.pixels)[0]


class Viewer(Watcher, Callback):
    """Shows a game frame by frame and lets a human play it.

    Args:
        display: where the game is drawn.
        clock: returns the time in seconds. Tests replace it.
        sleep: waits for a number of seconds. Tests replace it.

    Attributes:
        quit: whether the user closed the display.
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
        self._manual = self._paused = self._stepping = self._restart = self._show_decision = False
        self._help: Sequence[tuple[str, str]] = ()  # entries of the current page and those after it
        self._speed = _SPEEDS.index(1)
        self._volume = 10  # of 10
        self._taps: set[str] = set()  # keys pressed since the last step, so that short presses count
        self._score, self._rate = 0.0, float("nan")
        self._action: int | None = None  # the last one that the agent chose
        self._decision: Decision | None = None
        self._q_scale = QScale()  # of all Q-values since the user pressed `v`
        self._heat: Heat | None = None
        self._note = ""  # why there is no heat
        self._next_frame = self._last_drawn = float("-inf")  # times

    def attach(self, agent: Agent, explain: Explain | None = None) -> None:
        """Receive the agent, and the function that explains its decisions."""
        self._agent, self._explain = agent, explain

    def meet(self, environment: Environment) -> None:
        self._environment = environment

    def on_step(self, step: Step) -> None:
        if step.game == 0:
            self._rate = step.exploration_rate
            self._score = 0.0 if step.terminal or step.truncated else self._score + step.reward

    def on_frame(self, environment: Environment) -> None:
        self._handle_keys()
        self._wait_for_frame(environment.frames_per_second)
        if _SPEEDS[self._speed] == 1 and self._volume:
            self._play_sound(environment)
        self._draw_if_due()
        self._wait_while_paused()

    def steer(self, action: int) -> int:
        self._stepping = False
        self._action = action
        self._update_decision()
        self._wait_while_paused()
        taps, self._taps = self._taps, set()
        if not self._manual:
            return action
        return joystick(self._display.held() | taps, self._environment.action_names)

    def wants_restart(self) -> bool:
        wanted, self._restart = self._restart, False
        return wanted

    def close(self) -> None:
        self._display.close()

    def _handle_keys(self) -> None:
        for key in self._display.pressed():
            self._press(key)

    def _press(self, key: str) -> None:
        if key in self._unused_keys():
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
                self._help = self._help[self._display.help_page_length(self._help) :]
            else:
                unused = self._unused_keys()
                self._help = [(keys, text) for keys, text in HELP if not unused.issuperset(keys.split(", "))]
        elif key == "v":
            self._show_decision = not self._show_decision
            self._decision = self._heat = None
            self._q_scale = QScale()
            self._note = ""
            self._update_decision()  # because a paused game has no next step
        elif key == "f":
            self._display.toggle_fullscreen()
        elif key in ("q", "escape", "hangup"):
            self.quit |= key != "hangup"  # because the user did not ask for it: the run counts as interrupted
            if self._agent:
                self._agent.interrupted = True
        elif key in _JOYSTICK or key.isdigit():
            self._taps.add(key)
        self._last_drawn = float("-inf")  # so that the effect of the key is drawn at once

    def _unused_keys(self) -> set[str]:
        """Keys of HELP that do nothing in this game on this display."""
        unused = set(self._display.unused_keys)
        if not self._environment.sound().size:
            unused |= {"[", "]"}
        if not any(joystick({key}, self._environment.action_names) for key in _JOYSTICK):
            unused |= {"arrows", "space"}
        return unused

    def _wait_for_frame(self, frames_per_second: float) -> None:
        now = self._clock()
        self._next_frame += 1 / (frames_per_second * _SPEEDS[self._speed])
        if self._next_frame < now - _MAX_DELAY:
            self._next_frame = now
        while now < self._next_frame and not self._ending:
            self._sleep(min(self._next_frame - now, _REFRESH))
            self._handle_keys()
            now = self._clock()

    def _wait_while_paused(self) -> None:
        while self._paused and not self._stepping and not self._ending:
            self._draw_if_due()
            self._sleep(_REFRESH)
            self._handle_keys()

    @property
    def _ending(self) -> bool:
        return self.quit or bool(self._agent and self._agent.interrupted)

    def _play_sound(self, environment: Environment) -> None:
        sound = environment.sound()
        if sound.size:
            scaled = (sound.astype(np.int16) - 128) * self._volume // 10 + 128
            self._display.play(scaled.astype(np.uint8), environment.frames_per_second)

    def _draw_if_due(self) -> None:
        now = self._clock()
        if now - self._last_drawn < _REFRESH and _SPEEDS[self._speed] > 1:
            return
        self._last_drawn = now
        picture = self._environment.picture()
        if self._heat is not None:
            picture = overlaid(picture, self._heat)
        pixel_width = self._environment.pixel_width
        self._display.draw(Scene(picture, pixel_width, self._status(), self._help, self._decision))

    def _status(self) -> list[str]:
        speed = _SPEEDS[self._speed]
        speed_text = "max" if speed == float("inf") else f"{speed:g}x" if speed >= 1 else f"1/{1 / speed:g}x"
        hint = "help"
        if self._help:
            hint = "more" if self._display.help_page_length(self._help) < len(self._help) else "close"
        parts = (
            "PAUSED" if self._paused else "",
            self._note,
            "YOU" if self._manual else "agent",
            f"score {score_text(self._score)}",
            f"lives {self._environment.lives}" if self._environment.lives else "",
            f"speed {speed_text}",
            f"volume {self._volume}" if self._volume < 10 else "",
            f"ε {self._rate:.2f}",
            f"h: {hint}  q: quit",
        )
        return [part for part in parts if part]

    def _update_decision(self) -> None:
        """Compute what `v` shows, once the agent has chosen an action."""
        agent = self._agent
        if not self._show_decision or not agent or self._action is None:
            return
        q_values = agent.network.predict(agent.state[None])[0]
        self._q_scale = self._q_scale.including(q_values)
        self._decision = Decision(agent.games.action_names, q_values, self._action, agent.state.copy(), self._q_scale)
        if not self._explain or self._note:
            return
        try:
            self._heat = self._explain(self._decision)
        except SnapshotError as error:
            self._note = "no saliency for this network (see the log)"
            logger.warning("The saliency cannot be shown: %s", error)


def joystick(keys: set[str], names: Sequence[str]) -> int:
    """The number of the action, among those with `names`, that `keys` stand for. 0 if there is none.

    If a game has only left and right, such as Pong, up means right and down means left.
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


def overlaid(picture: Picture, heat: Heat) -> Picture:
    """`picture`, darkened, with orange where `heat` is high. `heat` may have any size."""
    import cv2

    height, width, _ = picture.shape
    weight = cv2.resize(heat.astype(np.float32), (width, height))[..., None]
    mixed = picture * (0.6 * (1 - weight)) + np.array([255, 140, 0]) * weight
    return np.asarray(mixed, np.uint8)
