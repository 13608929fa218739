"""SumTree: the sums of a list, and draws in proportion."""

from __future__ import annotations

import numpy as np
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from simple_dqn.replay.sum_tree import SumTree

values = st.floats(0, 1e6, allow_subnormal=False)


def pairwise_sums(numbers: NDArray[np.float64]) -> NDArray[np.float64]:
    """All nodes of the tree of these numbers, computed from the leaves upwards."""
    level = np.pad(numbers, (0, (1 << (len(numbers) - 1).bit_length()) - len(numbers)))
    nodes = level
    while len(level) > 1:
        level = level[::2] + level[1::2]
        nodes = np.concatenate([level, nodes])
    return np.concatenate([[0], nodes])


def descend(sums: NDArray[np.float64], point: float) -> int:
    """The leaf of a point: right if it is beyond the left sum and something is there."""
    node = 1
    while 2 * node < len(sums):
        node *= 2
        if point >= sums[node] and sums[node + 1] > 0:
            point -= sums[node]
            node += 1
    return node - len(sums) // 2


@settings(max_examples=100, deadline=None)
@given(
    size=st.integers(1, 70),
    changes=st.lists(st.lists(st.tuples(st.integers(0, 69), values), min_size=1, max_size=20), min_size=1, max_size=6),
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
    sums = pairwise_sums(numbers)
    assert np.array_equal(tree._sums[1:], sums[1:])  # to the bit
    assume(numbers.any())
    wanted = np.array(points) * tree.total
    bounds = numbers.cumsum()
    for point, index in zip(wanted, tree.find(wanted), strict=True):
        assert numbers[index] > 0
        assert index == descend(sums, point)
        assert bounds[index] - numbers[index] <= point + 1e-9 * tree.total
        assert bounds[index] >= point - 1e-9 * tree.total


def test_nothing_is_drawn_beyond_the_end_by_rounding() -> None:
    tree = SumTree(5)
    tree[np.arange(3)] = np.array([0.1, 0.2, 0.3])
    assert tree.find(np.array([tree.total, 1e9])).tolist() == [2, 2]
    assert SumTree(5).find(np.array([0.0])).tolist() == [0]


def test_setting_nothing_changes_nothing() -> None:
    tree = SumTree(4)
    tree[np.empty(0, np.int64)] = np.empty(0)
    assert tree.total == 0
