"""Quantised networks in the engine: every output has the bits of the integer reference."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import pytest
from tests.engine.numbers import graph_with_numbers
from tests.quant.test_quantize import small

from luthier.arch.presets import get
from luthier.engine import compile
from luthier.engine.target import Target, runnable
from luthier.errors import InputError, ShapeError
from luthier.graph import Graph
from luthier.graph.attrs import (
    AdaptivePool,
    Concat,
    Conv,
    GlobalPool,
    Pad,
    Pool,
    Shuffle,
    Slice,
    Softmax,
    Subsample,
)
from luthier.graph.builder import Builder
from luthier.graph.integers import in_integers
from luthier.graph.op import Tensor
from luthier.graph.untrained import random_weights
from luthier.quant import quantize
from luthier.quant.integer import run

Array = np.ndarray[Any, Any]
#: this CPU as one without vectors of bytes: the code that microcontrollers get
NARROW = replace(runnable()[-1], isa="scalar", lanes=4, registers=8)
TARGETS = pytest.mark.parametrize("target", [*runnable(), NARROW], ids=lambda t: t.isa)


#: functions by table, so that plan and reference agree in every bit
_integers = partial(quantize, from_sums=())


def _images(shape: tuple[int, ...], seed: int = 0) -> Array:
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def _quantised(graph: Graph, seed: int = 0) -> tuple[Graph, dict[str, Array]]:
    """A graph with small random weights, quantised on noise."""
    rng = np.random.default_rng(seed)
    values = {
        name: rng.normal(size=tensor.shape) / max(1, np.prod(tensor.shape[1:])) ** 0.5
        for name, tensor in graph.constants.items()
    }
    shape = graph.tensors[graph.inputs[0]].shape
    return _integers(graph, values, _images((4 * shape[0], *shape[1:]), seed))


def _check(graph: Graph, constants: dict[str, Array], x: Array, **how: Any) -> None:
    want = run(graph, constants, {graph.inputs[0]: x})[graph.outputs[0]]
    for debug in (False, True):
        plan = compile(graph, constants, debug=debug, **how)
        np.testing.assert_array_equal(plan(x), want)
        plan.close()


@TARGETS
@pytest.mark.parametrize("name", ["mbconv_thumbnail", "mobilenet_v3_small", "resnet20"])
def test_presets(target: Target, name: str) -> None:
    network = get(name)
    x = _images((1, network.in_channels, 33, 33))
    graph, constants = graph_with_numbers(network, resolution=33)
    _check(*_integers(graph, constants, np.concatenate([x, _images(x.shape, 1)])), x, target=target)


@pytest.mark.parametrize("threads", [2, 3])
def test_threads_and_batches_change_nothing(threads: int) -> None:
    x = _images((3, 3, 32, 32))
    graph, constants = graph_with_numbers(get("mobilenet_v3_small"), batch=3, resolution=32)
    _check(*_integers(graph, constants, x), x, threads=threads)


@TARGETS
def test_a_function_of_sums(target: Target) -> None:
    """Between a sum and integers hard-swish and its factors are fp32: a last bit may move few integers by one."""
    graph, constants, images = small()
    quantised, values = quantize(graph, constants, images)
    assert [op.kind for op in quantised.ops if not in_integers(quantised, op)] == ["activation", "affine"]
    want = run(quantised, values, {"x": images[:4]})["y"]
    plan = compile(quantised, values, target=target, debug=True)
    assert np.abs(plan(images[:4]) - want).max() <= 1e-2 * np.abs(want).max()
    plan.close()


@TARGETS
@pytest.mark.parametrize("kept", ["b", "c", "d"])
def test_one_product_stays_in_fp32(target: Target, kept: str) -> None:
    """Dense, depthwise or pointwise between integers: only its own sums may differ in a last bit."""
    build = Builder()
    x = build.conv("a", "a", build.input("x", (1, 3, 9, 9)), 8, kernel_size=3, bias=True)
    for name, size, groups in (("b", 3, 1), ("c", 3, 8), ("d", 1, 1)):
        x = build.activation(f"{name}.act", build.conv(name, name, x, 8, kernel_size=size, groups=groups), "relu")
    graph = build.graph(build.conv("e", "e", x, 5))
    images = _images((4, 3, 9, 9))
    quantised, values = _integers(graph, random_weights(graph), images, keep=[kept])
    want = run(quantised, values, {"x": images[:1]})["e"]
    plan = compile(quantised, values, target=target, debug=True)
    assert np.abs(plan(images[:1]) - want).max() <= 1e-2 * np.abs(want).max()
    plan.close()


def _groups(build: Builder) -> str:
    """Groups narrower than a unit, and wider; a stride, and pixels that lie apart."""
    x = build.activation("act", build.conv("a", "a", build.input("x", (2, 6, 9, 11)), 40, kernel_size=3), "relu")
    x = build.conv("b", "b", x, 24, kernel_size=3, groups=8, bias=True)
    x = build.conv("c", "c", x, 96, kernel_size=3, stride=2, groups=2)
    x = build.op(
        "far", Conv(pads=(2, 2, 2, 2), dilation=(2, 2)), x, constants={"weight": Tensor("far.w", (7, 96, 3, 3))}
    )
    return build.conv("d", "d", x, 14, groups=7)


def _pools(build: Builder) -> str:
    x = build.input("x", (1, 18, 13, 9))
    for count_pads in (False, True):
        x = build.op(f"avg{count_pads}", Pool("avg", (3, 2), (1, 2), (1, 1, 1, 0), count_pads), x)
    x = build.op("max", Pool("max", (3, 3), (1, 1), (1, 1, 1, 1)), x)
    x = build.op("grid", AdaptivePool((5, 2)), x)
    return build.linear("fc", "fc", build.flatten("flat", x), 21)


def _moves(build: Builder) -> str:
    """Everything that changes no integer, and a softmax in fp32 between integers."""
    x = build.conv("a", "a", build.input("x", (2, 5, 8, 6)), 20, kernel_size=3)
    x = build.op("cat", Concat(), x, build.activation("tanh", x, "tanh"))
    x = build.op("shuffle", Shuffle(4), build.op("slice", Slice(1, 3, 35), x))
    x = build.op("rows", Slice(2, 1, 7), build.op("pad", Pad(2, 3, (0, 1, 1, 0)), x))
    x = build.op("softmax", Softmax(), build.op("sub", Subsample((2, 3)), x))
    return build.conv("b", "b", build.op("global", GlobalPool("max"), x), 4)


def _arithmetic(build: Builder) -> str:
    """Sums and products of tensors, of a tensor with itself, with a map of one channel, and with one pixel."""
    x = build.input("x", (2, 20, 7, 5))
    gate = build.activation("map", build.conv("a", "a", x, 1, kernel_size=3), "sigmoid")
    x = build.activation("relu", build.add("twice", build.mul("gated", x, gate), x), "relu")
    pixel = build.activation("pixel", build.conv("b", "b", build.op("mean", GlobalPool(), x), 20), "hard_sigmoid")
    x = build.activation("silu", build.add("more", x, pixel), "silu")
    return build.conv("c", "c", build.mul("square", x, x), 9)


_BODIES = {"groups": _groups, "pools": _pools, "moves": _moves, "arithmetic": _arithmetic}


@TARGETS
@pytest.mark.parametrize("kind", sorted(_BODIES))
def test_what_presets_lack(target: Target, kind: str) -> None:
    build = Builder()
    x = _BODIES[kind](build)
    graph = build.graph(x)
    quantised, constants = _quantised(graph)
    _check(quantised, constants, _images(graph.tensors[graph.inputs[0]].shape, 3), target=target)


def test_several_outputs_and_integers_as_outputs() -> None:
    """An output that is also read; one that no product makes; and the input itself as NHWC."""
    build = Builder()
    a = build.activation("act", build.conv("a", "a", build.input("x", (1, 4, 6, 6)), 10, kernel_size=3), "silu")
    graph = build.graph(a, build.op("pool", Pool("max", (2, 2), (2, 2)), a))
    quantised, constants = _quantised(graph)
    x = _images((1, 4, 6, 6), 5)
    want = run(quantised, constants, {"x": x})
    got = compile(quantised, constants, order="nhwc")(np.ascontiguousarray(x.transpose(0, 2, 3, 1)))
    for name, value in zip(graph.outputs, got, strict=True):
        np.testing.assert_array_equal(value.transpose(0, 3, 1, 2), want[name])


def test_refuses_what_32_bits_do_not_hold() -> None:
    """255 * 127 * 70,000 is more than 2^31.  Quantising leaves such a layer alone; a graph made by hand is refused."""
    build = Builder()
    graph = build.graph(build.linear("fc", "fc", build.input("x", (1, 70_000)), 2))
    values = {"fc.weight": np.ones((2, 70_000)), "fc.bias": np.zeros(2)}
    left, _ = _integers(graph, values, _images((2, 70_000)))
    assert {tensor.dtype for tensor in left.constants.values()} == {"fp32"}
    levels = {"x": {"dtype": "int8", "scale": 1.0, "zero_point": 0}}
    kinds = {
        "fc.weight": {"dtype": "int8", "scale": (1.0, 1.0), "zero_point": 0},
        "fc.bias": {"dtype": "int32", "scale": (1.0, 1.0), "zero_point": 0},
    }
    by_hand = replace(
        graph,
        tensors={name: replace(tensor, **levels.get(name, {})) for name, tensor in graph.tensors.items()},
        constants={name: replace(tensor, **kinds[name]) for name, tensor in graph.constants.items()},
    )
    constants = {"fc.weight": np.full((2, 70_000), 127, np.int8), "fc.bias": np.zeros(2, np.int32)}
    with pytest.raises(InputError, match=r"engine: fc: a sum of products may reach 2,266,9.*, 32 bits hold less"):
        compile(by_hand, constants)


def test_refuses_constants_of_another_shape() -> None:
    build = Builder()
    quantised, constants = _quantised(build.graph(build.conv("a", "a", build.input("x", (1, 3, 4, 4)), 2)))
    constants["a.weight"] = constants["a.weight"][:1]
    with pytest.raises(ShapeError, match=r"engine: constant 'a.weight' must have shape \(2, 3, 1, 1\)"):
        compile(quantised, constants)
