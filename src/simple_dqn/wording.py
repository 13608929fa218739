"""Words of messages."""


def count(number: int, noun: str) -> str:
    """Return a number with its noun, as in "1 game" and "2 games"."""
    return f"{number} {noun}{'' if number == 1 else 's'}"
