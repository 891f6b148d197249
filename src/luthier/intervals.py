"""How sure a measured share is, and a difference that was measured a few times."""

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


def student_t(probability: float, degrees: int) -> float:
    """Quantile of Student's t with a whole number of degrees of freedom.

    Args:
        probability: in (0, 1).
        degrees: >= 1.
    Source:
        Abramowitz & Stegun 1964, equations 26.7.3 and 26.7.4 (the distribution as a finite sum), inverted by bisection.
    Example:
        >>> round(student_t(0.975, 2), 4), round(student_t(0.975, 12), 4)
        (4.3027, 2.1788)
    """
    low, high = -math.pi / 2, math.pi / 2
    for _ in range(100):
        angle = (low + high) / 2
        low, high = (angle, high) if _t_below(angle, degrees) < probability else (low, angle)
    return math.sqrt(degrees) * math.tan((low + high) / 2)


def _t_below(angle: float, degrees: int) -> float:
    """P(T < t), angle = atan(t / sqrt(degrees))."""
    cosine, sine = math.cos(angle), math.sin(angle)
    if degrees % 2:
        term, total = cosine, 0.0
        for k in range(1, degrees, 2):
            total += term
            term *= cosine * cosine * (k + 1) / (k + 2)
        return 0.5 + (angle + sine * total) / math.pi
    term, total = 1.0, 0.0
    for k in range(0, degrees, 2):
        total += term
        term *= cosine * cosine * (k + 1) / (k + 2)
    return 0.5 + sine * total / 2
