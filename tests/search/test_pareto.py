"""Fronts and hypervolumes, against slow definitions."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from luthier.errors import InputError
from luthier.search.pareto import Front, pareto

POINTS = st.lists(st.tuples(st.integers(1, 9), st.integers(0, 9), st.integers(0, 9)), min_size=1, max_size=12)


def slow_volume(points: np.ndarray) -> int:
    """Count the unit cells of cost (up to 10 each) and accuracy (above 0) that a point covers."""
    cells = np.zeros((10, 10, 10), bool)
    for accuracy, *costs in points.astype(int):
        cells[costs[0] :, costs[1] :, :accuracy] = True
    return int(cells.sum())


@settings(max_examples=60, deadline=None)
@given(POINTS)
def test_hypervolume_is_the_number_of_unit_cells(found: list[tuple[int, int, int]]) -> None:
    points = np.array(found, float)
    front = Front.of(points[:, 0], points[:, 1:], 0.0, [10, 10])
    assert front.hypervolume == slow_volume(points)


@settings(max_examples=40, deadline=None)
@given(POINTS, st.tuples(st.integers(1, 9), st.integers(0, 9), st.integers(0, 9)))
def test_a_sure_gain_is_the_difference_of_two_hypervolumes(
    found: list[tuple[int, int, int]], more: tuple[int, int, int]
) -> None:
    points, new = np.array(found, float), np.array([more], float)
    front = Front.of(points[:, 0], points[:, 1:], 0.0, [10, 10])
    gain = front.expected_gain(new[:, 0], np.array([1e-9]), new[:, 1:])[0]
    both = np.concatenate([points, new])
    assert gain == pytest.approx(slow_volume(both) - slow_volume(points), abs=1e-6)  # erf of +-1e9 is exact


def test_an_unsure_gain_is_the_mean_over_draws() -> None:
    front = Front.of(np.array([0.5, 0.7]), np.array([[1.0], [3.0]]), 0.2, [5.0])
    mean, sd = np.array([0.6, 0.1]), np.array([0.15, 0.3])
    costs = np.array([[2.0], [0.5]])
    gain = front.expected_gain(mean, sd, costs)
    rng = np.random.default_rng(0)
    for index in range(2):
        draws = rng.normal(mean[index], sd[index], 4000)
        sure = front.expected_gain(draws, np.full(4000, 1e-9), np.repeat(costs[index : index + 1], 4000, axis=0))
        # four standard errors of the draws' mean
        assert abs(gain[index] - sure.mean()) < 4 * sure.std() / np.sqrt(4000)


@settings(max_examples=40, deadline=None)
@given(POINTS)
def test_the_front_is_what_no_point_beats(found: list[tuple[int, int, int]]) -> None:
    points = np.array(found, float)
    kept = pareto(points[:, 0], points[:, 1:])

    def beats(a: np.ndarray, b: np.ndarray) -> bool:
        return bool(a[0] >= b[0] and (a[1:] <= b[1:]).all() and (a != b).any())

    slow = {tuple(p) for p in points if not any(beats(q, p) for q in points)}
    assert {tuple(p) for p in points[kept]} == slow
    assert len(kept) == len(slow)


def test_points_beyond_the_reference_count_for_nothing() -> None:
    front = Front.of(np.array([0.05, 0.9]), np.array([[1.0], [9.0]]), 0.1, [4.0])
    assert (len(front.accuracy), front.hypervolume) == (0, 0.0)
    with pytest.raises(InputError, match=r"costs must be \(2, 1\)"):
        Front.of(np.array([0.1, 0.2]), np.zeros((2, 2)), 0.0, [1.0])
