"""Learning curves as numbers: places on the x axis, groups of seeds, means, smoothing, and pieced-together runs."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from simple_dqn.errors import StatisticsError
from simple_dqn.reports.atari_scores import REFERENCE_SCORES
from simple_dqn.reports.curves import (
    curve_of,
    frames_per_step,
    game_of_file,
    grouped,
    run_counts,
    run_of,
    seams_of,
)
from simple_dqn.reports.table import Table
from simple_dqn.saving.snapshot import Snapshot, write_snapshot


def table(name: str = "pong.csv", scores: Sequence[float] = (1, 2, 3), length: int = 100, **columns: Any) -> Table:
    """A file with random moves and training phases of `length` steps that take an hour each."""
    n = len(scores)
    usual: dict[str, Any] = dict(
        epoch=range(n + 1),
        steps=[50, *[length] * n],
        total_train_steps=np.arange(n + 1) * length,
        total_time=3600 * np.arange(n + 1),
        average_reward=[0, *scores],
    )
    phases = columns.pop("phases", ["random", *["train"] * n])
    return Table(Path(name), phases, {key: np.array(some, float) for key, some in (usual | columns).items()})


def grouping(by: str, *tables: Table, games: Sequence[str] = ()) -> list[list[str]]:
    runs = [run_of(some, "epoch") for some in tables]
    groups = grouped(runs, by, games or [""] * len(runs))
    return [[str(group.path), *(str(run.table.path) for run in group.runs)] for group in groups]


def test_places_on_the_x_axis() -> None:
    for axis, expected in dict(epoch=[0, 1, 2], steps=[0, 100, 200], frames=[0, 400, 800], hours=[0, 1, 2]).items():
        assert run_of(table(scores=(1, 2)), axis).x.tolist() == expected
    assert run_of(table(scores=(1, 2)), "frames", frames=1).x.tolist() == [0, 100, 200]


def test_hours_go_on_if_another_run_began_at_zero() -> None:
    assert run_of(table(total_time=[0, 3600, 1800, 3600]), "hours").x.tolist() == [0, 1, 1.5, 2]


@pytest.mark.parametrize(("axis", "column"), [("steps", "total_train_steps"), ("hours", "total_time")])
def test_axis_of_a_column_that_a_file_lacks(axis: str, column: str) -> None:
    older = table()
    del older.columns[column]
    with pytest.raises(StatisticsError, match=f"--x {axis}: pong.csv has no column {column}; use --x epoch"):
        run_of(older, axis)
    assert seams_of(grouped([run_of(older, "epoch")], "none", [""])[0]) == []


@pytest.mark.parametrize(
    ("recorded", "frames"),
    [
        (dict(frame_skip=3, environment="ale"), 3),
        (dict(frame_skip=4, environment="gym"), 1),
        (dict(frame_skip="x"), 4),
        ({}, 4),
        (None, 4),
    ],
)
def test_frames_of_a_step_are_those_that_the_snapshot_records(
    recorded: dict[str, Any] | None, frames: int, tmp_path: Path
) -> None:
    facts = {} if recorded is None else {"options": recorded}
    for folder in ("snapshots", "snapshots/pong_slow.2"):  # the second is of an earlier run
        (tmp_path / folder).mkdir()
        write_snapshot(tmp_path / folder / "pong_slow_12.pkl", Snapshot([], (4, 84, 84), facts))
    assert frames_per_step(tmp_path / "results" / "pong_slow.csv") == frames
    assert frames_per_step(tmp_path / "results" / "pong_slow.csv.2") == frames
    assert frames_per_step(tmp_path / "results" / "pong_slow.csv.1") == 4
    assert frames_per_step(tmp_path / "results" / "pong.csv") == 4
    (tmp_path / "snapshots" / "pong_slow_12.pkl").write_bytes(b"damaged")
    assert frames_per_step(tmp_path / "results" / "pong_slow.csv") == 4


@pytest.mark.parametrize(
    ("name", "game"),
    [
        ("pong.csv", "pong"),
        ("Pong_slow_3.csv", "pong"),
        ("pong-2.csv", "pong"),
        ("space_invaders_fast.csv", "space_invaders"),
        ("space_invaders.csv.1", "space_invaders"),
        ("SpaceInvaders-v5.csv", "space_invaders"),
        ("BreakoutNoFrameskip-v4_slow.csv", "breakout"),
        ("CartPole-v1_slow.csv", "CartPole-v1"),
        ("my_run.csv", ""),
    ],
)
def test_game_of_a_file(name: str, game: str) -> None:
    assert game_of_file(Path("results") / name) == game


def test_files_that_differ_by_seed_are_one_experiment() -> None:
    tables = [
        table(f"results/{name}.csv") for name in ("pong_1", "pong-02", "pong_seed3", "pong_s4", "pong", "pong_x5")
    ]
    seeds = [str(some.path) for some in tables[:4]]
    alone = [[name, name] for name in ("results/pong.csv", "results/pong_x5.csv")]
    assert grouping("seed", *tables) == [["results/pong_*.csv", *seeds], *alone]
    assert grouping("seed", *tables[:4]) == [["results/pong.csv", *seeds]]
    assert grouping("none", *tables) == [[str(some.path)] * 2 for some in tables]


def test_seeds_have_the_same_folder_and_epochs() -> None:
    tables = [table("a/pong_1.csv"), table("b/pong_2.csv"), table("a/pong_3.csv", length=50)]
    tables += [table("a/pong_10.csv", epoch=[0, 11, 12, 13])]  # resumed in 2015
    assert len(grouping("seed", *tables)) == 4


def test_experiments_by_name_and_by_folder() -> None:
    tables = [table(f"{folder}/{name}.csv") for folder in ("a", "b") for name in ("pong", "pong_slow")]
    by_name = [[f"{name}.csv", f"a/{name}.csv", f"b/{name}.csv"] for name in ("pong", "pong_slow")]
    assert grouping("name", *tables) == by_name
    assert [group[1:] for group in grouping("folder", *tables)] == [
        [f"{f}/pong.csv", f"{f}/pong_slow.csv"] for f in "ab"
    ]
    games = ["pong", "pong", "breakout", "breakout"]
    assert grouping("name", *tables, games=games) == grouping("none", *tables)


def test_no_mean_of_epochs_of_different_lengths() -> None:
    with pytest.raises(StatisticsError, match=r"--group folder: a.csv and b.csv have no mean.*use --group none"):
        grouping("folder", table("a.csv"), table("b.csv", length=50))


def test_mean_and_standard_error_of_seeds_with_missing_epochs() -> None:
    """The means are those of a naive loop over epochs."""
    tables = [table("pong_1.csv", [1, 5, 9]), table("pong_2.csv", [3, np.nan]), table("pong_3.csv", [8])]
    (group,) = grouped([run_of(some, "steps") for some in tables], "seed", [""] * 3)
    curve = curve_of(group, "average_reward", "train")
    scores = [[1, 3, 8], [5], [9]]
    assert curve.x.tolist() == [100, 200, 300]
    np.testing.assert_allclose(curve.y, [np.mean(some) for some in scores])
    np.testing.assert_allclose(curve.error, np.array([np.std(scores[0], ddof=1) / 3**0.5, np.nan, np.nan]))
    assert run_counts(group) == (1, 3)


def test_the_mean_of_seeds_does_not_go_back_in_time_where_a_slow_one_ends() -> None:
    slow, fast = table("pong_1.csv", [1, 2]), table("pong_2.csv", [1, 2, 3, 4], total_time=1800 * np.arange(5))
    (group,) = grouped([run_of(some, "hours") for some in (slow, fast)], "seed", [""] * 2)
    assert curve_of(group, "average_reward", "train").x.tolist() == [0.75, 1.5, 2.0, 2.5]


def test_a_seed_without_a_phase_yet_is_left_out_of_its_mean() -> None:
    tested = table("pong_1.csv", [1, 2], phases=["random", "train", "test"])
    (group,) = grouped([run_of(some, "steps") for some in (tested, table("pong_2.csv", [5]))], "seed", [""] * 2)
    curve = curve_of(group, "average_reward", "test")
    assert (curve.x.tolist(), curve.y.tolist()) == ([200], [2])


def test_smoothing_is_the_mean_of_the_epochs_around() -> None:
    """Also at the ends, where there are fewer, and beside missing values."""
    scores = [4.0, 0, np.nan, 8, 6]
    (group,) = grouped([run_of(table(scores=scores), "epoch")], "seed", [""])
    for n in (1, 2, 3, 4, 9):
        around = [scores[max(0, i - n // 2) : i - n // 2 + n] for i in range(5)]
        expected = [np.nan if np.isnan(scores[i]) else np.nanmean(around[i]) for i in range(5)]
        curve = curve_of(group, "average_reward", "train", smooth=n)
        np.testing.assert_allclose(curve.y, np.array(expected, float))
        np.testing.assert_array_equal(curve.raw, scores)


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, []),
        (dict(steps=[50, 100, 100, 60], total_train_steps=[0, 100, 200, 260]), []),  # the last epoch is under way
        (dict(epoch=[0, 1, 3, 4], total_train_steps=[0, 100, 300, 400]), []),  # a row is missing
        (dict(total_train_steps=[0, 100, 250, 350]), [1.5]),
        (dict(steps=[50, 100, 200, 200], total_train_steps=[0, 100, 300, 500]), [1.5]),
        (dict(total_time=[0, 3600, 1800, 3600]), [1.5]),
        (dict(epoch=[0, 11, 12, 13], total_train_steps=[0, 1100, 1200, 1300]), [11]),  # --start_epoch 10
        (dict(epoch=[0, 1, 0, 2], phases=["random", "train"] * 2, total_train_steps=[0, 100, 100, 200]), [1.5]),
    ],
)  # fmt: skip
def test_what_marks_a_pieced_together_run(changes: dict[str, Any], expected: list[float]) -> None:
    (group,) = grouped([run_of(table(**changes), "epoch")], "none", [""])
    assert seams_of(group) == expected


def test_scores_of_57_games_that_ale_py_has() -> None:
    from ale_py import roms

    assert len(REFERENCE_SCORES) == 57
    assert set(REFERENCE_SCORES) <= set(roms.get_all_rom_ids())
    assert all(scores.random < scores.human for scores in REFERENCE_SCORES.values())
    assert REFERENCE_SCORES["breakout"] == (1.7, 30.5)
    assert REFERENCE_SCORES["zaxxon"] == (32.5, 9173.3)
