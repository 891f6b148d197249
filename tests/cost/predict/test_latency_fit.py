from __future__ import annotations

import numpy as np
import pytest

from luthier.cost.predict.latency_fit import fit_latency
from luthier.cost.predict.mixed import Array
from luthier.errors import InputError


def device(seed: int, rows: int, heavy: bool = False) -> tuple[Array, Array, Array]:
    """Features, latencies without noise and with 3 % of it; `heavy`: noise of Student's t with 3 degrees of freedom."""
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((rows, 12))
    true = 1e-3 * (8 + x @ np.random.default_rng(99).standard_normal(12))
    noise = rng.standard_t(3, rows) if heavy else rng.standard_normal(rows)
    return x, true, true * (1 + 0.03 * noise)


def test_intervals_cover_what_they_say() -> None:
    """Heavy tails, noise in proportion to the latency; 30 draws of 100 rows, 400 judges each."""
    levels = (0.8, 0.9, 0.95)
    covered = []
    for seed in range(30):
        x, _, y = device(seed, 500, heavy=True)
        fitted = fit_latency([x[:100]], y[:100])
        mean, sd = fitted.predict([x[100:]])
        covered.append([np.mean(np.abs(y[100:] - mean) <= fitted.half_width(level) * sd) for level in levels])
    for level, mean_covered in zip(levels, np.mean(covered, axis=0), strict=True):
        # one draw's coverage has a standard deviation of sqrt(c (1 - c) / 102): a mean of 30 is known to a fifth of it
        assert mean_covered == pytest.approx(level, abs=4 * np.sqrt(level * (1 - level) / 102 / 30))


def test_outliers_do_not_steer() -> None:
    """Five of 100 latencies three times too long: the mean error stays below 2 %, where least squares errs by more."""
    x, true, y = device(0, 300)
    y[:5] *= 3
    mean, _ = fit_latency([x[:100]], y[:100]).predict([x[100:]])
    columns = np.column_stack([np.ones(300), x])
    plain = columns[100:] @ np.linalg.lstsq(columns[:100], y[:100], rcond=None)[0]
    error, plain_error = (np.mean(np.abs(p / true[100:] - 1)) for p in (mean, plain))
    assert error < 0.02 < plain_error


def test_known_spreads_weigh_the_rows() -> None:
    """Half of the rows are measured 20 times worse; knowing which must help."""
    x, true, _ = device(1, 300)
    rng = np.random.default_rng(2)
    spread = true * np.where(np.arange(300) % 2, 0.2, 0.01)
    y = true + spread * rng.standard_normal(300)
    errors = []
    for known in (spread[:60], None):
        mean, _ = fit_latency([x[:60]], y[:60], known).predict([x[60:]])
        errors.append(np.mean(np.abs(mean / true[60:] - 1)))
    assert errors[0] < 0.7 * errors[1]


def test_more_confidence_than_rows_is_refused() -> None:
    x, _, y = device(0, 30)
    fitted = fit_latency([x], y)
    assert fitted.half_width(30 / 31) == fitted.scores[-1]
    for confidence in (0.97, 0.0, 1.0):
        with pytest.raises(InputError, match=r"with 30 measured networks, be at most 0.968, got"):
            fitted.half_width(confidence)
