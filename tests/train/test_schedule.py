"""The learning rate against its formula, worked by hand."""

from __future__ import annotations

import math
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from luthier.train.schedule import learning_rate_at


@pytest.mark.parametrize(
    ("step", "expected"),
    [(0, 0.1 * 1 / 5), (3, 0.1 * 4 / 5), (4, 0.1), (7, 0.05), (9, 0.1 * (1 + math.cos(math.pi * 5 / 6)) / 2)],
)
def test_equations_by_hand(step: int, expected: float) -> None:
    assert learning_rate_at(step, total_steps=10, warmup_steps=4, peak=0.1) == pytest.approx(expected, rel=1e-12)


def test_zero_is_reached_one_step_after_the_last() -> None:
    assert learning_rate_at(10, 10, 2, 1.0) == pytest.approx(0, abs=1e-15)
    assert learning_rate_at(9, 10, 2, 1.0) > 0.03


@given(st.integers(1, 500), st.floats(0, 1), st.floats(1e-5, 10))
def test_rises_to_the_peak_then_falls(total: int, share: float, peak: float) -> None:
    warmup = share * total
    rates = [learning_rate_at(step, total, warmup, peak) for step in range(total)]
    assert all(0 < rate <= peak * (1 + 1e-12) for rate in rates)
    top = math.ceil(warmup)
    assert all(a <= b for a, b in pairwise(rates[:top]))
    assert all(a >= b for a, b in pairwise(rates[top:]))
