"""Intervals against scipy and published tables."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats
from scipy.stats import binomtest

from luthier.intervals import blocked, paired_loss, student_t, wilson


@pytest.mark.parametrize("right", [0, 1, 17, 49, 50])
def test_wilson_is_scipys(right: int) -> None:
    expected = binomtest(right, 50).proportion_ci(method="wilson")
    assert wilson(right / 50, 50) == pytest.approx((expected.low, expected.high), abs=1e-12)


def test_wilson_of_nothing_knows_nothing() -> None:
    assert wilson(0.0, 0) == (0.0, 1.0)


@pytest.mark.parametrize("degrees", [1, 2, 3, 4, 7, 12, 61])
@pytest.mark.parametrize("probability", [0.6, 0.975, 0.9999, 0.02])
def test_students_quantiles_are_scipys(degrees: int, probability: float) -> None:
    assert student_t(probability, degrees) == pytest.approx(stats.t.ppf(probability, degrees), rel=1e-9)


def test_two_treatments_are_a_paired_t_test() -> None:
    pairs = np.random.default_rng(0).normal(size=(2, 6))
    (first, second), _, half = blocked(pairs.tolist())
    wanted = stats.ttest_rel(*pairs).confidence_interval(0.95)
    assert (first - second - half, first - second + half) == pytest.approx((wanted.low, wanted.high))


def test_blocks_take_the_seeds_out_and_differences_are_covered() -> None:
    rng = np.random.default_rng(1)
    right, misses = 0, 0
    for _ in range(400):
        values = rng.normal(size=(5, 4)) * 0.1 + rng.normal(size=4) * 10 + np.arange(5)[:, None]
        means, alone, apart = blocked(values.tolist())
        differences = np.array(means) - means[-1] - (np.arange(5) - 4)
        misses += bool((abs(differences) > apart).any())
        right += alone < 1
    assert right == 400  # the seeds' own spread of 10 is gone
    assert misses < 0.05 * 400 + 3 * (400 * 0.05 * 0.95) ** 0.5  # all four differences together, 95 %


def test_paired_loss_covers_the_true_difference() -> None:
    """Trials drawn from known shares of lost and won: the 95 % interval holds the truth about 95 % of the time."""
    generator = np.random.default_rng(0)
    for n, lost, won in ((60, 0.05, 0.02), (400, 0.03, 0.03), (1000, 0.001, 0.0)):
        drawn = generator.multinomial(n, [lost, won, 1 - lost - won], size=2000)
        held = [low <= lost - won <= high for low, high in (paired_loss(int(b), int(c), n) for b, c, _ in drawn)]
        assert 0.93 <= np.mean(held) <= 1.0


def test_paired_loss_is_symmetric_and_by_hand() -> None:
    low, high = paired_loss(7, 3, 200)
    assert paired_loss(3, 7, 200) == pytest.approx((-high, -low))
    half = 1.959964 * (11 - 16 / 202) ** 0.5 / 202
    assert (low, high) == pytest.approx((4 / 202 - half, 4 / 202 + half))
