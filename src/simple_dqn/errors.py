"""What the user can put right: `main` prints such an error as one line and exits with status 2."""

import sys


class SimpleDQNError(Exception):
    """Base of every error that is the user's to mend; its text says what is wrong and what to do."""


class OptionError(SimpleDQNError):
    """An option is unknown, malformed, out of range, or does not go with another."""


class GameError(SimpleDQNError):
    """A game is missing, unknown, not a game at all, or not one that the agent can play."""


class SnapshotError(SimpleDQNError):
    """A snapshot is missing, damaged, hostile, or made for another network."""


class CheckpointError(SimpleDQNError):
    """A checkpoint, or a part of one, is missing or damaged."""


class StatisticsError(SimpleDQNError):
    """A statistics file is missing, empty or damaged, or lacks a column."""


class OutputError(SimpleDQNError):
    """A file could not be written."""


def print_error(text: str) -> None:
    """Prints an error as one line, whatever is in it: a file's name may have several."""
    print("error:", text.replace("\n", " "), file=sys.stderr)
