"""The scores of games played, as a table and as files."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

from simple_dqn.agent import Step
from simple_dqn.scores import Game, Scores, table, write_scores


def step(reward: float, terminal: bool = False, truncated: bool = False, game: int = 0) -> Step:
    return Step(0, reward, np.zeros((1, 1), np.uint8), terminal, truncated, 0.05, game)


def test_games_that_end_or_run_out_of_time_count_and_those_given_up_do_not() -> None:
    scores = Scores()
    for played in (step(1), step(2, True), step(7), step(7, False, True), step(-1), step(-1), step(0.5, True, True)):
        scores.on_step(played)
    scores.on_step(step(9))
    assert scores.games == [Game(3, 2), Game(-1.5, 3)]


def test_games_side_by_side_count_apart() -> None:
    scores = Scores()
    for played in (step(1), step(10, game=1), step(2, True), step(20, True, game=1), step(5, True)):
        scores.on_step(played)
    assert scores.games == [Game(3, 2), Game(30, 2), Game(5, 1)]


def test_table() -> None:
    assert table([Game(1, 100), Game(4, 200), Game(-2.5, 1000)]) == (
        "  game      score      steps\n"
        "     1          1        100\n"
        "     2          4        200\n"
        "     3       -2.5       1000\n"
        "  mean        0.8      433.3\n"
        "    sd        3.3      493.3\n"
        "   min       -2.5        100\n"
        "   max          4       1000"
    )


def test_table_of_one_game_and_of_none() -> None:
    assert table([Game(21, 1733)]) == (
        "  game      score      steps\n"
        "     1         21       1733\n"
        "  mean       21.0     1733.0\n"
        "    sd          -          -\n"
        "   min         21       1733\n"
        "   max         21       1733"
    )
    assert table([]) == ""


def test_files(tmp_path: Path) -> None:
    write_scores(tmp_path / "new", [Game(1, 10), Game(2.5, 20)])
    assert (tmp_path / "new" / "scores.csv").read_text() == "game,score,steps\n1,1,10\n2,2.5,20\n"
    told = json.loads((tmp_path / "new" / "scores.json").read_text())
    assert told["games"] == [{"score": 1, "steps": 10}, {"score": 2.5, "steps": 20}]
    assert (told["mean"], round(told["sd"], 4), told["min"], told["max"]) == (1.75, 1.0607, 1, 2.5)
    write_scores(tmp_path, [])
    assert json.loads((tmp_path / "scores.json").read_text()) == {"games": []}
