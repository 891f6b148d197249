from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from luthier.errors import InputError
from luthier.quant.affine import U8, IntegerType, levels_of_range
from luthier.quant.observe import OBSERVERS, Histogram, _divergence, choose_levels, merged

Array = np.ndarray[Any, Any]


def seen(values: Array, weights: Array | None = None) -> Histogram:
    histogram = Histogram()
    histogram.add(values.astype(np.float32), weights)
    return histogram


def loss(values: Array, low: float, high: float) -> float:
    """Equation (1) written out: what is clipped counts four times."""
    counts = np.where((values < low) | (values > high), 4.0, 1.0)
    return float((counts * (levels_of_range(low, high).rounded(values) - values) ** 2).sum())


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
    assert plain.scale == pytest.approx(200 / 255, rel=0.05)
    # least of 1e9 (2 h / 255)^2 / 12 + 4 * 2 * 5 * integral of (x - h)^2 from h to 100: 256 h = (100 - h)^2
    assert 255 * favoured.scale == pytest.approx(2 * 23, rel=0.1)


def test_an_unknown_observer_is_named() -> None:
    with pytest.raises(InputError, match="must be one of minmax, percentile, mse, entropy, got 'median'"):
        choose_levels(seen(np.ones(3)), "median")  # type: ignore[arg-type]


def test_entropy_by_hand() -> None:
    """Four bins in two levels: P = (0.4, 0.1, 0.1, 0.4) against Q = (0.25, 0.25, 0.25, 0.25)."""
    x, counts = np.array([0.6, 1.4, 1.6, 2.4]), np.array([4.0, 1.0, 1.0, 4.0])
    want = 2 * 0.4 * np.log(0.4 / 0.25) + 2 * 0.1 * np.log(0.1 / 0.25)
    assert _divergence(x, counts, (0.0, 3.0), 1.0) == pytest.approx(want)
    # what is clipped joins the last bin of P, and not of Q
    p, q = np.array([0.4, 0.1, 0.5]), np.array([2.5, 2.5, 1.0]) / 6
    assert _divergence(x, counts, (0.0, 2.0), 1.0) == pytest.approx(float(p @ np.log(p / q)))


@pytest.mark.parametrize("observer", ["percentile", "entropy"])
def test_a_lone_outlier_is_clipped(observer: Any) -> None:
    values = np.append(np.random.default_rng(0).normal(size=40_000), 60.0).astype(np.float32).reshape(1, 1, -1)
    assert choose_levels(seen(values), observer).scale < 0.5 * choose_levels(seen(values), "minmax").scale


@given(st.sampled_from(OBSERVERS), st.integers(0, 99), st.booleans(), st.sampled_from([U8, IntegerType(4, False)]))
@settings(max_examples=25)
def test_every_observer_keeps_to_its_integers(observer: Any, seed: int, symmetric: bool, kind: IntegerType) -> None:
    values = np.random.default_rng(seed).normal(seed % 3 - 1, size=(1, 2, 500)).astype(np.float32)
    levels = choose_levels(seen(values), observer, kind=kind, symmetric=symmetric)
    assert 0 <= levels.zero_point <= kind.qmax
    if symmetric:
        assert levels.zero_point == (kind.qmax + 1) // 2
    # no range is wider than what was seen: on one side of the middle, or from end to end with 0 in it
    low, high = min(values.min(), 0), max(values.max(), 0)
    steps, seen_range = (kind.qmax // 2, max(high, -low)) if symmetric else (kind.qmax, high - low)
    assert levels.scale * steps <= seen_range * (1 + 1e-6)
