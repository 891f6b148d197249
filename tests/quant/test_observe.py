from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from luthier.errors import InputError
from luthier.quant.affine import levels_of_range
from luthier.quant.observe import Histogram, choose_levels, merged

Array = np.ndarray[Any, Any]


def seen(values: Array, weights: Array | None = None) -> Histogram:
    histogram = Histogram()
    histogram.add(values.astype(np.float32), weights)
    return histogram


def loss(values: Array, low: float, high: float) -> float:
    return float(((levels_of_range(low, high).rounded(values) - values) ** 2).sum())


@given(st.lists(st.lists(st.floats(-1e4, 1e4, width=32), min_size=1, max_size=30), min_size=1, max_size=4))
def test_a_histogram_counts_all_in_whatever_order_it_grew(parts: list[list[float]]) -> None:
    arrays = [np.array(part, np.float32) for part in parts]
    whole, together = Histogram(), merged(map(seen, arrays))
    for array in arrays:
        whole.add(array)
    values = np.concatenate(arrays)
    assert (whole.low, whole.high) == (min(values.min(), 0), max(values.max(), 0))
    assert (together.low, together.high, together.limit) == (whole.low, whole.high, whole.limit)
    assert np.array_equal(together.counts, whole.counts)
    assert whole.counts.sum() == len(values)
    width = 2 * whole.limit / len(whole.counts)
    assert abs(whole.counts @ whole.values - values.sum(dtype=np.float64)) <= (0.5 + 1e-3) * width * len(values)


def test_weights_are_per_channel() -> None:
    histogram = seen(np.array([[[[1.0, 1.0]], [[-3.0, 3.0]]]]), np.array([10.0, 0.5]))
    used = np.flatnonzero(histogram.counts)
    assert histogram.counts[used].tolist() == [0.5, 20.0, 0.5]
    assert np.allclose(histogram.values[used], [-3, 1, 3], atol=2 * histogram.limit / 8192)


def test_minmax_takes_all() -> None:
    levels = choose_levels(seen(np.array([-1.0, 0.0, 3.0])), "minmax")
    assert levels == levels_of_range(-1.0, 3.0)


def test_percentile_leaves_outliers_out() -> None:
    values = np.concatenate([np.linspace(-1, 2, 100_000), [1000.0]])
    low, high = (end * choose_levels(seen(values), "percentile").scale for end in (0, 255))
    assert high - low == pytest.approx(3.0, abs=0.3)  # bins are 0.25 wide


def test_mse_is_the_best_of_a_fine_search() -> None:
    values = np.random.default_rng(1).standard_t(3, 20_000)
    levels = choose_levels(seen(values), "mse")
    low, high = -levels.scale * levels.zero_point, levels.scale * (255 - levels.zero_point)
    ends = [(a, b) for a in np.linspace(values.min(), -2, 40) for b in np.linspace(2, values.max(), 40)]
    best = min(loss(values, *pair) for pair in ends)
    assert loss(values, low, high) <= 1.05 * best  # bins, and 2 % steps of the ends
    assert best < loss(values, values.min(), values.max())


def test_mse_spends_nothing_where_the_function_is_flat() -> None:
    values = np.linspace(-50, 6, 10_000)
    levels = choose_levels(seen(values), "mse", lambda x: np.clip(x, 0, 6))
    assert levels.scale == pytest.approx(6 / 255, rel=0.4)  # the lower end moves in steps of 2 % of 50
    assert levels.scale * levels.zero_point < 5


def test_a_quiet_channel_with_weight_gets_fine_levels() -> None:
    values = np.stack([np.linspace(-1, 1, 1000), np.linspace(-100, 100, 1000)])[None]
    plain = choose_levels(seen(values, np.ones(2)), "mse")
    favoured = choose_levels(seen(values, np.array([1e6, 1.0])), "mse")
    assert favoured.scale < plain.scale / 5


def test_an_unknown_observer_is_named() -> None:
    with pytest.raises(InputError, match="must be one of minmax, percentile, mse, got 'entropy'"):
        choose_levels(seen(np.ones(3)), "entropy")  # type: ignore[arg-type]
