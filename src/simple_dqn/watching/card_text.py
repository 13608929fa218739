"""The card after a game as lines of a terminal, with its scores in large digits."""

from __future__ import annotations

import textwrap

import numpy as np

from simple_dqn.watching.display import Card

# Each digit has 5 rows of 3 pixels. A row is an octal number of its pixels, the left one first.
_DIGITS = {
    "0": "75557", "1": "26227", "2": "71747", "3": "71717", "4": "55711", "5": "74717",
    "6": "74757", "7": "71111", "8": "75757", "9": "75717", "-": "00700", ".": "00002",
}  # fmt: skip
_HALVES = " ▄▀█"  # neither half, the lower, the upper, both
_GAP = "   "  # between the scores of two players, for each scale


def card_lines(card: Card, columns: int, rows: int) -> list[str]:
    """At most `rows` lines, all of the same width, at most `columns`.

    The digits are as large as they fit. If there is no room for digits of three lines, the scores are plain text. What
    does not fit is cut at the end, where the keys are, because the status line has them too.
    """
    label_width = max(len(label) for label, _ in card.lines)
    text = [f"{label:>{label_width}}  {value}" for label, value in card.lines]
    text = [f"{line:<{max(map(len, text))}}" for line in text]
    if len(text[0]) > columns:
        text = [line for entry in card.lines for line in textwrap.wrap(": ".join(entry), max(1, columns))]
    for scale in range(max(1, 2 * rows // 15), 0, -1):  # at most a third of the height, so that the game stays visible
        scores = _scores(card, scale)
        fits = len(scores) + len(text) <= rows or (scale == 1 and len(scores) < rows)
        if scores and len(scores[0]) <= columns and fits:
            break
    else:
        plain = " : ".join(f"{who} {score}" for who, score in card.scores)
        scores = textwrap.wrap(plain, max(1, columns))
    lines = [*scores, *text][:rows]
    width = max(map(len, lines))
    return [f"{line:^{width}}" for line in lines]


def _scores(card: Card, scale: int) -> list[str]:
    """The scores side by side below the names. Empty if a score has other characters than digits."""
    if any(not set(score) <= set(_DIGITS) for _, score in card.scores):
        return []
    blocks = []
    for who, score in card.scores:
        digits = large_digits(score, scale)
        width = max(len(who), len(digits[0]))
        blocks.append([f"{line:^{width}}" for line in (who, *digits)])
    return [(_GAP * scale).join(parts) for parts in zip(*blocks, strict=True)]


def large_digits(number: str, scale: int) -> list[str]:
    """`number` in digits that are 5 x `scale` half characters high."""
    bits = [[f"{int(digit[row]):03b}0" for digit in map(_DIGITS.__getitem__, number)] for row in range(5)]
    pixels = np.array([[int(bit) for bit in "".join(row)[:-1]] for row in bits])
    pixels = pixels.repeat(scale, axis=0).repeat(scale, axis=1)
    pixels = np.pad(pixels, ((0, len(pixels) % 2), (0, 0)))
    return ["".join(_HALVES[half] for half in row) for row in (2 * pixels[::2] + pixels[1::2]).tolist()]
