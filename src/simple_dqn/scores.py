"""The scores of games played: a table for the console, CSV and JSON for other programs."""

from __future__ import annotations

import json
import statistics
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

from simple_dqn.agent import Callback, Step
from simple_dqn.files import write_whole


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
    lines = [f"{'game':>6} {'score':>10} {'steps':>10}"]
    lines += [f"{i:>6} {game.score:>10g} {game.steps:>10}" for i, game in enumerate(games, 1)]
    for name, figure in _FIGURES.items():
        if name == "sd" and len(games) == 1:
            lines.append(f"{name:>6} {'-':>10} {'-':>10}")
            continue
        score, steps = (figure(values) for values in zip(*games, strict=True))
        form = ">10g" if name in ("min", "max") else ">10.1f"
        lines.append(f"{name:>6} {score:{form}} {steps:{form}}")
    return "\n".join(lines)


def write_scores(folder: Path, games: Sequence[Game]) -> None:
    """Writes scores.csv and scores.json.

    Raises:
        OutputError: one could not be written.
    """
    rows = ["game,score,steps", *(f"{i},{game.score:g},{game.steps}" for i, game in enumerate(games, 1))]
    write_whole(folder / "scores.csv", ("\n".join(rows) + "\n").encode())
    scores = [game.score for game in games]
    facts = {name: figure(scores) for name, figure in _FIGURES.items() if scores and (name != "sd" or len(scores) > 1)}
    told = {"games": [game._asdict() for game in games], **facts}
    write_whole(folder / "scores.json", (json.dumps(told, indent=1) + "\n").encode())
