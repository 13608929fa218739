"""Errors that the user can fix. `main` prints such an error as one line and exits with status 2."""

from __future__ import annotations

import contextlib
import io
import signal
import sys
from collections.abc import Callable


class SimpleDQNError(Exception):
    """Base of all errors that the user can fix. The text says what is wrong and what to type instead."""


class OptionError(SimpleDQNError):
    """An option is unknown, malformed, out of range, or does not go with another."""


class GameError(SimpleDQNError):
    """A game is missing, unknown, no game, or one that the agent cannot play."""


class SnapshotError(SimpleDQNError):
    """A snapshot is missing, damaged, unsafe, or made for another network."""


class CheckpointError(SimpleDQNError):
    """A checkpoint, or a part of one, is missing or damaged."""


class StatisticsError(SimpleDQNError):
    """A statistics file is missing, empty or damaged, or lacks a column."""


class OutputError(SimpleDQNError):
    """A file could not be written."""


def reason(error: Exception) -> str:
    """Return the message of an error of the operating system, without its number and path."""
    if isinstance(error, FileExistsError | NotADirectoryError):  # raised here only when folders are made
        return "its folder is a file"
    return (isinstance(error, OSError) and error.strerror) or str(error)


_GPU_FULL = ("out of memory", "CUBLAS_STATUS_ALLOC_FAILED", "CUDNN_STATUS_ALLOC_FAILED")  # PyTorch's and its libraries'


def exit_status(program: Callable[[], None], memory_hint: str) -> int:
    """Run `program`. Return 0, 2 after an error that the user can fix (printed as one line), or 130 after Ctrl-C.

    Args:
        program: what to run.
        memory_hint: what to type if memory runs out.
    """
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="replace")  # prints ? for characters that the terminal lacks, such as λ
    try:
        program()
        return 0
    except SimpleDQNError as error:
        _print_error(str(error))
    except OSError as error:
        _print_error(f"{error.filename or 'the system'}: {reason(error)}")
    except (MemoryError, RuntimeError) as error:
        if any(words in str(error) for words in _GPU_FULL):
            _print_error(f"the GPU has not enough memory: {memory_hint}, or --backend cpu")
        elif isinstance(error, MemoryError) or "t allocate memory" in str(error):  # so says PyTorch's RuntimeError
            _print_error(f"there is not enough memory: {memory_hint}")
        else:
            raise
    except KeyboardInterrupt:
        return 128 + signal.SIGINT
    return 2


def _print_error(text: str) -> None:
    """Print an error as one line. A file's name in it may have several."""
    with contextlib.suppress(OSError):  # stderr may be a closed pipe
        print("error:", text.replace("\n", " "), file=sys.stderr)
