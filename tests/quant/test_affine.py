from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from luthier.quant.affine import (
    U8,
    IntegerType,
    Levels,
    levels_of_range,
    quantize_bias,
    quantize_weight,
    weight_scales,
)

ENDS = st.floats(-1e6, 1e6, allow_subnormal=False)


@given(ENDS, ENDS, st.integers(2, 8), st.booleans())
def test_a_range_is_covered_and_zero_is_exact(one: float, other: float, bits: int, signed: bool) -> None:
    kind = IntegerType(bits, signed)
    low, high = min(one, other, 0.0), max(one, other, 0.0)
    levels = levels_of_range(one, other, kind) if one < other else levels_of_range(other, one, kind)
    assert float(np.float32(levels.scale)) == levels.scale
    assert kind.qmin <= levels.zero_point <= kind.qmax
    assert levels.rounded(np.zeros(1), kind).item() == 0.0
    x = np.linspace(low, high, 101)
    # half a level, and half of one more where the zero point itself was rounded
    assert np.abs(levels.rounded(x, kind) - x).max() <= levels.scale * (1 + 1e-6)


def test_a_range_by_hand() -> None:
    assert levels_of_range(0.0, 255.0) == Levels(1.0, 0)
    assert levels_of_range(-127.5, 127.5, U8) == Levels(1.0, 128)  # 127.5 is half way: to even
    assert levels_of_range(2.0, 510.0) == Levels(2.0, 0)  # widened to hold 0
    assert levels_of_range(0.0, 0.0) == Levels(1.0, 0)


@given(st.integers(0, 2**32 - 1))
def test_weights_keep_their_largest_and_lose_half_a_level(seed: int) -> None:
    rng = np.random.default_rng(seed)
    weight = rng.normal(size=(5, 3, 2, 2)) * 10.0 ** rng.uniform(-3, 3, (5, 1, 1, 1))
    scales = weight_scales(weight, None, 1.0)
    q = quantize_weight(weight, scales)
    assert q.dtype == np.int8
    assert np.abs(q).reshape(5, -1).max(1).tolist() == [127] * 5
    error = np.abs(weight - q * scales.reshape(-1, 1, 1, 1)).reshape(5, -1).max(1)
    assert np.all(error <= scales * 0.5 * (1 + 1e-5))


@pytest.mark.parametrize("bias", [1e30, -3.0, 0.0])
def test_a_channel_without_weights_does_not_overflow_its_bias(bias: float) -> None:
    scales = weight_scales(np.zeros((1, 4)), np.array([bias]), 0.01)
    stored = quantize_bias(np.array([bias]), scales, 0.01)
    assert abs(int(stored[0])) <= 2**29 + 2**6  # scales are rounded to float32
    assert stored[0] * scales[0] * 0.01 == pytest.approx(bias, rel=1e-6)  # scales are rounded to float32
