"""A block of sums on the matrix unit of x86 CPUs (AMX): tiles of up to sixteen rows of sixteen sums.

    sums[r, n] += sum over 64 channels of x[r, k] * weight[k, n]          `tdpbusd`, x unsigned       (1)

Two tiles of rows by two units of columns stay in the unit; their sums come out through memory.  A tile of x is read
where it lies, 64 bytes of each of its rows: behind the last channel stand weights of zero.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from luthier.engine.emit import I64, PTR, Function, Index, Value
from luthier.engine.kernels.accumulate import Ahead
from luthier.engine.kernels.int8.units import I8, SUMS
from luthier.engine.kernels.kernel import Body

Array = NDArray[Any]
#: numbers of the tile registers: sums (first those of the first rows), x, weights
_SUMS, _X, _WEIGHT = 0, 4, 6


@dataclass(frozen=True, slots=True)
class TileBlock:
    """Rows x units of sums.

    Attributes:
        pixel_bytes: from one row of x to the next.
        rows: of the block; those of the last tile that the one before it has too are computed twice.
        tile_rows: of a tile; no more than `rows`.
        units: 1 or 2.
        steps: of 64 channels, in each tap.
    """

    bytes: ClassVar[int] = 16 * 64

    pixel_bytes: int
    rows: int
    tile_rows: int
    units: int
    steps: int

    @property
    def starts(self) -> list[int]:
        """First row of each tile."""
        return [min(r, self.rows - self.tile_rows) for r in range(0, self.rows, self.tile_rows)]


def configure(tile_rows: int) -> Array:
    """What `ldtilecfg` reads: rows and bytes of a row of the eight tiles."""
    config = np.zeros(64, np.uint8)
    config[0] = 1
    config[16:32].view(np.uint16)[:] = 64
    config[48:56] = tile_rows
    config[48 + _WEIGHT : 56] = 16
    return config


def load_configuration(f: Function, config: Value) -> None:
    """Take the unit: its tiles have these shapes from now on."""
    f.module.declare("llvm.x86.ldtilecfg", "void", (PTR,))
    f.raw(f"call void @llvm.x86.ldtilecfg({config})")


def release(f: Function) -> None:
    """Give the unit back."""
    f.module.declare("llvm.x86.tilerelease", "void", ())
    f.raw("call void @llvm.x86.tilerelease()")


def _move(f: Function, what: str, tile: int, pointer: Value, stride: int) -> None:
    name = f"llvm.x86.{what}"
    f.module.declare(name, "void", (I8, PTR, I64))
    f.raw(f"call void @{name}(i8 {tile}, {pointer}, i64 {stride})")


def ask(body: Body, ahead: Ahead, index: Index) -> None:
    """Prefetch what step `index` is to ask for."""
    f = body.f
    at = f.offset(ahead.start, f.mul(index, 64 * ahead.lines))
    for line in range(ahead.lines):
        f.prefetch(at, 64 * line)


def accumulate_tiles(
    body: Body, block: TileBlock, x: Value, taps: Sequence[int], weight: Value, bias: Value,
    ahead: Ahead | None = None,
) -> list[Value]:  # fmt: skip
    """The sums of a block, row by row, `block.units` each.

    Args:
        body: where the code goes; its scratch takes the four tiles of sums.
        block: its shape.
        x: to the first channel of the first row.
        taps: bytes from there to each tap's.
        weight: [tap][word][unit][64 bytes].
        bias: where the sums begin.
        ahead: weights to ask for meanwhile.
    """
    f, starts, wide = body.f, block.starts, block.units
    f.module.declare("llvm.x86.tdpbusd", "void", (I8, I8, I8))
    for a in range(len(starts)):
        for v in range(wide):
            _move(f, "tileloadd64", _SUMS + 2 * a + v, f.offset(bias, 64 * v), 0)
    step_bytes = 16 * 64 * wide
    for tap, offset in enumerate(taps):
        at_x, at_weight = f.offset(x, offset), f.offset(weight, tap * block.steps * step_bytes)

        def step(index: Index, _: object, at_x: Value = at_x, at_weight: Value = at_weight) -> None:
            left, right = f.offset(at_x, f.mul(index, 64)), f.offset(at_weight, f.mul(index, step_bytes))
            if ahead is not None:
                ask(body, ahead, index)
            for v in range(wide):
                _move(f, "tileloadd64", _WEIGHT + v, f.offset(right, 64 * v), 64 * wide)
            for a, row in enumerate(starts):
                _move(f, "tileloadd64", _X + a, f.offset(left, row * block.pixel_bytes), block.pixel_bytes)
                for v in range(wide):
                    tile = _SUMS + 2 * a + v
                    f.raw(f"call void @llvm.x86.tdpbusd(i8 {tile}, i8 {_X + a}, i8 {_WEIGHT + v})")

        f.loop(0, block.steps, step)
    for a in range(len(starts)):
        for v in range(wide):
            tile = 2 * a + v
            _move(f, "tilestored64", _SUMS + tile, f.offset(body.scratch, tile * block.bytes), 64)
    sums = []
    for row in range(block.rows):
        a = min(row // block.tile_rows, len(starts) - 1)
        for v in range(wide):
            sums.append(f.load(SUMS, body.scratch, (2 * a + v) * block.bytes + 64 * (row - starts[a]), align=64))
    return sums
