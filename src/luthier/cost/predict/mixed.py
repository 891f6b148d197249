"""A linear model whose coefficients come in blocks, each block with a variance of its own, learnt from the data.

    y = b + sum over blocks g of X_g w_g + e,   w_g ~ N(0, v_g I),   e ~ N(0, sum over h of n_h D_h)  (1)
    K = sum_g v_g X_g X_g^T + sum_h n_h D_h                                                          (2)

X_g (N, C_g) are columns that share a meaning, D_h known diagonals; b is free.  The variances v_g and n_h are those
under which the data are most likely once b is integrated out (REML), found by steps that never lower that likelihood:

    v_g <- v_g * sqrt( (y^T P X_g X_g^T P y) / tr(P X_g X_g^T) ),   n_h likewise                       (3)
    P = K^-1 - K^-1 1 1^T K^-1 / (1^T K^-1 1)

So a block that explains nothing is shrunk away, without a held-out set.

Source:
    Patterson & Thompson 1971, Biometrika 58, 545-554 (REML); Zhou, Hu, Zhou & Lange 2019, J. Comput. Graph. Stat. 28,
    350-361 (the steps); Rasmussen & Williams 2006, equations 2.41 (prediction with a free mean) and 5.12 (leaving out).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np

Array = np.ndarray[Any, np.dtype[np.float64]]

Variances = tuple[tuple[float, ...], tuple[float, ...]]

STEPS: Final = 100
#: steps end before that when no share of the variance moves by more than this in one
_TOLERANCE: Final = 1e-3


@dataclass(frozen=True)
class Mixed:
    """Equation (1) after the data were seen.

    Attributes:
        variances: (v, n), of blocks and of noises.
        intercept: b.
        coefficients: all w_g end to end, posterior means, (C,).
        leave_one_out: y minus its prediction from all other rows, (N,).
        leave_one_out_sd: standard deviation of that prediction error, noise included, (N,).
    """

    variances: Variances
    intercept: float
    coefficients: Array
    leave_one_out: Array
    leave_one_out_sd: Array
    _design: Array
    _prior: Array
    _inverse: Array

    def predict(self, blocks: Sequence[Array]) -> tuple[Array, Array]:
        """Mean and variance, without noise, of each row of blocks (M, C_g): two arrays (M,)."""
        rows = np.concatenate(blocks, axis=1)
        scaled = rows * self._prior
        cross = scaled @ self._design.T
        weights = self._inverse.sum(axis=1)
        free = (1 - cross @ weights) ** 2 / weights.sum()
        variance = (scaled * rows).sum(axis=1) - ((cross @ self._inverse) * cross).sum(axis=1) + free
        return self.intercept + rows @ self.coefficients, np.maximum(variance, 0.0)


def fit_mixed(
    blocks: Sequence[Array], y: Array, noises: Sequence[Array], *, start: Variances | None = None, steps: int = STEPS
) -> Mixed:
    """Learn the variances of equation (1) by (3), then everything else in closed form.

    Args:
        blocks: X_g (N, C_g).
        y: (N,).
        noises: diagonals of D_h, each (N,), above 0.
        start: (v, n) to begin with; None = equal shares of the variance of y, a tenth of it noise.
        steps: of (3), at most; 0 takes `start` as it is.
    Example:
        >>> x = np.arange(6.0)[:, None]
        >>> line = fit_mixed([x], 3 * x[:, 0] + 1, [np.full(6, 1e-6)])
        >>> float(round(line.coefficients[0], 3)), [float(round(m, 2)) for m in line.predict([x[:2] + 10])[0]]
        (3.0, [31.0, 34.0])
    """
    design = np.concatenate(blocks, axis=1)
    grams = [block @ block.T for block in blocks]
    v, n = _reml(grams, y, noises, start, steps)
    inverse, projected = _projected(_covariance(grams, noises, v, n))
    dual = projected @ y
    prior = np.repeat(v, [block.shape[1] for block in blocks])
    weights = inverse.sum(axis=1)
    diagonal = np.diag(projected)
    return Mixed(
        variances=(tuple(map(float, v)), tuple(map(float, n))),
        intercept=float(weights @ y / weights.sum()),
        coefficients=prior * (design.T @ dual),
        leave_one_out=dual / diagonal,
        leave_one_out_sd=1 / np.sqrt(diagonal),
        _design=design,
        _prior=prior,
        _inverse=inverse,
    )


def _projected(covariance: Array) -> tuple[Array, Array]:
    """K^-1 and P of equation (3)."""
    inverse = np.linalg.inv(covariance)
    inverse = (inverse + inverse.T) / 2
    weights = inverse.sum(axis=1)
    return inverse, inverse - np.outer(weights, weights) / weights.sum()


def _reml(
    grams: Sequence[Array], y: Array, noises: Sequence[Array], start: Variances | None, steps: int
) -> tuple[Array, Array]:
    """Steps of equation (3)."""
    spread = max(float(np.var(y)), 1e-12 * float(np.mean(y)) ** 2)
    # mean squared distance from the mean, which is all that (1) sees of a block
    sizes = np.array([max(float(np.trace(gram) / len(y) - gram.mean()), 1e-12) for gram in grams])
    noise_sizes = np.array([noise.mean() for noise in noises])
    if start is None:
        v, n = 0.9 * spread / len(grams) / sizes, 0.1 * spread / len(noises) / noise_sizes
    else:
        v, n = np.array(start[0]), np.array(start[1])
    for _ in range(steps):
        _, projected = _projected(_covariance(grams, noises, v, n))
        dual, diagonal = projected @ y, np.diag(projected)
        grown = [(dual @ gram @ dual) / max(float((projected * gram).sum()), 1e-300) for gram in grams]
        new_v = v * np.sqrt(grown)
        # a vanishing noise would make K singular where the blocks explain the data exactly
        new_n = n * np.sqrt([(dual**2 @ noise) / (diagonal @ noise) for noise in noises])
        new_n = np.maximum(new_n, 1e-9 * spread / noise_sizes)
        moved = max(np.abs((new_v - v) * sizes).max(initial=0.0), np.abs((new_n - n) * noise_sizes).max())
        v, n = new_v, new_n
        if moved < _TOLERANCE * spread:
            break
    return v, n


def _covariance(grams: Sequence[Array], noises: Sequence[Array], v: Array, n: Array) -> Array:
    """Equation (2)."""
    covariance = np.diag(np.sum([value * noise for value, noise in zip(n, noises, strict=True)], axis=0))
    for value, gram in zip(v, grams, strict=True):
        covariance += value * gram
    return covariance
