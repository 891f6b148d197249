"""How sure a measured share is."""

from __future__ import annotations

import math
from collections.abc import Sequence
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


def paired(before: Sequence[bool], after: Sequence[bool], confidence: float = 0.95) -> tuple[float, float, float]:
    """Change of a share that was seen twice on the same trials, with its interval.

        d = (c - b) / n,  b and c trials that were right only before, only after                      (1)
        centre = (c - b) / (n + 2),  half = z sqrt(b + c + 1 - (c - b)^2 / (n + 2)) / (n + 2)         (2)

    Returns:
        d, and the ends of the interval.
    Source:
        Agresti and Min 2005, Statistics in Medicine 24, 729-740: Wald's interval after half a trial is added to each
        of the four cells, so that no change seen is not taken for certainty.
    Example:
        >>> [round(value, 3) for value in paired([True] * 9 + [False], [True] * 8 + [False] * 2)]
        [-0.1, -0.359, 0.193]
    """
    n = len(before)
    b = sum(x and not y for x, y in zip(before, after, strict=True))
    c = sum(y and not x for x, y in zip(before, after, strict=True))
    centre = (c - b) / (n + 2)
    z = NormalDist().inv_cdf(0.5 + confidence / 2)
    half = z * math.sqrt(b + c + 1 - (c - b) ** 2 / (n + 2)) / (n + 2)
    return (c - b) / n, max(-1.0, centre - half), min(1.0, centre + half)
