"""Chooses where a game is shown: in a window, in the terminal or nowhere."""

from __future__ import annotations

import logging
import os
import re
import sys
from dataclasses import dataclass

from simple_dqn.errors import GameError, OptionError
from simple_dqn.options import Options, option
from simple_dqn.watching.display import Display

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
