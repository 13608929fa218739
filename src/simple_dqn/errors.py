"""What the user can put right: `main` prints such an error as one line and exits with status 2."""


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


class OutputError(SimpleDQNError):
    """A file could not be written."""
