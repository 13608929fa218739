"""Statistics over seeds and games: cases by hand, slow twins, and all resamples of a small sample."""

from __future__ import annotations

import itertools
import math
import statistics
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest

from simple_dqn.reports.experiment import evaluation
from simple_dqn.reports.experiment.evaluation import (
    curve,
    estimate,
    improvement,
    iqm,
    mean,
    median,
    optimality_gap,
    profile,
)

Games = list[list[float]]


def arrays(games: Games) -> list[Any]:
    return [np.array(game, float) for game in games]


@pytest.mark.parametrize(
    ("games", "expected"),
    [
        ([[8, 1, 7, 2], [6, 3, 5, 4]], 4.5),  # mean of 3 to 6
        ([[1, 2, 3, 4, 1000]], 3),
        ([[1, 2, 6]], 3),  # a quarter of three is less than one
        ([[5]], 5),
    ],
)
def test_interquartile_mean_by_hand(games: Games, expected: float) -> None:
    assert iqm(arrays(games)) == expected


def test_other_aggregates_by_hand() -> None:
    games = arrays([[0, 1], [2, 4], [-1, 0, 1]])  # means 0.5, 3, 0
    assert mean(games) == pytest.approx(3.5 / 3)
    assert median(games) == 0.5
    assert optimality_gap(games) == pytest.approx(1 - (0 + 1 + 1 + 1 - 1 + 0 + 1) / 7)


def test_profile_by_hand() -> None:
    """The fraction strictly above each threshold. Each game has the same weight."""
    games = arrays([[0, 1, 2, 3], [1, 1]])
    assert profile(games, np.array([-1.0, 0, 1, 2, 3])).tolist() == [1, (0.75 + 1) / 2, 0.25, 0.125, 0]


@pytest.mark.parametrize(
    ("ours", "others", "expected"),
    [
        ([[2, 3]], [[0, 1]], 1),
        ([[0, 1]], [[2, 3]], 0),
        ([[1, 3]], [[2]], 0.5),
        ([[1, 1]], [[1, 1]], 0.5),
        ([[1, 2]], [[1, 0, 3]], (1.5 + 2) / 6),
        ([[2], [0, 0]], [[1], [1, 1]], 0.5),  # mean of 1 and 0
    ],
)
def test_probability_of_improvement_by_hand(ours: Games, others: Games, expected: float) -> None:
    assert improvement(arrays(ours), arrays(others)) == pytest.approx(expected)
    assert improvement(arrays(others), arrays(ours)) == pytest.approx(1 - expected)


# The bootstrap


def slow_iqm(games: Games) -> float:
    scores = sorted(itertools.chain(*games))
    return statistics.fmean(scores[len(scores) // 4 : len(scores) - len(scores) // 4])


def slow_gap(games: Games) -> float:
    return statistics.fmean(1 - min(score, 1) for score in itertools.chain(*games))


def slow_profile(games: Games) -> float:
    return statistics.fmean(statistics.fmean(score > 0.7 for score in game) for game in games)


def slow_improvement(ours: Games, others: Games) -> float:
    return statistics.fmean(
        statistics.fmean(1.0 if x > y else 0.5 if x == y else 0.0 for x in a for y in b)
        for a, b in zip(ours, others, strict=True)
    )


def slow_percentile(values: Sequence[float], percent: float) -> float:
    """By linear interpolation between the nearest ranks."""
    ordered = sorted(values)
    place = percent / 100 * (len(ordered) - 1)
    below = ordered[math.floor(place)]
    return below + (ordered[math.ceil(place)] - below) * (place % 1)


PAIRS: dict[str, tuple[Callable[..., Any], Callable[..., float], int]] = {
    "iqm": (iqm, slow_iqm, 1),
    "mean": (mean, lambda games: statistics.fmean(map(statistics.fmean, games)), 1),
    "median": (median, lambda games: statistics.median(map(statistics.fmean, games)), 1),
    "optimality gap": (optimality_gap, slow_gap, 1),
    "profile": (lambda games: profile(games, np.array([0.7]))[..., 0], slow_profile, 1),
    "improvement": (improvement, slow_improvement, 2),
}


@pytest.mark.parametrize("name", PAIRS)
def test_interval_is_that_of_a_loop_over_resamples(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Seeds are drawn within their game (strata), and each game keeps its number of seeds."""
    monkeypatch.setattr(evaluation, "REPETITIONS", 60)
    fast, slow, count = PAIRS[name]
    rng = np.random.default_rng(7)
    variants = [[list(rng.normal(0.6, 1, seeds).round(1)) for seeds in (4, 2, 5)] for _ in range(count)]
    rng = np.random.default_rng(0)
    draws = [[rng.integers(len(game), size=(60, len(game))) for game in games] for games in variants]
    results = []
    for i in range(60):
        resampled = [
            [[game[seed] for seed in drawn[i]] for game, drawn in zip(games, its, strict=True)]
            for games, its in zip(variants, draws, strict=True)
        ]
        results.append(slow(*resampled))
    found = estimate(fast, *map(arrays, variants))
    expected = [slow(*variants), slow_percentile(results, 2.5), slow_percentile(results, 97.5)]
    np.testing.assert_allclose(found, expected, rtol=1e-12, atol=1e-12)


def test_interval_is_near_that_of_all_resamples() -> None:
    scores = [0.0, 1.0, 2.5, 4.0, 9.0]
    means = [statistics.fmean(drawn) for drawn in itertools.product(scores, repeat=5)]
    found = estimate(mean, [np.array(scores)])
    assert found.value == 3.3
    for bound, fraction in ((found.low, 0.025), (found.high, 0.975)):  # means are a grid, so compare fractions
        assert sum(m < bound for m in means) / len(means) < fraction + 0.005
        assert sum(m <= bound for m in means) / len(means) > fraction - 0.005


def test_interval_is_the_same_each_time_and_missing_for_one_seed() -> None:
    games = arrays([[1, 2, 3], [4, 6]])
    assert estimate(iqm, games) == estimate(iqm, games)
    np.testing.assert_equal(estimate(iqm, arrays([[1, 2, 3], [4]])), (2.5, math.nan, math.nan))


def test_curve_with_missing_points(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whole seeds are drawn. A resample without any seed that has the point does not count."""
    monkeypatch.setattr(evaluation, "REPETITIONS", 60)
    nan = math.nan
    values = [[1.0, 2.0, 5.0, nan], [3.0, 8.0, nan, nan], [2.0, nan, nan, nan]]
    results: list[list[float]] = [[], [], [], []]
    for drawn in np.random.default_rng(0).integers(3, size=(60, 3)):
        for i in range(4):
            there = [values[seed][i] for seed in drawn if not math.isnan(values[seed][i])]
            results[i] += [statistics.fmean(there)] if there else []
    found = curve(np.array(values))
    np.testing.assert_allclose(found.value, [2, 5, 5, nan])
    for i in (0, 1):
        assert found.low[i] == pytest.approx(slow_percentile(results[i], 2.5))
        assert found.high[i] == pytest.approx(slow_percentile(results[i], 97.5))
    assert np.isnan([found.low[2:], found.high[2:]]).all()
