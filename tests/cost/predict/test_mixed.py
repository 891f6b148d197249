from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from luthier.cost.predict.mixed import Array, fit_mixed


def problem(seed: int, rows: int = 30) -> tuple[list[Array], Array, list[Array]]:
    rng = np.random.default_rng(seed)
    blocks = [rng.standard_normal((rows, 4)), rng.standard_normal((rows, 7)), np.zeros((rows, 0))]
    y = 5 + blocks[0] @ rng.standard_normal(4) * 2 + blocks[1] @ rng.standard_normal(7) * 0.3
    noise = rng.uniform(0.5, 2.0, rows)
    return blocks, y + 0.5 * np.sqrt(noise) * rng.standard_normal(rows), [noise]


def covariance(blocks: list[Array], noises: list[Array], v: tuple[float, ...], n: tuple[float, ...]) -> Array:
    """Equation (2), term by term."""
    total = sum(value * block @ block.T for value, block in zip(v, blocks, strict=True))
    return total + sum(value * np.diag(noise) for value, noise in zip(n, noises, strict=True))


def restricted_log_likelihood(k: Array, y: Array) -> float:
    """REML's objective by Gaussian elimination: of y's contrasts, an orthonormal basis of what sums to 0."""
    basis = np.linalg.svd(np.ones((1, len(y))))[2][1:]
    inner = basis @ k @ basis.T
    contrast = basis @ y
    return float(-0.5 * np.linalg.slogdet(inner)[1] - 0.5 * contrast @ np.linalg.solve(inner, contrast))


@given(st.integers(0, 1000), st.integers(0, 20))
def test_no_step_lowers_the_likelihood(seed: int, steps: int) -> None:
    blocks, y, noises = problem(seed)
    before, after = (fit_mixed(blocks, y, noises, steps=count).variances for count in (steps, steps + 1))
    likelihood = [restricted_log_likelihood(covariance(blocks, noises, v, n), y) for v, n in (before, after)]
    assert likelihood[1] >= likelihood[0] - 1e-8


@given(st.integers(0, 1000))
def test_prediction_is_the_best_linear_unbiased_one(seed: int) -> None:
    """Oracle: the kriging system with a Lagrange multiplier, K l + 1 m = k, 1^T l = 1, solved as it stands."""
    blocks, y, noises = problem(seed)
    rng = np.random.default_rng(seed + 1)
    new = [rng.standard_normal((3, block.shape[1])) for block in blocks]
    fitted = fit_mixed(blocks, y, noises)
    v, n = fitted.variances
    k = covariance(blocks, noises, v, n)
    cross = sum(value * a @ b.T for value, a, b in zip(v, new, blocks, strict=True))
    own = sum(value * (a**2).sum(axis=1) for value, a in zip(v, new, strict=True))
    system = np.block([[k, np.ones((len(y), 1))], [np.ones((1, len(y))), np.zeros((1, 1))]])
    solved = np.linalg.solve(system, np.vstack([cross.T, np.ones((1, 3))]))
    mean, variance = fitted.predict(new)
    np.testing.assert_allclose(mean, solved[:-1].T @ y, rtol=1e-8)
    np.testing.assert_allclose(variance, own - (solved[:-1] * cross.T).sum(axis=0) - solved[-1], rtol=1e-6, atol=1e-9)


def test_leave_one_out_is_what_leaving_one_out_gives() -> None:
    """Oracle: thirty fits with the same variances, each without one row."""
    blocks, y, noises = problem(3)
    fitted = fit_mixed(blocks, y, noises)
    for row in range(len(y)):
        keep = np.arange(len(y)) != row
        inner = fit_mixed(
            [block[keep] for block in blocks], y[keep], [noises[0][keep]], start=fitted.variances, steps=0
        )
        mean, variance = inner.predict([block[~keep] for block in blocks])
        assert fitted.leave_one_out[row] == pytest.approx(y[row] - mean[0], rel=1e-6)
        sd = np.sqrt(variance[0] + fitted.variances[1][0] * noises[0][row])
        assert fitted.leave_one_out_sd[row] == pytest.approx(sd, rel=1e-6)


def test_variances_that_made_the_data_are_found() -> None:
    rng = np.random.default_rng(0)
    blocks = [rng.standard_normal((400, 60)), rng.standard_normal((400, 60)), rng.standard_normal((400, 60))]
    y = 2 * blocks[0] @ rng.standard_normal(60) + 0.5 * blocks[1] @ rng.standard_normal(60) + rng.standard_normal(400)
    v, n = fit_mixed(blocks, y, [np.ones(400)]).variances
    # a variance of 60 normal coefficients is known to sqrt(2 / 60) = 18 %; three such errors are allowed
    assert v[0] == pytest.approx(4.0, rel=0.55)
    assert v[1] == pytest.approx(0.25, rel=0.55)
    assert v[2] < 0.02
    assert n[0] == pytest.approx(1.0, rel=0.3)
