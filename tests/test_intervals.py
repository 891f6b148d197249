"""Intervals of shares: against scipy, by hand, and by how often they hold the truth."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import binomtest

from luthier.intervals import paired_loss, wilson


@pytest.mark.parametrize("right", [0, 1, 17, 49, 50])
def test_wilson_is_scipys(right: int) -> None:
    expected = binomtest(right, 50).proportion_ci(method="wilson")
    assert wilson(right / 50, 50) == pytest.approx((expected.low, expected.high), abs=1e-12)


def test_wilson_of_nothing_knows_nothing() -> None:
    assert wilson(0.0, 0) == (0.0, 1.0)


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
