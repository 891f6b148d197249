"""Adjoints against the derivative, and prices against the square of what a source does alone."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.quant.gated import gated_block

from luthier.errors import InputError, UnsupportedError
from luthier.graph import Graph
from luthier.graph import attrs as kinds
from luthier.graph.attrs import Attrs
from luthier.graph.builder import Builder
from luthier.graph.op import Op
from luthier.graph.reference import evaluate
from luthier.quant import quantize
from luthier.quant.adjoint import backwards
from luthier.quant.attribute import attribute
from luthier.quant.local import Local
from luthier.quant.noise import walk
from luthier.quant.numbers import parse_numbers

Array = np.ndarray[Any, Any]
X = (2, 4, 6, 7)

CASES: list[tuple[Attrs, list[tuple[int, ...]], dict[str, tuple[int, ...]]]] = [
    (kinds.Conv(), [X], {"weight": (5, 4, 1, 1), "bias": (5,)}),
    (kinds.Conv(stride=(2, 1), pads=(1, 0, 2, 1), dilation=(1, 2)), [X], {"weight": (3, 4, 3, 2)}),
    (kinds.Conv(pads=(1, 1, 1, 1), groups=4), [X], {"weight": (4, 1, 3, 3)}),
    (kinds.Conv(groups=2), [X], {"weight": (6, 2, 2, 2)}),
    (kinds.Linear(), [(2, 4)], {"weight": (3, 4), "bias": (3,)}),
    (kinds.Add(), [X, X], {}),
    (kinds.Add(), [X, (2, 4, 1, 1)], {}),
    (kinds.Mul(), [X, (2, 4, 1, 1)], {}),
    (kinds.Mul(), [X, (2, 1, 6, 7)], {}),
    (kinds.GlobalPool(), [X], {}),
    (kinds.GlobalPool("max"), [X], {}),
    (kinds.ChannelPool(), [X], {}),
    (kinds.ChannelPool("max"), [X], {}),
    (kinds.Pool("avg", (2, 3), (2, 2)), [X], {}),
    (kinds.Pool("avg", (3, 3), (1, 2), (1, 1, 1, 1)), [X], {}),
    (kinds.Pool("max", (3, 2), (2, 1), (1, 0, 1, 1)), [X], {}),
    (kinds.AdaptivePool((4, 3)), [X], {}),
    (kinds.Resize((9, 10)), [X], {}),
    (kinds.Resize((3, 11), "bilinear"), [X], {}),
    (kinds.Softmax(), [(2, 4)], {}),
    (kinds.Affine(2.0, 1.0), [X], {"weight": (4,), "bias": (4,)}),
    (kinds.Flatten(), [X], {}),
    (kinds.Reshape((6, 28)), [X], {}),
    (kinds.Concat(), [X, (2, 3, 6, 7)], {}),
    (kinds.Concat(2), [X, X], {}),
    (kinds.Pad(1, 2, (1, 0, 0, 2)), [X], {}),
    (kinds.Slice(1, 1, 3), [X], {}),
    (kinds.Slice(3, 2, 6), [X], {}),
    (kinds.Shuffle(2), [X], {}),
    (kinds.Subsample((2, 3)), [X], {}),
    *[(kinds.Activation(name), [X], {}) for name in ("silu", "hard_swish", "relu6", "sigmoid", "gelu", "tanh")],  # type: ignore[arg-type]
]


@pytest.mark.parametrize(("attrs", "shapes", "constants"), CASES, ids=lambda case: str(case)[:40])
@settings(max_examples=3)
@given(st.integers(0, 2**20))
def test_adjoint_is_the_transposed_derivative(
    attrs: Attrs, shapes: list[tuple[int, ...]], constants: dict[str, tuple[int, ...]], seed: int
) -> None:
    """<a, op(x + h d) - op(x - h d)> / 2 h = <backwards(a), d>, with steps too small to cross a kink."""
    rng = np.random.default_rng(seed)
    # values 1/7 apart at least, half a unit from every kink
    inputs = [
        (rng.permutation(int(np.prod(s))).reshape(s) / 7 + 0.07 - np.prod(s) / 14).astype(np.float64) for s in shapes
    ]
    if isinstance(attrs, kinds.Activation | kinds.Softmax):
        inputs = [x / 3 + 0.011 for x in inputs]
    own = {name: rng.normal(size=shape) for name, shape in constants.items()}
    steps = [rng.normal(size=shape) for shape in shapes]
    op = Op("op", attrs, tuple(map(str, range(len(shapes)))), ("y",))
    y = evaluate(op, inputs, own)
    a = rng.normal(size=y.shape)
    h = 1e-5
    moved = [evaluate(op, [x + sign * h * d for x, d in zip(inputs, steps, strict=True)], own) for sign in (1, -1)]
    want = float((a * (moved[0] - moved[1])).sum() / (2 * h))
    given_back = backwards(op, inputs, y, a, own, 1e-5)
    assert [g.shape for g in given_back] == shapes
    got = sum(float((g * d).sum()) for g, d in zip(given_back, steps, strict=True))
    # float32 inside, and slopes over a thousandth of the values
    size = sum(float(np.linalg.norm(g) * np.linalg.norm(d)) for g, d in zip(given_back, steps, strict=True))
    assert got == pytest.approx(want, abs=1e-4 * size)


def test_an_op_without_law_is_named() -> None:
    op = Op("odd", kinds.Unknown("aten.odd", (1,)), ("x",), ("y",))
    with pytest.raises(UnsupportedError, match="noise: odd: no adjoint for unknown"):
        backwards(op, [np.zeros(1)], np.zeros(1), np.zeros(1), {}, 0.0)


def _linear() -> tuple[Graph, dict[str, Array], Array]:
    """Convolutions and an average, one output: the derivative is the same everywhere, and z^2 = 1."""
    build = Builder()
    x = build.input("x", (8, 3, 6, 6))
    inner = build.conv("b", "b", build.conv("a", "a", x, 4, kernel_size=3), 4, kernel_size=3, groups=4)
    graph = build.graph(build.linear("y", "y", build.flatten("f", build.op("m", kinds.GlobalPool(), inner)), 1))
    rng = np.random.default_rng(3)
    values = {name: rng.normal(size=t.shape).astype(np.float32) for name, t in graph.constants.items()}
    return graph, values, rng.normal(1.0, 1.0, (8, 3, 6, 6)).astype(np.float32)


def test_prices_of_a_linear_network_are_exact() -> None:
    """Each source's error is made where it stands and sent through the rest of the network."""
    graph, constants, images = _linear()
    quantized, values = quantize(graph, constants, images, numbers=parse_numbers("W4A8"), equalize=False)
    local = Local(graph, constants, quantized, values)
    (sources,) = attribute([local], {"x": images}, probes=1)
    run = list(walk(local, {"x": images}))
    for source in sources:
        want = 0.0
        for index, (op, inputs, y) in enumerate(run):
            if op.name == source.op:
                error = local.rounding_error(op, source.tensor, y, inputs) if source.part == "rounding" else None
                error = local.weight_error(op, inputs) if source.part == "weights" else error
                assert error is not None
                for later, _, _ in run[index + 1 :]:
                    own = {role: v for role, v in local.as_stored(later).items() if role != "bias"}
                    error = evaluate(later, [error], own)
                want = float((error**2).mean())
        if source.op:
            assert source.power == pytest.approx(want, rel=1e-3), source
    assert {(s.op, s.part) for s in sources} >= {
        ("", "rounding"),
        ("a", "weights"),
        ("b", "rounding"),
        ("y", "weights"),
    }
    # channels apart do not know of each other: their prices need not sum to the whole
    assert all(len(s.channels) == graph.tensors[s.tensor].shape[1] for s in sources)


def test_prices_sum_to_the_predicted_noise_where_it_is_weak() -> None:
    from luthier.quant.noise import predict

    graph, constants, images = gated_block(48)
    quantized, values = quantize(graph, constants, images, equalize=False)
    narrow, narrow_values = quantize(
        graph, constants, images, numbers=parse_numbers("W4A8"), correct_bias=False, equalize=False
    )
    local = Local(graph, constants, quantized, values)
    both = attribute([local, Local(graph, constants, narrow, narrow_values)], {"x": images}, probes=8)
    whole = predict(local, {"x": images})
    total = sum(source.power for source in both[0])
    assert 10 * abs(np.log10(total / whole.noise["y"].mean())) < 1.5
    weights = [sum(s.power for s in sources if s.part == "weights") for sources in both]
    assert weights[1] > 30 * weights[0]  # a step of 4 bits is 18 times one of 8: 25 dB


def test_probes_are_checked() -> None:
    graph, constants, images = _linear()
    with pytest.raises(InputError, match="attribute: probes must be at least 1, got 0"):
        attribute([Local(graph, constants, graph, constants)], {"x": images}, probes=0)
