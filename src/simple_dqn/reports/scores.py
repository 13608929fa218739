"""The scores of games played: a table for the console, CSV and JSON for other programs."""

from __future__ import annotations

import json
import logging
import math
import statistics
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

from simple_dqn.agent import Callback, Step
from simple_dqn.saving.files import write_whole

logger = logging.getLogger(__name__)


class Game(NamedTuple):
    """A game that came to its end."""

    score: float
    steps: int


class Scores(Callback):
    """Notes down every game that is played to its end, or to its time limit."""

    def __init__(self) -> None:
        self.games: list[Game] = []
        self._under_way: dict[int, Game] = {}  # by the place of the game

    def on_step(self, step: Step) -> None:
        before = self._under_way.pop(step.game, Game(0.0, 0))
        game = Game(before.score + step.reward, before.steps + 1)
        if step.terminal:
            self.games.append(game)
        elif not step.truncated:
            self._under_way[step.game] = game

    def report(self, wanted: int, folder: str | None) -> None:
        """Print the table of the games.

        Args:
            wanted: how many games there should be.
            folder: for scores.csv and scores.json, which are written only if all games were played; None: no files.
        """
        if folder and len(self.games) == wanted:
            write_scores(Path(folder), self.games)
        elif folder:
            logger.warning("Only %d of %d games: nothing new in %s", len(self.games), wanted, folder)
        if self.games:  # print last, because stdout may be a closed pipe
            print(table(self.games), flush=True)


def shortest(number: float) -> float | int:
    """The number as a file holds it: exact, and whole numbers without the decimal point, as the original has them."""
    return int(number) if math.isfinite(number) and number == int(number) else number


def score_text(score: float) -> str:
    """A score as people read it: whole numbers in full, others to 12 digits, because sums have rounding errors."""
    return f"{score:.12g}" if abs(score) < 1e12 else str(shortest(score))


def mean_text(mean: float, decimals: int = 1) -> str:
    """A mean as people read it: rounded to `decimals`, or to three digits below 0.1, because rewards may be small."""
    return f"{mean:.3g}" if 0 < abs(mean) < 0.1 else f"{mean:.{decimals}f}"


_FIGURES: dict[str, Callable[[Sequence[float]], float]] = {
    "mean": statistics.fmean,
    "sd": statistics.stdev,
    "min": min,
    "max": max,
}


def table(games: Sequence[Game]) -> str:
    """A line for each game, then mean, standard deviation (of a sample), least and most; "" if there is no game."""
    if not games:
        return ""
    rows = [("game", "score", "steps")]
    rows += [(str(i), score_text(game.score), str(game.steps)) for i, game in enumerate(games, 1)]
    for name, figure in _FIGURES.items():
        if name == "sd" and len(games) == 1:
            rows.append((name, "-", "-"))
            continue
        score, steps = (figure(values) for values in zip(*games, strict=True))
        form = score_text if name in ("min", "max") else mean_text
        rows.append((name, form(score), form(steps)))
    widths = [max(least, *map(len, column)) for least, column in zip((6, 10, 10), zip(*rows, strict=True), strict=True)]
    return "\n".join(" ".join(f"{cell:>{width}}" for cell, width in zip(row, widths, strict=True)) for row in rows)


def write_scores(folder: Path, games: Sequence[Game]) -> None:
    """Writes scores.csv and scores.json.

    Raises:
        OutputError: one could not be written.
    """
    rows = ["game,score,steps", *(f"{i},{shortest(game.score)},{game.steps}" for i, game in enumerate(games, 1))]
    write_whole(folder / "scores.csv", ("\n".join(rows) + "\n").encode())
    scores = [game.score for game in games]
    facts = {name: figure(scores) for name, figure in _FIGURES.items() if scores and (name != "sd" or len(scores) > 1)}
    told = {"games": [game._asdict() for game in games], **facts}
    write_whole(folder / "scores.json", (json.dumps(told, indent=1) + "\n").encode())
