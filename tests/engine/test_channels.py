"""Maxima, means and softmax over channels, and resizing, against the NumPy reference, at every vector width."""

from __future__ import annotations

from typing import Literal

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.engine.harness import Array, call, integers, spread, view

from luthier.engine.kernels.channels import over_channels
from luthier.engine.kernels.kernel import Kernel
from luthier.engine.kernels.resize import resizing
from luthier.engine.layout import Layout
from luthier.engine.target import Target, runnable
from luthier.graph.attrs import Resize
from luthier.graph.reference import resize2d

TARGETS = pytest.mark.parametrize("target", runnable(), ids=lambda t: t.isa)


def run(target: Target, kernel: Kernel, x: Array, out: tuple[int, int, int, int]) -> Array:
    to = Layout.padded(out, target.lanes)
    operands = {"x": spread(x, Layout.padded(x.shape, target.lanes)), "y": np.full(to.extent, np.nan, np.float32)}
    return view(call(target, kernel, operands)["y"], to)


@TARGETS
@pytest.mark.parametrize("channels", [1, 3, 4, 5, 7, 8, 9, 15, 16, 17, 63, 64, 65, 80, 130])
def test_channels_around_the_vector(target: Target, channels: int) -> None:
    x = integers(np.random.default_rng(channels), 2, channels, 3, 5)
    shape, out = (2, channels, 3, 5), (2, 1, 3, 5)
    assert np.array_equal(run(target, over_channels(target, "max", shape), x, out), x.max(1, keepdims=True))
    mean = run(target, over_channels(target, "avg", shape), x, out)
    np.testing.assert_allclose(mean, x.mean(1, keepdims=True, dtype=np.float64), rtol=2e-7, atol=0)  # one product


@TARGETS
@pytest.mark.parametrize("channels", [1, 3, 8, 17, 100])
@pytest.mark.parametrize("scale", [0.1, 3.0, 1e30])
def test_softmax(target: Target, channels: int, scale: float) -> None:
    shape = (2, channels, 2, 2)
    x = (np.random.default_rng(channels).normal(size=shape) * scale).astype(np.float32)
    got = run(target, over_channels(target, "softmax", shape), x, shape)
    powers = np.exp(x.astype(np.float64) - x.max(1, keepdims=True))
    want = powers / powers.sum(1, keepdims=True)
    near = powers > np.exp(-20.0)
    assert np.all(np.abs(got - want)[near] <= 1e-6 * np.maximum(want, 1e-3)[near])
    assert np.all(got[~near] < 3e-9)
    np.testing.assert_allclose(got.sum(1), 1, rtol=1e-6)


@TARGETS
@pytest.mark.parametrize("kind", ["max", "avg", "softmax"])
@pytest.mark.parametrize("place", [0, 15, 16, 70])
def test_nan_reaches_its_own_pixel_only(target: Target, kind: Literal["max", "avg", "softmax"], place: int) -> None:
    shape = (1, 71, 1, 3)
    x = integers(np.random.default_rng(0), *shape)
    x[0, place, 0, 1] = np.nan
    out = shape if kind == "softmax" else (1, 1, 1, 3)
    got = run(target, over_channels(target, kind, shape), x, out)
    assert np.isnan(got[..., 1]).all()
    assert np.isfinite(got[..., [0, 2]]).all()


@settings(max_examples=40)
@given(
    target=st.sampled_from(runnable()),
    shape=st.tuples(st.integers(1, 2), st.integers(1, 35), st.integers(1, 9), st.integers(1, 9)),
    out_hw=st.tuples(st.integers(1, 20), st.integers(1, 20)),
)
def test_any_resizing(target: Target, shape: tuple[int, int, int, int], out_hw: tuple[int, int]) -> None:
    x = integers(np.random.default_rng(sum(shape)), *shape)
    out = (*shape[:2], *out_hw)
    near = run(target, resizing(target, shape, out_hw, False), x, out)
    assert np.array_equal(near, resize2d(x, Resize(out_hw, "nearest")))
    mixed = run(target, resizing(target, shape, out_hw, True), x, out)
    want = resize2d(x.astype(np.float64), Resize(out_hw, "bilinear"))
    assert np.abs(mixed - want).max() <= 1e-6  # a share is rounded once, each of three sums of numbers up to 3 once
