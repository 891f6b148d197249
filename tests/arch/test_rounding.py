"""Rounding of widths and depths."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from luthier.arch.rounding import round_channels, round_depth
from luthier.errors import SpecError

WIDTHS = st.floats(0.01, 1e5)


@pytest.mark.parametrize(
    ("channels", "divisor", "rounded"),
    [(35.2, 8, 32), (17.6, 8, 16), (11.99, 8, 16), (12, 8, 16), (1, 8, 8), (20, 8, 24), (88.08, 8, 88), (6.4, 1, 6)],
)
def test_table(channels: float, divisor: int, rounded: int) -> None:
    assert round_channels(channels, divisor) == rounded


@given(channels=WIDTHS, divisor=st.integers(2, 64))
def test_a_multiple_near_the_wish(channels: float, divisor: int) -> None:
    rounded = round_channels(channels, divisor)
    assert rounded % divisor == 0
    assert rounded >= max(divisor, 0.9 * channels)
    assert rounded < channels + divisor or rounded == divisor


@given(first=WIDTHS, second=WIDTHS, divisor=st.integers(1, 64))
def test_never_falls(first: float, second: float, divisor: int) -> None:
    low, high = sorted((first, second))
    assert round_channels(low, divisor) <= round_channels(high, divisor)


@pytest.mark.parametrize(("channels", "divisor"), [(0, 8), (-1.0, 8), (float("nan"), 8), (8, 0)])
def test_bad_arguments(channels: float, divisor: int) -> None:
    with pytest.raises(SpecError, match="round_channels: channels and divisor must be above 0, got"):
        round_channels(channels, divisor)


@pytest.mark.parametrize(("blocks", "rounded"), [(2.2, 3), (3 * 1.0000000001, 3), (0.1, 1), (4.0, 4), (4.01, 5)])
def test_depth(blocks: float, rounded: int) -> None:
    assert round_depth(blocks) == rounded
