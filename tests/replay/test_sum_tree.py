"""SumTree: the sums of a list, and draws in proportion."""

from __future__ import annotations

import numpy as np
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from simple_dqn.replay.sum_tree import SumTree

values = st.floats(0, 1e6, allow_subnormal=False)


@settings(max_examples=100, deadline=None)
@given(
    size=st.integers(1, 70),
    changes=st.lists(st.lists(st.tuples(st.integers(0, 69), values), min_size=1, max_size=9), min_size=1, max_size=6),
    points=st.lists(st.floats(0, 1, exclude_max=True, allow_subnormal=False), min_size=1, max_size=20),
)
def test_finds_what_a_running_sum_finds(size: int, changes: list[list[tuple[int, float]]], points: list[float]) -> None:
    tree, numbers = SumTree(size), np.zeros(size)
    for change in changes:
        for index, value in change:  # one after the other: the last counts
            numbers[index % size] = value
        tree[np.array([index % size for index, _ in change])] = np.array([value for _, value in change])
    assert np.array_equal(tree[np.arange(size)], numbers)
    np.testing.assert_allclose(tree.total, numbers.sum(), rtol=1e-12)
    assume(numbers.any())
    wanted = np.array(points) * tree.total
    bounds = numbers.cumsum()
    for point, index in zip(wanted, tree.find(wanted), strict=True):
        assert numbers[index] > 0
        assert bounds[index] - numbers[index] <= point + 1e-9 * tree.total
        assert bounds[index] >= point - 1e-9 * tree.total


def test_nothing_is_drawn_beyond_the_end_by_rounding() -> None:
    tree = SumTree(5)
    tree[np.arange(3)] = np.array([0.1, 0.2, 0.3])
    assert tree.find(np.array([tree.total, 1e9])).tolist() == [2, 2]


def test_setting_nothing_changes_nothing() -> None:
    tree = SumTree(4)
    tree[np.empty(0, np.int64)] = np.empty(0)
    assert tree.total == 0
