"""The scores of games played, as a table and as files."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from fakes import step
from simple_dqn.reports.scores import Game, Scores, mean_text, score_text, table, write_scores


def test_games_that_end_or_run_out_of_time_count_and_those_given_up_do_not() -> None:
    scores = Scores()
    for played in (step(1), step(2, True), step(7), step(7, False, True), step(-1), step(-1), step(0.5, True, True)):
        scores.on_step(played)
    scores.on_step(step(9))
    assert scores.games == [Game(3, 2), Game(-1.5, 3)]


def test_scores_of_a_run_that_did_not_begin_are_not_missed(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Another error says why it did not."""
    scores = Scores()
    scores.report(2, str(tmp_path))
    assert caplog.messages == []
    scores.on_phase_start("play", 0, None)
    scores.report(2, str(tmp_path))
    assert caplog.messages == [f"Only 0 of 2 games: nothing new in {tmp_path}"]


def test_a_test_does_not_continue_the_game_of_the_training() -> None:
    scores = Scores()
    scores.on_phase_start("train", 1, 9)
    for played in (step(5, True), step(7)):
        scores.on_step(played)
    scores.on_phase_start("test", 1, 9)
    assert scores.current == Game(0.0, 0)
    assert scores.games == []  # only --play_games lists them


def test_games_side_by_side_count_apart() -> None:
    scores = Scores()
    for played in (step(1), step(10, game=1), step(2, True), step(20, True, game=1), step(5, True)):
        scores.on_step(played)
    assert scores.games == [Game(3, 2), Game(30, 2), Game(5, 1)]


def test_a_game_that_was_quit_tells_its_score_so_far(
    caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str]
) -> None:
    caplog.set_level("INFO")
    scores = Scores()
    for played in (step(1), step(2, True), step(3), step(4), step(0.5)):
        scores.on_step(played)
    scores.report(2, None)
    assert caplog.messages == ["A game was not finished: score 7.5 after 3 steps"]
    assert "mean        3.0" in capsys.readouterr().out  # without it


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


def test_table_of_large_and_of_small_scores() -> None:
    assert table([Game(1234567, 2), Game(-37037.0367, 3), Game(0.1 + 0.2, 1)]).splitlines()[1:4] == [
        "     1     1234567          2",
        "     2 -37037.0367          3",
        "     3         0.3          1",
    ]
    wide = table([Game(-12345678901234.5, 1), Game(3, 10**12)]).splitlines()
    assert len(set(map(len, wide))) == 1, "columns stay aligned"
    assert wide[1].split() == ["1", "-12345678901234.5", "1"]
    assert table([Game(0.01, 1), Game(0.02, 1)]).splitlines()[3].split() == ["mean", "0.015", "1.0"]


@pytest.mark.parametrize(
    ("score", "text"),
    [
        (21.0, "21"),
        (1234567.0, "1234567"),
        (-37037.0367, "-37037.0367"),
        (0.1 + 0.2, "0.3"),
        (sum([0.1] * 200), "20"),
        (1e15, "1000000000000000"),
        (1234567890123.5, "1234567890123.5"),
        (1e-7, "1e-07"),
        (-0.5, "-0.5"),
        (float("nan"), "nan"),
    ],
)
def test_scores_as_text(score: float, text: str) -> None:
    assert score_text(score) == text


def test_means_of_small_rewards_do_not_vanish() -> None:
    assert [mean_text(mean) for mean in (1234567.25, -20.96, 0.0, 0.0123)] == ["1234567.2", "-21.0", "0.0", "0.0123"]


def test_files_hold_scores_exactly(tmp_path: Path) -> None:
    write_scores(tmp_path, [Game(1234567.0, 10), Game(-37037.0367, 20), Game(0.1 + 0.2, 30)])
    rows = (tmp_path / "scores.csv").read_text().splitlines()
    assert rows[1:] == ["1,1234567,10", "2,-37037.0367,20", "3,0.30000000000000004,30"]


def test_files(tmp_path: Path) -> None:
    write_scores(tmp_path / "new", [Game(1, 10), Game(2.5, 20)])
    assert (tmp_path / "new" / "scores.csv").read_text() == "game,score,steps\n1,1,10\n2,2.5,20\n"
    told = json.loads((tmp_path / "new" / "scores.json").read_text())
    assert told["games"] == [{"score": 1, "steps": 10}, {"score": 2.5, "steps": 20}]
    assert (told["mean"], round(told["sd"], 4), told["min"], told["max"]) == (1.75, 1.0607, 1, 2.5)
    write_scores(tmp_path, [])
    assert json.loads((tmp_path / "scores.json").read_text()) == {"games": []}


def test_moves_of_a_human_are_counted_apart() -> None:
    scores = Scores()
    human = iter([False, True, True, True, False])
    scores.human_plays = lambda: next(human)
    for played in (step(1), step(2), step(5, True, game=1), step(4, True), step(3, True), step(7, True)):
        scores.on_step(played)
    assert scores.games == [Game(5, 1), Game(7, 3, 2, 6), Game(3, 1, 1, 3), Game(7, 1)]
    assert [line.split() for line in table(scores.games).splitlines()[:5]] == [
        ["game", "score", "steps", "your", "moves"],
        ["1", "5", "1", "0%"],
        ["2", "7", "3", "67%"],
        ["3", "3", "1", "100%"],
        ["4", "7", "1", "0%"],
    ]


@pytest.mark.parametrize(("human_steps", "share"), [(0, "0%"), (1, "1%"), (999, "99%"), (1000, "100%")])
def test_a_share_is_all_or_nothing_only_if_it_is(human_steps: int, share: str) -> None:
    assert Game(0, 1000, human_steps).human_share == share
