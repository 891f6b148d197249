"""The matrix product against NumPy, exactly, around the edges of its blocks, for every vector width."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from tests.engine.harness import call, integers, spread, view

from luthier.engine.kernels.element import ALL_FP32, BFLOAT16, FP32, Types
from luthier.engine.kernels.epilogue import Epilogue
from luthier.engine.kernels.matmul import Matmul, matmul
from luthier.engine.kernels.register_block import Block
from luthier.engine.layout import Layout
from luthier.engine.target import Target, host, runnable
from luthier.graph.halves import as_stored

#: the host's own, without its matrix unit, without bf16, and narrower ones
KINDS = {t.isa: t for t in runnable()}
if host().has_matrix:
    KINDS |= {"bf16": replace(host(), has_matrix=False)}
if host().has_bf16:
    KINDS |= {"no_bf16": replace(host(), has_matrix=False, has_bf16=False)}
TARGETS = pytest.mark.parametrize("target", KINDS.values(), ids=KINDS)

BF16 = Types(BFLOAT16, BFLOAT16, BFLOAT16)


def check(target: Target, kernel: Matmul, seed: int = 0) -> None:
    """Equation (1) with integers, where the order of a sum cannot matter: equal, not close."""
    rng = np.random.default_rng(seed)
    images, rows, depth, columns = kernel.images, kernel.rows, kernel.depth, kernel.columns
    x, weight = integers(rng, images, depth, rows, 1), integers(rng, columns, depth)
    bias, gate = integers(rng, columns), integers(rng, images, depth)
    residual = integers(rng, images, columns, rows, 1)
    y = Layout.padded((images, columns, rows, 1), target.lanes)
    packed, behind = kernel.pack(weight, bias)
    operands = {
        "x": spread(x, Layout.padded(x.shape, target.lanes), kernel.types.x),
        "weight": packed,
        "bias": behind,
        "y": spread(np.full(y.shape, np.nan), y, kernel.types.y),
        "gate": spread(gate, Layout.padded(gate.shape, target.lanes)),
        "residual": spread(residual, y, kernel.types.y),
    }
    got = view(call(target, kernel, operands, seed)["y"], y)
    want = np.einsum("ikrs,nk->inrs", x * gate[:, :, None, None] if kernel.gate else x, weight)
    want += bias[:, None, None]
    want = np.maximum(want, 0) if kernel.epilogue.activation == "relu" else want
    want = np.clip(want + residual, 0, 6) if kernel.epilogue.residual else want
    want = as_stored(want, kernel.types.y.name)
    np.testing.assert_array_equal(got, want)


@TARGETS
@pytest.mark.parametrize("rows", [1, 5, 6, 7, 11, 12])
@pytest.mark.parametrize("columns", [7, 8, 9, 31, 32, 33])
def test_around_the_block(target: Target, rows: int, columns: int) -> None:
    check(target, Matmul(1, rows, 9 + rows, columns, target.lanes, Block(6, 2), 2 if rows > 6 else 1))


@TARGETS
@pytest.mark.parametrize("depth", [1, 3, 4, 8, 9, 11, 12, 33])
def test_around_the_unrolled_depth(target: Target, depth: int) -> None:
    check(target, matmul(target, 1, 10, depth, 17, epilogue=Epilogue("relu", True, "relu6")))


@TARGETS
@pytest.mark.parametrize("types", [ALL_FP32, BF16], ids=["fp32", "bf16"])
@pytest.mark.parametrize("depth", [2048, 2053, 3072, 4097, 6151])
def test_around_the_parts_of_a_long_sum(target: Target, types: Types, depth: int) -> None:
    check(target, matmul(target, 1, 2, depth, 40, types=types))
    check(target, matmul(target, 2, 1, depth, 9, types=types, gated=True))


@TARGETS
def test_rounding_of_a_long_sum(target: Target) -> None:
    """25,088 terms (VGG's first linear layer): a fourth of what adding them one after another loses, at most."""
    rng, depth, columns = np.random.default_rng(0), 25_088, 64
    x, weight = (rng.uniform(0.5, 1.5, (rows, depth)).astype(np.float32) for rows in (1, columns))
    kernel = matmul(target, 1, 1, depth, columns)
    packed, behind = kernel.pack(weight, None)
    out = Layout.padded((1, columns, 1, 1), target.lanes)
    flat = spread(x.reshape(1, depth, 1, 1), Layout.padded((1, depth, 1, 1), target.lanes))
    operands = {"x": flat, "weight": packed, "bias": behind, "y": spread(np.zeros(out.shape), out)}
    got = view(call(target, kernel, operands)["y"], out).ravel()
    want = np.einsum("ik,nk->n", x, weight, dtype=np.float64)
    one_by_one = np.cumsum(x * weight, axis=1, dtype=np.float32)[:, -1]
    assert np.abs(got - want).max() < np.abs(one_by_one - want).max() / 4


@TARGETS
@pytest.mark.parametrize("gate", ["", "rows", "weights"])
@pytest.mark.parametrize("row_major", [False, True])
@pytest.mark.parametrize("tasks", [(1, 1), (3, 1), (1, 2), (3, 3)])
def test_every_order_and_split(target: Target, gate: str, row_major: bool, tasks: tuple[int, int]) -> None:
    kernel = Matmul(2, 23, 18, 3 * target.lanes + 1, target.lanes, Block(7, 1), *tasks, row_major, gate=gate)
    check(target, kernel, seed=1)


@TARGETS
@pytest.mark.parametrize(("images", "rows", "depth", "columns"), [(1, 49, 40, 24), (3, 196, 20, 10), (2, 1, 64, 50)])
@pytest.mark.parametrize("gated", [False, True])
def test_what_is_chosen(target: Target, images: int, rows: int, depth: int, columns: int, gated: bool) -> None:
    kernel = matmul(target, images, rows, depth, columns, gated=gated)
    assert kernel.tasks >= 1
    check(target, kernel)


@TARGETS
@pytest.mark.parametrize("types", [BF16, Types(FP32, BFLOAT16, FP32), Types(BFLOAT16, FP32, BFLOAT16)], ids=str)
@pytest.mark.parametrize("depth", [1, 8, 17, 32, 33, 64, 130])
def test_number_types(target: Target, types: Types, depth: int) -> None:
    """Of small integers every product and sum is exact; what is stored is rounded once."""
    check(target, matmul(target, 1, 50, depth, 33, epilogue=Epilogue("relu", True, "relu6"), types=types), depth)
    check(target, matmul(target, 1, 1, depth, 40, types=types), depth)


@TARGETS
@pytest.mark.parametrize("rows", [2, 16, 17, 49])
@pytest.mark.parametrize("gate", ["", "rows", "weights"])
@pytest.mark.parametrize("tasks", [(1, 1), (2, 2)])
def test_gates_and_splits_in_bf16(target: Target, rows: int, gate: str, tasks: tuple[int, int]) -> None:
    chosen = matmul(target, 2, rows, 40, 3 * target.lanes + 1, gated=bool(gate), types=BF16)
    for row_major in (False, True):
        kernel = replace(chosen, row_tasks=min(tasks[0], chosen.row_blocks.count), row_major=row_major, gate=gate)
        check(target, replace(kernel, column_tasks=tasks[1]), seed=rows)


@pytest.mark.skipif(not host().has_matrix, reason="no matrix unit")
def test_the_matrix_unit_is_used_where_it_can_be() -> None:
    assert matmul(host(), 1, 49, 40, 24, types=BF16).matrix
    assert not matmul(host(), 1, 49, 7, 24, types=BF16).matrix, "an odd K of less than a step"
    assert not matmul(host(), 1, 1, 64, 24, types=BF16).matrix, "a single row"
    assert not matmul(replace(host(), has_matrix=False), 1, 49, 40, 24, types=BF16).matrix
