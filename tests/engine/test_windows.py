"""Depthwise and general convolutions and pools against the NumPy reference, exactly, for every vector width."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.engine.harness import Array, call, integers, spread, view

from luthier.engine.kernels.banded import Banded, banded
from luthier.engine.kernels.conv import Convolution, convolution
from luthier.engine.kernels.depthwise import Depthwise, depthwise
from luthier.engine.kernels.element import BFLOAT16, FP32, Element, Types
from luthier.engine.kernels.epilogue import Epilogue
from luthier.engine.kernels.kernel import Kernel
from luthier.engine.kernels.pool import Pooling, global_pooling
from luthier.engine.kernels.register_block import Block
from luthier.engine.kernels.window import Window
from luthier.engine.layout import Layout
from luthier.engine.target import Target, host, runnable
from luthier.graph.attrs import Conv, Pool
from luthier.graph.halves import as_stored
from luthier.graph.reference import FUNCTIONS, adaptive_pool2d, conv2d, pool2d
from luthier.graph.shapes import out_size

TARGETS = pytest.mark.parametrize("target", runnable(), ids=lambda t: t.isa)
WIDTHS = [7, 8, 9, 31, 32, 33]


def window(in_hw: tuple[int, int], kernel: int, stride: int = 1, pads: Any = None, dilation: int = 1) -> Window:
    side = dilation * (kernel - 1) // 2
    pads = (side,) * 4 if pads is None else pads
    out = tuple(out_size(in_hw[a], kernel, stride, pads[a], pads[a + 2], dilation) for a in (0, 1))
    return Window(in_hw, out, (kernel, kernel), (stride, stride), pads, (dilation, dilation))  # type: ignore[arg-type]


def attrs(w: Window, groups: int) -> Conv:
    return Conv(w.stride, w.pads, w.dilation, groups)


def run(target: Target, kernel: Kernel, operands: dict[str, Array], out: Layout, y: Element = FP32) -> dict[str, Array]:
    got = call(target, kernel, {**operands, "y": spread(np.full(out.shape, np.nan), out, y)})
    return {**got, "y": view(got["y"], out)}


def finish(sums: Array, residual: Array, epilogue: Epilogue) -> Array:
    y = FUNCTIONS[epilogue.activation](sums)
    return FUNCTIONS[epilogue.after](y + residual) if epilogue.residual else y


def check_depthwise(target: Target, kernel: Depthwise) -> None:
    rng = np.random.default_rng(kernel.channels)
    w, n, c = kernel.window, kernel.images, kernel.channels
    x, weight, bias = integers(rng, n, c, *w.in_hw), integers(rng, c, 1, *w.kernel), integers(rng, c)
    residual = integers(rng, n, c, *w.out_hw)
    out = Layout.padded(residual.shape, target.lanes)
    packed, behind = kernel.pack(weight, bias)
    sums = Layout.padded((n, c, kernel.row_tasks, 1), target.lanes)
    operands = {
        "x": spread(x, Layout.padded(x.shape, target.lanes), kernel.types.x), "weight": packed, "bias": behind,
        "residual": spread(residual, out, kernel.types.y), "sums": np.full(sums.extent, np.nan, np.float32),
    }  # fmt: skip
    got = run(target, kernel, operands, out, kernel.types.y)
    want = finish(conv2d(x, weight, bias, attrs(w, c)), residual, kernel.epilogue)
    np.testing.assert_array_equal(got["y"], as_stored(want, kernel.types.y.name))
    if kernel.sums:
        np.testing.assert_array_equal(view(got["sums"], sums).sum((2, 3)), want.sum((2, 3)))


def check_conv(target: Target, kernel: Convolution) -> None:
    rng = np.random.default_rng(kernel.columns)
    w, (n, c, _, _), groups = kernel.window, kernel.source.shape, kernel.groups
    x, bias = integers(rng, *kernel.source.shape), integers(rng, kernel.columns)
    weight = integers(rng, kernel.columns, c // groups, *w.kernel)
    residual = integers(rng, n, kernel.columns, *w.out_hw)
    out = Layout.padded(residual.shape, target.lanes)
    packed, behind = kernel.pack(weight, bias)
    operands = {
        "x": spread(x, kernel.source, kernel.types.x), "weight": packed, "bias": behind, "starts": kernel.starts(),
        "residual": spread(residual, out, kernel.types.y),
    }  # fmt: skip
    want = finish(conv2d(x, weight, bias, attrs(w, groups)), residual, kernel.epilogue)
    got = run(target, kernel, operands, out, kernel.types.y)["y"]
    np.testing.assert_array_equal(got, as_stored(want, kernel.types.y.name))


@TARGETS
@pytest.mark.parametrize("channels", WIDTHS)
@pytest.mark.parametrize("columns", [1, 4, 5, 9, 10, 11])
def test_depthwise_around_the_tile(target: Target, channels: int, columns: int) -> None:
    shape = window((7, columns), 3)
    check_depthwise(target, Depthwise(2, channels, shape, target.lanes, 5, 1, row_tasks=2, sums=True))


@TARGETS
@pytest.mark.parametrize("kernel", [1, 3, 5, 7])
@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("pads", [None, (0, 0, 1, 1), (3, 2, 1, 0)])
def test_depthwise_windows(target: Target, kernel: int, stride: int, pads: Any) -> None:
    shape = window((11, 23), kernel, stride, pads)
    check_depthwise(target, depthwise(target, 1, 24, shape, epilogue=Epilogue("relu6", True, "relu"), sums=True))


@TARGETS
@pytest.mark.parametrize("columns", WIDTHS)
@pytest.mark.parametrize("layout", ["padded", "nchw", "nhwc"])
def test_conv_around_the_block(target: Target, columns: int, layout: str) -> None:
    shape = window((5, 13), 3, 2)
    source = {
        "padded": Layout.padded((2, 5, 5, 13), target.lanes),
        "nchw": Layout.nchw((2, 5, 5, 13)),
        "nhwc": Layout.nhwc((2, 5, 5, 13)),
    }[layout]
    check_conv(target, Convolution(source, columns, shape, 1, target.lanes, Block(4, 2), 2, 2, Epilogue("relu")))


@TARGETS
@pytest.mark.parametrize(
    ("channels", "columns", "groups"), [(6, 6, 3), (8, 64, 2), (12, 24, 12), (40, 80, 5), (33, 3, 3)]
)
def test_groups(target: Target, channels: int, columns: int, groups: int) -> None:
    source = Layout.padded((1, channels, 6, 7), target.lanes)
    check_conv(target, convolution(target, source, columns, window((6, 7), 3), groups))


@TARGETS
@pytest.mark.parametrize("channels", [228, 512])
@pytest.mark.parametrize("pads", [None, (0, 2, 2, 0)])
def test_long_sums_in_parts(target: Target, channels: int, pads: Any) -> None:
    """Nine taps of 228 channels are just more than two parts; above and beside the image whole taps are missing."""
    source = Layout.padded((1, channels, 4, 5), target.lanes)
    check_conv(target, convolution(target, source, 2 * target.lanes + 1, window((4, 5), 3, pads=pads)))
    bf16 = Types(BFLOAT16, BFLOAT16, FP32)
    check_conv(target, convolution(target, source, 9, window((4, 5), 3, pads=pads), types=bf16))


@TARGETS
@pytest.mark.parametrize("rows", [1, 3, 20])
@pytest.mark.parametrize(("kernel", "stride", "pads", "dilation"), [
    (3, 1, None, 1), (3, 2, (0, 0, 1, 1), 1), (5, 1, None, 2), (7, 2, (5, 3, 4, 6), 1), (1, 2, None, 1),
    (2, 3, (0, 1, 0, 0), 1),
])  # fmt: skip
@pytest.mark.parametrize("parts", [1, 3])
def test_bands(target: Target, rows: int, kernel: int, stride: int, pads: Any, dilation: int, parts: int) -> None:
    """Equal to the two convolutions one after the other, whatever the band and however the rows are shared out."""
    rng = np.random.default_rng(rows)
    shape = window((13, 9), kernel, stride, pads, dilation)
    if shape.out_hw[0] < parts:
        return
    first = window((25, 18), 3, 2, (1, 0, 1, 1))
    channels, source = 2 * target.lanes + 5, Layout.nchw((2, 3, 25, 18))
    producer = Convolution(source, channels, first, 1, target.lanes, Block(4, 2), epilogue=Epilogue("relu6"))
    consumer = Depthwise(2, channels, shape, target.lanes, 5, 1, parts, Epilogue("relu"), sums=True)
    x, dense, bias = integers(rng, 2, 3, 25, 18), integers(rng, channels, 3, 3, 3), integers(rng, channels)
    deep = integers(rng, channels, 1, kernel, kernel)
    packed, behind = consumer.pack(deep, bias)
    first_packed, first_behind = producer.pack(dense, bias)
    sums = Layout.padded((2, channels, parts, 1), target.lanes)
    operands = {
        "x": spread(x, source), "first_weight": first_packed, "first_bias": first_behind, "weight": packed,
        "bias": behind, "sums": np.full(sums.extent, np.nan, np.float32),
    }  # fmt: skip
    got = run(
        target, Banded(producer, consumer, rows), operands, Layout.padded((2, channels, *shape.out_hw), target.lanes)
    )
    between = np.clip(conv2d(x, dense, bias, attrs(first, 1)), 0, 6)
    want = np.maximum(conv2d(between, deep, bias, attrs(shape, channels)), 0)
    np.testing.assert_array_equal(got["y"], want)
    np.testing.assert_array_equal(view(got["sums"], sums).sum((2, 3)), want.sum((2, 3)))


@settings(max_examples=25)
@given(st.data())
def test_any_convolution(data: st.DataObject) -> None:
    draw = data.draw
    target = draw(st.sampled_from(runnable()))
    kernel, stride, dilation = (draw(st.integers(1, top)) for top in (5, 3, 3))
    pads = tuple(draw(st.integers(0, 4)) for _ in range(4))
    reach = dilation * (kernel - 1) + 1
    in_hw = tuple(draw(st.integers(max(1, reach - pads[a] - pads[a + 2]), reach + 9)) for a in (0, 1))
    shape = window(in_hw, kernel, stride, pads, dilation)  # type: ignore[arg-type]
    groups = draw(st.sampled_from([1, 1, 2, 3]))
    if draw(st.booleans()):
        source = Layout.padded((draw(st.integers(1, 2)), groups * draw(st.integers(1, 9)), *in_hw), target.lanes)
        check_conv(target, convolution(target, source, groups * draw(st.integers(1, 20)), shape, groups))
    else:
        check_depthwise(target, depthwise(target, draw(st.integers(1, 2)), draw(st.integers(2, 40)), shape, sums=True))


@TARGETS
@pytest.mark.parametrize("reduce", ["max", "avg"])
@pytest.mark.parametrize("count_pads", [False, True])
@pytest.mark.parametrize(
    ("kernel", "stride", "pads"), [(2, 2, (0, 0, 0, 0)), (3, 2, (1, 1, 1, 1)), (3, 1, (0, 2, 1, 1))]
)
def test_pools(target: Target, reduce: Any, count_pads: bool, kernel: int, stride: int, pads: Any) -> None:
    rng = np.random.default_rng(0)
    shape = window((9, 8), kernel, stride, pads)
    x = integers(rng, 2, 33, 9, 8)
    divisor = kernel * kernel if count_pads else None
    out = Layout.padded((2, 33, *shape.out_hw), target.lanes)
    pool = Pooling(2, 33, shape, target.lanes, reduce, False, divisor)
    got = run(target, pool, {"x": spread(x, Layout.padded(x.shape, target.lanes))}, out)["y"]
    want = pool2d(x, Pool(reduce, shape.kernel, shape.stride, pads, count_pads))
    np.testing.assert_allclose(got, want, rtol=1e-6)  # one division


@TARGETS
@pytest.mark.parametrize("out_hw", [(1, 1), (3, 2), (7, 9), (5, 11)])
def test_adaptive_pools(target: Target, out_hw: tuple[int, int]) -> None:
    x = integers(np.random.default_rng(0), 1, 140, 7, 9)
    shape = Window((7, 9), out_hw, (1, 1), (1, 1))
    out = Layout.padded((1, 140, *out_hw), target.lanes)
    pool = Pooling(1, 140, shape, target.lanes)
    got = run(target, pool, {"x": spread(x, Layout.padded(x.shape, target.lanes))}, out)["y"]
    np.testing.assert_allclose(got, adaptive_pool2d(x.astype(np.float64), out_hw), rtol=1e-6)  # one division
    assert global_pooling(target, 1, 140, (7, 9)).window.out_hw == (1, 1)


BF16 = Types(BFLOAT16, BFLOAT16, BFLOAT16)
KINDS = {t.isa: t for t in runnable()} | {"without_tiles": replace(host(), has_matrix=False)}
EVERY_KIND = pytest.mark.parametrize("target", KINDS.values(), ids=KINDS)


@EVERY_KIND
@pytest.mark.parametrize("channels", [3, 16, 24, 33])
@pytest.mark.parametrize(("kernel", "stride"), [(1, 1), (1, 2), (3, 2)])
def test_convolutions_in_bf16(target: Target, channels: int, kernel: int, stride: int) -> None:
    """Of small integers every sum is exact; what is stored is rounded once."""
    shape, source = window((5, 37), kernel, stride), Layout.padded((2, channels, 5, 37), target.lanes)
    epilogue = Epilogue("relu", True, "relu6")
    made = convolution(target, source, 40, shape, epilogue=epilogue, types=BF16, least_tasks=4)
    assert made.matrix == (target.has_matrix and kernel == 1 and channels != 3), "an odd K below a step"
    check_conv(target, made)
    check_depthwise(target, depthwise(target, 2, channels, shape, epilogue=epilogue, sums=True, types=BF16))


@EVERY_KIND
@pytest.mark.parametrize("hw", [(7, 7), (14, 14), (5, 37)])
@pytest.mark.parametrize("rows", [None, 2])
@pytest.mark.parametrize("stride", [1, 2])
def test_bands_in_bf16(target: Target, hw: tuple[int, int], rows: int | None, stride: int) -> None:
    """A pointwise producer, by rows or the whole map at once; what lies between is not rounded."""
    rng = np.random.default_rng(0)
    channels, first, shape = 2 * target.lanes + 5, window(hw, 1), window(hw, 3, stride)
    source = Layout.padded((2, 24, *hw), target.lanes)
    producer = convolution(target, source, channels, first, epilogue=Epilogue("relu6"), types=replace(BF16, y=FP32))
    consumer = depthwise(target, 2, channels, shape, least_tasks=1, types=replace(BF16, x=FP32, w=FP32))
    kernel = banded(target, producer, consumer, rows)
    assert kernel.is_flat == (target.has_matrix and rows is None)
    x, dense, bias = integers(rng, 2, 24, *hw), integers(rng, channels, 24, 1, 1), integers(rng, channels)
    deep = integers(rng, channels, 1, 3, 3)
    packed, behind = kernel.consumer.pack(deep, bias)
    first_packed, first_behind = kernel.producer.pack(dense, bias)
    operands = {
        "x": spread(x, source, BFLOAT16), "first_weight": first_packed, "first_bias": first_behind,
        "weight": packed, "bias": behind,
    }  # fmt: skip
    got = run(target, kernel, operands, Layout.padded((2, channels, *shape.out_hw), target.lanes), BFLOAT16)
    between = np.clip(conv2d(x, dense, bias, attrs(first, 1)), 0, 6)
    want = conv2d(between, deep, bias, attrs(shape, channels))
    np.testing.assert_array_equal(got["y"], as_stored(want, "bf16"))


@EVERY_KIND
@pytest.mark.parametrize("reduce", ["max", "avg"])
def test_pools_in_bf16(target: Target, reduce: Any) -> None:
    x, shape = integers(np.random.default_rng(0), 2, 33, 9, 8), window((9, 8), 2, 2, (0, 0, 0, 0))
    out = Layout.padded((2, 33, *shape.out_hw), target.lanes)
    pool = Pooling(2, 33, shape, target.lanes, reduce, False, types=BF16)
    operands = {"x": spread(x, Layout.padded(x.shape, target.lanes), BFLOAT16)}
    want = pool2d(x, Pool(reduce, shape.kernel, shape.stride, shape.pads, False))
    np.testing.assert_array_equal(run(target, pool, operands, out, BFLOAT16)["y"], as_stored(want, "bf16"))
