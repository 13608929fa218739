"""Makes what watches a run: viewer, recorders and film. Chooses where a game is shown: in a window or the terminal."""

from __future__ import annotations

import logging
import os
import re
import sys
from dataclasses import dataclass
from pathlib import Path

from simple_dqn.agent import Agent, Callback
from simple_dqn.deepqnetwork import DeepQNetwork
from simple_dqn.errors import GameError, OptionError
from simple_dqn.learning.neon_network import NeonNetwork
from simple_dqn.options import Options, option
from simple_dqn.reports.scores import Scores
from simple_dqn.watching.display import Display
from simple_dqn.watching.film import Film
from simple_dqn.watching.film_editor import FilmEditor
from simple_dqn.watching.insight import Saliency
from simple_dqn.watching.recorder import Frames, Recorder, RecorderOptions, SoundTrack
from simple_dqn.watching.viewer import Viewer
from simple_dqn.watching.watcher import Watcher, WatcherGroup

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class ViewerOptions(Options):
    title = "Viewer"
    display_screen: bool | str = option(
        False, "true: show the game in a window, or as text if there is no display. terminal: show it as text",
        choices=("true", "false", "terminal"), kept="never",
    )  # fmt: skip
    player: str = option(
        "agent", "who has the joystick when a shown game starts; m changes it", choices=("agent", "you"), kept="never"
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.player == "you" and not self.display_screen:
            raise OptionError("--player you: you need to see the game. Add --display_screen true")


class RunWatchers(WatcherGroup):
    """All that watches the games of a run: recorders and viewer, if the options ask for them, and the filter page.

    Attributes:
        viewer: None if the games are not shown.

    Raises:
        GameError, OptionError, OutputError: as `make_display` and `make_recorders`.
    """

    def __init__(
        self,
        view: ViewerOptions,
        recording: RecorderOptions,
        game: str,
        scores: Scores,
        page: Watcher | None,
        games: int,
    ) -> None:
        recorders = make_recorders(recording)
        display = make_display(view, game)
        self.viewer = Viewer(display, scores, manual=view.player == "you") if display else None
        self._explaining = [one for one in (self.viewer, *recorders) if isinstance(one, Viewer | FilmEditor)]
        recorded = WatcherGroup(recorders, recording.record_games)
        super().__init__([*filter(None, (recorded, self.viewer, page))], games)

    def attach(self, agent: Agent, network: DeepQNetwork | NeonNetwork) -> list[Callback]:
        """Let viewer and film explain the decisions of `agent`. Return them as its callbacks."""
        self._agent = agent
        explain = Saliency(network.layers, lambda: network.train_iterations)
        for watcher in self._explaining:
            watcher.attach(agent, explain)
        return [*self._explaining]

    def more_games(self) -> int:
        """Return 1 if the user asks for another game, else 0. It is not recorded."""
        if self.viewer:
            self.finish()  # because the user may look at the last card for long
            if self.viewer.wants_another_game():
                self.continue_with(self.viewer)
                # The others have finished. A page, for example, would be written again.
                callbacks = self._agent.callbacks
                self._agent.callbacks = [one for one in callbacks if one is self.viewer or not isinstance(one, Watcher)]
                return 1
        return 0


def make_recorders(options: RecorderOptions) -> list[Recorder | FilmEditor]:
    """The recorders that `options` ask for.

    Raises:
        OptionError: the type of a file is unknown.
        OutputError: a recording cannot be written.
    """
    recorders: list[Recorder | FilmEditor] = []
    if options.record_screen_path:
        recorders.append(Frames(Path(options.record_screen_path)))
    if options.record_sound_filename:
        recorders.append(SoundTrack(Path(options.record_sound_filename)))
    if options.video_file:
        recorders.append(FilmEditor(Film(Path(options.video_file)), options))
    return recorders


def make_display(options: ViewerOptions, game: str = "") -> Display | None:
    """A window, or the text terminal if no window can open. None if the options ask for neither.

    Raises:
        GameError: neither a window nor a terminal is available.
    """
    if not options.display_screen:
        return None
    from simple_dqn.watching.terminal import Terminal

    if options.display_screen == "terminal":
        if not Terminal.is_possible():
            raise GameError("--display_screen terminal: standard input and output are not a terminal")
        return Terminal()
    why = "neither DISPLAY nor WAYLAND_DISPLAY is set"
    named = any(os.environ.get(name) for name in ("DISPLAY", "WAYLAND_DISPLAY", "SDL_VIDEODRIVER"))
    if named or not sys.platform.startswith("linux"):
        from simple_dqn.watching.window import Window

        try:
            return Window(title(game))
        except GameError as error:
            why = str(error)
    if not Terminal.is_possible():
        raise GameError(f"--display_screen true: there is no display here ({why}), and no text terminal either")
    logger.info("There is no display here (%s): the game is shown in the terminal", why)
    return Terminal()


def title(game: str) -> str:
    """The title of a window in which `game` is played: a ROM file, the name of a game or an environment id."""
    name = re.sub(r"-v\d+$", "", re.split(r"[/:]", game)[-1])
    name = re.sub(r"\.(bin|rom|a26)$", "", name).replace("_", " ")
    return f"{name.title() if name.islower() else name} - Simple DQN" if name else "Simple DQN"
