"""Scores of several games and seeds, compared as Agarwal et al. 2021 recommend (https://arxiv.org/abs/2108.13264).

The scores of a variant are one array per game, (…, seeds). The axes before the seeds are resampled scores, so one
function computes a statistic and its bootstrap samples.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

from simple_dqn.reports.table import Floats

Scores = Sequence[Floats]
REPETITIONS = 5000  # of the bootstrap
_SEED = 0  # because equal files make equal reports
_BOUNDS = (2.5, 97.5)  # percentiles: the 95 % interval


class Estimate(NamedTuple):
    """A statistic and its 95 % interval; numbers, or one array each. The interval is nan if a game has one seed."""

    value: Floats
    low: Floats
    high: Floats


def estimate(statistic: Callable[..., Floats], *variants: Scores) -> Estimate:
    """Return a statistic of one or several variants, with its stratified bootstrap interval.

    Each repetition draws as many seeds per game as there are, with replacement. The interval contains the middle 95 %
    of the results (percentile method).
    """
    value = statistic(*variants)
    if any(len(game) < 2 for scores in variants for game in scores):
        return Estimate(value, np.full_like(value, math.nan), np.full_like(value, math.nan))
    rng = np.random.default_rng(_SEED)
    samples = statistic(*([game[_draws(len(game), rng)] for game in scores] for scores in variants))
    low, high = np.percentile(samples, _BOUNDS, axis=0)
    return Estimate(value, low, high)


def _draws(seeds: int, rng: np.random.Generator) -> np.typing.NDArray[np.int64]:
    return rng.integers(seeds, size=(REPETITIONS, seeds))


# Statistics of normalised scores


def iqm(scores: Scores) -> Floats:
    """Return the interquartile mean: the mean of all scores without the lowest and the highest quarter."""
    ordered = np.sort(np.concatenate(scores, axis=-1), axis=-1)
    cut = ordered.shape[-1] // 4
    middle: Floats = ordered[..., cut : ordered.shape[-1] - cut]
    return np.asarray(middle.mean(axis=-1))


def mean(scores: Scores) -> Floats:
    """Return the mean over the games of their means."""
    return np.asarray(np.mean(_game_means(scores), axis=0))


def median(scores: Scores) -> Floats:
    """Return the median over the games of their means."""
    return np.asarray(np.median(_game_means(scores), axis=0))


def optimality_gap(scores: Scores) -> Floats:
    """Return by how much the scores fall short of 1 on average. Scores above 1 count as 1."""
    return np.asarray(1 - np.minimum(np.concatenate(scores, axis=-1), 1).mean(axis=-1))


def _game_means(scores: Scores) -> list[Floats]:
    return [game.mean(axis=-1) for game in scores]


def profile(scores: Scores, thresholds: Floats) -> Floats:
    """Return the performance profile: the fraction of runs with a score above each threshold, (…, thresholds).

    Each game has the same weight, also if it has fewer seeds.
    """
    return np.asarray(np.mean([(game[..., None] > thresholds).mean(axis=-2) for game in scores], axis=0))


def improvement(first: Scores, second: Scores) -> Floats:
    """Return the probability that a run of `first` beats a run of `second` on the same game. A tie counts half.

    This is the Mann-Whitney U statistic divided by the number of pairs, averaged over the games.
    """
    games = []
    for a, b in zip(first, second, strict=True):
        difference = a[..., :, None] - b[..., None, :]  # (…, seeds of first, seeds of second)
        games.append(((difference > 0) + 0.5 * (difference == 0)).mean(axis=(-2, -1)))
    return np.asarray(np.mean(games, axis=0))


# Learning curves


def curve(values: Floats) -> Estimate:
    """Return the mean over the seeds at each point of a curve, with its bootstrap interval.

    Args:
        values: (seeds, points). nan: a seed lacks this point. Each repetition draws whole curves, so the bounds are
            smooth.
    """
    seeds, there = len(values), np.isfinite(values)
    chosen = np.vstack([np.arange(seeds), _draws(seeds, np.random.default_rng(_SEED))])
    times = (chosen[:, :, None] == np.arange(seeds)).sum(axis=1).astype(float)  # (1 + repetitions, seeds)
    counts = times @ there
    means = times @ np.where(there, values, 0) / np.where(counts, counts, math.nan)
    low, high = np.full((2, values.shape[1]), math.nan)
    for i in np.flatnonzero(there.sum(axis=0) > 1):
        low[i], high[i] = np.percentile(means[1:, i][counts[1:, i] > 0], _BOUNDS)
    return Estimate(means[0], low, high)
