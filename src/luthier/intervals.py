"""How sure a measured share is."""

from __future__ import annotations

import math
from statistics import NormalDist


def wilson(share: float, count: int, confidence: float = 0.95) -> tuple[float, float]:
    """Wilson's score interval of a share that was seen in `count` trials.

        centre = (p + z^2 / 2n) / (1 + z^2 / n)
        half   = z / (1 + z^2 / n) * sqrt(p (1 - p) / n + z^2 / 4n^2)                      (1)

    Args:
        share: p, in [0, 1].
        count: n; with none at all, nothing is known and the interval is (0, 1).
        confidence: of the two-sided interval.
    Source:
        Wilson 1927, J. Amer. Statist. Assoc. 22, 209-212.
    Example:
        >>> [round(end, 4) for end in wilson(0.5, 10)]
        [0.2366, 0.7634]
    """
    if count < 1:
        return 0.0, 1.0
    z = NormalDist().inv_cdf(0.5 + confidence / 2)
    shrink = 1 / (1 + z * z / count)
    centre = (share + z * z / (2 * count)) * shrink
    half = z * shrink * math.sqrt(share * (1 - share) / count + z * z / (4 * count * count))
    return max(0.0, centre - half), min(1.0, centre + half)


def paired_loss(lost: int, won: int, count: int, confidence: float = 0.95) -> tuple[float, float]:
    """Interval of the difference of two shares that were seen on the same trials.

        n* = n + 2,  b* = lost + 1/2,  c* = won + 1/2
        d = (b* - c*) / n*,   d +- z sqrt(b* + c* - (b* - c*)^2 / n*) / n*                       (2)

    Only the trials whose outcome changed count; with none that did, the interval still has a width.

    Args:
        lost: trials that succeeded the first time alone.
        won: trials that succeeded the second time alone.
        count: n, all trials.
        confidence: of the two-sided interval.
    Source:
        Agresti & Min 2005, Statistics in Medicine 24, 729-740.
    Example:
        >>> [round(end, 4) for end in paired_loss(0, 0, 100)]
        [-0.0192, 0.0192]
    """
    z = NormalDist().inv_cdf(0.5 + confidence / 2)
    n, b, c = count + 2, lost + 0.5, won + 0.5
    centre, half = (b - c) / n, z * math.sqrt(b + c - (b - c) ** 2 / n) / n
    return max(-1.0, centre - half), min(1.0, centre + half)
