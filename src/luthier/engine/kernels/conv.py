"""Convolution with any window, stride, dilation and groups: a matrix product whose rows are read where they lie.

    y[n, c, oy, ox] = epilogue(bias[c] + sum_k,ky,kx x[n, k0(c) + k, iy, ix] * weight[c, k, ky, kx])  (1)

A panel (some vectors of output channels) reads the input channels of all groups that it touches, from k0 on; weights of
channels that belong to another group are zero.  So nothing is asked of the groups, and where a group fills whole
panels, nothing is wasted.  x may have any strides: its elements are broadcast one by one.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from luthier.engine.emit import I64, Index, Value
from luthier.engine.kernels.accumulate import (
    Ahead,
    accumulate,
    apart,
    is_long,
    pack_panel,
    steps_of,
)
from luthier.engine.kernels.element import ALL_FP32, Types
from luthier.engine.kernels.epilogue import PLAIN, Epilogue
from luthier.engine.kernels.kernel import Body, Kernel
from luthier.engine.kernels.matrix import (
    AREA_BYTES,
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
from luthier.engine.kernels.window import ColumnTile, Window
from luthier.engine.layout import Layout, round_up
from luthier.engine.target import Target
from luthier.schedule import AUTO, WHOLE, Choice, Tile

Array = NDArray[Any]


@dataclass(frozen=True, slots=True)
class Convolution(Kernel):
    """Equation (1).

    Attributes:
        source: layout of x.
        columns: C_out.
        window: geometry.
        groups: of channels.
        lanes: of the target.
        block: in registers; its rows are pixels of one output row.
        row_tasks, column_tasks: parts of the output's rows, and of the panels.
        epilogue: behind the sum.
        types: of x, the weights and y.
        matrix: whether blocks are computed by the matrix unit; for windows of one pixel.
    """

    source: Layout
    columns: int
    window: Window
    groups: int
    lanes: int
    block: Block
    row_tasks: int = 1
    column_tasks: int = 1
    epilogue: Epilogue = PLAIN
    types: Types = ALL_FP32
    matrix: bool = False

    @property
    def operands(self) -> tuple[str, ...]:  # type: ignore[override]
        """x, weight, bias, y, then the first input channel of each vector, and what the epilogue reads."""
        return ("x", "weight", "bias", "y", *(["starts"] if self.groups > 1 else []), *self.epilogue.operands)

    @property
    def panels(self) -> Partition:
        """Output channels, in vectors."""
        return Partition(round_up(self.columns, self.lanes) // self.lanes, self.block.vectors)

    @property
    def tasks(self) -> int:
        """Images x parts of the rows x parts of the panels."""
        return self.source.shape[0] * self.row_tasks * self.column_tasks

    @property
    def scratch_bytes(self) -> int:  # type: ignore[override]
        """The matrix unit's."""
        return AREA_BYTES if self.matrix else 0

    @property
    def title(self) -> str:
        """Of the kernel."""
        how = "_tiles" if self.matrix else ""
        return f"{self.types.title}_conv{how}_{self.window.title}_{self.epilogue.title}_{self.block}"

    @property
    def tile(self) -> Tile:
        """Channels of a panel."""
        return Tile(channels=min(self.panels.sizes[0] * self.lanes, self.columns))

    @property
    def choice(self) -> Choice:
        """All else that `convolution` chose."""
        block = (self.block.rows, self.block.vectors)
        return Choice(block=block, row_parts=self.row_tasks, channel_parts=self.column_tasks)

    def _channels(self) -> list[tuple[int, int, int, int]]:
        """Of every panel: first and last output channel, first and last input channel."""
        per_in, per_out = self.source.shape[1] // self.groups, self.columns // self.groups
        found, first = [], 0
        for vectors in self.panels.sizes:
            last = min(first + vectors * self.lanes, self.columns)
            found.append((first, last, first // per_out * per_in, ((last - 1) // per_out + 1) * per_in))
            first += vectors * self.lanes
        return found

    @property
    def depth(self) -> int:
        """Input channels that every panel reads."""
        return max(end - start for _, _, start, end in self._channels())

    @property
    def tap_steps(self) -> int:
        """Steps of K under one tap."""
        if self.matrix:
            return matrix_steps(self.depth)
        return steps_of(self.depth, self.types.w)

    def starts(self) -> Array:
        """k0 of the panel that begins at each vector, int64; never so large that k0 + depth passes the end."""
        table = np.zeros(self.panels.total, np.int64)
        for first, _, start, _ in self._channels():
            table[first // self.lanes] = min(start, self.source.shape[1] - self.depth)
        return table

    def pack(self, weight: Array, bias: Array | None) -> tuple[Array, Array]:
        """Panels of [ky][kx] and then as `pack_panel` has them; and the bias with zeros behind it.

        Args:
            weight: (C_out, C_in / groups, K_H, K_W).
            bias: (C_out,) or None.
        """
        per_in, per_out = self.source.shape[1] // self.groups, self.columns // self.groups
        starts, panels = self.starts(), []
        for vectors, (first, last, _, _) in zip(self.panels.sizes, self._channels(), strict=True):
            panel = np.zeros((*self.window.kernel, self.depth, vectors * self.lanes), np.float32)
            for group in range(first // per_out, (last - 1) // per_out + 1):
                low, high = max(first, group * per_out), min(last, (group + 1) * per_out)
                row = group * per_in - int(starts[first // self.lanes])
                panel[:, :, row : row + per_in, low - first : high - first] = weight[low:high].transpose(2, 3, 1, 0)
            panels.append(pack_matrix(panel) if self.matrix else pack_panel(panel, self.types.w))
        behind = np.zeros(self.panels.total * self.lanes, np.float32)
        if bias is not None:
            behind[: self.columns] = bias
        return np.concatenate(panels), behind

    def emit(self, body: Body) -> None:
        """One task: some rows of one image by some panels."""
        f, width, types = body.f, body.target.vector_bytes, self.types
        per_image = self.row_tasks * self.column_tasks
        image, part = f.div(body.task, per_image), f.rem(body.task, per_image)
        rows = share(f, f.rem(part, self.row_tasks), self.row_tasks, self.window.out_hw[0])
        panels = share(f, f.div(part, self.row_tasks), self.column_tasks, self.panels.count)
        x = body.at("x", (image, types.x.bytes * self.source.strides[0]))
        out_h, out_w = self.window.out_hw
        step = body.width(types.y)
        ld = self.panels.total * step

        def panel(vector: Index, vectors: int) -> None:
            taps = self.window.kernel[0] * self.window.kernel[1]
            weight = body.at("weight", (vector, taps * self.tap_steps * width))
            bias = body.at("bias", (vector, width))
            source = x
            if self.groups > 1:
                start = f.load(I64, body.at("starts", (vector, 8)), align=8)
                source = f.offset(x, f.mul(start, types.x.bytes * self.source.strides[1]))

            def row(oy: Index, _: object) -> None:
                where = f.add(f.mul(f.add(f.mul(image, out_h), oy), out_w * ld), f.mul(vector, step))
                residual = f.offset(body["residual"], where) if self.epilogue.residual else None
                self.row(body, oy, source, weight, bias, vectors, f.offset(body["y"], where), ld, residual)

            f.loop(*rows, row)

        self.begin(body)
        self.panels.loop(f, panel, *panels)
        self.end(body)

    def begin(self, body: Body) -> None:
        """What must be done before a task's rows."""
        if self.matrix and len(set(self._row_blocks.sizes)) == 1:
            self._shape(body, self._row_blocks.sizes[0])

    def end(self, body: Body) -> None:
        """What must be done after them."""
        if self.matrix:
            release(body)

    @property
    def _row_blocks(self) -> Partition:
        return Partition(self.window.out_hw[1], self.block.rows)

    def _shape(self, body: Body, count: int) -> None:
        MatrixBlock(count, 1, self.depth).configure(body, body.scratch)

    def _matrix_row(
        self, body: Body, source: Value, weight: Value, bias: Value, vectors: int, y: Value, ld: int,
        residual: Value | None,
    ) -> None:  # fmt: skip
        """As `row`, on the matrix unit; `source` is the row's first pixel."""
        stride = self.types.x.bytes * self.source.strides[3] * self.window.stride[1]

        def some(ox: Index, count: int) -> None:
            block = MatrixBlock(count, vectors, self.depth)
            sums = block.multiply(body, body.scratch, body.at(source, (ox, stride)), stride, weight, bias)
            beside = None if residual is None else body.at(residual, (ox, ld))
            finish(body, sums, block, self.epilogue, self.types.y, body.at(y, (ox, ld)), ld, beside)

        several = len(set(self._row_blocks.sizes)) > 1
        self._row_blocks.loop(body.f, some, before=(lambda count: self._shape(body, count)) if several else None)

    def row(
        self, body: Body, oy: Index, source: Value, weight: Value, bias: Value, vectors: int, y: Value, ld: int,
        residual: Value | None = None, ahead: Ahead | None = None,
    ) -> None:  # fmt: skip
        """One output row of one panel.

        Args:
            body: where the code goes.
            oy: the row.
            source: to the image's first input channel that the panel reads.
            weight, bias: of the panel.
            vectors: of the panel.
            y, residual: to column 0 of the row that is written, and of the one that is added.
            ld: bytes between pixels of y.
            ahead: weights that the row's first tile asks for.
        """
        f, element = body.f, self.types.y
        if self.matrix:
            down = self.types.x.bytes * self.source.strides[2]
            start = body.at(source, (self.window.in_row(oy, f), down))
            self._matrix_row(body, start, weight, bias, vectors, y, ld, residual)
            return
        for number, tile in enumerate(self.window.column_tiles(self.block.rows)):
            wanted = ahead if number == 0 else None

            def one(index: Index, _: object, tile: ColumnTile = tile, wanted: Ahead | None = wanted) -> None:
                ox = f.add(f.mul(index, tile.size), tile.first)
                sums = self._tile(body, tile, ox, oy, source, weight, bias, vectors, wanted)
                to = f.mul(ox, ld)
                write, add = f.offset(y, to), None if residual is None else f.offset(residual, to)
                for place, value in enumerate(sums):
                    by = place // vectors * ld + place % vectors * body.width(element)
                    body.store(self.epilogue.apply(body, value, add, by, element), write, by, element)

            f.loop(0, tile.count, one)

    def _tile(
        self, body: Body, tile: ColumnTile, ox: Index, oy: Index, source: Value, weight: Value, bias: Value,
        vectors: int, ahead: Ahead | None = None,
    ) -> list[Value]:  # fmt: skip
        """The sums of `tile.size` outputs of row oy from column ox, `vectors` each."""
        f, width = body.f, body.target.vector_bytes
        window, types = self.window, self.types
        _, channel, down, right = (types.x.bytes * stride for stride in self.source.strides)
        start = window.in_row(oy, f)
        tap_bytes = self.tap_steps * vectors * width

        def tap_row(ky: Index, sums: list[Value]) -> list[Value]:
            result = list(sums)
            iy = f.add(start, f.mul(ky, window.dilation[0]))
            at_row = body.at(source, (iy, down), (window.in_column(ox, f), right))
            weights = f.offset(weight, f.mul(ky, window.kernel[1] * tap_bytes))
            for kx, outputs in enumerate(tile.taps):
                if not outputs:
                    continue
                places = [o * vectors + v for o in outputs for v in range(vectors)]
                rows = [(o * window.stride[1] + kx * window.dilation[1]) * right for o in outputs]
                part = accumulate(
                    body, [result[p] for p in places], at_row, rows, f.offset(weights, kx * tap_bytes), self.depth,
                    vectors, a_stride=channel, ahead=ahead, x=types.x, w=types.w,
                )  # fmt: skip
                for place, value in zip(places, part, strict=True):
                    result[place] = value
            return result

        first = [body.load(bias, v * width) for v in range(vectors)] * tile.size
        long = is_long(self.tap_steps * window.kernel[0] * window.kernel[1])
        return f.loop(*window.taps(f, start, 0), apart(f, tap_row) if long else tap_row, first)


def convolution(
    target: Target, source: Layout, columns: int, window: Window, groups: int = 1, *,
    epilogue: Epilogue = PLAIN, least_tasks: int = 8, types: Types = ALL_FP32, tile: Tile = WHOLE,
    choice: Choice = AUTO,
) -> Convolution:  # fmt: skip
    """Equation (1) with block and tasks chosen for a CPU.

    Args:
        target: the CPU.
        source, columns, window, groups, epilogue: see `Convolution`.
        least_tasks: parts to cut into, if there are as many rows and panels.
        tile, choice: what is not to be chosen here; a tile's channels are the block's, where `choice` states none.
    Raises:
        SpecError: a chosen block does not fit the registers.
    """
    lanes = target.lanes
    vectors = round_up(columns, lanes) // lanes
    per_group = columns // groups
    widest = vectors
    if groups > 1:  # a panel within one group wastes nothing
        widest = next((v for v in (4, 3, 2) if per_group % (v * lanes) == 0), 1)
    depth = window.kernel[0] * window.kernel[1] * steps_of(max(1, source.shape[1] // groups), types.w)
    matrix = window.is_pixel and groups == 1 and source.strides[1] == 1 and is_usable(target, types, source.shape[1])
    if matrix:
        block = matrix_block(window.out_hw[1], vectors)
    elif choice.block is None:
        width = None if tile.channels is None else min(vectors, -(-tile.channels // lanes))
        block = choose_block(target, window.out_hw[1], width or widest, depth, roomy=epilogue.exponential, width=width)
    else:
        block = given_block(target, choice.block, window.out_hw[1], vectors)
    panels = Partition(vectors, block.vectors).count
    images = source.shape[0]
    row_tasks = max(1, -(-least_tasks // images))
    # small maps: cut the panels, so that each weight is read by one thread
    if window.out_hw[0] * window.out_hw[1] <= 256:
        row_tasks = 1
    row_tasks = min(window.out_hw[0], choice.row_parts or row_tasks)
    column_tasks = min(panels, choice.channel_parts or max(1, -(-least_tasks // (images * row_tasks))))
    return Convolution(source, columns, window, groups, lanes, block, row_tasks, column_tasks, epilogue, types, matrix)
