"""Which of several networks nobody beats, and how much better a front becomes by one network more.

A point is an accuracy, to be high, and costs, to be low.  Up to a reference accuracy and costs that no point exceeds:

    best(c) = max accuracy of the points whose costs are all <= c                                    (1)
    hypervolume = integral over costs c of max(0, best(c) - accuracy_reference)                      (2)

An accuracy that is not known but normal, with mean m and standard deviation s, at costs c_0 gains on average

    gain = integral over c >= c_0 of E[max(0, a - max(best(c), accuracy_reference))]                 (3)
    E[max(0, a - b)] = (m - b) Phi(z) + s phi(z),   z = (m - b) / s

best is constant between the points' costs, so both integrals are sums over the cells of a grid: exact.

Source:
    Zitzler & Thiele 1998, PPSN V (hypervolume); Jones, Schonlau & Welch 1998, J. Glob. Optim. 13 (equation 3's mean).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import erf, sqrt
from typing import Any

import numpy as np
from numpy.typing import NDArray

from luthier.errors import InputError

Array = NDArray[np.float64]

_ERF = np.vectorize(erf, otypes=[float])


def pareto(accuracy: Array, costs: Array) -> NDArray[np.int64]:
    """Indices of the points that no other beats, cheapest first; of equal points the first.

    Args:
        accuracy: (points,).
        costs: (points, costs).
    Example:
        >>> pareto(np.array([0.5, 0.6, 0.55, 0.6]), np.array([[1.0], [2.0], [3.0], [2.0]])).tolist()
        [0, 1]
    """
    order = np.lexsort((np.arange(len(accuracy)), -accuracy, *costs.T[::-1]))
    kept: list[int] = []
    for index in order:
        if not any(accuracy[k] >= accuracy[index] and (costs[k] <= costs[index]).all() for k in kept):
            kept.append(int(index))
    return np.array(kept, np.int64)


@dataclass(frozen=True)
class Front:
    """Points that nobody beats, as a staircase over the costs.

    Attributes:
        accuracy: (points,).
        costs: (points, costs).
        worst_accuracy, worst_costs: the reference; points beyond it count for nothing.
    """

    accuracy: Array
    costs: Array
    worst_accuracy: float
    worst_costs: Array

    @classmethod
    def of(cls, accuracy: Array, costs: Array, worst_accuracy: float, worst_costs: Sequence[float] | Array) -> Front:
        """The front of any points.

        Raises:
            InputError: shapes that do not agree.
        """
        worst = np.asarray(worst_costs, float)
        if costs.shape != (len(accuracy), len(worst)):
            raise InputError(
                f"Front: costs must be ({len(accuracy)}, {len(worst)}) as accuracy and worst_costs say, "
                f"got {costs.shape}"
            )
        inside = (costs <= worst).all(axis=1) & (accuracy > worst_accuracy)
        accuracy, costs = accuracy[inside], costs[inside]
        kept = pareto(accuracy, costs)
        return cls(accuracy[kept], costs[kept], worst_accuracy, worst)

    def _cells(self) -> tuple[list[Array], Array]:
        """Lower edges of the grid along each cost, and equation (1) in every cell, at least the reference."""
        edges = [np.unique(column) for column in self.costs.T]
        best = np.full([len(edge) + 1 for edge in edges], self.worst_accuracy)
        for accuracy, costs in zip(self.accuracy, self.costs, strict=True):
            # cell 0 of an axis lies below all points
            above = tuple(slice(int(np.searchsorted(e, c)) + 1, None) for e, c in zip(edges, costs, strict=True))
            best[above] = np.maximum(best[above], accuracy)
        return [np.concatenate([[-np.inf], edge]) for edge in edges], best

    @property
    def hypervolume(self) -> float:
        """Equation (2).

        Example:
            >>> Front.of(np.array([0.5, 0.7]), np.array([[1.0], [3.0]]), 0.1, [4.0]).hypervolume
            1.4
        """
        edges, best = self._cells()
        volume: Any = best - self.worst_accuracy
        for edge, worst in zip(reversed(edges), self.worst_costs[::-1], strict=True):
            # below all points nothing is gained, so that the width of that cell does not matter
            widths = np.diff(np.append(np.where(np.isinf(edge), worst, edge), worst))
            widths[0] = 0.0
            volume = volume @ widths
        return float(np.round(volume, 12))

    def expected_gain(self, mean: Array, sd: Array, costs: Array) -> Array:
        """Equation (3) for candidates: normal accuracies (n,) and (n,), known costs (n, costs); an array (n,)."""
        edges, best = self._cells()
        below = best.reshape(-1)
        z = (mean[:, None] - below) / np.maximum(sd, 1e-9)[:, None]
        density = np.exp(-0.5 * z**2) / sqrt(2 * np.pi)
        gain = (mean[:, None] - below) * 0.5 * (1 + _ERF(z / sqrt(2))) + sd[:, None] * density
        gain = np.maximum(gain, 0.0).reshape(len(mean), *best.shape)
        for axis in range(costs.shape[1] - 1, -1, -1):
            lower = edges[axis]
            upper = np.append(lower[1:], self.worst_costs[axis])
            # the part of each cell that lies at or above the candidate's cost
            widths = np.maximum(0.0, upper - np.maximum(lower, costs[:, axis : axis + 1]))
            gain = np.einsum("n...c,nc->n...", gain, widths)
        found: Array = gain
        return found
