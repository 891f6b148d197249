"""Blocks of a matrix product on the matrix unit of x86 CPUs (AMX), for bf16.

    c[r, n] = bias[n] + sum_k a[r, k] * b[k, n],     up to 32 rows by 2 vectors of 16 columns         (1)

Sums live in up to four tiles of 16 x 16; a step takes 32 numbers along K at once.  The last step of a K that is no
multiple of 32 goes back so far that it ends where K ends, and its weights are zero where the step before has been: so
nothing behind a row is ever read.  Sums pass through memory on their way to the vector registers that finish them.

Source: Intel 64 and IA-32 Architectures Software Developer's Manual, volume 1, chapter 18 (tiles, palette 1).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from luthier.engine.emit import I8, I32, I64, Index, Value, vector
from luthier.engine.kernels.accumulate import pack_panel
from luthier.engine.kernels.element import BFLOAT16, Element, Types
from luthier.engine.kernels.epilogue import Epilogue
from luthier.engine.kernels.kernel import Body
from luthier.engine.kernels.partition import Partition
from luthier.engine.kernels.register_block import Block
from luthier.engine.target import Target

Array = NDArray[Any]
#: rows of a tile, and columns of fp32 sums
SIDE: Final = 16
#: bf16 numbers in a row of a tile
_DEPTH: Final = 32
_MOST_ROWS: Final = 2 * SIDE
_MOST_VECTORS: Final = 2
_CONFIG_BYTES: Final = 64
#: of a thread: how the tiles are shaped, then one block of sums
AREA_BYTES: Final = _CONFIG_BYTES + 4 * _MOST_ROWS * _MOST_VECTORS * SIDE
#: rows that are finished side by side
_UNROLL: Final = 4
_A: Final = (4, 5)
_B: Final = (6, 7)


def is_usable(target: Target, types: Types, depth: int) -> bool:
    """Whether the unit can do it: both factors bf16, K of a whole step or of whole pairs."""
    return target.has_matrix and types.x == types.w == BFLOAT16 and (depth >= _DEPTH or depth % 2 == 0)


def matrix_block(rows: int, vectors: int) -> Block:
    """Rows so that blocks are equal where that costs few more of them, since tiles are shaped once per size.

    Example:
        >>> [matrix_block(rows, 6).rows for rows in (12544, 784, 49, 7)]
        [32, 28, 32, 7]
    """
    equal = [n for n in range(min(rows, _MOST_ROWS), _MOST_ROWS * 3 // 4 - 1, -1) if rows % n == 0]
    return Block(equal[0] if equal else min(rows, _MOST_ROWS), min(vectors, _MOST_VECTORS))


def matrix_steps(depth: int) -> int:
    """Pairs along K in a packed panel."""
    return depth // 2 if depth < _DEPTH else -(-depth // _DEPTH) * _DEPTH // 2


def first_of_last(depth: int) -> int:
    """Where in K the last step begins."""
    return max(0, depth - _DEPTH)


def pack_matrix(panel: Array) -> Array:
    """(..., K, columns) as equation (1) reads it: pairs, with zeros where the last step goes back.

    Example:
        >>> pack_matrix(np.ones((40, 1))).reshape(2, 32)[1].nonzero()[0].tolist()
        [24, 25, 26, 27, 28, 29, 30, 31]
    """
    *outer, depth, columns = panel.shape
    whole = depth // _DEPTH * _DEPTH if depth >= _DEPTH else depth
    spread = np.zeros((*outer, 2 * matrix_steps(depth), columns), np.float32)
    spread[..., :whole, :] = panel[..., :whole, :]
    if whole < depth:
        spread[..., whole - depth :, :] = panel[..., whole:, :]
    return pack_panel(spread, BFLOAT16)


@dataclass(frozen=True, slots=True)
class MatrixBlock:
    """Equation (1) for one shape.

    Attributes:
        rows: 1 to 32.
        vectors: of columns, 1 or 2.
        depth: K.
    """

    rows: int
    vectors: int
    depth: int

    @property
    def parts(self) -> tuple[int, ...]:
        """Rows of each tile of a column."""
        return (self.rows,) if self.rows <= SIDE else (-(-self.rows // 2), self.rows // 2)

    def configure(self, body: Body, area: Value) -> None:
        """Shape the tiles, for all blocks with as many rows and the same K."""
        columns, rows = np.zeros(16, np.uint16), np.zeros(16, np.uint8)
        width = min(self.depth, _DEPTH)
        for part, count in enumerate(self.parts):
            columns[[2 * part, 2 * part + 1, _A[part]]] = 4 * SIDE, 4 * SIDE, 2 * width
            rows[[2 * part, 2 * part + 1, _A[part]]] = count
        columns[list(_B)], rows[list(_B)] = 4 * SIDE, width // 2
        palette = np.zeros(16, np.uint8)
        palette[0] = 1
        words = np.concatenate([palette, columns.view(np.uint8), rows]).view(np.int32)
        kind = vector(I32, words.size)
        text = ", ".join(f"i32 {word}" for word in words)
        body.f.store(Value(kind, f"<{text}>"), area, align=4)
        _do(body, "ldtilecfg", area)

    def multiply(self, body: Body, area: Value, a: Value, a_stride: int, b: Value, bias: Value) -> Value:
        """Emit equation (1); returns a pointer to the sums, rows of `vectors` vectors side by side.

        Args:
            body: where the code goes.
            area: of the thread, `AREA_BYTES`.
            a: to the first row, `a_stride` bytes from one to the next.
            b: a panel by `pack_matrix`.
            bias: of the panel.
        """
        f, width, b_stride = body.f, body.target.vector_bytes, self.vectors * body.target.vector_bytes
        starts = [sum(self.parts[:part]) for part in range(len(self.parts))]
        cells = [(part, v) for part in range(len(self.parts)) for v in range(self.vectors)]
        for part, v in cells:
            _do(body, "tileloadd64", _tile(2 * part + v), f.offset(bias, v * width), Value(I64, "0"))

        def step(at_a: Value, at_b: Value) -> None:
            for part, start in enumerate(starts):
                _do(body, "tileloadd64", _tile(_A[part]), f.offset(at_a, start * a_stride), Value(I64, str(a_stride)))
                for v in range(self.vectors):
                    if part == 0:
                        _do(body, "tileloadd64", _tile(_B[v]), f.offset(at_b, v * width), Value(I64, str(b_stride)))
                    _do(body, "tdpbf16ps", _tile(2 * part + v), _tile(_A[part]), _tile(_B[v]))

        whole, step_bytes = self.depth // _DEPTH, _DEPTH // 2 * b_stride

        def steps(index: Index, _: object) -> None:
            step(f.offset(a, f.mul(index, 2 * _DEPTH)), f.offset(b, f.mul(index, step_bytes)))

        f.loop(0, whole, steps)
        if whole * _DEPTH < self.depth:
            step(f.offset(a, 2 * first_of_last(self.depth)), f.offset(b, whole * step_bytes))
        sums = f.offset(area, _CONFIG_BYTES)
        for part, v in cells:
            at = f.offset(sums, starts[part] * b_stride + v * width)
            _do(body, "tilestored64", _tile(2 * part + v), at, Value(I64, str(b_stride)))
        return sums


def finish(
    body: Body, sums: Value, block: MatrixBlock, epilogue: Epilogue, element: Element, y: Value, ld: int,
    residual: Value | None = None,
) -> None:  # fmt: skip
    """The epilogue of a block of sums, written to y as `element`, `ld` bytes from row to row."""
    f, width, step = body.f, body.target.vector_bytes, body.width(element)

    def some(row: Index, count: int) -> None:
        at, to = body.at(sums, (row, block.vectors * width)), body.at(y, (row, ld))
        beside = None if residual is None else body.at(residual, (row, ld))
        for r in range(count):
            for v in range(block.vectors):
                by = r * ld + v * step
                value = epilogue.apply(body, body.load(at, (r * block.vectors + v) * width), beside, by, element)
                body.store(value, to, by, element)

    Partition(block.rows, _UNROLL).loop(f, some)


def release(body: Body) -> None:
    """Let go of the tiles, so that the system need not keep them."""
    _do(body, "tilerelease")


def _tile(number: int) -> Value:
    return Value(I8, str(number))


def _do(body: Body, name: str, *arguments: Value) -> None:
    body.f.perform(f"llvm.x86.{name}", arguments)
