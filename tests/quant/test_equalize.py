"""Equalisation: the network computes the same, the ranges do not."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.quant.test_quantize import sqnr_db

from luthier.graph import Graph, reference
from luthier.graph import attrs as kinds
from luthier.graph.builder import Builder
from luthier.quant import integer, quantize
from luthier.quant.calibrate import equalized
from luthier.quant.equalize import _balanced, _one_range, pairs
from luthier.quant.plan import Plan

Array = np.ndarray[Any, Any]


def block(first: Any, second: Any) -> Graph:
    """Expansion, depthwise, projection, with two functions."""
    build = Builder()
    x = build.activation("e", build.conv("ce", "ce", build.input("x", (2, 3, 6, 6)), 8, bias=True), first)
    d = build.activation("d", build.conv("cd", "cd", x, 8, kernel_size=3, groups=8, bias=True), second)
    return build.graph(build.conv("y", "y", d, 4, bias=True))


def filled(graph: Graph, seed: int, spread: float) -> tuple[dict[str, Array], Array]:
    """Constants whose channels differ by up to 10^spread, and images."""
    rng = np.random.default_rng(seed)
    constants = {
        name: rng.normal(size=t.shape) * 10 ** rng.uniform(-spread, 0, (t.shape[0], *(1,) * (len(t.shape) - 1)))
        for name, t in graph.constants.items()
    }
    return constants, rng.normal(size=(8, 3, 6, 6)).astype(np.float32)


@settings(max_examples=25)
@given(st.sampled_from(["relu", "relu6", "hard_swish", "silu", "identity"]), st.integers(0, 2**32 - 1))
def test_the_network_computes_the_same(function: Any, seed: int) -> None:
    graph = block(function, "relu")
    constants, x = filled(graph, seed, 3)
    batches = [(x[:2],), (x[2:4],), (x[4:6],), (x[6:],)]
    other, values = equalized(Plan(graph), constants, batches)
    for part in range(4):
        want = reference.run(graph, constants, {"x": x[2 * part : 2 * part + 2].astype(np.float64)})["y"]
        got = reference.run(other, values, {"x": x[2 * part : 2 * part + 2].astype(np.float64)})["y"]
        np.testing.assert_allclose(got, want, rtol=1e-5, atol=1e-6 * np.abs(want).max())  # factors 1 / t are float32


WHERE = {
    ("relu", "relu"): [("e", "ce"), ("d", "cd")],
    ("identity", "relu6"): [("e", "ce")],
    ("hard_swish", "silu"): [("e", None)],
    ("relu6", "hard_swish"): [],
}


@pytest.mark.parametrize("functions", WHERE)
def test_where_it_is_legal(functions: tuple[str, str]) -> None:
    found = pairs(Plan(block(*functions)))
    assert [(p.tensor, None if p.first is None else p.first.name) for p in found] == WHERE[functions]


def test_what_others_read_is_left_alone() -> None:
    build = Builder()
    a = build.activation("a", build.conv("ca", "ca", build.input("x", (1, 3, 6, 6)), 4), "relu")
    d = build.conv("d", "d", a, 4, kernel_size=3, groups=4)
    assert pairs(Plan(build.graph(build.add("y", d, a)))) == []


def test_factors_by_hand() -> None:
    zero, one = np.zeros(3), np.ones(3)
    assert _one_range(zero, np.array([4.0, 1.0, 2.0]), one).tolist() == [4, 1, 2]
    # (4): sqrt(r1 / r2); a channel without values or weights keeps factor 1
    assert _balanced(np.array([4.0, 0.0, 9.0]), np.array([1.0, 5.0, 4.0])).tolist() == [2.0, 1.0, 1.5]
    # (3) over all ratios by brute force
    low, high, gain = -np.array([0.375, 0.375, 0.3]), np.array([6.0, 0.1, 1.0]), np.array([1.0, 50.0, 3.0])
    got = _one_range(low, high, gain)

    def cost(ratio: float) -> float:
        return float((1 + ratio) ** 2 * (gain @ np.maximum(high, -low / ratio) ** 2))

    best = min(np.geomspace(0.01, 1, 2001), key=cost)
    ratio = float((-low / got).max())
    assert cost(ratio) <= cost(best) * 1.01
    assert cost(best) < cost(1.0) * 0.9, "not the ratio of a range as far below 0 as above"


@pytest.mark.parametrize("function", ["relu", "hard_swish"])
def test_channels_far_apart_get_levels_of_their_own(function: Any) -> None:
    graph = block(function, "relu6")
    constants, x = filled(graph, 1, 0)
    constants["ce.weight"] *= 10.0 ** np.linspace(-2.5, 0, 8).reshape(-1, 1, 1, 1)
    constants["ce.bias"] *= 10.0 ** np.linspace(-2.5, 0, 8)
    constants["cd.weight"] *= 10.0 ** np.linspace(2.5, 0, 8).reshape(-1, 1, 1, 1)
    constants["cd.bias"] *= 0
    found = []
    want = reference.run(graph, constants, {"x": x[:2]})["y"]
    for on in (False, True):
        small, values = quantize(graph, constants, x, equalize=on)
        found.append(sqnr_db(integer.run(small, values, {"x": x[:2]})["y"], want))
    assert found[1] > found[0] + 6, found
    assert small.ops[2].attrs == (kinds.Affine() if function == "hard_swish" else graph.ops[2].attrs)
