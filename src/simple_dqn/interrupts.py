"""Ctrl-C, SIGTERM and SIGHUP: the run finishes its step, saves what it has, and ends."""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import sys
from collections.abc import Callable, Iterator
from types import FrameType

logger = logging.getLogger(__name__)

ENDING_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)  # the last: the terminal was closed


class Interrupted(Exception):
    """The user or the system ends the run. The phase under way is closed, and the run must be saved."""


@contextlib.contextmanager
def stop_on_interrupt(stop: Callable[[], None], close: Callable[[], None] | None) -> Iterator[None]:
    """End a run in two steps: a first signal calls `stop`, Ctrl-C after it ends the program at once.

    SIGTERM after SIGTERM changes nothing, because an experiment may send it twice. Under nohup SIGHUP stays ignored.

    Args:
        stop: asks the run to end after its step and to raise `Interrupted`.
        close: closes the viewer before the program ends at once, because it may have changed the terminal.

    Raises:
        Interrupted: with the signal's number.
    """
    received = []

    def stop_soon(signum: int, frame: FrameType | None) -> None:
        stop()
        received.append(signum)
        signal.signal(signum, signal.SIG_IGN)
        signal.signal(signal.SIGINT, end_now if close else signal.SIG_DFL)  # SIG_DFL acts even within a library's call
        if sys.stderr and sys.stderr.isatty():
            os.write(sys.stderr.fileno(), b"\r\x1b[K")  # remove the progress bar and the ^C behind it
        again = " again" if signum == signal.SIGINT else ""
        logger.info("Interrupted: ending after this step (Ctrl-C%s ends at once)", again)

    def end_now(signum: int, frame: FrameType | None) -> None:
        assert close
        close()
        signal.signal(signum, signal.SIG_DFL)
        os.kill(os.getpid(), signum)

    with handled_by(stop_soon):
        try:
            yield
        except Interrupted:
            raise Interrupted(received[0] if received else signal.SIGINT) from None


@contextlib.contextmanager
def handled_by(handler: Callable[[int, FrameType | None], None]) -> Iterator[list[signal.Signals]]:
    """Let `handler` receive the signals that end the program, and yield them. Under nohup SIGHUP stays ignored."""
    # Shells make programs in the background ignore Ctrl-C. `kill -INT` must stop these too.
    under_nohup = {signal.SIGHUP} if signal.getsignal(signal.SIGHUP) is signal.SIG_IGN else set()
    before = {signum: signal.signal(signum, handler) for signum in set(ENDING_SIGNALS) - under_nohup}
    try:
        yield list(before)
    finally:
        for signum, earlier in before.items():
            signal.signal(signum, earlier)
