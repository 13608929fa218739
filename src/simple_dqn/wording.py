"""Words of messages."""


def count(number: int, noun: str) -> str:
    """Return a number with its noun, as in "1 game" and "2 games"."""
    return f"{number} {noun}{'' if number == 1 else 's'}"


def last_line(text: str, default: str) -> str:
    """Return the last line of what a program wrote, which says why it ended; `default` if it wrote nothing."""
    lines = text.strip().splitlines()
    return lines[-1].removeprefix("error: ") if lines else default
