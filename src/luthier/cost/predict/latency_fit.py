"""A mixed model of latencies: relative noise, outliers that do not steer it, and intervals that keep their word.

Noise has a part in proportion to the latency itself and, where the repeats of the measurements are known, one in
proportion to their spread:

    D_1 = u_i * f_i^2,   D_2 = s_i^2                                                                 (1)
    u_i = (NU + t_i^2) / (NU + 1)                                                                    (2)

f_i is what the other rows predict for row i, t_i the error of that prediction over its standard deviation; (2) is the
weight under which Gaussian noise becomes Student's t with NU degrees of freedom, so a network that was measured while
the machine was busy counts less.

Intervals are conformal.  In ten folds, every row is predicted from the rows outside its fold, and its score is the
error over the standard deviation.  If the n rows and a new network are drawn alike,

    |error| <= q * sd,   q = the ceil((n + 1) c)-th smallest score                                   (3)

holds with probability near c whatever the distribution, right or wrong the model.

Source:
    Lange, Little & Taylor 1989, JASA 84, 881-896 (2); Lei et al. 2018, JASA 113, 1094-1111, and Barber et al. 2021,
    Ann. Statist. 49, 486-507 (3).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from luthier.cost.predict.mixed import Array, Mixed, fit_mixed
from luthier.errors import InputError

#: degrees of freedom of the noise, in (2)
NU: Final = 8.0
FOLDS: Final = 10
_ROUNDS: Final = 3


@dataclass(frozen=True)
class LatencyFit:
    """A fitted model.

    Attributes:
        mixed: the model.
        noises: diagonals D_1 and, where spreads are known, D_2, each (N,), in s^2.
        relative_spread: median of s_i over latency; None = no spreads.
        scores: one per row, ascending.
    """

    mixed: Mixed
    noises: tuple[Array, ...]
    relative_spread: float | None
    scores: tuple[float, ...]

    def predict(self, blocks: Sequence[Array]) -> tuple[Array, Array]:
        """Latency and standard deviation of one measurement of it, in s, two arrays (M,)."""
        return _predict(self.mixed, blocks, self.relative_spread)

    def half_width(self, confidence: float) -> float:
        """q of equation (3).

        Raises:
            InputError: too few rows for so much confidence.
        """
        rank = math.ceil((len(self.scores) + 1) * confidence)
        if not 0 < confidence < 1 or rank > len(self.scores):
            most = len(self.scores) / (len(self.scores) + 1)
            raise InputError(
                f"predict: confidence must lie above 0 and, with {len(self.scores)} measured networks, be at most "
                f"{most:.3f}, got {confidence}"
            )
        return self.scores[rank - 1]


def fit_latency(blocks: Sequence[Array], latency_s: Array, spread_s: Array | None = None) -> LatencyFit:
    """Learn variances, weights (2) and scores.

    Args:
        blocks: X_g (N, C_g), see `Encoder.blocks`; those without columns are fine.
        latency_s: (N,), above 0.
        spread_s: (N,), standard deviation of a repeat; None = unknown.
    """
    mixed, noises = fit_robust(blocks, latency_s, spread_s)
    spread = None if spread_s is None else float(np.median(spread_s / latency_s))
    return LatencyFit(mixed, noises, spread, _scores(blocks, latency_s, noises, mixed, spread))


def fit_robust(
    blocks: Sequence[Array], latency_s: Array, spread_s: Array | None = None
) -> tuple[Mixed, tuple[Array, ...]]:
    """`fit_latency` without intervals: the model, and the diagonals of its noises."""
    middle = float(np.median(latency_s))
    relative, weight = np.full(len(latency_s), middle**2), np.ones(len(latency_s))
    measured = [] if spread_s is None else [np.maximum(spread_s, 1e-4 * latency_s) ** 2]
    mixed = fit_mixed(blocks, latency_s, [relative, *measured])
    for _ in range(_ROUNDS):
        usual = mixed.leave_one_out_sd**2 - mixed.variances[1][0] * relative * (weight - 1)
        error = mixed.leave_one_out**2 / np.maximum(usual, 1e-12 * middle**2)
        relative = np.maximum(latency_s - mixed.leave_one_out, 0.2 * middle) ** 2
        weight = (NU + error) / (NU + 1)
        mixed = fit_mixed(blocks, latency_s, [relative * weight, *measured], start=mixed.variances)
    return mixed, (relative * weight, *measured)


def _scores(
    blocks: Sequence[Array], latency_s: Array, noises: Sequence[Array], mixed: Mixed, spread: float | None
) -> tuple[float, ...]:
    """Equation (3)'s scores; a fold finds variances of its own, from those of all rows."""
    fold = np.random.default_rng(0).permutation(len(latency_s)) % FOLDS
    scores = np.zeros(len(latency_s))
    for number in range(FOLDS):
        out = fold == number
        inner = fit_mixed(
            [block[~out] for block in blocks], latency_s[~out], [noise[~out] for noise in noises],
            start=mixed.variances,
        )  # fmt: skip
        mean, sd = _predict(inner, [block[out] for block in blocks], spread)
        scores[out] = np.abs(latency_s[out] - mean) / sd
    return tuple(sorted(map(float, scores)))


def _predict(mixed: Mixed, blocks: Sequence[Array], spread: float | None) -> tuple[Array, Array]:
    mean, variance = mixed.predict(blocks)
    relative = mixed.variances[1][0] + (0.0 if spread is None else mixed.variances[1][1] * spread**2)
    return mean, np.sqrt(variance + relative * mean**2)
