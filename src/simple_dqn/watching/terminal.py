"""A game in a text terminal: two pixels in every character, as the upper half of a block and what is behind it."""

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

from simple_dqn.environment import Picture, Sound
from simple_dqn.watching.viewer import HELP, Mind, Scene, shortened

_LOG_LINES = 2  # at the bottom, where what goes to the log and the progress bar scrolls by
_INTERVAL = 1 / 30  # seconds between two pictures, at least: a line to a far-off machine is slow
_HELD = 0.3  # seconds that a key counts as down: terminals tell of presses, and repeat them, but not of releases
_SEQUENCES = {b"\x1b[A": "up", b"\x1b[B": "down", b"\x1b[C": "right", b"\x1b[D": "left"}
_SEQUENCES |= {b"\x1bO" + name[-1:]: key for name, key in _SEQUENCES.items()}
_NAMES = {" ": "space", "\x1b": "escape"}
_KEYS = 13  # columns of the longest keys in the help
_PANEL = 24  # columns of the agent's thoughts, beside the picture where there is room


class Terminal:
    """The terminal at standard input and output; taken over with the first picture, at whatever size it has.

    The last lines go on scrolling, so that the log and the progress bar have a place. What was logged meanwhile is
    repeated at the end, as the picture takes its place. A terminal that has gone, with an SSH connection say, is told
    as the key "hangup".
    """

    idle: Collection[str] = frozenset(("[", "]", "f"))

    def __init__(self) -> None:
        self._settings: Any = None
        self._gone = False
        self._cells: Any = None  # what is on the screen
        self._side_size = (0, 0)  # width and height of what covers the picture
        self._shown = float("-inf")
        self._times: dict[str, float] = {}  # when which key was pressed last
        self._size = os.terminal_size((0, 0))
        self._full_colour = os.environ.get("COLORTERM", "") in ("truecolor", "24bit")
        self._log = _Keep()

    @staticmethod
    def is_possible() -> bool:
        """Whether there is a terminal to show games in."""
        if os.environ.get("TERM") == "dumb" or not hasattr(select, "select") or sys.platform == "win32":
            return False
        return all(stream and stream.isatty() for stream in (sys.stdin, sys.stdout))

    def draw(self, scene: Scene) -> None:
        now = time.monotonic()
        if self._gone or now - self._shown < _INTERVAL:
            return
        self._shown = now
        try:
            if self._settings is None:
                self._open()
            self._show(scene)
        except OSError:
            self._gone = True

    def _show(self, scene: Scene) -> None:
        size = os.get_terminal_size(sys.stdout.fileno())
        text = ""
        if size != self._size:
            self._size, self._cells = size, None
            text = f"\x1b[2J\x1b[{max(1, size.lines - _LOG_LINES + 1)};{size.lines}r\x1b[{size.lines};1H"
        rows = self._rows()
        side = self._side(scene, size.columns, rows)  # before the picture, which it may uncover
        text += "\x1b7" + self._picture(scene, size.columns, rows) + side
        status = shortened(scene.status, lambda line: len(line) <= size.columns)
        # Cleared first because the cursor stays on a line's last character: clearing after it would take that away.
        text += f"\x1b[{rows + 1};1H\x1b[0m\x1b[K{status[: size.columns]}\x1b8"
        self._write(text)

    def _rows(self) -> int:
        """Lines of the picture: all but the status and the log."""
        return max(1, self._size.lines - _LOG_LINES - 1)

    def play(self, sound: Sound, frames_per_second: float) -> None:
        """A terminal has no sound."""

    def pressed(self) -> Iterator[str]:
        if self._settings is None:
            return
        for key in keys(self._read()):
            self._times[key] = time.monotonic()
            yield key
        if self._gone:
            yield "hangup"

    def held(self) -> set[str]:
        now = time.monotonic()
        return {key for key, pressed in self._times.items() if now - pressed < _HELD}

    def room_for(self, help: Sequence[tuple[str, str]]) -> int:
        taken = np.cumsum([len(help_lines(*line, self._size.columns)) for line in help])
        return max(1, int((taken <= self._rows()).sum()))

    def toggle_fullscreen(self) -> None:
        """A terminal's size is its own."""

    def close(self) -> None:
        if self._settings is None:
            return
        import termios

        logging.getLogger().removeHandler(self._log)
        signal.signal(signal.SIGTSTP, self._stop_before)
        with contextlib.suppress(OSError, termios.error):  # the terminal may have gone
            self._give_back()
        self._settings = None
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
        self._write("\r\x1b[K\x1b[?1049h\x1b[?25l\x1b[2J")  # another page, no cursor
        self._size = os.terminal_size((0, 0))  # all is to be drawn

    def _give_back(self) -> None:
        import termios

        self._write("\x1b[r\x1b[0m\x1b[?25h\x1b[?1049l")
        termios.tcsetattr(sys.stdin.fileno(), termios.TCSADRAIN, self._settings)

    def _stop(self, *_: Any) -> None:
        """After Ctrl-Z the shell has its page until the program is to go on."""
        self._give_back()
        os.kill(os.getpid(), signal.SIGSTOP)
        self._take_over()

    def _read(self) -> bytes:
        typed = b""
        while not self._gone and select.select([sys.stdin], [], [], 0)[0]:
            try:
                some = os.read(sys.stdin.fileno(), 1024)
            except OSError:
                some = b""
            self._gone = not some
            typed += some
        return typed

    def _write(self, text: str) -> None:
        data = text.encode()
        while data:
            data = data[os.write(sys.stdout.fileno(), data) :]

    def _picture(self, scene: Scene, columns: int, rows: int) -> str:
        cells = blocks(scene.picture, scene.pixel_width, columns, rows)
        before, self._cells = self._cells, cells
        if before is not None and before.shape != cells.shape:
            before = None
        blank = "\x1b[0m\x1b[2J" if before is None else ""
        return blank + changes(cells, before, self._full_colour)

    def _side(self, scene: Scene, columns: int, rows: int) -> str:
        """Help or thoughts, at the right: beside the picture, or over it where there is no room."""
        if scene.help:
            lines = [line for item in scene.help[: self.room_for(scene.help)] for line in help_lines(*item, columns)]
        else:
            lines = _thoughts(scene.mind, rows) if scene.mind else []
        lines = lines[:rows]
        width = min(columns, max(_PANEL, *map(len, lines))) if lines else 0
        before, self._side_size = self._side_size, (width, len(lines))
        if width < before[0] or len(lines) < before[1]:
            self._cells = None
        left = columns - width + 1
        return "\x1b[0m" + "".join(f"\x1b[{i + 1};{left}H{line[:width]:<{width}}" for i, line in enumerate(lines))


def help_lines(keys: str, text: str, columns: int) -> list[str]:
    """A line of help, or several where the terminal is too narrow for it."""
    if columns >= _KEYS + 2 + max(len(text) for _, text in HELP):
        return [f"{keys:>{_KEYS}}  {text}"]
    return textwrap.wrap(f"{keys}: {text}", max(1, columns))


def _thoughts(mind: Mind, rows: int) -> list[str]:
    """A line for every action, or for as many as fit: its name, Q-value and bar; that chosen is marked."""
    low, high = float(np.min(mind.q)), float(np.max(mind.q))
    lines = []
    for i, (name, q) in enumerate(zip(mind.names, mind.q.tolist(), strict=True)):
        bar = "█" * (1 + round(4 * (q - low) / (high - low)) if high > low else 5)
        lines.append(f"{'>' if i == mind.chosen else ' '}{name[:9]:<9} {q:7.3f} {bar:<5}")
    return lines[max(0, mind.chosen + 1 - rows) :][:rows]


def keys(typed: bytes) -> Iterator[str]:
    """The keys that a terminal tells of by these bytes."""
    for part in re.findall(rb"\x1b[\[O][0-9;]*[A-Za-z~]|[\x00-\x7f]", typed):
        if len(part) > 1:
            if part in _SEQUENCES:
                yield _SEQUENCES[part]
            continue
        text = part.decode()
        if text in _NAMES or (text.isprintable() and text.strip()):
            yield _NAMES.get(text, text.lower())


def blocks(picture: Picture, pixel_width: float, columns: int, rows: int) -> Picture:
    """`picture` in as many half characters as fit, in its shape: (rows, columns, 2 halves, 3) uint8.

    Half a character is about as high as wide.
    """
    import cv2

    height, width, _ = picture.shape
    shrink = min(columns / (width * pixel_width), 2 * rows / height)
    across, down = max(1, int(width * pixel_width * shrink)), max(1, int(height * shrink / 2))
    small = cv2.resize(picture, (across, 2 * down), interpolation=cv2.INTER_AREA)
    return small.reshape(down, 2, across, 3).transpose(0, 2, 1, 3)


def changes(cells: Picture, before: Picture | None, full_colour: bool) -> str:
    """What to write to a terminal that shows `before` so that it shows `cells`, from its top left corner on."""
    changed = np.ones(cells.shape[:2], bool) if before is None else (cells != before).any(axis=(2, 3))
    text = []
    for row in np.flatnonzero(changed.any(axis=1)).tolist():
        last, colours = -2, ""
        for column in np.flatnonzero(changed[row]).tolist():
            if column != last + 1:
                text.append(f"\x1b[{row + 1};{column + 1}H")
            last = column
            wanted = _colours(cells[row, column].tolist(), full_colour)
            text.append("▀" if wanted == colours else wanted + "▀")
            colours = wanted
    return "".join(text)


def _colours(halves: list[list[int]], full_colour: bool) -> str:
    upper, lower = (f"2;{r};{g};{b}" if full_colour else f"5;{_of_256(r, g, b)}" for r, g, b in halves)
    return f"\x1b[38;{upper};48;{lower}m"


def _of_256(red: int, green: int, blue: int) -> int:
    """The nearest of the 216 colours, or of the 24 greys, that nearly every terminal has."""
    if max(red, green, blue) - min(red, green, blue) < 12:
        grey = (red + green + blue) // 3
        return 16 if grey < 4 else 231 if grey > 246 else 232 + min(23, max(0, (grey - 3) // 10))
    r, g, b = ((0 if c < 48 else 1 if c < 115 else (c - 35) // 40) for c in (red, green, blue))
    return 16 + 36 * r + 6 * g + b


class _Keep(logging.Handler):
    """Keeps what is logged."""

    def __init__(self) -> None:
        super().__init__()
        self.setFormatter(logging.Formatter("%(asctime)s %(message)s"))
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.lines = [*self.lines[-999:], self.format(record)]
