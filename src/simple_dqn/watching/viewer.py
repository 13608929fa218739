"""Shows a game while it is played. The user sets its speed, steers it, and sees the agent's decisions.

`Viewer` decides what is shown and what the keys do. A `Display` draws it: `Window` or `Terminal`.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Sequence

import numpy as np

from simple_dqn.agent import Agent, Callback, Step
from simple_dqn.environment import Environment, Picture
from simple_dqn.reports.scores import Scores, score_text
from simple_dqn.watching import card
from simple_dqn.watching.display import HELP, Card, Display, Scene
from simple_dqn.watching.history import History, Moment
from simple_dqn.watching.insight import Explain, Insight, Thought
from simple_dqn.watching.joystick import JOYSTICK, joystick
from simple_dqn.watching.watcher import Watcher

_SPEEDS = (1 / 16, 1 / 8, 1 / 4, 1 / 2, 1.0, 2.0, 4.0, 8.0, 16.0, float("inf"))  # inf: as fast as possible
_REFRESH = 1 / 60  # minimum seconds between two pictures at speeds above 1
_MAX_DELAY = 0.1  # seconds that a slow machine catches up; the rest is skipped
_RATES = (0.0, 0.01, 0.05, 0.1, 0.2, 0.3, 0.5, 0.75, 1.0)  # of exploration, for the keys - and +


class Viewer(Watcher, Callback):
    """Shows a game frame by frame and lets a human play it.

    Args:
        display: where the game is drawn.
        scores: of the games. It receives each step before the viewer does.
        manual: the user has the joystick at the start.
        clock: returns the time in seconds. Tests replace it.
        sleep: waits for a number of seconds. Tests replace it.

    Attributes:
        quit: whether the user closed the display.
    """

    def __init__(
        self,
        display: Display,
        scores: Scores,
        manual: bool = False,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self.quit = False
        self._display, self._scores = display, scores
        scores.human_plays = lambda: self._steered
        self._clock, self._sleep = clock, sleep
        self._agent: Agent | None = None
        self._explain: Explain | None = None
        self._manual = manual
        self._paused = self._stepping = self._restart = False
        self._steered = False  # whether the user chose the last action
        self._playing = False  # in the phase of --play_games
        self._over = False  # the game is over, and the last step is yet to be counted
        self._abandoned = False  # the user restarts the game
        self._card: Card | None = None
        self._help: Sequence[tuple[str, str]] = ()  # entries of the current page and those after it
        self._speed = _SPEEDS.index(1)
        self._volume = 10  # of 10
        self._taps: set[str] = set()  # keys pressed since the last step, so that short presses count
        self._rate: float | None = None  # of the last step
        self._picture: Picture | None = None  # kept because the environment soon has the next game's
        self._history = History()
        self._now: Moment | None = None  # the last moment of the history
        self._insight: Insight | None = None  # None: the user did not press `v`
        self._thought: Thought | None = None  # about the moment that is shown
        self._thought_now: Thought | None = None  # about `_now`
        self._next_frame = self._last_drawn = float("-inf")  # times

    def attach(self, agent: Agent, explain: Explain | None = None) -> None:
        """Receive the agent, and the function that explains its decisions."""
        self._agent, self._explain = agent, explain

    def meet(self, environment: Environment) -> None:
        self._environment = environment

    def on_phase_start(self, phase: str, epoch: int, steps: int | None) -> None:
        self._playing = phase == "play"

    def on_restart(self) -> None:
        self._abandoned = True

    def on_game(self) -> None:
        self._over = self._playing and self._scores.current.steps > 0 and not self._abandoned
        self._abandoned = False
        if not self._over:
            self._forget_game()

    def on_step(self, step: Step) -> None:
        if step.game:
            return
        self._rate = step.exploration_rate
        over, self._over = self._over, False
        if over and step.terminal:
            self._show_card(last=False)
            self._picture = self._environment.picture()  # of the next game, which has begun meanwhile

    def wants_another_game(self) -> bool:
        """Show the card of the last game until the user quits or wants another game."""
        return bool(self._scores.games) and self._show_card(last=True)

    def on_frame(self, environment: Environment) -> None:
        if self._over:  # because its card comes first
            return
        self._picture = environment.picture()
        self._handle_keys()
        self._wait_for_frame(environment.frames_per_second)
        if _SPEEDS[self._speed] == 1 and self._volume:
            self._play_sound(environment)
        self._draw_if_due()
        self._wait_while_paused()

    def steer(self, action: int) -> int:
        self._stepping = False
        if self._agent and self._picture is not None:
            agent, score = self._agent, self._scores.current.score
            state, lives = agent.state.copy(), self._environment.lives
            self._now = Moment(self._picture, state, action, agent.q_values, score, lives)
            self._history.add(self._now)
            self._thought_now = None
            self._think()
        self._wait_while_paused()
        taps, self._taps = self._taps, set()
        self._steered = self._manual
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
            self._history.steps_back = 0
            self._think()
        elif key == "n":
            self._paused = True
            self._stepping = not self._history.forward()
            self._think()
        elif key == "b":
            self._paused = True
            self._history.back()
            self._think()
        elif key in ("-", "+", "="):  # = because + needs the shift key on many keyboards
            self._change_exploration(key != "-")
        elif key == "r":
            self._restart, self._stepping = True, self._paused
        elif key == "h":
            if self._help:
                self._help = self._help[self._display.help_page_length(self._help) :]
            else:
                unused = self._unused_keys()
                self._help = [(keys, text) for keys, text in HELP if not unused.issuperset(keys.split(", "))]
        elif key == "v":
            self._insight = Insight(self._agent, self._explain) if self._agent and not self._insight else None
            self._thought = self._thought_now = None
            self._think()  # because a paused game has no next step
        elif key == "f":
            self._display.toggle_fullscreen()
        elif key in ("q", "escape", "hangup"):
            self.quit |= key != "hangup"  # because the user did not ask for it: the run counts as interrupted
            if self._agent:
                self._agent.interrupted = True
        elif key in JOYSTICK or key.isdecimal():  # not ², which is a digit too
            self._taps.add(key)
        self._last_drawn = float("-inf")  # so that the effect of the key is drawn at once

    def _unused_keys(self) -> set[str]:
        """Keys of HELP that do nothing in this game on this display."""
        unused = set(self._display.unused_keys)
        if not self._environment.sound().size:
            unused |= {"[", "]"}
        if not any(joystick({key}, self._environment.action_names) for key in JOYSTICK):
            unused |= {"arrows", "space"}
        if not self._playing:
            unused |= {"-", "+", "="}
        if self._card:
            unused |= {"p", "n", "b"}
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
            if self._last_drawn == float("-inf") and self._next_frame - now > _REFRESH:  # a key's effect cannot wait
                self._draw_if_due()

    def _wait_while_paused(self) -> None:
        while self._paused and not self._stepping and not self._ending:
            self._draw_if_due()
            self._sleep(_REFRESH)
            self._handle_keys()

    def _show_card(self, last: bool) -> bool:
        """Show the card of a finished game. Return whether the user asks for another game."""
        self._card = card.card(self._scores.games, last)
        self._restart, self._help = False, ()
        end = float("inf") if last else self._clock() + card.SECONDS
        while not self._restart and not self._ending and self._clock() < end:
            self._draw_if_due()
            self._sleep(_REFRESH)
            self._handle_keys()
        again, self._restart = self._restart, False
        self._card = None
        self._forget_game()
        return again and not self._ending

    def _forget_game(self) -> None:
        """Another game begins. If Q-values are shown, the last ones stay until its first step."""
        self._history.clear()
        self._now = self._thought_now = None
        self._thought = self._thought and self._thought._replace(heat=None)

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
        moment, thought = self._history.shown, self._thought
        picture = moment.picture if moment else self._picture
        assert picture is not None
        if thought:
            picture = thought.over(picture)
        pixel_width = self._environment.pixel_width
        decision = thought and thought.decision
        self._display.draw(Scene(picture, pixel_width, self._status(), self._help, self._card, decision))

    def _status(self) -> list[str]:
        speed = _SPEEDS[self._speed]
        speed_text = "max" if speed == float("inf") else f"{speed:g}x" if speed >= 1 else f"1/{1 / speed:g}x"
        hint = "help"
        if self._help:
            hint = "more" if self._display.help_page_length(self._help) < len(self._help) else "close"
        game = self._scores.games[-1] if self._card else self._scores.current
        moment, moment_back = self._history.shown, self._history.steps_back
        lives = moment.lives if moment else self._environment.lives
        shared = 0 < game.human_steps < game.steps
        parts = (
            "GAME OVER" if self._card else "PAUSED" if self._paused else "",
            f"{moment_back} steps back" if moment_back > 1 else "1 step back" if moment_back else "",
            self._insight.problem if self._insight else "",
            "YOU" if self._manual else "agent",
            f"score {score_text(moment.score if moment else game.score)}",
            f"you {score_text(game.human_score)} : agent {score_text(game.score - game.human_score)}" if shared else "",
            f"lives {lives}" if lives and not self._card else "",  # because the next game has begun
            f"speed {speed_text}",
            f"volume {self._volume}" if self._volume < 10 else "",
            f"ε {self._rate:.2f}" if self._rate is not None else "",
            "r: again  q: quit" if self._card and not self._help else f"h: {hint}  q: quit",
        )
        return [part for part in parts if part]

    def _think(self) -> None:
        """Explain the moment that is shown, once the agent has chosen an action."""
        if not self._insight or not self._now:
            return
        steps_back, now = self._history.steps_back, self._now
        if moment := self._history.shown:
            self._thought = self._insight.think(moment.state, moment.action, moment.q_values, steps_back)
            return
        if not self._thought_now:
            self._thought_now = self._insight.think(now.state, now.action, now.q_values)
        self._thought = self._thought_now

    def _change_exploration(self, more: bool) -> None:
        """Take the next smaller or larger rate. Only in games played, because tests are measurements."""
        if not self._agent:
            return
        options = self._agent.options
        rate = options.exploration_rate_test
        rates = [r for r in _RATES if (r > rate if more else r < rate)]
        if rates:
            rate = rates[0] if more else rates[-1]
            self._agent.options = dataclasses.replace(options, exploration_rate_test=rate)
            self._rate = rate
