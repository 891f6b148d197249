"""Number types product by product: costs, prices and the path between them."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.quant.gated import gated_block

from luthier.cost.summary import weight_bytes
from luthier.errors import InputError
from luthier.graph import Graph
from luthier.graph.op import DTYPE_BITS
from luthier.quant.assign import Point, farthest, path, prices, products, spread, takers, typed, within
from luthier.quant.attribute import Source
from luthier.quant.numbers import name_of, parse_numbers
from luthier.quant.quantize import quantize

TYPES = ("W8A16", "W8A8", "W4A8")


def test_costs_see_the_types_that_quantisation_stores() -> None:
    graph, constants, images = gated_block(8)
    names = [op.name for op in products(graph)]
    for chosen in itertools.product(TYPES, repeat=2):
        mixed = {name: parse_numbers(chosen[i % 2]) for i, name in enumerate(names)}
        choice = spread(graph, mixed)
        real, _ = quantize(graph, constants, images, numbers=choice, correct_bias=False, equalize=False)
        model = typed(graph, choice)
        assert {n: t.dtype for n, t in model.tensors.items()} == {n: t.dtype for n, t in real.tensors.items()}
        assert {n: t.dtype for n, t in model.constants.items()} == {n: t.dtype for n, t in real.constants.items()}
        assert weight_bytes(model) == weight_bytes(real)


def test_ops_follow_the_products_behind_them() -> None:
    graph, _, _ = gated_block(4)
    wide = spread(graph, {op.name: parse_numbers("W8A16" if op.name == "deep" else "W8A8") for op in products(graph)})
    assert {name: name_of(kind) for name, kind in wide.items() if name_of(kind) != "W8A8"} == {
        "wide": "fp16",
        "deep": "W8A16",
    }
    taking = takers(graph)
    assert taking["cw"] == taking["wide"] == {"deep"}
    # the gate, the squeeze and the product hand on what the projection and the gate's own layer take
    assert taking["deep"] == {"cg", "cp"}


def test_prices_go_to_whoever_takes_the_tensor() -> None:
    graph, _, _ = gated_block(4)
    none = np.zeros(1)
    sources = {
        "W8A8": [
            Source("deep", "deep", "weights", 3.0, none),
            Source("deep", "deep", "rounding", 8.0, none),
            Source("", "x", "rounding", 1.0, none),
        ]
    }
    found = prices(graph, sources)
    assert {name: row["W8A8"] for name, row in found.items() if row["W8A8"]} == {
        "deep": 3.0,
        "cg": 4.0,
        "cp": 4.0,
        "cs": 1.0,
    }


def _bits(graph: Graph) -> float:
    """A cost that adds up: bits of all weights, and 16 times those of what products read."""
    weights = sum(t.elements * DTYPE_BITS[t.dtype] for n, t in graph.constants.items() if n.endswith("weight"))
    return float(weights)


@settings(max_examples=10)
@given(st.integers(0, 2**20))
def test_the_path_is_near_the_best_choice(seed: int) -> None:
    """Against all 3^4 choices of four products: none as cheap has less noise than the path, but for its last step."""
    graph, _, _ = gated_block(4)
    rng = np.random.default_rng(seed)
    names = [op.name for op in products(graph)]
    free = names[1:5]
    # noise rises as types narrow
    noise = {name: dict(zip(TYPES, np.cumsum(rng.exponential(size=3)), strict=True)) for name in names}
    fixed = {name: "W8A16" for name in names if name not in free}
    points = list(path(graph, noise, _bits, fixed))
    assert [p.cost for p in points] == sorted((p.cost for p in points), reverse=True)
    assert [p.noise for p in points] == sorted(p.noise for p in points)
    every: list[tuple[float, float]] = []
    for kinds in itertools.product(TYPES, repeat=4):
        chosen = fixed | dict(zip(free, kinds, strict=True))
        choice = spread(graph, {name: parse_numbers(kind) for name, kind in chosen.items()})
        every.append((_bits(typed(graph, choice)), sum(noise[n][k] for n, k in chosen.items())))
    for before, point in itertools.pairwise(points):
        best = min(n for c, n in every if c <= point.cost)
        # the greedy choice loses no more than its last step
        assert point.noise <= best + (point.noise - before.noise) + 1e-9


def test_limits_along_the_path() -> None:
    points = [Point({}, float(i), 9.0 - i, "") for i in range(5)]
    first = within(points, 7.5)
    assert first is not None
    assert first.cost == 7.0
    assert within(points, 1.0) is None
    asked: list[float] = []

    def loss(point: Point) -> float:
        asked.append(point.noise)
        return point.noise

    kept, lost = farthest(points, loss, 2.5)
    assert kept is points[2]
    assert lost == 2.0
    assert len(asked) <= 3
    assert farthest(points, lambda point: 1.0, 0.5) == (None, float("inf"))


def test_wrong_wishes_are_named() -> None:
    graph, _, _ = gated_block(4)
    noise: dict[str, dict[str, Any]] = {op.name: dict.fromkeys(TYPES, 1.0) for op in products(graph)}
    with pytest.raises(InputError, match="assign: 'nobody' cannot be fixed to 'W8A8'"):
        list(path(graph, noise, _bits, {"nobody": "W8A8"}))
    with pytest.raises(InputError, match="assign: the network has no product to choose number types for"):
        list(path(graph, {}, _bits))
