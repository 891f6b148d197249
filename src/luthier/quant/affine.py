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

from luthier.arch.block import NumberType

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
#: how weights and activations of a number type are stored
WEIGHT_TYPES: Final[dict[NumberType, IntegerType]] = {"int8": S8, "int4": IntegerType(4, True)}
ACTIVATION_TYPES: Final[dict[NumberType, IntegerType]] = {"int8": U8, "int4": IntegerType(4, False)}


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


def levels_of_range(low: float, high: float, kind: IntegerType = U8, *, symmetric: bool = False) -> Levels:
    """Equation (2); a range of nothing but 0 has scale 1.

    Args:
        symmetric: as far below 0 as above; unsigned integers then have their zero point in the middle.
    Example:
        >>> levels_of_range(-1.0, 3.0)
        Levels(scale=0.01568627543747425, zero_point=64)
        >>> levels_of_range(-1.0, 3.0, symmetric=True).zero_point
        128
    """
    low, high = min(low, 0.0), max(high, 0.0)
    if symmetric and low < high:
        middle = (kind.qmin + kind.qmax + 1) // 2
        return Levels(float(np.float32(max(max(high, -low) / (kind.qmax - middle), LEAST_SCALE))), middle)
    if low == high:
        return Levels(1.0, kind.qmin)
    scale = float(np.float32(max((high - low) / (kind.qmax - kind.qmin), LEAST_SCALE)))
    return Levels(scale, int(np.clip(kind.qmin + round(-low / scale), kind.qmin, kind.qmax)))


def weight_scales(
    weight: Array, bias: Array | None, source_scale: float, kind: IntegerType = S8, *, per_channel: bool = True
) -> Array:
    """One symmetric scale per output channel.

        s_w[c] = max(share[c] max |w[c]| / qmax,  |b[c]| / (s_x * 2^29))                             (3)

    The second term keeps the 32-bit sum of a channel with next to no weights from overflowing.  Weights of 8 bits have
    share 1; of fewer, the share of 1, 0.95, ... 0.3 that loses least: sum (w - s_w rint(w / s_w))^2, clamped.

    Args:
        weight: (C_out, ...).
        bias: (C_out,) or None.
        source_scale: s_x.
        per_channel: False = all channels have the largest one's.
    Returns:
        (C_out,) float64, exact in float32.
    """
    rows = weight.reshape(len(weight), -1).astype(np.float64)
    largest = np.abs(rows).max(1) / kind.qmax
    if kind.bits < 8:
        largest = _least_error(rows, largest, kind)
    if not per_channel:
        largest = np.full_like(largest, largest.max())
    if bias is not None:
        largest = np.maximum(largest, np.abs(bias) / (source_scale * _LARGEST_BIAS))
    return np.asarray(np.maximum(largest, LEAST_SCALE).astype(np.float32), np.float64)


def _least_error(rows: Array, largest: Array, kind: IntegerType) -> Array:
    """Of the shares of the largest scale, each row's best."""
    scales = np.maximum(largest, LEAST_SCALE) * np.linspace(1.0, 0.3, 15)[:, None]
    lost = [
        ((s[:, None] * np.clip(np.rint(rows / s[:, None]), kind.qmin, kind.qmax) - rows) ** 2).sum(1) for s in scales
    ]
    return np.asarray(np.take_along_axis(scales, np.argmin(lost, 0)[None], 0)[0])


def quantize_weight(weight: Array, scales: Array, kind: IntegerType = S8) -> Array:
    """q = clamp(rint(w / s_w[c])), int8; (C_out, ...)."""
    along = scales.reshape(-1, *(1,) * (weight.ndim - 1))
    return np.clip(np.rint(weight / along), kind.qmin, kind.qmax).astype(np.int8)


def quantize_bias(bias: Array, scales: Array, source_scale: float) -> Array:
    """q = rint(b / (s_x * s_w[c])), int32; (C_out,)."""
    return np.rint(bias / (source_scale * scales)).astype(np.int32)
