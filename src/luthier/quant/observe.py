"""How the values of a tensor are distributed, and the range of them that a scale should cover.

    minmax       all that was seen
    percentile   all but a share of the values on either side
    mse          the range that loses least:  min of  sum count(x) k(x) (f(round(x)) - f(x))^2                  (1)
    entropy      the range whose levels tell most:  min over [low, high] of  sum P log(P / Q)                   (2)

f is the function that alone reads the tensor: what it flattens (hard-swish below -3) needs no levels.  A value counts
by the gain of its channel to the outputs (`luthier.quant.gain`): a channel that the network takes up a hundredfold
deserves fine levels even where that clips a loud channel of no account.  k(x) is 1 within [low, high] and 4 outside:
what is clipped errs to one side, on patches of pixels and in channels that fire together, and so costs the outputs more
than as many errors to either side (4 was chosen on MobileNetV3-Small: with 1 its scores are 0.3 dB noisier).

P is the share of the values in each bin, with those outside the range in its last bins; Q that of the values inside,
spread evenly over the occupied bins of their level.  Equation (2) as Migacz, 8-bit inference with TensorRT, 2017.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, Final, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from luthier.errors import InputError
from luthier.quant.affine import U8, IntegerType, Levels, levels_of_range

Array = NDArray[Any]
Observer = Literal["minmax", "percentile", "mse", "entropy"]
OBSERVERS: Final[tuple[Observer, ...]] = get_args(Observer)
#: over [-limit, limit); at least 8 bins to a level when all values have one sign
_BINS: Final = 8192
#: share of the values that `percentile` leaves out on either side
_OUTSIDE: Final = 5e-5
#: k of equation (1) outside the range
_CLIPPED: Final = 4.0
_CANDIDATES: Final = np.linspace(1.0, 0.04, 49)


class Histogram:
    """Counts of values in bins of equal width; the width doubles when a value lies outside.

    Attributes:
        low, high: the smallest and largest value seen, 0 included.
        counts: sums of weights in 8192 bins over [-limit, limit).
    Example:
        >>> seen = Histogram()
        >>> seen.add(np.array([-1.0, 0.5, 3.0], np.float32))
        >>> seen.low, seen.high, seen.limit, seen.counts.sum().item()
        (-1.0, 3.0, 4.0, 3.0)
    """

    def __init__(self) -> None:
        self.low = self.high = 0.0
        self.limit = 2.0**-40
        self.counts = np.zeros(_BINS)

    def add(self, values: Array, weights: Array | None = None) -> None:
        """Count the elements of an array (N, C, ...) of finite numbers, those of a channel by its weight; (C,)."""
        self.low = min(self.low, float(values.min()))
        self.high = max(self.high, float(values.max()))
        self._cover(max(-self.low, self.high))
        # the factor is a power of two, so that floor() sees the exact quotient
        bins = np.floor(values.ravel() * np.float32(_BINS / 2 / self.limit)).astype(np.int32) + _BINS // 2
        if weights is None:
            self.counts += np.bincount(bins, minlength=_BINS)
        else:
            along = np.broadcast_to(weights.reshape(1, -1, *(1,) * (values.ndim - 2)), values.shape)
            self.counts += np.bincount(bins, along.ravel(), _BINS)

    def _cover(self, limit: float) -> None:
        while self.limit <= limit:
            halves = self.counts.reshape(-1, 2).sum(1)
            self.counts = np.zeros(_BINS)
            self.counts[_BINS // 4 : 3 * _BINS // 4] = halves
            self.limit *= 2

    def merge(self, other: Histogram) -> None:
        """Count what another histogram has counted; the other is widened to this one's limit."""
        self._cover(other.limit / 2)
        other._cover(self.limit / 2)
        self.low, self.high = min(self.low, other.low), max(self.high, other.high)
        self.counts += other.counts

    @property
    def values(self) -> Array:
        """The middle of every bin."""
        return (np.arange(_BINS) + 0.5 - _BINS / 2) * (2 * self.limit / _BINS)


def merged(histograms: Iterable[Histogram]) -> Histogram:
    """All values of several tensors."""
    total = Histogram()
    for histogram in histograms:
        total.merge(histogram)
    return total


def choose_levels(
    seen: Histogram, observer: Observer, function: Callable[[Array], Array] | None = None, *,
    kind: IntegerType = U8, symmetric: bool = False,
) -> Levels:  # fmt: skip
    """Scale and zero point for what was seen.

    Args:
        function: f of equation (1); None = the identity.
    Raises:
        InputError: no such observer.
    Example:
        >>> seen = Histogram()
        >>> seen.add(np.linspace(-9, 3, 1000, dtype=np.float32))
        >>> seen_by_hard_swish = choose_levels(seen, "mse", lambda x: x * np.clip(x + 3, 0, 6) / 6)
        >>> choose_levels(seen, "minmax").zero_point, seen_by_hard_swish.zero_point
        (191, 129)
    """

    def levels(low: float, high: float) -> Levels:
        return levels_of_range(low, high, kind, symmetric=symmetric)

    used = np.flatnonzero(seen.counts)
    x, counts = seen.values[used], seen.counts[used]
    match observer:
        case "minmax":
            return levels(seen.low, seen.high)
        case "percentile":
            return levels(*_percentiles(seen))
        case "mse":
            f = function or (lambda x: x)
            want = f(x)

            def lost(low: float, high: float) -> float:
                cost = np.where((x < low) | (x > high), _CLIPPED, 1.0) * counts
                return float(cost @ (f(levels(low, high).rounded(x, kind)) - want) ** 2)

            ends = _search(seen, lost)
        case "entropy":
            ends = _search(seen, lambda lo, hi: _divergence(x, counts, (lo, hi), levels(lo, hi).scale))
        case _:
            raise InputError(f"choose_levels: observer must be one of {', '.join(OBSERVERS)}, got {observer!r}")
    return levels(*ends)


def _percentiles(seen: Histogram) -> tuple[float, float]:
    below = np.cumsum(seen.counts)
    outside = _OUTSIDE * below[-1]
    width = 2 * seen.limit / _BINS
    low = float(seen.values[np.searchsorted(below, outside, "right")] - width / 2)
    high = float(seen.values[np.searchsorted(below, below[-1] - outside, "left")] + width / 2)
    return max(low, seen.low), min(high, seen.high)


def _search(seen: Histogram, lost: Callable[[float, float], float]) -> tuple[float, float]:
    """The least along one end of the range, then along the other, twice."""
    low, high = seen.low, seen.high
    for _ in range(2):
        high = min((seen.high * share for share in _CANDIDATES), key=lambda end: lost(low, end))
        if seen.low < 0:
            low = min((seen.low * share for share in _CANDIDATES), key=lambda end: lost(end, high))
    return low, high


def _divergence(x: Array, counts: Array, ends: tuple[float, float], scale: float) -> float:
    """Equation (2), in nats; a range that holds nothing is as bad as can be."""
    inside = (x >= ends[0]) & (x <= ends[1])
    if not inside.any():
        return float("inf")
    level = np.rint(x[inside] / scale).astype(np.int64)
    level -= level.min()
    q = (np.bincount(level, counts[inside]) / np.maximum(np.bincount(level), 1))[level]
    p = counts[inside].copy()
    p[0] += counts[x < ends[0]].sum()
    p[-1] += counts[x > ends[1]].sum()
    p, q = p / p.sum(), q / q.sum()
    return float(p @ np.log(p / q))
