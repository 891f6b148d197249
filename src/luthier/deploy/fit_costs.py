"""From kernels' times to what each kind of their work costs.

    minimise  sum over kernels of  w rho( (sum over kinds of work of amount * cost - time) / (time + t0) ),  cost >= 0
    w = time ^ stress                                                                                 (1)

rho is Huber's function: what a neighbour on the machine has disturbed counts in proportion, not squared; t0 keeps the
clock's microsecond from ruling the fit of the smallest kernels.  Long kernels decide a network's time: stress says by
how much more they count.

Source: Lawson and Hanson 1974, chapter 23 (non-negative least squares); Huber 1964, doi 10.1214/aoms/1177703732.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any, Final, NamedTuple

import numpy as np

from luthier.cost.calibrated import Work, seconds

_FASTEST: Final = 0.2
_T0_S: Final = 2e-6
_HUBER: Final = 0.1
_PASSES: Final = 8

Floats = np.ndarray[Any, np.dtype[np.float64]]


class Sample(NamedTuple):
    """One kernel: its class, its work, and how long it took."""

    name: str
    work: Work
    time_s: float


def fit(
    samples: Sequence[Sample], *, shared: Collection[str] = ("far_byte",), stress: float = 0.0
) -> dict[str, dict[str, float]]:
    """Seconds of one unit of each kind of work, by class; equation (1).

    All classes are fitted together.

    Args:
        samples: the kernels.
        shared: kinds of work whose cost is the same for every class: bytes from beyond the caches.
        stress: see equation (1).

    Example: two costs from three exact times.
        >>> rows = [({"call": 1.0, "byte": n}, 1e-6 + n * 2e-10) for n in (1e3, 1e5, 1e7)]
        >>> costs = fit([Sample("add", work, time_s) for work, time_s in rows])["add"]
        >>> {kind: f"{cost:.2e}" for kind, cost in costs.items()}
        {'byte': '2.00e-10', 'call': '1.00e-06'}
    """

    def column(name: str, kind: str) -> tuple[str, str]:
        return ("", kind) if kind in shared else (name, kind)

    columns = sorted({column(s.name, kind) for s in samples for kind in s.work})
    index = {column: number for number, column in enumerate(columns)}
    amounts = np.zeros((len(samples), len(columns)))
    for row, sample in zip(amounts, samples, strict=True):
        for kind, amount in sample.work.items():
            row[index[column(sample.name, kind)]] = amount
    times_s = np.array([sample.time_s for sample in samples])
    costs = dict(zip(columns, robust(amounts, times_s, times_s + _T0_S, times_s**stress).tolist(), strict=True))
    found: dict[str, dict[str, float]] = {}
    for sample in samples:
        for kind in sample.work:
            if cost := costs[column(sample.name, kind)]:
                found.setdefault(sample.name, {})[kind] = cost
    return {name: dict(sorted(found[name].items())) for name in sorted(found)}


def loss(samples: Sequence[Sample], costs: Mapping[str, Mapping[str, float]]) -> float:
    """Mean of Huber's function of the relative errors: what `fit` makes small."""
    errors = [abs(seconds(s.work, costs[s.name]) - s.time_s) / (s.time_s + _T0_S) for s in samples]
    return float(np.mean([e * e / 2 if e < _HUBER else _HUBER * (e - _HUBER / 2) for e in errors]))


def robust(amounts: Floats, times_s: Floats, scale_s: Floats, counts: Floats | None = None) -> Floats:
    """Costs >= 0 that minimise Huber's function of (amounts @ costs - times) / scale, by reweighting.

    Args:
        amounts: (samples, kinds).
        times_s, scale_s: (samples,).
        counts: how much each sample counts; None = the same.
    """
    from sklearn.linear_model import LinearRegression

    rows = amounts / scale_s[:, None]
    units = np.maximum(np.abs(rows).max(axis=0), np.finfo(float).tiny)
    counts = np.ones(len(rows)) if counts is None else counts / counts.mean()
    weights = counts
    model = LinearRegression(positive=True, fit_intercept=False)
    for _ in range(_PASSES):
        model.fit(rows / units, times_s / scale_s, sample_weight=weights)
        errors = np.abs(model.predict(rows / units) - times_s / scale_s)
        weights = counts * np.minimum(1, _HUBER / np.maximum(errors, 1e-12))
    return np.asarray(model.coef_ / units)


def fastest(times_s: Iterable[float]) -> float:
    """Mean of the fastest fifth: the machine left alone; the mean smooths the profiler's whole microseconds."""
    ordered = sorted(times_s)
    return float(np.mean(ordered[: max(1, int(len(ordered) * _FASTEST))]))
