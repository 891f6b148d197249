"""How sure a measured share is, and a difference that was measured a few times."""

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


def blocked(values: Sequence[Sequence[float]], confidence: float = 0.95) -> tuple[list[float], float, float]:
    """Means of several treatments tried under the same seeds, and how sure their differences are.

        s^2 = sum over treatments i and seeds j of (x_ij - mean_i - mean_j + mean)^2 / ((k - 1) (n - 1))  (1)
        half of a mean = t(confidence) * s / sqrt(n)                                                 (2)
        half of a difference = t(1 - (1 - confidence) / (k - 1)) * s * sqrt(2 / n)                   (3)

    A seed that is easy for all takes nothing from a difference (randomised blocks); (3) allows for k - 1 comparisons
    with the best (Bonferroni).

    Args:
        values: one row per treatment, k >= 2, one column per seed, n >= 2.
        confidence: of each mean alone, and of all differences with one treatment together.
    Returns:
        The k means, and the half widths (2) and (3).
    Source:
        Fisher 1935, The Design of Experiments, chapter 4.
    Example:
        >>> means, alone, apart = blocked([[0.5, 0.6, 0.7], [0.6, 0.71, 0.79]])
        >>> [round(mean, 2) for mean in means], round(apart, 3)
        ([0.6, 0.7], 0.025)
    """
    k, n = len(values), len(values[0])
    means = [sum(row) / n for row in values]
    seeds = [sum(row[j] for row in values) / k for j in range(n)]
    centre = sum(means) / k
    squares = sum((values[i][j] - means[i] - seeds[j] + centre) ** 2 for i in range(k) for j in range(n))
    degrees = (k - 1) * (n - 1)
    deviation = math.sqrt(squares / degrees)
    alone = student_t(0.5 + confidence / 2, degrees) * deviation / math.sqrt(n)
    apart = student_t(1 - (1 - confidence) / (k - 1) / 2, degrees) * deviation * math.sqrt(2 / n)
    return means, alone, apart


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


def paired(before: Sequence[bool], after: Sequence[bool], confidence: float = 0.95) -> tuple[float, float, float]:
    """Change of a share that was seen twice on the same trials, with its interval.

        d = (c - b) / n,  b and c trials that were right only before, only after                      (1)

    Returns:
        d, and the ends of its interval: those of `paired_loss`, turned round.
    Example:
        >>> [round(value, 3) for value in paired([True] * 9 + [False], [True] * 8 + [False] * 2)]
        [-0.1, -0.309, 0.143]
    """
    b = sum(x and not y for x, y in zip(before, after, strict=True))
    c = sum(y and not x for x, y in zip(before, after, strict=True))
    low, high = paired_loss(b, c, len(before), confidence)
    return (c - b) / len(before), -high, -low


def resampled(differences: Sequence[float], test_ratio: float, confidence: float = 0.95) -> tuple[float, float, float]:
    """Mean difference of two methods over repeated splits of the same records, with its interval.

        half = t(confidence, n - 1) * sqrt( (1 / n + test_ratio) * s^2 )                              (1)

    Splits of one set of records share most of their training records, so their results are not independent; the
    second term corrects the variance for that.

    Args:
        differences: one per split, n >= 2; s is their standard deviation.
        test_ratio: test records over training records of a split.
        confidence: of the two-sided interval.
    Returns:
        (mean, low, high).
    Source:
        Nadeau & Bengio 2003, Machine Learning 52, 239-281.
    Example:
        >>> [round(value, 3) for value in resampled([0.02, 0.04, 0.03, 0.05, 0.01], 0.25)]
        [0.03, 0.001, 0.059]
    """
    n = len(differences)
    mean = sum(differences) / n
    variance = sum((d - mean) ** 2 for d in differences) / (n - 1)
    half = student_t(0.5 + confidence / 2, n - 1) * math.sqrt((1 / n + test_ratio) * variance)
    return mean, mean - half, mean + half
