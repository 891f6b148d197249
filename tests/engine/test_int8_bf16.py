"""Products of integers between numbers: kernels against their formulas, and networks against double precision."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.engine.harness import call, spread
from tests.engine.numbers import exact, relative_error

from luthier.deploy.precision import in_number_type
from luthier.engine import Target, compile, runnable
from luthier.engine.kernels.element import BFLOAT16, FP32, Element
from luthier.engine.kernels.int8.quantise import Quantise8
from luthier.engine.kernels.int8.reals import inverse
from luthier.engine.kernels.int8.units import UNIT, units
from luthier.engine.layout import Layout
from luthier.graph import Graph
from luthier.graph.attrs import GlobalPool, GraphFunction, Mul
from luthier.graph.builder import Builder
from luthier.graph.halves import from_bf16, to_bf16
from luthier.graph.integers import in_integers, is_integer, levels
from luthier.graph.mixed import but_products
from luthier.graph.reference import evaluate
from luthier.quant import quantize
from luthier.quant.integer import run
from luthier.schedule import fused

Array = np.ndarray[Any, Any]
TARGETS = pytest.mark.parametrize("target", runnable(), ids=lambda t: t.isa)


@TARGETS
@pytest.mark.parametrize("element", [FP32, BFLOAT16], ids=lambda e: e.name)
@pytest.mark.parametrize("channels", [5, 20, 64, 75])
def test_numbers_times_a_gate_become_integers(target: Target, element: Element, channels: int) -> None:
    """Equation (1) in float32, operation by operation; what is too large is clamped, NaN gives 0."""
    rng, shape = np.random.default_rng(channels), (2, channels, 3, 5)
    x = rng.normal(size=shape).astype(np.float32)
    x[0, 0].ravel()[:4] = np.nan, np.inf, -np.inf, 1e38
    x = from_bf16(to_bf16(x)) if element == BFLOAT16 else x
    gate = rng.uniform(0, 2, (2, channels, 1, 1)).astype(np.float32)
    for gated in (False, True):
        kernel = Quantise8(shape, target.lanes, element, gated, parts=2)
        operands = {
            "x": spread(x, Layout.padded(shape, target.lanes), element),
            "y": np.full(2 * 15 * units(channels) * UNIT, 7, np.uint8),
            "inverse": inverse(np.float32(0.013), 101),
            "gate": spread(gate, Layout.padded(gate.shape, target.lanes)),
        }
        got = call(target, kernel, operands)["y"].reshape(2, 3, 5, -1)[..., :channels].transpose(0, 3, 1, 2)
        with np.errstate(invalid="ignore", over="ignore"):
            value = (x * gate if gated else x) * np.float32(1 / np.float64(np.float32(0.013)))
            want = np.where(np.isnan(value), 0, np.clip(np.rint(value) + 101, 0, 255))
        np.testing.assert_array_equal(got, want)


def _layer(depthwise: bool, function: GraphFunction, residual: bool, channels: int) -> Graph:
    """A product, its activation, perhaps a sum; and a gate behind it, so that it is kept as numbers."""
    build = Builder()
    x = build.input("x", (1, channels, 6, 7))
    groups, kernel_size = (channels, 3) if depthwise else (1, 1)
    y = build.activation(
        "act", build.conv("p", "p", x, channels, kernel_size=kernel_size, groups=groups, bias=True), function
    )
    return build.graph(build.add("sum", y, x) if residual else y)


def _bound(graph: Graph, constants: dict[str, Array], quantised: Graph, x: Array) -> Array:
    """How far sums may be from float64, by docs/engine.md: K taps, x within its range, |error| per output channel.

    s_x / 2 sum|w|  +  s_w / 2 sum|x|  +  K s_x s_w / 4  +  s_x s_w / 2
    """
    weight = constants["p.weight"].astype(np.float64)
    s_x = float(levels(quantised.tensors["x"])[0])
    s_w = np.array(quantised.constants["p.weight"].scale).reshape(1, -1, 1, 1)
    absolute = {"p.weight": np.ones_like(weight), "p.bias": np.zeros(len(weight))}
    near = evaluate(
        graph.ops[0], [np.abs(x).astype(np.float64)], {"weight": absolute["p.weight"], "bias": absolute["p.bias"]}
    )
    sums = np.abs(weight).reshape(len(weight), -1).sum(1).reshape(1, -1, 1, 1)
    return np.asarray(s_x / 2 * sums + s_w / 2 * near + weight[0].size * s_x * s_w / 4 + s_x * s_w / 2)


@settings(max_examples=20)
@given(
    depthwise=st.booleans(), function=st.sampled_from(["identity", "relu6", "silu", "hard_swish", "gelu", "sigmoid"]),
    residual=st.booleans(), channels=st.sampled_from([5, 16, 40]), target=st.sampled_from(runnable()),
    seed=st.integers(0, 99),
)  # fmt: skip
def test_a_layer_keeps_its_bound(
    depthwise: bool, function: GraphFunction, residual: bool, channels: int, target: Target, seed: int
) -> None:
    graph = _layer(depthwise, function, residual, channels)
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(1, channels, 6, 7)).astype(np.float32)
    constants = {name: rng.normal(size=t.shape).astype(np.float32) for name, t in graph.constants.items()}
    kept = but_products(graph)
    assert kept == {op.name for op in graph.ops} - {"p"}
    how: dict[str, Any] = {"products_only": True, "observer": "minmax", "correct_bias": False}
    quantised, values = quantize(graph, constants, x, **how)
    got = compile(quantised, values, target=target, debug=True)(x)
    # no function here is steeper than 1.13; the output itself is float32, and coarse functions are within 2^-12
    limit = (
        1.13 * _bound(graph, constants, quantised, x) + 2**-12 + (levels(quantised.tensors["x"])[0] if residual else 0)
    )
    assert np.all(np.abs(got - exact(graph, constants, x)) <= limit)


def _gated(build: Builder) -> str:
    """Two blocks with a gate and a residual: the stream, and what is gated, are numbers."""
    x = build.conv("stem", "stem", build.input("x", (2, 3, 14, 14)), 24, kernel_size=3, bias=True)
    for name in ("one", "two"):
        y = build.activation(f"{name}.a", build.conv(f"{name}.e", f"{name}.e", x, 52, bias=True), "hard_swish")
        y = build.activation(
            f"{name}.b", build.conv(f"{name}.d", f"{name}.d", y, 52, kernel_size=5, groups=52, bias=True), "silu"
        )
        gate = build.op(f"{name}.mean", GlobalPool("avg"), y)
        gate = build.activation(f"{name}.r", build.conv(f"{name}.s", f"{name}.s", gate, 9, bias=True), "relu")
        gate = build.activation(f"{name}.g", build.conv(f"{name}.x", f"{name}.x", gate, 52, bias=True), "sigmoid")
        y = build.op(f"{name}.scale", Mul(), y, gate)
        x = build.add(f"{name}.sum", build.conv(f"{name}.p", f"{name}.p", y, 24, bias=True), x)
    return build.conv("last", "last", build.op("mean", GlobalPool("avg"), x), 10, bias=True)


def _made(seed: int = 0) -> tuple[Graph, dict[str, Array], Array]:
    build = Builder()
    graph = build.graph(_gated(build))
    rng = np.random.default_rng(seed)
    constants = {
        name: (rng.normal(size=t.shape) / max(1, np.prod(t.shape[1:])) ** 0.5).astype(np.float32)
        for name, t in graph.constants.items()
    }
    return graph, constants, rng.normal(size=(2, 3, 14, 14)).astype(np.float32)


def test_what_is_stored_as_what() -> None:
    graph, constants, x = _made()
    mixed, _ = in_number_type(graph, constants, "int8_bf16", x)
    kinds = {name: (tensor.dtype, tensor.scale is not None) for name, tensor in mixed.tensors.items()}
    assert kinds["x"] == ("int8", True)  # of the caller
    assert kinds["one.a"] == ("int8", True)  # the depthwise convolution alone reads it
    assert kinds["one.b"] == ("bf16", False)  # pooled, and multiplied
    assert kinds["one.scale"] == ("int8", True)
    assert kinds["stem"] == kinds["one.sum"] == ("bf16", True)  # the stream: added to, and read by a product
    assert kinds["two.sum"] == ("bf16", False)
    assert kinds["one.mean"] == kinds["one.g"] == ("fp32", False)  # few, and they meet every pixel
    assert kinds["mean"] == ("int8", True)
    products = {op.name for op in mixed.ops if in_integers(mixed, op)}
    assert products == {"stem", "one.e", "one.d", "one.p", "two.e", "two.d", "two.p", "last"}
    assert not any(is_integer(mixed.tensors[name]) for name in ("stem", "one.sum"))
    assert mixed.constants["one.s.weight"].dtype == "bf16"


@TARGETS
@pytest.mark.parametrize("threads", [1, 3])
def test_gates_and_residuals(target: Target, threads: int) -> None:
    """The reference rounds to integers where the plan does, and every number to bf16, also those that a step
    never stores: half a step of bf16 each.
    """
    graph, constants, x = _made()
    mixed, values = in_number_type(graph, constants, "int8_bf16", x)
    plan = compile(mixed, values, target=target, threads=threads, debug=True, schedule=fused(mixed, rows=5))
    got = plan(x)
    assert np.array_equal(plan(x), got)
    plan.close()
    want = run(mixed, values, {"x": x})["last"]
    assert relative_error(got, want) <= 2**-6
    assert relative_error(got, exact(graph, constants, x)) <= 2**-4
    kinds = {op.name: op.kind for op in mixed.ops}
    joined = [record for record in plan.image.records if sum(kinds.get(name) == "conv" for name in record.ops) > 1]
    assert len(joined) == 2  # each block's expansion with its depthwise convolution


def test_it_is_nearer_than_integers_alone() -> None:
    errors = {"int8": 0.0, "int8_bf16": 0.0}
    for seed in range(8):
        graph, constants, x = _made(seed)
        want = exact(graph, constants, x)
        for dtype in errors:
            got = run(*in_number_type(graph, constants, dtype, x), {"x": x})["last"]  # type: ignore[arg-type]
            errors[dtype] += float(np.square(got - want).mean() / np.square(want).mean())
    assert errors["int8_bf16"] < 0.8 * errors["int8"], errors
