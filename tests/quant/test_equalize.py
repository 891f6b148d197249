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
from luthier.graph.op import Op
from luthier.quant import integer, quantize
from luthier.quant.calibrate import equalized
from luthier.quant.equalize import Seen, _stored_noise, _weight_noise, tied
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


def names(ops: tuple[Op, ...]) -> list[str]:
    return [op.name for op in ops]


WHERE = {
    ("relu", "relu"): [({"ce", "e"}, ["ce"], [], ["cd"]), ({"cd", "d"}, ["cd"], [], ["y"])],
    ("identity", "relu6"): [({"ce"}, ["ce"], [], ["cd"])],
    ("hard_swish", "silu"): [({"e"}, [], ["e"], ["cd"])],
    ("relu6", "hard_swish"): [],
}


@pytest.mark.parametrize("functions", WHERE)
def test_where_it_is_legal(functions: tuple[str, str]) -> None:
    found = tied(Plan(block(*functions)))
    assert [(set(t.tensors), names(t.made), names(t.functions), names(t.read)) for t in found] == WHERE[functions]


def test_a_gate_and_a_sum_hand_factors_on() -> None:
    """All that two sums and their products touch has one set of factors; the gate itself has none."""
    build = Builder()
    p = build.conv("p", "p", build.input("x", (2, 3, 6, 6)), 8)
    h = build.conv("h", "h", p, 8, bias=True)
    squeezed = build.op("squeezed", kinds.GlobalPool(), h)
    gate = build.activation("gate", build.conv("cg", "cg", squeezed, 8), "hard_sigmoid")
    s = build.add("s", build.conv("cp", "cp", build.mul("m", h, gate), 8), p)
    graph = build.graph(build.conv("y", "y", s, 4))
    found = [(set(t.tensors), names(t.made), names(t.functions), names(t.read)) for t in tied(Plan(graph))]
    assert found == [
        ({"p", "cp", "s"}, ["p", "cp"], [], ["h", "y"]),
        ({"h", "squeezed", "m"}, ["h"], [], ["cg", "cp"]),
    ]
    constants, x = filled(graph, 3, 2)
    other, values = equalized(Plan(graph), constants, [(x[:2],), (x[2:4],)])
    assert any(not np.array_equal(values[name], constants[name]) for name in constants)
    want = reference.run(graph, constants, {"x": x[:2].astype(np.float64)})["y"]
    got = reference.run(other, values, {"x": x[:2].astype(np.float64)})["y"]
    np.testing.assert_allclose(got, want, rtol=1e-5, atol=1e-6 * np.abs(want).max())


def test_what_others_read_is_left_alone() -> None:
    build = Builder()
    a = build.activation("a", build.conv("ca", "ca", build.input("x", (1, 3, 6, 6)), 4), "relu")
    d = build.conv("d", "d", a, 4, kernel_size=3, groups=4)
    assert tied(Plan(build.graph(build.add("y", d, a)))) == [], "handed out"
    build = Builder()
    a = build.activation("a", build.conv("ca", "ca", build.input("x", (1, 3, 6, 6)), 4), "relu")
    gate = build.activation("g", a, "sigmoid")
    assert tied(Plan(build.graph(build.conv("y", "y", build.mul("m", a, gate), 2)))) == [], "a curve reads it"


def test_noise_by_hand() -> None:
    """Equation (4) for two channels of 4 and 1, seen by a depthwise convolution: equal ranges are best."""
    graph = block("relu", "relu6")
    plan = Plan(graph)
    # mean 2, mean square 5: variance 1
    seen = Seen(np.zeros(8), np.array([4.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0]), np.full(8, 2.0), np.full(8, 5.0))
    gain = np.full(8, 2.0)
    plain = _stored_noise(plan, "e", seen, gain, np.ones(8))
    assert plain == pytest.approx((4 / 255) ** 2 / 12 * 2 * 8 * 36)
    equal = _stored_noise(plan, "e", seen, gain, seen.high)
    assert equal == pytest.approx((1 / 255) ** 2 / 12 * 2 * (16 + 7) * 36)
    (y,) = [op for op in graph.ops if op.name == "y"]
    values = {"y.weight": np.ones((4, 8, 1, 1))}
    gains = {"y": np.full(4, 3.0)}
    assert _weight_noise(plan, values, y, seen, gains, np.full(8, 2.0)) < 1e-9, "ones are on the grid"
    values["y.weight"][:, 0] = 1.25 / 127  # becomes 1 / 127
    got = _weight_noise(plan, values, y, seen, gains, np.full(8, 2.0))
    assert got == pytest.approx(10 * 4 * 3.0 * (2 * 0.25 / 127) ** 2 * (1 / 4) * 36, rel=1e-3)


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
