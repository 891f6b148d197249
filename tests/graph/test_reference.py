"""The NumPy meaning of a graph against the torch module with the same weights, and against plain loops."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from random_networks import built, networks

from luthier.arch import Network
from luthier.arch.presets import get
from luthier.errors import ShapeError, SpecError
from luthier.graph import attrs as kinds
from luthier.graph import fold_constants, fold_norm_into_conv, from_network, take_constants
from luthier.graph.reference import adaptive_pool2d, conv2d, pool2d, run

Array = np.ndarray[Any, np.dtype[np.float64]]


def check_against_module(network: Network, resolution: tuple[int, int], batch: int, seed: int) -> float:
    """Compare; returns how far the scores move, as a share of their size, if x moves by one pixel."""
    graph = from_network(network, batch=batch, resolution=resolution)
    module, state = built(network, resolution, seed)
    values = take_constants(from_network(network), state)
    x = np.random.default_rng(seed).normal(size=graph.tensors["input"].shape)
    with torch.no_grad():
        want = module(torch.from_numpy(x)).numpy()
        moved = module(torch.from_numpy(np.roll(x, 1, axis=3))).numpy()
    got = run(graph, values, {"input": x})["head.classifier"]
    folded = run(fold_norm_into_conv(graph), fold_constants(graph, values), {"input": x})["head.classifier"]
    # float64 sums in another order; a wrong tap or a wrong pad changes the leading digits
    scale = np.abs(want).max() + 1e-12
    assert np.abs(got - want).max() <= 1e-9 * scale
    assert np.abs(folded - want).max() <= 1e-9 * scale
    return float(np.abs(moved - want).max() / scale)


@settings(max_examples=120)
@given(
    network=networks(),
    resolution=st.tuples(st.integers(8, 17), st.integers(8, 17)),
    batch=st.integers(1, 2),
    seed=st.integers(0, 99),
)
def test_random_networks_agree_with_their_modules(
    network: Network, resolution: tuple[int, int], batch: int, seed: int
) -> None:
    try:
        from_network(network, resolution=resolution)
    except (ShapeError, SpecError):
        return  # a pool swallowed the map
    check_against_module(network, resolution, batch, seed)


@pytest.mark.parametrize("name", ["mbconv_thumbnail", "resnet20"])
def test_small_presets_agree_with_their_modules(name: str) -> None:
    network = get(name)
    assert check_against_module(network, (network.resolution, network.resolution), 1, 0) > 1e-3


@pytest.mark.parametrize(
    "name", ["efficientnet_b0", "tf_efficientnet_b0", "mobilenetv3_small_100", "seresnet50", "tf_efficientnetv2_s"]
)
def test_large_presets_agree_with_their_modules_at_64_px(name: str) -> None:
    assert check_against_module(get(name), (64, 64), 1, 1) > 1e-3  # else a wrong pad would go unseen


def direct_conv(x: Array, weight: Array, attrs: kinds.Conv) -> Array:
    """Seven plain loops."""
    top, left, bottom, right = attrs.pads
    x = np.pad(x, ((0, 0), (0, 0), (top, bottom), (left, right)))
    out_channels, depth, kernel_h, kernel_w = weight.shape
    rows = (x.shape[2] - attrs.dilation[0] * (kernel_h - 1) - 1) // attrs.stride[0] + 1
    columns = (x.shape[3] - attrs.dilation[1] * (kernel_w - 1) - 1) // attrs.stride[1] + 1
    y = np.zeros((x.shape[0], out_channels, rows, columns))
    for n, o, i, j in np.ndindex(*y.shape):
        first = o // (out_channels // attrs.groups) * depth
        for c, k, m in np.ndindex(depth, kernel_h, kernel_w):
            row, column = i * attrs.stride[0] + k * attrs.dilation[0], j * attrs.stride[1] + m * attrs.dilation[1]
            y[n, o, i, j] += x[n, first + c, row, column] * weight[o, c, k, m]
    return y


@pytest.mark.parametrize("groups, out_channels", [(1, 3), (2, 4), (4, 4), (4, 8)])
def test_conv_equals_plain_loops(groups: int, out_channels: int) -> None:
    rng = np.random.default_rng(groups)
    attrs = kinds.Conv(stride=(2, 1), pads=(1, 0, 2, 1), dilation=(1, 2), groups=groups)
    # small integers: sums are exact in any order, so equality may be demanded
    x = rng.integers(1, 5, (2, 4, 6, 7)).astype(float)
    weight = rng.integers(-4, 5, (out_channels, 4 // groups, 3, 2)).astype(float)
    assert np.array_equal(conv2d(x, weight, None, attrs), direct_conv(x, weight, attrs))


def test_pools_equal_torch() -> None:
    x = np.random.default_rng(0).normal(size=(2, 3, 9, 8)) - 5.0
    seen = torch.from_numpy(x)
    for kernel, stride, pad in ((3, 2, 1), (2, 2, 0), (3, 1, 1)):
        attrs = kinds.Pool("max", (kernel, kernel), (stride, stride), (pad,) * 4)
        assert np.array_equal(pool2d(x, attrs), torch.nn.functional.max_pool2d(seen, kernel, stride, pad).numpy())
        for count in (False, True):
            attrs = kinds.Pool("avg", (kernel, kernel), (stride, stride), (pad,) * 4, count_pads=count)
            want = torch.nn.functional.avg_pool2d(seen, kernel, stride, pad, count_include_pad=count).numpy()
            assert np.abs(pool2d(x, attrs) - want).max() < 1e-13
    for size in ((1, 1), (4, 5), (7, 7), (12, 3)):
        want = torch.nn.functional.adaptive_avg_pool2d(seen, size).numpy()
        assert np.abs(adaptive_pool2d(x, size) - want).max() < 1e-13


def test_missing_and_misshapen_arrays_are_named() -> None:
    graph = from_network(get("mbconv_thumbnail"))
    shape = graph.tensors["input"].shape
    with pytest.raises(ShapeError, match=r"reference\.run: input 'input' is missing"):
        run(graph, {}, {})
    with pytest.raises(ShapeError, match=r"input 'input' must have shape .* got \(1,\)"):
        run(graph, {}, {"input": np.zeros(1)})
    with pytest.raises(ShapeError, match=r"constant 'stages\..*' is missing"):
        run(graph, {}, {"input": np.zeros(shape)})
    with pytest.raises(ShapeError, match=r"take_constants: 'stages\..*' must have shape .* got nothing"):
        take_constants(graph, {})
