"""Kernels on bytes against the formulas written out in NumPy, equal to the last bit, for every instruction set."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from tests.engine.harness import call

from luthier.device.jit import assemble
from luthier.device.matrix_unit import permitted
from luthier.engine.emit import Module
from luthier.engine.kernels.int8.conv import Convolution8, convolution8
from luthier.engine.kernels.int8.convert import Convert
from luthier.engine.kernels.int8.depthwise import depthwise8
from luthier.engine.kernels.int8.geometry import Geometry
from luthier.engine.kernels.int8.reals import Reals
from luthier.engine.kernels.int8.result import Activation8, Result, is_wide, numbers
from luthier.engine.kernels.int8.units import SLACK, UNIT, has, units
from luthier.engine.kernels.kernel import Body
from luthier.engine.kernels.register_block import Block
from luthier.engine.kernels.window import Window
from luthier.engine.layout import Layout, round_up
from luthier.engine.target import Target, neon, runnable
from luthier.graph.attrs import Pads, Pair

Array = np.ndarray[Any, Any]


def _targets() -> list[Any]:
    """Every width of this machine, and its widest ones without, or with, their products of bytes."""
    found = {target.isa: target for target in runnable()}
    if "avx512" in found:
        found["avx512_no_vnni"] = replace(found["avx512"], cpu="x86-64-v4", features="", has_matrix=False)
    if "avx2" in found and has(runnable()[0], "avxvnni"):
        found["avx2_vnni"] = replace(found["avx2"], features="+avxvnni")
    return [pytest.param(target, id=name) for name, target in found.items()]


TARGETS = pytest.mark.parametrize("target", _targets())
_HAS_TILES = has(runnable()[0], "amx-int8") and permitted()
_ZERO_X, _ZERO_Y, _ZERO_R, _ZERO_AFTER = 113, 87, 100, 31
_BOUNDS, _BOUNDS_AFTER = (90, 200), (31, 150)
_SCALES = (np.float32(0.77), np.float32(0.61))


def _operands(rng: np.random.Generator, channels: int, weight: Array) -> dict[str, Array]:
    """What every product reads besides x; `weight` (C_out, ...)."""
    bias = rng.integers(-10000, 10000, channels)
    spread = np.sqrt((weight.astype(np.float64) ** 2).reshape(channels, -1).sum(1)) * 74
    scale = (rng.uniform(0.5, 1.5, channels) * 60 / np.maximum(spread, 1)).astype(np.float32)
    start = bias - _ZERO_X * weight.astype(np.int64).reshape(channels, -1).sum(1)
    return {
        "bias": _behind(start.astype(np.int32)),
        "scale": _behind(scale),
        "numbers": numbers(
            _ZERO_Y, _BOUNDS, zeros=(_ZERO_Y, _ZERO_R), scales=_SCALES, zero_after=_ZERO_AFTER,
            bounds_after=_BOUNDS_AFTER,
        ),
        "table": rng.integers(0, 256, 256, dtype=np.uint8),
        "border": np.full(SLACK, _ZERO_X, np.uint8),
        "plain_bias": bias,
    }  # fmt: skip


def _behind(values: Array) -> Array:
    return np.concatenate([values, np.zeros(-len(values) % UNIT, values.dtype)])


def _clamped(value: Array, zero: int) -> Array:
    return np.asarray(np.clip(np.rint(value) + np.float32(zero), 0, 255)).astype(np.uint8)


def _expected(result: Result, sums: Array, operands: dict[str, Array], residual: Array) -> Array:
    """Equations (1) to (3) of `result`; channels last."""
    scale = operands["scale"][: sums.shape[-1]]
    if isinstance(result, Reals):
        return np.asarray(sums.astype(np.float32) * scale)
    q = _clamped(sums.astype(np.float32) * scale, _ZERO_Y)
    q = {"identity": q, "clamp": np.clip(q, *_BOUNDS), "table": operands["table"][q]}[result.activation]
    if result.residual:
        terms = [
            (part.astype(np.float32) - np.float32(zero)) * factor
            for part, zero, factor in zip((q, residual), (_ZERO_Y, _ZERO_R), _SCALES, strict=True)
        ]
        q = np.clip(_clamped(terms[0] + terms[1], _ZERO_AFTER), *_BOUNDS_AFTER)
    return q


def _result(activation: Activation8, residual: bool) -> Result:
    return Result(activation, residual, "clamp" if residual else "identity")


def _product(target: Target, kernel: Convolution8, depth: int, seed: int = 0) -> None:
    """A pointwise convolution: equation (1) of `conv`, with 64-bit integers."""
    rng = np.random.default_rng(seed)
    rows, channels, ld = kernel.geometry.rows, kernel.channels, kernel.geometry.pixel_bytes
    ld_y = units(channels) * UNIT
    x = rng.integers(0, 256, (rows, ld), dtype=np.uint8)
    weight = rng.integers(-127, 128, (channels, depth), dtype=np.int8)
    residual = rng.integers(0, 256, (rows, ld_y), dtype=np.uint8)
    operands = _operands(rng, channels, weight)
    operands |= {
        "x": np.concatenate([x.ravel(), np.zeros(SLACK, np.uint8)]),
        "weight": kernel.pack(weight.T[None]),
        "y": np.full((rows, ld_y), 7, np.float32 if kernel.result.item_bytes == 4 else np.uint8),
        "residual": residual,
        "config": kernel.config(),
    }
    got = call(target, kernel, operands, seed)["y"].reshape(rows, ld_y)[:, :channels]
    sums = (x[:, :depth].astype(np.int64) - _ZERO_X) @ weight.T.astype(np.int64) + operands["plain_bias"]
    np.testing.assert_array_equal(got, _expected(kernel.result, sums, operands, residual[:, :channels]))


def _pointwise(target: Target, rows: int, depth: int, channels: int, result: Result, **how: Any) -> Convolution8:
    geometry = Geometry(1, 1, rows, 0, 0, units(depth) * UNIT, depth=round_up(depth, 4))
    return convolution8(target, geometry, channels, result, **how)


@TARGETS
@pytest.mark.parametrize(("rows", "depth", "channels"), [(1, 3, 16), (5, 24, 7), (49, 16, 40), (23, 67, 130)])
def test_products(target: Target, rows: int, depth: int, channels: int) -> None:
    for result in (Result(), _result("table", True), _result("clamp", False), Reals()):
        kernel = _pointwise(target, rows, depth, channels, result, least_tasks=3)
        assert not kernel.tiles
        _product(target, kernel, depth)


@pytest.mark.skipif(not _HAS_TILES, reason="no matrix unit for bytes here, or no leave to use it")
@pytest.mark.parametrize("rows", [1, 15, 16, 17, 31, 33, 49, 65])
@pytest.mark.parametrize(("depth", "channels"), [(4, 16), (64, 17), (129, 48)])
def test_tiles(rows: int, depth: int, channels: int) -> None:
    geometry = Geometry(1, 1, rows, 0, 0, units(depth) * UNIT, depth=round_up(depth, 4))
    block = Block(rows if rows <= 16 else 32, min(2, units(channels)))
    kernel = Convolution8(
        geometry, channels, block, _result("table", rows % 2 == 0), tiles=True, row_tasks=1 + rows // 33
    )
    _product(runnable()[0], kernel, depth, seed=rows)


@TARGETS
@pytest.mark.parametrize(
    ("channels", "hw", "kernel", "stride", "pads", "dilation"),
    [
        (16, (9, 9), (3, 3), (1, 1), (1, 1, 1, 1), (1, 1)),
        (40, (14, 15), (5, 5), (2, 2), (2, 2, 2, 2), (1, 1)),
        (20, (12, 29), (3, 3), (2, 2), (0, 0, 1, 1), (1, 1)),
        (67, (5, 23), (7, 3), (3, 3), (3, 1, 3, 1), (1, 1)),
        (5, (11, 40), (3, 3), (1, 1), (2, 2, 2, 2), (2, 2)),
        (16, (2, 3), (7, 7), (1, 1), (3, 3, 3, 3), (1, 1)),
        (33, (4, 4), (2, 2), (1, 1), (0, 0, 0, 0), (1, 1)),
    ],
)
def test_depthwise(
    target: Target, channels: int, hw: Pair, kernel: Pair, stride: Pair, pads: Pads, dilation: Pair
) -> None:
    rng = np.random.default_rng(channels)
    (height, width), (top, left, bottom, right), ld = hw, pads, units(channels) * UNIT
    out_h, out_w = (
        (size + a + b - far * (k - 1) - 1) // step + 1
        for size, a, b, far, k, step in zip(hw, (top, left), (bottom, right), dilation, kernel, stride, strict=True)
    )
    x = rng.integers(0, 256, (2, height, width, ld), dtype=np.uint8)
    weight = rng.integers(-127, 128, (channels, 1, *kernel), dtype=np.int8)
    operands = _operands(rng, channels, weight)
    padded = np.pad(x[..., :channels].astype(np.int64) - _ZERO_X, ((0, 0), (top, bottom), (left, right), (0, 0)))
    sums = np.zeros((2, out_h, out_w, channels), np.int64) + operands["plain_bias"]
    for i in range(kernel[0]):
        for j in range(kernel[1]):
            a, b = i * dilation[0], j * dilation[1]
            tap = padded[:, a : a + stride[0] * out_h : stride[0], b : b + stride[1] * out_w : stride[1]]
            sums += tap[:, :out_h, :out_w] * weight[:, 0, i, j].astype(np.int64)
    residual = rng.integers(0, 256, (2, out_h, out_w, ld), dtype=np.uint8)
    for result, summed, tasks in ((_result("table", False), True, 3), (_result("clamp", True), False, 1)):
        window = Window(hw, (out_h, out_w), kernel, stride, pads, dilation)
        code = depthwise8(target, 2, channels, window, result, sums=summed, least_tasks=tasks)
        operands |= {
            "x": x,
            "weight": code.pack(weight),
            "y": np.full((2, out_h, out_w, ld), 7, np.uint8),
            "residual": residual,
            "sums": np.full((2, code.row_tasks, ld), 99, np.int32),
        }
        got = call(target, code, operands)
        want = _expected(result, sums, operands, residual[..., :channels])
        np.testing.assert_array_equal(got["y"].reshape(residual.shape)[..., :channels], want)
        if summed:
            total = got["sums"].reshape(2, code.row_tasks, ld)[..., :channels].sum(1)
            np.testing.assert_array_equal(total, want.astype(np.int64).sum((1, 2)))


@TARGETS
@pytest.mark.parametrize("order", ["nchw", "nhwc"])
@pytest.mark.parametrize("shape", [(1, 3, 5, 37), (2, 6, 3, 16), (1, 1, 2, 7)])
def test_numbers_become_integers(target: Target, order: str, shape: tuple[int, int, int, int]) -> None:
    """Halves go to even, what is too large is clamped, NaN gives 0."""
    rng = np.random.default_rng(0)
    x = (rng.integers(-600, 600, shape) / 4).astype(np.float32)  # many of them halves, by a scale of 1/2
    x.ravel()[:4] = np.nan, np.inf, -np.inf, 1e38
    source = Layout.nchw(shape) if order == "nchw" else Layout.nhwc(shape)
    words = Layout.padded(shape, 4 if shape[1] <= 4 else UNIT)
    kernel = Convert(shape, source.strides, words.strides, parts=2)
    operands = {
        "real": (x if order == "nchw" else x.transpose(0, 2, 3, 1)).ravel(),
        "integer": np.full(words.extent, 7, np.uint8),
        "levels": np.array([np.float32(0.5).view(np.int32), 60], np.int32),
    }
    got = np.lib.stride_tricks.as_strided(call(target, kernel, operands)["integer"], shape, words.strides)
    want = np.where(np.isnan(x), 0, np.clip(np.rint(x / np.float32(0.5)) + np.float32(60), 0, 255))
    np.testing.assert_array_equal(got, want)


def test_what_may_not_fit_is_bounded() -> None:
    """255 * 127 * 66,000 is about 2^31; times 1 it may not be converted as it is, times 2^-2 it may."""
    most = np.array([255 * 127 * 66_000])
    assert is_wide(most, np.ones(1, np.float32))
    assert not is_wide(most, np.full(1, 0.25, np.float32))


@TARGETS
def test_bounded_products_are_clamped(target: Target) -> None:
    """A product of 2^40 is 255, not what is left of it in 32 bits."""
    kernel = _pointwise(target, 3, 4, 16, Result(wide=True))
    operands = {
        "x": np.concatenate([np.repeat(np.uint8([0, 1, 2]), UNIT), np.zeros(SLACK, np.uint8)]),
        "weight": kernel.pack(np.ones((1, 4, 16), np.int8)),
        "bias": np.full(16, -4, np.int32),
        "scale": np.full(16, 2.0**38, np.float32),
        "y": np.full(3 * UNIT, 7, np.uint8),
        "numbers": numbers(9),
    }
    got = call(target, kernel, operands)["y"].reshape(3, UNIT)
    np.testing.assert_array_equal(got, np.repeat(np.uint8([0, 9, 255]), UNIT).reshape(3, UNIT))


def test_arm_code_is_made() -> None:
    """The portable path compiles for a CPU that this one is not."""
    target = neon()
    kernel = _pointwise(target, 5, 8, 16, _result("table", True))
    module = Module(target.lanes, target.triple, str(target.machine.target_data))
    kernel.emit(Body(module, target, "kernel", kernel.operands))
    assert len(assemble(module.text(), target.machine)) > 1000
