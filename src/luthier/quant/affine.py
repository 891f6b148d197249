"""Integer types, and the affine map between integers and real numbers.

    real = scale * (q - zero_point),    q in qmin .. qmax                                            (1)

Symmetric: zero_point = 0.  Asymmetric: the range [low, high] is widened to hold 0, and 0 is met exactly:

    scale = (high - low) / (qmax - qmin),    zero_point = qmin + rint(-low / scale)                   (2)
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]
#: the least scale: its reciprocal and its products with other scales stay normal float32 numbers
LEAST_SCALE: Final = 2.0**-40
#: the largest bias in levels, and the most products of u8 and s8 in a sum: with a corrected bias still below 2^31
_LARGEST_BIAS: Final = 2**29
MOST_PRODUCTS: Final = 2**30 // (255 * 127)


@dataclass(frozen=True, slots=True)
class IntegerType:
    """Integers of `bits` bits; signed ones are symmetric about 0, so that the most negative pattern is not used.

    Example:
        >>> (S8.qmin, S8.qmax), (U8.qmin, U8.qmax), (IntegerType(4, True).qmin, IntegerType(4, True).qmax)
        ((-127, 127), (0, 255), (-7, 7))
    """

    bits: int
    signed: bool

    @property
    def qmax(self) -> int:
        """The largest integer."""
        return (1 << self.bits - self.signed) - 1

    @property
    def qmin(self) -> int:
        """The smallest integer."""
        return -self.qmax if self.signed else 0


S8: Final = IntegerType(8, True)
U8: Final = IntegerType(8, False)


@dataclass(frozen=True, slots=True)
class Levels:
    """Scale, exact in float32, and zero point of equation (1)."""

    scale: float
    zero_point: int

    def rounded(self, x: Array, kind: IntegerType = U8) -> Array:
        """The value that each number is stored as: quantised and back, in double precision.

        Example:
            >>> Levels(0.5, 10).rounded(np.array([-9.0, 0.2, 0.3, 1.0])).tolist()
            [-5.0, 0.0, 0.5, 1.0]
        """
        q = np.clip(np.rint(x / self.scale) + self.zero_point, kind.qmin, kind.qmax)
        return np.asarray(self.scale * (q - self.zero_point))


def levels_of_range(low: float, high: float, kind: IntegerType = U8) -> Levels:
    """Equation (2); a range of nothing but 0 has scale 1.

    Example:
        >>> levels_of_range(-1.0, 3.0)
        Levels(scale=0.01568627543747425, zero_point=64)
    """
    low, high = min(low, 0.0), max(high, 0.0)
    if low == high:
        return Levels(1.0, kind.qmin)
    scale = float(np.float32(max((high - low) / (kind.qmax - kind.qmin), LEAST_SCALE)))
    return Levels(scale, int(np.clip(kind.qmin + round(-low / scale), kind.qmin, kind.qmax)))


def weight_scales(weight: Array, bias: Array | None, source_scale: float, kind: IntegerType = S8) -> Array:
    """One symmetric scale per output channel.

        s_w[c] = max(max |w[c]| / qmax,  |b[c]| / (s_x * 2^29))                                      (3)

    The second term keeps the 32-bit sum of a channel with next to no weights from overflowing.

    Args:
        weight: (C_out, ...).
        bias: (C_out,) or None.
        source_scale: s_x.
    Returns:
        (C_out,) float64, exact in float32.
    """
    largest = np.abs(weight.reshape(len(weight), -1)).max(1).astype(np.float64) / kind.qmax
    if bias is not None:
        largest = np.maximum(largest, np.abs(bias) / (source_scale * _LARGEST_BIAS))
    return np.asarray(np.maximum(largest, LEAST_SCALE).astype(np.float32), np.float64)


def quantize_weight(weight: Array, scales: Array, kind: IntegerType = S8) -> Array:
    """q = clamp(rint(w / s_w[c])), int8; (C_out, ...)."""
    along = scales.reshape(-1, *(1,) * (weight.ndim - 1))
    return np.clip(np.rint(weight / along), kind.qmin, kind.qmax).astype(np.int8)


def quantize_bias(bias: Array, scales: Array, source_scale: float) -> Array:
    """q = rint(b / (s_x * s_w[c])), int32; (C_out,)."""
    return np.rint(bias / (source_scale * scales)).astype(np.int32)
