"""The terminal: what is written to it, and that it is given back as it was."""

from __future__ import annotations

import contextlib
import fcntl
import os
import pty
import re
import select
import signal
import struct
import sys
import termios
from collections.abc import Iterator, Sequence
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from fakes import ale, make_decision, make_scene
from simple_dqn.watching import cells, terminal
from simple_dqn.watching.card_text import card_lines, large_digits
from simple_dqn.watching.cells import (
    blocks,
    changes,
    in_16_colours,
    in_256_colours,
    in_all_colours,
    style_of_terminal,
    without_colours,
)
from simple_dqn.watching.display import HELP, Card, QScale
from simple_dqn.watching.terminal import Terminal, _short, keys

SMALL = make_scene(np.zeros((4, 8, 3), np.uint8), pixel_width=1.0)


def test_keys_of_a_terminal() -> None:
    typed = b"m \x1b[A\x1bOB\x1b[C\x1b[D[]Q\x1b[1;2Pn\x1b"
    assert list(keys(typed)) == ["m", "space", "up", "down", "right", "left", "[", "]", "q", "n", "escape"]
    assert list(keys("ä\x01".encode())) == []
    assert list(keys(b"\x1b[[A\x1b[15~\x1b[23$\x1bOP\x1bq\x1b[1;5Cp")) == ["p"]  # F keys, Alt+q, Ctrl+right


def test_names_of_actions_differ_when_they_are_short() -> None:
    names = ale("seaquest").action_names
    assert len({_short(name) for name in names}) == len(names) == 18
    assert _short("DOWNRIGHTFIRE") == "D R FIRE"


def test_an_arrow_that_comes_in_two_parts_and_turns_round(tty: int, monkeypatch: pytest.MonkeyPatch) -> None:
    shown = Terminal()
    shown.draw(SMALL)
    monkeypatch.setattr(terminal, "_ESCAPE", 9)
    for part, pressed in ((b"\x1b", []), (b"[", []), (b"D", ["left"]), (b"\x1b[C", ["right"])):
        os.write(tty, part)
        assert list(shown.pressed()) == pressed
    assert shown.held() == {"right"}
    os.write(tty, b"\x1b")
    assert list(shown.pressed()) == []
    monkeypatch.setattr(terminal, "_ESCAPE", 0)
    assert list(shown.pressed()) == ["escape"]
    shown.close()


@pytest.mark.parametrize(("columns", "rows", "shape"), [(80, 21, (21, 56)), (40, 50, (15, 40)), (1, 1, (1, 1))])
def test_blocks_fill_the_terminal_in_the_games_shape(columns: int, rows: int, shape: tuple[int, int]) -> None:
    assert blocks(np.zeros((210, 160, 3), np.uint8), 1.75, columns, rows).shape == (*shape, 2, 3)


def test_only_what_changed_is_written() -> None:
    dark = np.zeros((2, 3, 2, 3), np.uint8)
    black, red = "\x1b[38;2;0;0;0;48;2;0;0;0m", "\x1b[38;2;255;0;0;48;2;0;0;0m"
    assert changes(dark, None, in_all_colours) == f"\x1b[1;1H{black}▀▀▀\x1b[2;1H{black}▀▀▀"
    other = dark.copy()
    other[1, 2, 0, 0] = 255  # the upper half
    assert changes(other, dark, in_all_colours) == f"\x1b[2;3H{red}▀"
    assert changes(other, dark, in_256_colours) == "\x1b[2;3H\x1b[38;5;196;48;5;16m▀"
    assert changes(other, other, in_all_colours) == ""


@pytest.mark.parametrize(
    ("colour", "number"),
    [((255, 255, 255), 231), ((0, 0, 0), 16), ((128, 128, 128), 244), ((0, 255, 0), 46), ((144, 72, 17), 94)],
)
def test_colours_of_a_plain_terminal(colour: tuple[int, int, int], number: int) -> None:
    assert cells._of_256(*colour) == number


@pytest.fixture
def tty(monkeypatch: pytest.MonkeyPatch) -> Iterator[int]:
    """Makes standard input and output a terminal of 20x8. Returns its other end."""
    other_end, here = pty.openpty()
    fcntl.ioctl(here, termios.TIOCSWINSZ, struct.pack("HHHH", 8, 20, 0, 0))
    with open(here, "r+b", buffering=0) as raw:
        streams = SimpleNamespace(platform=sys.platform, stdin=raw, stdout=raw, stderr=sys.stderr)
        monkeypatch.setattr(terminal, "sys", streams)  # because pytest replaces sys.stdout after this
        monkeypatch.setenv("COLORTERM", "truecolor")
        monkeypatch.setenv("TERM", "xterm")
        monkeypatch.setattr(terminal, "_INTERVAL", 0)
        yield other_end
    with contextlib.suppress(OSError):  # a test may have closed it
        os.close(other_end)


def written(tty: int) -> str:
    """What came through the terminal, possibly late and in pieces."""
    text = b""
    while select.select([tty], [], [], 2 if not text else 0.2)[0]:
        text += os.read(tty, 1 << 16)
    return text.decode()


def test_whether_there_is_a_terminal(tty: int, monkeypatch: pytest.MonkeyPatch) -> None:
    assert Terminal.is_possible()
    monkeypatch.setenv("TERM", "dumb")
    assert not Terminal.is_possible()
    monkeypatch.setenv("TERM", "xterm")
    with open(os.devnull) as null:
        monkeypatch.setattr("simple_dqn.watching.terminal.sys.stdin", null)
        assert not Terminal.is_possible()


def test_terminal_is_taken_over_and_given_back(tty: int) -> None:
    before = termios.tcgetattr(tty)
    shown = Terminal()
    shown.draw(SMALL._replace(status=("agent", "score 12345", "h: help")))
    text = written(tty)
    assert text.startswith("\r\x1b[K\x1b[?1049h\x1b[?25l\x1b[2J")  # the progress bar is not to be seen afterwards
    assert "\x1b[7;8r" in text  # the log scrolls in the last two lines
    assert text.count("▀") == 20 * 5
    assert "\x1b[6;1H\x1b[0m\x1b[Kagent · h: help\x1b8" in text  # the parts that fit
    shown.draw(SMALL)
    assert "▀" not in written(tty)
    os.write(tty, b"p\x1b[A")
    assert list(shown.pressed()) == ["p", "up"]
    assert "up" in shown.held()
    shown.draw(SMALL._replace(decision=make_decision(action=4)))
    assert re.search(r"\x1b\[2;1H FIRE        1.000 ", written(tty))
    shown.close()
    assert written(tty) == "\x1b[r\x1b[0m\x1b[?25h\x1b[?1049l"
    assert termios.tcgetattr(tty) == before


def test_terminal_is_given_back_while_the_program_is_stopped(tty: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ctrl-Z, and fg."""
    before, handler = termios.tcgetattr(tty), signal.getsignal(signal.SIGTSTP)
    shown = Terminal()
    shown.draw(SMALL)
    written(tty)
    stops: list[Any] = []
    monkeypatch.setattr(os, "kill", lambda *what: stops.append((what, written(tty), termios.tcgetattr(tty) == before)))
    signal.raise_signal(signal.SIGTSTP)
    assert stops == [((os.getpid(), signal.SIGSTOP), "\x1b[r\x1b[0m\x1b[?25h\x1b[?1049l", True)]
    assert written(tty) == "\r\x1b[K\x1b[?1049h\x1b[?25l\x1b[2J"
    shown.draw(SMALL)
    assert written(tty).count("▀") == 20 * 5
    shown.close()
    assert signal.getsignal(signal.SIGTSTP) == handler


@pytest.mark.parametrize("noticed", ["while drawing", "while reading keys"])
def test_a_closed_terminal_is_reported(noticed: str, tty: int) -> None:
    shown = Terminal()
    shown.draw(SMALL)
    assert list(shown.pressed()) == []
    os.close(tty)
    if noticed == "while drawing":
        shown.draw(SMALL)
    assert list(shown.pressed()) == list(shown.pressed()) == ["hangup"]
    shown.draw(SMALL)
    shown.close()


class Page:
    """What a terminal shows after what was written to it."""

    def __init__(self, columns: int, lines: int) -> None:
        self.columns, self.lines = columns, lines
        self.cells = [[" "] * columns for _ in range(lines)]
        self.row = self.column = 0
        self.kept = self.other = (0, 0, self.cells)

    def write(self, text: str) -> None:
        for code, arguments, letter, character in re.findall(r"\x1b(\[\??([0-9;]*)([A-Za-z])|[78])|([^\x1b])", text):
            if character == "\r":
                self.column = 0
            elif character == "\n":
                self.row, self.column = self.row + 1, 0
            elif character:
                if self.column == self.columns:
                    self.row, self.column = self.row + 1, 0
                self.cells[self.row][self.column] = character
                self.column += 1
            elif code == "7":
                self.kept = self.row, self.column, self.cells
            elif code == "8":
                self.row, self.column, _ = self.kept
            elif letter == "H":
                self.row, self.column = (int(number) - 1 for number in arguments.split(";"))
            elif letter == "K":
                column = min(self.column, self.columns - 1)
                self.cells[self.row][column:] = " " * (self.columns - column)
            elif code == "[2J":
                self.cells[:] = [[" "] * self.columns for _ in range(self.lines)]
            elif code == "[?1049h":
                self.other = self.row, self.column, self.cells
                self.cells = [[" "] * self.columns for _ in range(self.lines)]
            elif code == "[?1049l":
                self.row, self.column, self.cells = self.other

    def text(self) -> list[str]:
        return ["".join(line).rstrip() for line in self.cells]


def paged(monkeypatch: pytest.MonkeyPatch, columns: int, lines: int) -> tuple[Terminal, Page]:
    """A terminal of this size, and what it shows."""
    shown, page = Terminal(), Page(columns, lines)
    monkeypatch.setattr(terminal, "_INTERVAL", 0)
    monkeypatch.setattr(os, "get_terminal_size", lambda _: os.terminal_size((columns, lines)))
    monkeypatch.setattr(shown, "_open", lambda: None)
    monkeypatch.setattr(shown, "_write", page.write)
    return shown, page


@pytest.mark.parametrize("size", [(80, 24), (40, 12), (20, 6), (200, 60), (37, 5)])
def test_a_terminal_of_any_size_shows_all_of_the_help_and_how_to_quit(
    size: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    shown, page = paged(monkeypatch, *size)
    scene = make_scene(status=("agent", "score 12", "lives 3", "speed 1x", "ε 0.05", "h: more  q: quit"))
    shown.draw(scene)
    help: Sequence[tuple[str, str]] = HELP
    words: list[str] = []
    while help:
        shown.draw(scene._replace(help=help))
        assert page.text()[size[1] - 3].endswith("h: more  q: quit")
        words += " ".join(page.text()[: size[1] - 3]).replace("▀", "").replace(":", "").split()
        help = help[shown.help_page_length(help) :]
    assert words == " ".join(f"{keys} {text}" for keys, text in HELP).split()


CARD = Card([("you", "-21"), ("agent", "7.5")], [("steps", "1856"), ("best so far", "20 (this game)"), ("q", "quit")])


def test_the_scores_of_a_card_are_large_digits() -> None:
    assert card_lines(CARD, 60, 8) == [
        "     you          agent    ",
        "     ▀▀█ ▄█    ▀▀█     █▀▀ ",
        " ▀▀▀ █▀▀  █      █     ▀▀█ ",
        "     ▀▀▀ ▀▀▀     ▀  ▀  ▀▀▀ ",
        "      steps  1856          ",
        "best so far  20 (this game)",
        "          q  quit          ",
    ]
    assert large_digits("1", 2) == ["  ██  ", "████  ", "  ██  ", "  ██  ", "██████"]


@pytest.mark.parametrize("score", ["-21", "123456789012", "1e-05"])
@pytest.mark.parametrize("size", [(80, 21), (40, 9), (20, 3), (200, 57), (7, 2)])
def test_a_card_fits_into_every_terminal(score: str, size: tuple[int, int]) -> None:
    lines = card_lines(CARD._replace(scores=[("you", score), ("agent", "7")]), *size)
    assert len(lines) <= size[1]
    assert {len(line) for line in lines} == {len(lines[0])}
    assert len(lines[0]) <= size[0]
    assert lines[0].strip().startswith("you")
    large = size[0] >= {"-21": 40, "123456789012": 80}.get(score, 999)
    assert any("▀" in line or "█" in line for line in lines) == large


def test_nothing_is_left_of_the_help_or_of_the_decision_in_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    shown, page = paged(monkeypatch, 80, 24)
    scene = make_scene()
    shown.draw(scene)
    bare = page.text()
    smaller = dict(picture=scene.picture[:100])
    for parts in (dict(help=HELP), dict(decision=make_decision()), dict(help=HELP[:1]), dict(card=CARD), smaller, {}):
        shown.draw(scene._replace(**parts))
        left_over = page.text()
        monkeypatch.setattr(shown, "_cells", None)  # so that all is drawn
        shown.draw(scene._replace(**parts))
        assert left_over == page.text()
    assert page.text() == bare


def test_what_follows_a_game_in_a_terminal_has_a_line_of_its_own(tty: int) -> None:
    shown, page = Terminal(), Page(20, 8)
    shown._write("play: 0step [00:00]")  # the progress bar, which has no end of line
    shown.draw(SMALL)
    shown.close()
    shown._write("num_games: 1")
    page.write(written(tty))
    assert page.text()[0] == "num_games: 1"


def test_q_values_in_a_terminal() -> None:
    """Bars start at 0, and their scale is that of the decision, not of its Q-values."""
    decision = make_decision(["NOOP", "RIGHTFIRE"], 1)._replace(
        q_values=np.array([-1.0, 2.0]), scale=QScale(-3, 2), values=()
    )
    lines = [" NOOP       -1.000   █  ", ">RIGHTFIRE   2.000    ██", " bars: -3 to 2"]
    assert terminal.q_value_lines(decision, 3) == lines
    assert terminal.q_value_lines(decision, 2) == lines[:2]
    assert terminal.q_value_lines(decision, 1) == lines[1:2]  # the chosen action


@pytest.mark.parametrize("worst", [np.nan, np.inf, -np.inf])
def test_q_values_of_a_network_that_diverged(worst: float) -> None:
    assert terminal.q_value_lines(make_decision(worst=worst), 9)[5] == ">LEFTFIRE    5.000 █████"


def test_a_terminal_marks_random_moves_and_shows_the_value_of_the_last_states() -> None:
    decision = make_decision(["NOOP", "FIRE"], 0)._replace(values=(0.0, 0.5, 1.0))
    assert terminal.q_value_lines(decision, 9) == [
        "εNOOP        0.000      ",
        " FIRE        1.000 █████",
        " bars: 0 to 1",
        " ε: a random move",
        " value: 1.000",
        " ▁▄█",
    ]


@pytest.mark.parametrize(
    ("variables", "colours", "style"),
    [
        ({}, 256, in_256_colours),
        ({}, 16, in_16_colours),
        ({}, 8, in_16_colours),
        ({}, -1, without_colours),
        (dict(COLORTERM="truecolor"), 8, in_all_colours),
        (dict(COLORTERM="truecolor", NO_COLOR="1"), 256, without_colours),
        (dict(NO_COLOR=""), 256, in_256_colours),
    ],
)
def test_colours_are_those_that_the_terminal_has(
    variables: dict[str, str], colours: int, style: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("NO_COLOR", "COLORTERM"):
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(cells, "_num_colours", lambda: colours)
    assert style_of_terminal() == style


def test_a_python_without_curses_knows_no_description_of_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "curses", None)
    assert cells._num_colours() == 256


def test_16_colours_and_none() -> None:
    white, black, red, blue = [255, 255, 255], [0, 0, 0], [200, 72, 72], [10, 10, 180]
    assert in_16_colours([white, black]) == ("\x1b[97;40m", "▀")
    assert in_16_colours([red, blue]) == ("\x1b[31;44m", "▀")
    pixels = (white, white), (white, black), (black, black)
    assert "".join(without_colours([*halves])[1] for halves in pixels) == "@= "
    assert without_colours([red, red])[0] == ""
