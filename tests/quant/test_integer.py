"""The integer reference against loops that spell the contract out, one number at a time."""

from __future__ import annotations

import math
from dataclasses import replace
from itertools import product
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from luthier.errors import ShapeError
from luthier.graph import Graph, Tensor
from luthier.graph import attrs as kinds
from luthier.graph.builder import Builder
from luthier.graph.integers import in_integers, multipliers, round_to_u8, to_integers, to_reals
from luthier.graph.reference import activate
from luthier.quant import integer

Array = np.ndarray[Any, Any]
F = np.float32
#: exact in float32
SMALL = 0.0625
WEIGHT = (0.01, 0.02, 0.005, 0.03, 0.011, 0.017)


def clamp(value: float, zero: int) -> int:
    """clamp(rint(value) + zero); Python's round takes halves to even, as rint does."""
    return min(max(round(float(value)) + zero, 0), 255)


def one(attrs: Any, *shapes: tuple[int, ...], weight: tuple[int, ...] | None = None, bias: bool = True) -> Graph:
    """A graph of one op; every tensor has a scale and zero point of its own, unless the op keeps its input's."""
    build = Builder()
    names = [build.input(f"x{i}", shape) for i, shape in enumerate(shapes)]
    constants = {}
    if weight is not None:
        scales = WEIGHT[: weight[0]]
        constants["weight"] = Tensor("w", weight, "int8", scales, 0)
        if bias:
            constants["bias"] = Tensor("b", weight[:1], "int32", tuple(0.5 * s for s in scales), 0)
    graph = build.graph(build.op("y", attrs, *names, constants=constants))
    scales = {"x0": (0.5, 100), "x1": (0.25, 31), "y": (0.75, 120)}
    if integer.keeps_scale(graph.ops[0]):
        scales = dict.fromkeys(scales, (0.5, 100))
    return replace(
        graph,
        tensors={
            name: replace(tensor, dtype="int8", scale=scales[name][0], zero_point=scales[name][1])
            for name, tensor in graph.tensors.items()
        },
    )


def stored(graph: Graph, seed: int = 0) -> tuple[list[Array], dict[str, Array], Array]:
    """Random integers for the inputs and constants, and what the op writes."""
    rng = np.random.default_rng(seed)
    inputs = [rng.integers(0, 256, graph.tensors[name].shape).astype(np.uint8) for name in graph.inputs]
    values = {}
    for role, name in graph.ops[0].constants.items():
        low, dtype = (127, np.int8) if role == "weight" else (9000, np.int32)
        values[role] = rng.integers(-low, low + 1, graph.constants[name].shape).astype(dtype)
    return inputs, values, integer.compute(graph, graph.ops[0], inputs, values)


CONVS = {
    "dense": (kinds.Conv(pads=(1, 1, 1, 1)), (2, 3, 5, 4), (4, 3, 3, 3)),
    "uneven": (kinds.Conv((2, 1), (0, 2, 1, 0), (1, 2)), (1, 2, 6, 7), (5, 2, 2, 3)),
    "grouped": (kinds.Conv((1, 2), (1, 0, 0, 1), groups=2), (1, 4, 4, 5), (6, 2, 3, 3)),
    "depthwise": (kinds.Conv((2, 2), (1, 2, 2, 1), groups=5), (1, 5, 7, 6), (5, 1, 5, 5)),
    "pointwise": (kinds.Conv(), (2, 7, 3, 2), (3, 7, 1, 1)),
}


@pytest.mark.parametrize("name", CONVS)
@pytest.mark.parametrize("real", [False, True], ids=["integers", "numbers"])
def test_conv_is_its_sum(name: str, real: bool) -> None:
    attrs, shape, weight_shape = CONVS[name]
    graph = one(attrs, shape, weight=weight_shape)
    if real:
        y = graph.tensors["y"]
        graph = replace(graph, tensors={**graph.tensors, "y": replace(y, dtype="fp32", scale=None, zero_point=None)})
    (x,), values, got = stored(graph)
    weight, bias = values["weight"], values["bias"]
    each, group_channels = weight_shape[0] // attrs.groups, weight_shape[1]
    for n, c, i, j in product(*map(range, got.shape)):
        acc = int(bias[c])
        for k, di, dj in product(*map(range, weight_shape[1:])):
            row = i * attrs.stride[0] + di * attrs.dilation[0] - attrs.pads[0]
            column = j * attrs.stride[1] + dj * attrs.dilation[1] - attrs.pads[1]
            if 0 <= row < shape[2] and 0 <= column < shape[3]:
                q = int(x[n, c // each * group_channels + k, row, column])
                acc += (q - 100) * int(weight[c, k, di, dj])
        if real:
            assert got[n, c, i, j] == F(acc) * F(0.5 * WEIGHT[c])
        else:
            assert got[n, c, i, j] == clamp(F(acc) * F(0.5 * WEIGHT[c] / 0.75), 120)


@pytest.mark.parametrize("features", [11, 700], ids=["float32 sums", "float64 sums"])
def test_linear_is_its_sum(features: int) -> None:
    graph = one(kinds.Linear(), (3, features), weight=(6, features))
    (x,), values, got = stored(graph)
    acc = (x.astype(int) - 100) @ values["weight"].T.astype(int) + values["bias"]
    m = [F(0.5 * s / 0.75) for s in WEIGHT]
    assert got.tolist() == [[clamp(F(a) * m[c], 120) for c, a in enumerate(row)] for row in acc.tolist()]


def test_the_largest_sums_are_exact() -> None:
    """Beyond 2^24 float32 skips integers: 600 products of 255 and 127, and one of 1, is such a sum."""
    graph = one(kinds.Linear(), (1, 601), weight=(1, 601), bias=False)
    graph = replace(graph, tensors={n: replace(t, zero_point=0, scale=1.0) for n, t in graph.tensors.items()})
    weight = np.full((1, 601), 127, np.int8)
    weight[0, 600] = 1
    x = np.full((1, 601), 255, np.uint8)
    x[0, 600] = 1
    assert integer.sums(x, 0, weight, None, kinds.Linear()).item() == 600 * 255 * 127 + 1


@pytest.mark.parametrize("function", ["silu", "hard_swish", "sigmoid", "hard_sigmoid", "gelu", "tanh", "mish"])
def test_a_table_is_the_function(function: Any) -> None:
    attrs = kinds.Activation(function)
    graph = one(attrs, (1, 3, 4, 5))
    graph = replace(graph, tensors={**graph.tensors, "x0": replace(graph.tensors["x0"], scale=SMALL)})
    (x,), _, got = stored(graph)
    for q, y in zip(x.ravel().tolist(), got.ravel().tolist(), strict=True):
        assert y == clamp(activate(np.array(SMALL * (q - 100)), attrs) / 0.75, 120)


@pytest.mark.parametrize("function", ["relu", "relu6", "identity"])
def test_clips_keep_the_integers_they_do_not_clip(function: Any) -> None:
    graph = one(kinds.Activation(function), (4, 64))
    (x,), _, got = stored(graph)
    top = {"relu": 255, "relu6": 112, "identity": 255}[function]  # 100 + 6 / 0.5
    assert np.array_equal(got, np.clip(x, 0 if function == "identity" else 100, top))


def test_add_and_mul_round_each_product() -> None:
    for attrs, other in ((kinds.Add(), (1, 3, 4, 5)), (kinds.Mul(), (1, 3, 4, 5)), (kinds.Mul(), (1, 3, 1, 1))):
        graph = one(attrs, (1, 3, 4, 5), other)
        (a, b), _, got = stored(graph)
        for y, p, q in zip(got.ravel(), a.ravel(), np.broadcast_to(b, a.shape).ravel(), strict=True):
            p, q = int(p) - 100, int(q) - 31
            if isinstance(attrs, kinds.Add):
                want = F(p) * F(0.5 / 0.75) + F(q) * F(0.25 / 0.75)
            else:
                want = F(p * q) * F(0.5 * 0.25 / 0.75)
            assert y == clamp(want, 120)


@pytest.mark.parametrize(
    "attrs",
    [
        kinds.GlobalPool(),
        kinds.AdaptivePool((3, 2)),
        kinds.Pool("avg", (3, 2), (2, 1), (1, 0, 1, 1)),
        kinds.Pool("avg", (3, 2), (2, 1), (1, 0, 1, 1), count_pads=True),
    ],
    ids=["global", "adaptive", "window", "window with pads"],
)
def test_averages_divide_by_the_pixels_they_sum(attrs: Any) -> None:
    graph = one(attrs, (2, 3, 7, 6))
    (x,), _, got = stored(graph)
    for n, c, i, j in product(*map(range, got.shape)):
        if isinstance(attrs, kinds.Pool):
            rows, columns = range(2 * i - 1, 2 * i + 2), range(j, j + 2)
        elif isinstance(attrs, kinds.AdaptivePool):
            rows, columns = range(i * 7 // 3, math.ceil((i + 1) * 7 / 3)), range(j * 3, j * 3 + 3)
        else:
            rows, columns = range(7), range(6)
        inside = [int(x[n, c, r, s]) - 100 for r, s in product(rows, columns) if 0 <= r < 7 and 0 <= s < 6]
        count = len(rows) * len(columns) if getattr(attrs, "count_pads", False) else len(inside)
        assert got[n, c, i, j] == clamp(F(sum(inside)) * F(0.5 / (0.75 * count)), 120)


def test_maxima_ignore_padding() -> None:
    attrs = kinds.Pool("max", (3, 2), (2, 1), (1, 0, 1, 1))
    (x,), _, got = stored(one(attrs, (1, 2, 7, 6)))
    for c, i, j in product(*map(range, got.shape[1:])):
        cells = product(range(2 * i - 1, 2 * i + 2), range(j, j + 2))
        assert got[0, c, i, j] == max(x[0, c, r, s] for r, s in cells if 0 <= r < 7 and 0 <= s < 6)


def test_moves_move_integers() -> None:
    (x,), _, got = stored(one(kinds.Pad(1, 2, (1, 0, 2, 3)), (1, 2, 3, 4)))
    assert got.dtype == np.uint8
    assert np.array_equal(got[:, 1:3, 1:4, :4], x)
    assert got.astype(int).sum() == x.astype(int).sum() + 100 * (got.size - x.size)
    (a, b), _, got = stored(one(kinds.Concat(), (1, 2, 3, 4), (1, 3, 3, 4)))
    assert np.array_equal(got, np.concatenate([a, b], 1))
    (x,), _, got = stored(one(kinds.Shuffle(2), (1, 4, 1, 2)))
    assert np.array_equal(got, x[:, [0, 2, 1, 3]])


def test_an_op_without_integers_runs_on_numbers() -> None:
    graph = one(kinds.Softmax(), (1, 9))
    assert not in_integers(graph, graph.ops[0])
    (x,), _, got = stored(graph)
    reals = np.float32(0.5) * (x.astype(np.float32) - 100)
    shares = np.exp(reals - reals.max())
    assert np.array_equal(got, round_to_u8(shares / shares.sum() / np.float32(0.75), 120))


def test_run_takes_and_returns_numbers() -> None:
    graph = one(kinds.Activation("relu"), (1, 4))
    x = np.array([[-3.0, 0.24, 0.26, 1000.0]], np.float32)
    assert integer.run(graph, {}, {"x0": x})["y"].tolist() == [[0.0, 0.0, 0.5, 77.5]]
    with pytest.raises(ShapeError, match=r"'x0' must have shape \(1, 4\), got \(1, 3\)"):
        integer.run(graph, {}, {"x0": x[:, :3]})
    with pytest.raises(ShapeError, match=r"'x0' must have shape .*, got nothing"):
        integer.run(graph, {}, {})


@given(st.floats(2**-20, 2**20, width=32), st.integers(0, 255), st.integers(0, 255))
def test_integers_survive_the_way_through_numbers(scale: float, zero_point: int, q: int) -> None:
    """An output that is handed out as numbers can be read back by an op in integers."""
    tensor = Tensor("x", (1,), "int8", scale, zero_point)
    assert to_integers(to_reals(np.array([q], np.uint8), tensor), tensor).tolist() == [q]


def test_multipliers_are_rounded_once() -> None:
    graph = one(kinds.Linear(), (1, 2), weight=(2, 2))
    x, y = float(np.float32(0.1)), float(np.float32(0.3))
    tensors = {"x0": replace(graph.tensors["x0"], scale=x), "y": replace(graph.tensors["y"], scale=y)}
    graph = replace(graph, tensors=tensors)
    got = multipliers(graph, graph.ops[0])
    assert got.tolist() == [F(x * s / y) for s in WEIGHT[:2]]
    assert got.dtype == np.float32
