"""A game in a text terminal."""

from __future__ import annotations

import contextlib
import logging
import os
import re
import select
import signal
import sys
import textwrap
import time
from collections.abc import Collection, Iterator, Sequence
from typing import Any

import numpy as np

from simple_dqn.environment import Sound
from simple_dqn.watching.card_text import card_lines
from simple_dqn.watching.cells import blocks, changes, style_of_terminal
from simple_dqn.watching.display import HELP, Decision, Scene, shortened

_LOG_LINES = 2  # at the bottom, for the log and the progress bar
_INTERVAL = 1 / 30  # minimum seconds between two pictures, because connections over SSH can be slow
_HELD = 0.3  # seconds that a key counts as down, because terminals report presses and repeats but no releases
_KEYS = {b" ": "space", b"\x1b": "escape"}
for _prefix in (b"\x1b[", b"\x1bO"):
    _KEYS |= {_prefix + b"A": "up", _prefix + b"B": "down", _prefix + b"C": "right", _prefix + b"D": "left"}
# A function key, with Alt or as a console or rxvt sends it, or a character. Only ESC alone is the key Esc.
_KEY = re.compile(rb"\x1b\[\[[A-E]|\x1b\[\d+\$|\x1b[\[O][0-?]*[ -/]*[@-~]|\x1b[ -~]|[\x00-\x7f]")
_INCOMPLETE = re.compile(rb"\x1b([\[O][\[0-?]*)?$")
_ESCAPE = 0.05  # seconds in which the rest of an escape sequence must come
_KEY_COLUMNS = 13  # width of the longest keys in the help
_PANEL_COLUMNS = 24  # width of the Q-values
_BAR_COLUMNS = 5  # width of their bars
_HEIGHTS = "▁▂▃▄▅▆▇█"  # of the timeline


class Terminal:
    """The terminal of standard input and output, of any size. The first picture takes it over.

    The last lines scroll, for the log and the progress bar. `close` restores the terminal and prints the log lines
    again. If the terminal is closed, for example because an SSH connection ended, `pressed` yields the key "hangup".
    """

    unused_keys: Collection[str] = frozenset(("[", "]", "f"))

    def __init__(self) -> None:
        self._settings: Any = None
        self._closed = False
        self._cells: Any = None  # what the screen shows; None: draw all
        self._panel_place = (0, 0, 0, 0)  # of the text over the picture: top, left, bottom, right
        self._shown = float("-inf")
        self._press_times: dict[str, float] = {}  # of the last press of each key
        self._rest, self._typed_at = b"", 0.0  # the beginning of an escape sequence, and when something was typed
        self._size = os.terminal_size((0, 0))
        self._style = style_of_terminal()
        self._log = _LogKeeper()

    @staticmethod
    def is_possible() -> bool:
        """Whether there is a terminal to show games in."""
        if os.environ.get("TERM") == "dumb" or not hasattr(select, "select") or sys.platform == "win32":
            return False
        return all(stream and stream.isatty() for stream in (sys.stdin, sys.stdout))

    def draw(self, scene: Scene) -> None:
        now = time.monotonic()
        if self._closed or now - self._shown < _INTERVAL:
            return
        self._shown = now
        try:
            if self._settings is None:
                self._open()
            self._show(scene)
        except OSError:
            self._closed = True

    def _show(self, scene: Scene) -> None:
        size = os.get_terminal_size(sys.stdout.fileno())
        text = ""
        if size != self._size:
            self._size, self._cells = size, None
            text = f"\x1b[2J\x1b[{max(1, size.lines - _LOG_LINES + 1)};{size.lines}r\x1b[{size.lines};1H"
        rows = self._rows()
        panel = self._panel(scene, size.columns, rows)  # first, because a smaller one uncovers the picture
        text += "\x1b7" + self._picture(scene, size.columns, rows) + panel
        status = shortened(scene.status, lambda line: len(line) <= size.columns)
        # Clear the line before writing it, because the cursor stays on the last character of a full line.
        text += f"\x1b[{rows + 1};1H\x1b[0m\x1b[K{status[: size.columns]}\x1b8"
        self._write(text)

    def _rows(self) -> int:
        """Lines of the picture: all but those of the status and the log."""
        return max(1, self._size.lines - _LOG_LINES - 1)

    def play(self, sound: Sound, frames_per_second: float) -> None:
        """Do nothing: a terminal has no sound."""

    def pressed(self) -> Iterator[str]:
        if self._settings is None:
            return
        now, new = time.monotonic(), self._read()
        typed, self._typed_at = self._rest + new, now if new else self._typed_at
        rest = _INCOMPLETE.search(typed) if now - self._typed_at < _ESCAPE else None
        end = rest.start() if rest else len(typed)
        self._rest = typed[end:]
        for key in keys(typed[:end]):
            for other in _instead_of(key):  # because terminals do not tell that it was released
                self._press_times.pop(other, None)
            self._press_times[key] = now
            yield key
        if self._closed:
            yield "hangup"

    def held(self) -> set[str]:
        now = time.monotonic()
        return {key for key, pressed in self._press_times.items() if now - pressed < _HELD}

    def help_page_length(self, help: Sequence[tuple[str, str]]) -> int:
        last_lines = np.cumsum([len(help_lines(*line, self._size.columns)) for line in help])
        return max(1, int((last_lines <= self._rows()).sum()))

    def toggle_fullscreen(self) -> None:
        """Do nothing: the program cannot resize a terminal."""

    def close(self) -> None:
        if self._settings is None:
            return
        import termios

        logging.getLogger().removeHandler(self._log)
        signal.signal(signal.SIGTSTP, self._stop_before)
        with contextlib.suppress(OSError, termios.error):  # the terminal may be closed
            self._give_back()
        self._settings = None
        if not sys.stderr.isatty():  # a file or a pipe has received the log already
            return
        with contextlib.suppress(OSError):
            for line in self._log.lines:
                print(line, file=sys.stderr, flush=True)

    def _open(self) -> None:
        import termios

        self._settings = termios.tcgetattr(sys.stdin.fileno())
        self._take_over()
        self._stop_before = signal.signal(signal.SIGTSTP, self._stop)
        logging.getLogger().addHandler(self._log)

    def _take_over(self) -> None:
        import tty

        tty.setcbreak(sys.stdin.fileno())
        # Clear the progress bar first, because the terminal shows its line again after the game.
        self._write("\r\x1b[K\x1b[?1049h\x1b[?25l\x1b[2J")  # alternate screen, no cursor
        self._size = os.terminal_size((0, 0))  # so that everything is drawn

    def _give_back(self) -> None:
        import termios

        self._write("\x1b[r\x1b[0m\x1b[?25h\x1b[?1049l")
        termios.tcsetattr(sys.stdin.fileno(), termios.TCSADRAIN, self._settings)

    def _stop(self, *_: Any) -> None:
        """After Ctrl-Z, return the terminal to the shell until the program continues."""
        self._give_back()
        os.kill(os.getpid(), signal.SIGSTOP)
        self._take_over()

    def _read(self) -> bytes:
        typed = b""
        while not self._closed and select.select([sys.stdin], [], [], 0)[0]:
            try:
                data = os.read(sys.stdin.fileno(), 1024)
            except OSError:
                data = b""
            self._closed = not data
            typed += data
        return typed

    def _write(self, text: str) -> None:
        data = text.encode()
        while data:
            data = data[os.write(sys.stdout.fileno(), data) :]

    def _picture(self, scene: Scene, columns: int, rows: int) -> str:
        cells = blocks(scene.picture, scene.pixel_width, columns, rows)
        before, self._cells = self._cells, cells
        if before is None or before.shape != cells.shape:
            return "\x1b[0m\x1b[2J" + changes(cells, None, self._style)
        return changes(cells, before, self._style)

    def _panel(self, scene: Scene, columns: int, rows: int) -> str:
        """The help or the Q-values at the right edge, or the card in the middle. They may cover the picture."""
        lines = q_value_lines(scene.decision, rows) if scene.decision else []
        least_width = _PANEL_COLUMNS
        if scene.help:
            page = scene.help[: self.help_page_length(scene.help)]
            lines = [line for entry in page for line in help_lines(*entry, columns)][:rows]
        elif scene.card:
            lines, least_width = card_lines(scene.card, columns, rows), 0
        width = min(columns, max(least_width, *map(len, lines))) if lines else 0
        top, left = 0, columns - width
        if scene.card and not scene.help:
            top, left = (rows - len(lines)) // 2, left // 2
        before, place = self._panel_place, (top, left, top + len(lines), left + width)
        self._panel_place = place
        if before[2] and (place[0] > before[0] or place[1] > before[1] or place[2] < before[2] or place[3] < before[3]):
            self._cells = None
        return "\x1b[0m" + "".join(
            f"\x1b[{row};{left + 1}H{line[:width]:<{width}}" for row, line in enumerate(lines, top + 1)
        )


def help_lines(keys: str, text: str, columns: int) -> list[str]:
    """The lines of one help entry: one, or several in a narrow terminal."""
    if columns >= _KEY_COLUMNS + 2 + max(len(text) for _, text in HELP):
        return [f"{keys:>{_KEY_COLUMNS}}  {text}"]
    return textwrap.wrap(f"{keys}: {text}", max(1, columns))


def q_value_lines(decision: Decision, rows: int) -> list[str]:
    """At most `rows` lines: each action's name, Q-value and bar, their scale, and the values of the last states.

    The chosen action is marked, with ε if it is a random one, and always included.
    """
    mark = "ε" if decision.random else ">"
    lines = []
    for i, (name, q) in enumerate(zip(decision.action_names, decision.q_values.tolist(), strict=True)):
        left, right = (round(_BAR_COLUMNS * end) for end in decision.scale.bar(q))
        bar = " " * left + "█" * (right - left)
        lines.append(f"{mark if i == decision.action else ' '}{_short(name):<9} {q:7.3f} {bar:<{_BAR_COLUMNS}}")
    lines.append(f" bars: {decision.scale}")
    if decision.random:
        lines.append(" ε: a random move")
    if len(decision.values) > 1:
        lines.append(f" value: {decision.values[-1]:.3f}")
        heights = [int(decision.scale.position(value) * (len(_HEIGHTS) - 1)) for value in decision.values]
        lines.append(" " + "".join(_HEIGHTS[height] for height in heights[1 - _PANEL_COLUMNS :]))
    return lines[max(0, decision.action + 1 - rows) :][:rows]


def _short(name: str) -> str:
    """Shorten an action's name to nine characters, so that names of Atari games differ: D R FIRE for DOWNRIGHTFIRE."""
    if len(name) > 9:
        for word in ("UP", "DOWN", "LEFT", "RIGHT"):
            name = name.replace(word, f"{word[0]} ")
    return name[:9]


def _instead_of(key: str) -> Collection[str]:
    """The keys that are no longer held once `key` is pressed."""
    opposites = ("up", "down"), ("left", "right")
    return next((pair for pair in opposites if key in pair), "0123456789" if key.isdecimal() else ())


def keys(typed: bytes) -> Iterator[str]:
    """The keys that these bytes from a terminal mean."""
    for part in _KEY.findall(typed):
        if part in _KEYS:
            yield _KEYS[part]
        elif len(part) == 1 and b"!" <= part <= b"~":  # a printable character
            yield part.decode().lower()


class _LogKeeper(logging.Handler):
    """Keeps the last 1000 lines of the log."""

    def __init__(self) -> None:
        super().__init__()
        self.setFormatter(logging.Formatter("%(asctime)s %(message)s", datefmt="%H:%M:%S"))
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.lines = [*self.lines[-999:], self.format(record)]
