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
from luthier.engine.kernels.epilogue import PLAIN, Epilogue
from luthier.engine.kernels.kernel import Body, Kernel
from luthier.engine.kernels.partition import Partition, share
from luthier.engine.kernels.register_block import (
    Block,
    accumulate,
    ahead_of,
    choose_block,
    comes_from_afar,
    given_block,
)
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
        return f"fp32_matmul{'_gated' if self.gate else ''}_{self.epilogue.title}_{self.block}"

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
        """Rows or weights, multiplied by the gate."""
        if self.gate == "rows":
            return 4 * self.rows * round_up(self.depth, self.lanes)
        return 4 * self.depth * self.panels.total * self.lanes if self.gate else 0

    @property
    def choice(self) -> Choice:
        """All that `matmul` chose."""
        return Choice(
            block=(self.block.rows, self.block.vectors), order="rows" if self.row_major else "channels",
            gate=self.gate or None, row_parts=self.row_tasks, channel_parts=self.column_tasks,
        )  # fmt: skip

    def pack(self, weight: Array, bias: Array | None) -> tuple[Array, Array]:
        """Panels of [K][vectors][lanes], zeros behind N; and the bias with zeros behind it.

        Args:
            weight: (N, K).
            bias: (N,) or None.
        """
        width = self.panels.total * self.lanes
        padded = np.zeros((width, self.depth), np.float32)
        padded[: self.columns] = weight
        ends = np.cumsum([0, *self.panels.sizes]) * self.lanes
        packed = [padded[a:b].T.ravel() for a, b in pairwise(ends)]
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
        x = body.at("x", (image, 4 * self.rows * self._ld(self.depth)))
        y_image = f.mul(image, 4 * self.rows * self._ld(self.columns))
        weight = body["weight"]
        gate = body.at("gate", (image, 4 * self._ld(self.depth))) if self.gate else None
        if gate is not None and self.gate == "weights":
            weight = self._gate_weights(body, gate, panels)
        elif gate is not None:
            x = self._gate_rows(body, gate, x, rows)

        def cell(row: Index, count: int, vector: Index, vectors: int) -> None:
            source = body.at(x, (row, 4 * self._ld(self.depth)))
            self._cell(body, source, weight, y_image, row, count, vector, vectors)

        def row_block(row: Index, count: int) -> None:
            self.panels.loop(f, lambda vector, vectors: cell(row, count, vector, vectors), *panels)

        def panel(vector: Index, vectors: int) -> None:
            self.row_blocks.loop(f, lambda row, count: cell(row, count, vector, vectors), *rows)

        if self.row_major:
            self.row_blocks.loop(f, row_block, *rows)
        else:
            self.panels.loop(f, panel, *panels)

    def _ld(self, channels: int) -> int:
        return round_up(channels, self.lanes)

    def _cell(
        self, body: Body, x: Value, weight: Value, y_image: Index, row: Index, count: int, vector: Index, vectors: int
    ) -> None:
        """One block: `count` rows from `row`, `vectors` columns from `vector`."""
        f, width = body.f, body.target.vector_bytes
        bias = body.at("bias", (vector, width))
        start = [body.load(bias, v * width) for v in range(vectors)]
        panel = body.at(weight, (vector, self.depth * width))
        ahead = None
        if self.streamed:
            number = f.div(row, self.row_blocks.sizes[-1])
            ahead = ahead_of(body, panel, self.depth, vectors, number, self.row_blocks.count)
        a_rows = [4 * r * self._ld(self.depth) for r in range(count)]
        sums = accumulate(body, start * count, x, a_rows, panel, self.depth, vectors, ahead=ahead)
        ld = 4 * self._ld(self.columns)
        where = f.add(y_image, f.add(f.mul(row, ld), f.mul(vector, width)))
        y = f.offset(body["y"], where)
        residual = f.offset(body["residual"], where) if self.epilogue.residual else None
        for r in range(count):
            for v in range(vectors):
                by = r * ld + v * width
                body.store(self.epilogue.apply(body, sums[r * vectors + v], residual, by), y, by)

    def _gate_rows(self, body: Body, gate: Value, x: Value, rows: tuple[Index, Index]) -> Value:
        """The task's rows of x times the gate, in the scratch; done once per thread where all tasks share them."""
        f, ld = body.f, 4 * self._ld(self.depth)

        def vector(index: Index, _: object) -> None:
            by = f.mul(index, body.target.vector_bytes)
            scale, read, write = body.load(gate, by), f.offset(x, by), f.offset(body.scratch, by)

            def block(row: Index, count: int) -> None:
                at, to = body.at(read, (row, ld)), body.at(write, (row, ld))
                for r in range(count):
                    body.store(f.fmul(body.load(at, r * ld), scale), to, r * ld)

            self.row_blocks.loop(f, block, *rows)

        def multiply() -> None:
            f.loop(0, self._ld(self.depth) // self.lanes, vector)

        if self.images * self.row_tasks == 1:
            f.when(f.compare("ne", body.first, 0), multiply)
        else:
            multiply()
        return body.scratch

    def _gate_weights(self, body: Body, gate: Value, panels: tuple[Index, Index]) -> Value:
        """The task's panels times the gate, in the scratch, where they lie as in the packed weights."""
        f, width = body.f, body.target.vector_bytes

        def panel(vector: Index, vectors: int) -> None:
            start = f.mul(vector, self.depth * width)
            read, write = f.offset(body["weight"], start), f.offset(body.scratch, start)

            def step(k: Index, _: object) -> None:
                scale, at = f.broadcast(gate, f.mul(k, 4)), f.mul(k, vectors * width)
                for v in range(vectors):
                    by = v * width
                    body.store(f.fmul(body.load(f.offset(read, at), by), scale), f.offset(write, at), by)

            f.loop(0, self.depth, step)

        self.panels.loop(f, panel, *panels)
        return body.scratch


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
        choice: what is not to be chosen here.
    Raises:
        SpecError: a chosen block does not fit the registers.
    """
    if not gated:
        images, rows = 1, images * rows
    lanes = target.lanes
    vectors = round_up(columns, lanes) // lanes
    if choice.block is None:
        block = choose_block(target, rows, vectors, depth, roomy=epilogue.exponential)
    else:
        block = given_block(target, choice.block, rows, vectors)
    row_blocks, panels = Partition(rows, block.rows).count, Partition(vectors, block.vectors).count
    half = target.l2_bytes // 2
    row_tasks = max(1, min(row_blocks, -(-least_tasks // images), rows // 32))
    row_tasks = max(row_tasks, min(row_blocks, -(-4 * rows * depth // half)))
    row_tasks = min(row_blocks, choice.row_parts or row_tasks)
    column_tasks = min(panels, choice.channel_parts or max(1, -(-least_tasks // (images * row_tasks))))
    weight_bytes = 4 * depth * vectors * lanes
    row_major = weight_bytes // column_tasks <= half and row_tasks > 1
    if choice.order is not None:
        row_major = choice.order == "rows"
    gate: Literal["", "rows", "weights"] = ""
    if gated:
        gate = choice.gate or ("weights" if vectors * lanes < rows / row_tasks else "rows")
    streamed = gate != "weights" and not row_major and comes_from_afar(target, weight_bytes, 4 * rows * depth)
    return Matmul(
        images, rows, depth, columns, lanes, block, row_tasks, column_tasks, row_major, epilogue, gate, streamed
    )
