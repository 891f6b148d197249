"""Rounding to sums: never worse than to nearest, best of all where that can be counted, and better in a network."""

from __future__ import annotations

from itertools import product
from typing import Any

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from tests.quant.test_quantize import small, sqnr_db

from luthier.graph import attrs as kinds
from luthier.graph import reference
from luthier.quant import integer, quantize
from luthier.quant.affine import IntegerType
from luthier.quant.numbers import OFFERED
from luthier.quant.rounding import covariances, round_to_sums

Array = np.ndarray[Any, Any]
S4 = IntegerType(4, True)


def problem(seed: int, rows: int, size: int) -> tuple[Array, Array, Array]:
    rng = np.random.default_rng(seed)
    mixing = rng.normal(size=(size, size)) + 2 * rng.normal(size=(size, 1))
    weight = rng.normal(size=(rows, size))
    return weight, np.abs(weight).max(1) / S4.qmax, (mixing @ mixing.T)[None] + 0.01 * np.eye(size)


def lost(weight: Array, scales: Array, covariance: Array, q: Array) -> Array:
    e = weight - scales[:, None] * q
    return np.asarray(np.einsum("ok,kl,ol->o", e, covariance[0], e))


@given(st.integers(0, 2**32 - 1), st.integers(1, 4), st.integers(1, 12))
def test_sums_are_never_worse_than_with_the_nearest(seed: int, rows: int, size: int) -> None:
    weight, scales, covariance = problem(seed, rows, size)
    q = round_to_sums(weight, scales, covariance, S4)
    nearest = np.clip(np.rint(weight / scales[:, None]), S4.qmin, S4.qmax)
    assert np.abs(q).max() <= S4.qmax
    assert np.all(lost(weight, scales, covariance, q) <= lost(weight, scales, covariance, nearest) * (1 + 1e-9))
    # no single step helps
    for k, step in product(range(size), (-1, 1)):
        moved = q.astype(int)
        moved[:, k] = np.clip(moved[:, k] + step, S4.qmin, S4.qmax)
        assert np.all(lost(weight, scales, covariance, moved) >= lost(weight, scales, covariance, q) * (1 - 1e-9))


def test_two_weights_find_the_best_pair() -> None:
    together = np.array([[[1.0, 0.99], [0.99, 1.0]]])
    weight, scales = np.array([[0.4, 0.4]]), np.ones(1)
    best = min(product((-1, 0, 1, 2), repeat=2), key=lambda q: lost(weight, scales, together, np.array([q]))[0])
    assert sorted(best) == [0, 1] == sorted(round_to_sums(weight, scales, together)[0].tolist())


def test_covariances_are_those_of_what_the_weights_meet() -> None:
    rng = np.random.default_rng(0)
    x = rng.normal(1.0, size=(2, 4, 5, 5))
    dense = covariances([x], kinds.Conv(stride=(2, 1)), (3, 2))
    met = [x[n, :, 2 * i : 2 * i + 3, j : j + 2].ravel() for n, i, j in product(range(2), range(2), range(4))]
    want = np.cov(np.array(met).T, bias=True)
    np.testing.assert_allclose(dense[0] - np.diag(np.diag(dense[0])), want - np.diag(np.diag(want)), atol=1e-12)
    assert np.allclose(np.diag(dense[0]), np.diag(want) + 1e-2 * np.diag(want).mean())
    apart = covariances([x], kinds.Conv(stride=(2, 1), groups=4), (3, 2))
    assert apart.shape == (4, 6, 6)
    assert np.allclose(apart[1, 0, 1], want[6, 7])
    rows = rng.normal(size=(30, 5))
    flat = covariances([rows[:10], rows[10:]], kinds.Linear(), ())
    assert np.allclose(flat[0, 0, 1], np.cov(rows.T, bias=True)[0, 1])


def test_a_network_of_four_bit_weights_gains() -> None:
    graph, constants, images = small(images=64)
    want = reference.run(graph, constants, {"x": images[:4]})["y"]
    found = []
    for on in (False, True):
        made, values = quantize(graph, constants, images, numbers=OFFERED["W4A8"], round_to_sums=on)
        found.append(sqnr_db(integer.run(made, values, {"x": images[:4]})["y"], want))
    assert found[1] > found[0] + 1, found
