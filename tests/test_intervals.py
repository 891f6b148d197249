"""Wilson's interval against scipy."""

from __future__ import annotations

import pytest
from scipy.stats import binomtest

from luthier.intervals import wilson


@pytest.mark.parametrize("right", [0, 1, 17, 49, 50])
def test_wilson_is_scipys(right: int) -> None:
    expected = binomtest(right, 50).proportion_ci(method="wilson")
    assert wilson(right / 50, 50) == pytest.approx((expected.low, expected.high), abs=1e-12)


def test_wilson_of_nothing_knows_nothing() -> None:
    assert wilson(0.0, 0) == (0.0, 1.0)
