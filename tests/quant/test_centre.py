"""Centring: the network computes the same, and what products read needs a smaller range."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from luthier.arch.presets import get
from luthier.graph import Graph, fold_norm_into_conv, from_network, reference
from luthier.graph.builder import Builder
from luthier.graph.mixed import but_products
from luthier.quant import integer, quantize
from luthier.quant.calibrate import equalized
from luthier.quant.centre import centre, centres, met_by, movable
from luthier.quant.equalize import Seen
from luthier.quant.plan import Plan

Array = np.ndarray[Any, Any]
BATCH = 4


def residual(*, groups: int = 1, twice: bool = False) -> Graph:
    """A stream that a branch is added to, perhaps doubled; what follows reads the sum without padding."""
    build = Builder()
    stream = build.conv("s", "s", build.input("x", (BATCH, 3, 8, 8)), 8, bias=True)
    wide = build.activation("w", build.conv("cw", "cw", stream, 16, groups=groups, bias=True), "relu")
    branch = build.conv("b", "b", wide, 8, bias=True)
    added = build.add("d", branch, branch) if twice else branch
    return build.graph(build.conv("y", "y", build.add("t", added, stream), 4, bias=True))


def filled(graph: Graph, seed: int) -> tuple[dict[str, Array], Array]:
    """Constants, biases far from 0 among them, and images."""
    rng = np.random.default_rng(seed)
    constants = {
        name: rng.normal(size=t.shape) * (20 if len(t.shape) == 1 else 1) for name, t in graph.constants.items()
    }
    return constants, rng.normal(size=(32, 3, 8, 8)).astype(np.float32)


def watched(graph: Graph, constants: dict[str, Array], x: Array) -> dict[str, Seen]:
    """What all tensors hold."""
    parts = [reference.run(graph, constants, {"x": x[i : i + BATCH]}) for i in range(0, len(x), BATCH)]
    found = {}
    for name in graph.tensors:
        if name not in graph.inputs:
            held = np.concatenate([part[name] for part in parts]).astype(np.float64)
            held = np.moveaxis(held, 1, 0).reshape(held.shape[1], -1)
            found[name] = Seen(held.min(1), held.max(1), held.mean(1), (held**2).mean(1))
    return found


def values_of(graph: Graph) -> Graph:
    """The graph handing out all its tensors."""
    inner = tuple(name for name in graph.tensors if name not in graph.inputs)
    return Graph(graph.inputs, inner, graph.ops, graph.tensors, graph.constants)


def width(seen: Seen) -> float:
    return max(0.0, float(seen.high.max())) - min(0.0, float(seen.low.min()))


@settings(max_examples=30)
@given(st.booleans(), st.sampled_from([1, 4]), st.integers(0, 2**32 - 1))
def test_the_network_computes_the_same_and_is_seen_moved(twice: bool, groups: int, seed: int) -> None:
    graph = residual(groups=groups, twice=twice)
    constants, x = filled(graph, seed)
    seen = watched(values_of(graph), constants, x)
    values, held = centre(Plan(graph), constants, seen)
    want = reference.run(graph, constants, {"x": x[:BATCH].astype(np.float64)})["y"]
    got = reference.run(graph, values, {"x": x[:BATCH].astype(np.float64)})["y"]
    np.testing.assert_allclose(got, want, rtol=1e-9, atol=1e-9 * np.abs(want).max())
    there = watched(values_of(graph), values, x)
    for name, was in there.items():
        for told, found in zip((held[name].low, held[name].high, held[name].mean, held[name].power),
                               (was.low, was.high, was.mean, was.power), strict=True):  # fmt: skip
            np.testing.assert_allclose(told, found, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("products_only", [False, True])
def test_what_products_read_is_in_the_middle(products_only: bool) -> None:
    """With no scale on a branch, every channel of the sum is centred; with one, both ranges count."""
    graph = residual()
    constants, x = filled(graph, 5)
    seen = watched(values_of(graph), constants, x)
    plan = Plan(graph, but_products(graph) if products_only else ())
    _, held = centre(plan, constants, seen)
    middle = (held["s"].low + held["s"].high) / 2
    np.testing.assert_allclose(middle, 0, atol=1e-9)
    before = width(seen["t"]) ** 2 + (0 if products_only else width(seen["b"]) ** 2)
    assert width(held["t"]) ** 2 + (0 if products_only else width(held["b"]) ** 2) < before
    if products_only:
        np.testing.assert_allclose((held["t"].low + held["t"].high) / 2, 0, atol=1e-9)


def names(graph: Graph) -> list[set[str]]:
    return [set(one.tensors) for one in movable(Plan(graph))]


def test_where_it_is_legal() -> None:
    assert names(residual()) == [{"s", "b", "t"}]
    build = Builder()
    stream = build.conv("s", "s", build.input("x", (BATCH, 3, 8, 8)), 8, bias=True)
    padded = build.conv("p", "p", stream, 8, kernel_size=3, bias=True)
    other = build.conv("o", "o", padded, 8, bias=True)
    assert names(build.graph(build.conv("y", "y", other, 4, bias=True))) == [{"p"}, {"o"}], "3x3 reads s with padding"
    build = Builder()
    bare = build.conv("s", "s", build.input("x", (BATCH, 3, 8, 8)), 8)
    assert names(build.graph(build.conv("y", "y", bare, 4, bias=True))) == [], "no bias takes the shift up"
    build = Builder()
    handed = build.conv("s", "s", build.input("x", (BATCH, 3, 8, 8)), 8, bias=True)
    build.conv("y", "y", handed, 4, bias=True)
    assert names(build.graph(handed, "y")) == [], "what the caller gets stays"


def test_a_constant_through_a_product_is_what_the_reference_makes_of_it() -> None:
    build = Builder()
    y = build.conv("y", "y", build.input("x", (1, 6, 5, 5)), 4, kernel_size=3, groups=2)
    graph = build.graph(y)
    rng = np.random.default_rng(0)
    weight, constant = rng.normal(size=(4, 3, 3, 3)), rng.normal(size=6)
    x = np.broadcast_to(constant[None, :, None, None], (1, 6, 5, 5))
    made = reference.run(graph, {"y.weight": weight}, {"x": x})["y"]
    np.testing.assert_allclose(met_by(graph.ops[0], weight, constant), made[0, :, 2, 2], rtol=1e-12)


def test_residual_streams_of_a_preset_are_found() -> None:
    """MobileNetV3-Small: one stream for each resolution and width, with as many sums as it has shortcuts."""
    found = movable(Plan(fold_norm_into_conv(from_network(get("mobilenet_v3_small")))))
    assert [len(one.sums) for one in found] == [0, 1, 2, 1, 2]


def test_integers_lose_less() -> None:
    """Channels far from each other: what 8 bits lose falls with the range."""
    graph = residual()
    constants, x = filled(graph, 7)
    real = np.concatenate([reference.run(graph, constants, {"x": x[i : i + BATCH]})["y"] for i in range(0, 32, BATCH)])

    def lost(values: dict[str, Array]) -> float:
        small, made = quantize(graph, values, x, equalize=False, observer="minmax")
        got = np.concatenate([integer.run(small, made, {"x": x[i : i + BATCH]})["y"] for i in range(0, 32, BATCH)])
        return float(((got - real) ** 2).mean())

    moved, _ = centre(Plan(graph), constants, watched(values_of(graph), constants, x))
    assert lost(moved) < 0.8 * lost(constants)


def test_calibration_centres_before_it_equalises() -> None:
    graph = residual()
    constants, x = filled(graph, 3)
    batches = [(x[i : i + BATCH],) for i in range(0, 32, BATCH)]
    other, values = equalized(Plan(graph), constants, batches)
    seen = watched(values_of(other), values, x)
    np.testing.assert_allclose((seen["s"].low + seen["s"].high) / 2, 0, atol=1e-3 * width(seen["s"]))
    assert centres(Plan(graph), movable(Plan(graph))[0], seen)["s"] == pytest.approx(0, abs=1e-3 * width(seen["s"]))
