"""The scores of games played: a table for the console, CSV and JSON for other programs."""

from __future__ import annotations

import json
import logging
import math
import statistics
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

from simple_dqn.agent import NEW_GAMES, Callback, Step
from simple_dqn.saving.files import replace_file
from simple_dqn.wording import count

logger = logging.getLogger(__name__)


class Game(NamedTuple):
    """A finished game."""

    score: float
    steps: int
    human_steps: int = 0  # of these steps, those that a human chose
    human_score: float = 0.0  # of this score, what these steps earned

    @property
    def human_share(self) -> str:
        """The share of the human's steps in percent. 0% and 100% are exact."""
        if self.human_steps in (0, self.steps):
            return "100%" if self.human_steps else "0%"
        return f"{min(99, max(1, round(100 * self.human_steps / self.steps)))}%"


class Scores(Callback):
    """Collects every game that reached its end or its time limit.

    Attributes:
        games: the finished games.
        human_plays: returns whether a human chose the last action of the first of the parallel games.
    """

    def __init__(self) -> None:
        self.games: list[Game] = []
        self.human_plays: Callable[[], bool] = lambda: False
        self._unfinished: dict[int, Game] = {}  # by `Step.game`
        self._begun = False
        self._lists_games = True  # not those of a training, because there may be millions

    def on_phase_start(self, phase: str, epoch: int, steps: int | None) -> None:
        self._begun, self._lists_games = True, phase == "play"
        if phase in NEW_GAMES:
            self._unfinished.clear()

    def on_step(self, step: Step) -> None:
        before = self._unfinished.pop(step.game, Game(0.0, 0))
        human = step.game == 0 and self.human_plays()
        game = Game(
            before.score + step.reward,
            before.steps + 1,
            before.human_steps + human,
            before.human_score + step.reward * human,
        )
        if step.terminal and self._lists_games:
            self.games.append(game)
        if not (step.terminal or step.truncated):
            self._unfinished[step.game] = game

    @property
    def current(self) -> Game:
        """The unfinished game, the first of the parallel ones."""
        return self._unfinished.get(0, Game(0.0, 0))

    def report(self, wanted: int, folder: str | None) -> None:
        """Print the table of the games.

        Args:
            wanted: how many games there should be at least.
            folder: for scores.csv and scores.json, which are written only if all games were played; None: no files.
        """
        if folder and len(self.games) >= wanted:
            write_scores(Path(folder), self.games)
        elif folder and self._begun:  # else another error says why not
            logger.warning("Only %d of %s: nothing new in %s", len(self.games), count(wanted, "game"), folder)
        if self.games:  # print last, because stdout may be a closed pipe
            print(table(self.games), flush=True)
        for game in self._unfinished.values():  # because the run was ended
            score, steps = score_text(game.score), count(game.steps, "step")
            logger.info("A game was not finished: score %s after %s", score, steps)


def shortest(number: float) -> float | int:
    """Return an exact number for a file, without a decimal point if it is whole, as in the original."""
    return int(number) if math.isfinite(number) and number == int(number) else number


def score_text(score: float) -> str:
    """Return a score to show: whole numbers in full, others to 12 digits, because sums have rounding errors."""
    return f"{score:.12g}" if abs(score) < 1e12 else str(shortest(score))


def mean_text(mean: float, decimals: int = 1) -> str:
    """Return a mean to show, with this many decimals, or with three digits below 0.1, because rewards may be small."""
    return f"{mean:.3g}" if 0 < abs(mean) < 0.1 else f"{mean:.{decimals}f}"


_FIGURES: dict[str, Callable[[Sequence[float]], float]] = {
    "mean": statistics.fmean,
    "sd": statistics.stdev,
    "min": min,
    "max": max,
}


def table(games: Sequence[Game]) -> str:
    """Return a line per game, then mean, standard deviation of the sample, minimum and maximum; "" without games.

    If a human played, a last column has the share of the human's moves.
    """
    if not games:
        return ""
    rows = [("game", "score", "steps")]
    rows += [(str(i), score_text(game.score), str(game.steps)) for i, game in enumerate(games, 1)]
    for name, figure in _FIGURES.items():
        if name == "sd" and len(games) == 1:
            rows.append((name, "-", "-"))
            continue
        score, steps = figure([game.score for game in games]), figure([game.steps for game in games])
        form = score_text if name in ("min", "max") else mean_text
        rows.append((name, form(score), form(steps)))
    widths = [max(least, *map(len, column)) for least, column in zip((6, 10, 10), zip(*rows, strict=True), strict=True)]
    lines = [" ".join(f"{cell:>{width}}" for cell, width in zip(row, widths, strict=True)) for row in rows]
    if any(game.human_steps for game in games):
        for i, share in enumerate(["your moves", *(game.human_share for game in games)]):
            lines[i] += f" {share:>10}"
    return "\n".join(lines)


def write_scores(folder: Path, games: Sequence[Game]) -> None:
    """Write scores.csv and scores.json.

    Raises:
        OutputError: a file could not be written.
    """
    rows = ["game,score,steps", *(f"{i},{shortest(game.score)},{game.steps}" for i, game in enumerate(games, 1))]
    replace_file(folder / "scores.csv", ("\n".join(rows) + "\n").encode())
    scores = [game.score for game in games]
    figures = {name: f(scores) for name, f in _FIGURES.items() if len(scores) > (name == "sd")}
    content = {"games": [{"score": game.score, "steps": game.steps} for game in games], **figures}
    replace_file(folder / "scores.json", (json.dumps(content, indent=1) + "\n").encode())
