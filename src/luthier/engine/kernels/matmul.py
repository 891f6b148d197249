"""Pointwise convolution and linear layer: one matrix product, with everything that may follow it.

    y[i, r, n] = epilogue(bias[n] + sum_k gate[i, k] * x[i, r, k] * weight[n, k])                     (1)

i counts images, r the pixels of an image, k and n channels.  x and y lie as `luthier.engine.layout` says, gate as a
tensor (N, K).  Without a gate all pixels of the batch count as one image.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from luthier.engine.emit import Index, Value
from luthier.engine.kernels.accumulate import (
    accumulate,
    ahead_of,
    comes_from_afar,
    pack_panel,
    paired,
    rows_ahead,
    steps_of,
    widened,
)
from luthier.engine.kernels.element import ALL_FP32, FP32, Element, Types
from luthier.engine.kernels.epilogue import PLAIN, Epilogue
from luthier.engine.kernels.kernel import Body, Kernel
from luthier.engine.kernels.matrix import (
    AREA_BYTES,
    SIDE,
    MatrixBlock,
    finish,
    is_usable,
    matrix_block,
    matrix_steps,
    pack_matrix,
    release,
)
from luthier.engine.kernels.partition import Partition, share
from luthier.engine.kernels.register_block import Block, choose_block, given_block
from luthier.engine.layout import round_up
from luthier.engine.target import Target
from luthier.schedule import AUTO, Choice

Array = NDArray[Any]


@dataclass(frozen=True, slots=True)
class Matmul(Kernel):
    """Equation (1).

    Attributes:
        images, rows: of x; a gate belongs to one image.
        depth: K.
        columns: N.
        lanes: of the target.
        block: in registers.
        row_tasks, column_tasks: into how many parts an image's rows, and the columns, are cut.
        row_major: whether each block of rows meets all columns before the next one comes; else the other way round.
        epilogue: behind the sum.
        gate: `rows` multiplies the x of a task, `weights` its weights, into the scratch, before anything else.
        streamed: whether the weights come from far away and are asked for ahead of their use.
        types: of x, the weights and y.
        matrix: whether blocks are computed by the matrix unit.
        x_streamed: whether x comes from far away; each block of rows asks for the next one.
    """

    images: int
    rows: int
    depth: int
    columns: int
    lanes: int
    block: Block
    row_tasks: int = 1
    column_tasks: int = 1
    row_major: bool = True
    epilogue: Epilogue = PLAIN
    gate: Literal["", "rows", "weights"] = ""
    streamed: bool = False
    types: Types = ALL_FP32
    matrix: bool = False
    x_streamed: bool = False

    @property
    def operands(self) -> tuple[str, ...]:  # type: ignore[override]
        """x, weight, bias, y, then what the gate and the epilogue read."""
        return ("x", "weight", "bias", "y", *(["gate"] if self.gate else []), *self.epilogue.operands)

    @property
    def tasks(self) -> int:
        """Images times parts of an image."""
        return self.images * self.row_tasks * self.column_tasks

    @property
    def title(self) -> str:
        """Of the kernel."""
        how = f"{'_tiles' if self.matrix else ''}{'_gated' if self.gate else ''}"
        return f"{self.types.title}_matmul{how}_{self.epilogue.title}_{self.block}"

    @property
    def row_blocks(self) -> Partition:
        """Blocks of an image's rows."""
        return Partition(self.rows, self.block.rows)

    @property
    def panels(self) -> Partition:
        """Blocks of the columns, in vectors."""
        return Partition(round_up(self.columns, self.lanes) // self.lanes, self.block.vectors)

    @property
    def scratch_bytes(self) -> int:  # type: ignore[override]
        """The matrix unit's, then rows or weights, multiplied by the gate."""
        if self.gate == "rows":
            return self._gated_at + self.rows * self.ld(self.depth, self.types.x)
        return self._gated_at + (4 * self.steps * self.panels.total * self.lanes if self.gate else 0)

    @property
    def _gated_at(self) -> int:
        return AREA_BYTES if self.matrix else 0

    @property
    def steps(self) -> int:
        """Of K, in a packed panel."""
        return matrix_steps(self.depth) if self.matrix else steps_of(self.depth, self.types.w)

    @property
    def choice(self) -> Choice:
        """All that `matmul` chose."""
        return Choice(
            block=(self.block.rows, self.block.vectors), order="rows" if self.row_major else "channels",
            gate=self.gate or None, row_parts=self.row_tasks, channel_parts=self.column_tasks,
        )  # fmt: skip

    def pack(self, weight: Array, bias: Array | None) -> tuple[Array, Array]:
        """Panels as `pack_panel` has them, zeros behind N; and the bias with zeros behind it.

        Args:
            weight: (N, K).
            bias: (N,) or None.
        """
        width = self.panels.total * self.lanes
        padded = np.zeros((width, self.depth), np.float32)
        padded[: self.columns] = weight
        ends = np.cumsum([0, *self.panels.sizes]) * self.lanes
        panels = (padded[a:b].T for a, b in pairwise(ends))
        packed = [pack_matrix(panel) if self.matrix else pack_panel(panel, self.types.w) for panel in panels]
        behind = np.zeros(width, np.float32)
        if bias is not None:
            behind[: self.columns] = bias
        return np.concatenate(packed), behind

    def emit(self, body: Body) -> None:
        """One task: some rows of an image by some panels."""
        f = body.f
        per_image = self.row_tasks * self.column_tasks
        image = f.div(body.task, per_image)
        part = f.rem(body.task, per_image)
        rows = share(f, f.rem(part, self.row_tasks), self.row_tasks, self.row_blocks.count)
        panels = share(f, f.div(part, self.row_tasks), self.column_tasks, self.panels.count)
        x = body.at("x", (image, self.rows * self.ld(self.depth, self.types.x)))
        y_image = f.mul(image, self.rows * self.ld(self.columns, self.types.y))
        weight = body["weight"]
        gate = body.at("gate", (image, self.ld(self.depth, FP32))) if self.gate else None
        if gate is not None and self.gate == "weights":
            weight = self._gate_weights(body, gate, panels)
        elif gate is not None:
            x = self._gate_rows(body, gate, x, rows)

        def cell(row: Index, count: int, vector: Index, vectors: int) -> None:
            source = body.at(x, (row, self.ld(self.depth, self.types.x)))
            self.cell(body, source, weight, y_image, row, count, vector, vectors)

        def row_block(row: Index, count: int) -> None:
            self.panels.loop(f, lambda vector, vectors: cell(row, count, vector, vectors), *panels)

        def panel(vector: Index, vectors: int) -> None:
            self.row_blocks.loop(f, lambda row, count: cell(row, count, vector, vectors), *rows, before)

        def shape(count: int) -> None:
            MatrixBlock(count, 1, self.depth).configure(body, body.scratch)

        several = self.matrix and len(set(self.row_blocks.sizes)) > 1
        if self.matrix and not several:
            shape(self.row_blocks.sizes[0])
        before = shape if several else None
        if self.row_major:
            self.row_blocks.loop(f, row_block, *rows, before)
        else:
            self.panels.loop(f, panel, *panels)
        if self.matrix:
            release(body)

    def ld(self, channels: int, element: Element) -> int:
        """Bytes from one row to the next."""
        return element.bytes * round_up(channels, self.lanes)

    def cell(
        self, body: Body, x: Value, weight: Value, y_image: Index, row: Index, count: int, vector: Index, vectors: int
    ) -> None:
        """One block: `count` rows from `row`, `vectors` columns from `vector`."""
        f, width, types = body.f, body.target.vector_bytes, self.types
        bias = body.at("bias", (vector, width))
        panel = body.at(weight, (vector, self.steps * width))
        ld, step = self.ld(self.columns, types.y), body.width(types.y)
        where = f.add(y_image, f.add(f.mul(row, ld), f.mul(vector, step)))
        y = f.offset(body["y"], where)
        residual = f.offset(body["residual"], where) if self.epilogue.residual else None
        if self.matrix:
            block = MatrixBlock(count, vectors, self.depth)
            found = block.multiply(body, body.scratch, x, self.ld(self.depth, types.x), panel, bias)
            finish(body, found, block, self.epilogue, types.y, y, ld, residual)
            return
        start = [body.load(bias, v * width) for v in range(vectors)]
        ahead = None
        if self.streamed:
            number = f.div(row, self.row_blocks.sizes[-1])
            ahead = ahead_of(body, panel, self.steps, vectors, number, self.row_blocks.count)
        elif self.x_streamed:
            x_ld = self.ld(self.depth, types.x)
            ahead = rows_ahead(f.offset(x, count * x_ld), count, x_ld, self.steps)
        a_rows = [r * self.ld(self.depth, types.x) for r in range(count)]
        sums = accumulate(
            body, start * count, x, a_rows, panel, self.depth, vectors, ahead=ahead, x=types.x, w=types.w
        )  # fmt: skip
        for r in range(count):
            for v in range(vectors):
                by = r * ld + v * step
                value = self.epilogue.apply(body, sums[r * vectors + v], residual, by, types.y)
                body.store(value, y, by, types.y)

    def _gate_rows(self, body: Body, gate: Value, x: Value, rows: tuple[Index, Index]) -> Value:
        """The task's rows of x times the gate, in the scratch; done once per thread where all tasks share them."""
        f, element = body.f, self.types.x
        ld, scratch = self.ld(self.depth, element), f.offset(body.scratch, self._gated_at)

        def vector(index: Index, _: object) -> None:
            scale = body.load(gate, f.mul(index, body.target.vector_bytes))
            by = f.mul(index, body.width(element))
            read, write = f.offset(x, by), f.offset(scratch, by)

            def block(row: Index, count: int) -> None:
                at, to = body.at(read, (row, ld)), body.at(write, (row, ld))
                for r in range(count):
                    body.store(f.fmul(body.load(at, r * ld, element), scale), to, r * ld, element)

            self.row_blocks.loop(f, block, *rows)

        def multiply() -> None:
            f.loop(0, ld // body.width(element), vector)

        if self.images * self.row_tasks == 1:
            f.when(f.compare("ne", body.first, 0), multiply)
        else:
            multiply()
        return scratch

    def _gate_weights(self, body: Body, gate: Value, panels: tuple[Index, Index]) -> Value:
        """The task's panels times the gate, in the scratch, where they lie as in the packed weights."""
        f, width, element = body.f, body.target.vector_bytes, self.types.w
        scratch = f.offset(body.scratch, self._gated_at)

        def scaled(read: Value, by: int, k: Index) -> Value:
            if element == FP32:
                return f.fmul(body.load(read, by), f.broadcast(gate, f.mul(k, 4)))
            first, last = f.mul(k, 2), self.depth - 1  # an odd K has no gate for its last pair's zero
            if self.matrix and self.steps * 2 > self.depth:  # the last step goes back
                back = f.sub(first, 2 * self.steps - self.depth)
                first = f.select(f.compare("slt", k, self.steps - SIDE), first, back)
            second = f.min(f.add(first, 1), last)
            gates = f.broadcast(gate, f.mul(first, 4)), f.broadcast(gate, f.mul(second, 4))
            return paired(body, *(f.fmul(half, g) for half, g in zip(widened(body, read, by), gates, strict=True)))

        def panel(vector: Index, vectors: int) -> None:
            start = f.mul(vector, self.steps * width)
            read, write = f.offset(body["weight"], start), f.offset(scratch, start)

            def step(k: Index, _: object) -> None:
                at = f.mul(k, vectors * width)
                for v in range(vectors):
                    by = v * width
                    f.store(scaled(f.offset(read, at), by, k), f.offset(write, at), by, align=width)

            f.loop(0, self.steps, step)

        self.panels.loop(f, panel, *panels)
        return scratch


def matmul(
    target: Target,
    images: int,
    rows: int,
    depth: int,
    columns: int,
    *,
    epilogue: Epilogue = PLAIN,
    gated: bool = False,
    least_tasks: int = 8,
    types: Types = ALL_FP32,
    choice: Choice = AUTO,
) -> Matmul:
    """Equation (1) with block, loop order and tasks chosen for a CPU.

    Rows come first where the weights stay in half of the L2 cache, or the x of a task does not.

    Args:
        target: the CPU.
        images, rows, depth, columns: see `Matmul`; without a gate images become rows.
        epilogue: behind the sum.
        gated: whether x is multiplied by a gate.
        least_tasks: parts to cut into, if there are as many blocks.
        types: of x, the weights and y.
        choice: what is not to be chosen here.
    Raises:
        SpecError: a chosen block does not fit the registers.
    """
    if not gated:
        images, rows = 1, images * rows
    lanes = target.lanes
    vectors = round_up(columns, lanes) // lanes
    steps, x_bytes = steps_of(depth, types.w), types.x.bytes * rows * depth
    matrix = rows > 1 and is_usable(target, types, depth)
    if matrix:
        steps, block = matrix_steps(depth), matrix_block(rows, vectors)
    elif choice.block is None:
        block = choose_block(target, rows, vectors, steps, roomy=epilogue.exponential)
    else:
        block = given_block(target, choice.block, rows, vectors)
    row_blocks, panels = Partition(rows, block.rows).count, Partition(vectors, block.vectors).count
    half = target.l2_bytes // 2
    row_tasks = max(1, min(row_blocks, -(-least_tasks // images), rows // 32))
    row_tasks = max(row_tasks, min(row_blocks, -(-x_bytes // half)))
    row_tasks = min(row_blocks, choice.row_parts or row_tasks)
    column_tasks = min(panels, choice.channel_parts or max(1, -(-least_tasks // (images * row_tasks))))
    weight_bytes = 4 * steps * vectors * lanes
    row_major = weight_bytes // column_tasks <= half and row_tasks > 1
    if choice.order is not None:
        row_major = choice.order == "rows"
    gate: Literal["", "rows", "weights"] = ""
    if gated:
        gate = choice.gate or ("weights" if vectors * lanes < rows / row_tasks else "rows")
    streamed = gate != "weights" and not row_major and comes_from_afar(target, weight_bytes, x_bytes)
    x_streamed = not streamed and not matrix and gate != "rows" and x_bytes > half and (row_major or panels == 1)
    return Matmul(
        images,
        rows,
        depth,
        columns,
        lanes,
        block,
        row_tasks,
        column_tasks,
        row_major,
        epilogue,
        gate,
        streamed,
        types,
        matrix,
        x_streamed,
    )
