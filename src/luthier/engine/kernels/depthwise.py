"""Depthwise convolution: every channel with a window of its own.

    y[n, c, oy, ox] = epilogue(bias[c] + sum_ky,kx x[n, c, iy, ix] * weight[c, ky, kx])               (1)

One tile of a row keeps at least 14 sums of one vector of channels where there are so many registers: a sum waits for
its predecessor, and only others can fill the time.  Every input vector is read once per window row and used by all
outputs that it belongs to.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from luthier.engine.emit import Index, Value
from luthier.engine.kernels.element import ALL_FP32, FP32, Element, Types
from luthier.engine.kernels.epilogue import PLAIN, Epilogue
from luthier.engine.kernels.kernel import Body, Kernel
from luthier.engine.kernels.partition import Partition, share
from luthier.engine.kernels.window import ColumnTile, Window
from luthier.engine.layout import round_up
from luthier.engine.target import Target
from luthier.schedule import AUTO, WHOLE, Choice, Tile

Array = NDArray[Any]
_MOST_SUMS = 16


@dataclass(frozen=True, slots=True)
class TapRows:
    """The input rows that one output row needs, inside the map.

    Attributes:
        taps: range of ky.
        first: to column 0 of the first of them.
        following: from one to the next.
        ld: bytes between pixels.
    """

    taps: tuple[Index, Index]
    first: Value
    following: Callable[[Value], Value]
    ld: int


@dataclass(frozen=True, slots=True)
class Depthwise(Kernel):
    """Equation (1).

    Attributes:
        images, channels: N and C.
        window: geometry.
        lanes: of the target.
        columns: most outputs in a tile.
        block: vectors of channels that are swept together.
        row_tasks: parts of the output's rows.
        epilogue: behind the sum.
        sums: whether the outputs are summed over each part of the rows, into a tensor (N, C, row_tasks, 1).
        types: of x and y; the weights are fp32.
    """

    images: int
    channels: int
    window: Window
    lanes: int
    columns: int
    block: int
    row_tasks: int = 1
    epilogue: Epilogue = PLAIN
    sums: bool = False
    types: Types = ALL_FP32

    @property
    def operands(self) -> tuple[str, ...]:  # type: ignore[override]
        """x, weight, bias, y, then the sums and what the epilogue reads."""
        return ("x", "weight", "bias", "y", *(["sums"] if self.sums else []), *self.epilogue.operands)

    @property
    def vectors(self) -> int:
        """Vectors of one pixel."""
        return round_up(self.channels, self.lanes) // self.lanes

    @property
    def blocks(self) -> Partition:
        """Channels, in vectors."""
        return Partition(self.vectors, self.block)

    @property
    def tasks(self) -> int:
        """Images x channel blocks x parts of the rows."""
        return self.images * self.blocks.count * self.row_tasks

    @property
    def title(self) -> str:
        """Of the kernel."""
        return f"{self.types.title}_depthwise_{self.window.title}_{self.epilogue.title}_{self.columns}x{self.block}"

    @property
    def tile(self) -> Tile:
        """Channels that are swept together."""
        return Tile(channels=min(self.block * self.lanes, self.channels))

    @property
    def choice(self) -> Choice:
        """All else that `depthwise` chose."""
        return Choice(outputs=self.columns, row_parts=self.row_tasks)

    def pack(self, weight: Array, bias: Array | None) -> tuple[Array, Array]:
        """[vector][ky][kx][lane] from (C, 1, K_H, K_W); and the bias with zeros behind it."""
        return pack_depthwise(weight, bias, self.lanes)

    def emit(self, body: Body) -> None:
        """One task: some rows of a block of channels of one image."""
        f, width = body.f, body.target.vector_bytes
        per_image = self.blocks.count * self.row_tasks
        image, part = f.div(body.task, per_image), f.rem(body.task, per_image)
        block, row_part = f.div(part, self.row_tasks), f.rem(part, self.row_tasks)
        rows = share(f, row_part, self.row_tasks, self.window.out_hw[0])

        def vector(index: Index) -> None:
            zero = [Value(f.vector, "zeroinitializer")] if self.sums else []
            total = self.sweep(body, image, index, rows, zero)
            if self.sums:
                to = body.at(
                    "sums", (f.add(f.mul(image, self.row_tasks), row_part), self.vectors * width), (index, width)
                )
                body.store(total[0], to)

        def channels(first: Index, count: int) -> None:
            f.loop(first, f.add(first, count), lambda index, _: vector(index))

        self.blocks.loop(f, channels, block, f.add(block, 1))

    def sweep(
        self, body: Body, image: Index, index: Index, rows: tuple[Index, Index], carried: list[Value]
    ) -> list[Value]:
        """Some rows of one vector of channels; what they sum to is added to `carried`, if it is a number."""
        f, width = body.f, body.target.vector_bytes
        x_step, y_step = body.width(self.types.x), body.width(self.types.y)
        x_ld, ld = self.vectors * x_step, self.vectors * y_step
        (in_h, in_w), (out_h, out_w) = self.window.in_hw, self.window.out_hw
        taps = self.window.kernel[0] * self.window.kernel[1]
        weight, bias = body.at("weight", (index, taps * width)), body.at("bias", (index, width))
        source = body.at("x", (image, in_h * in_w * x_ld), (index, x_step))

        def row(oy: Index, carried: list[Value]) -> list[Value]:
            start = self.window.in_row(oy, f)
            taps = self.window.taps(f, start, 0)
            down, step = in_w * x_ld, self.window.dilation[0]
            first = body.at(source, (f.add(start, f.mul(taps[0], step)), down))
            tap_rows = TapRows(taps, first, lambda at: f.offset(at, step * down), x_ld)
            where = f.add(f.mul(f.add(f.mul(image, out_h), oy), out_w * ld), f.mul(index, y_step))
            return self.row(body, tap_rows, weight, bias, where, ld, carried)

        return f.loop(*rows, row, carried)

    def row(
        self, body: Body, rows: TapRows, weight: Value, bias: Value, where: Index, ld: int, carried: list[Value]
    ) -> list[Value]:
        """One output row of one vector of channels; adds what it writes to the carried sum, if there is one.

        Args:
            body: where the code goes.
            rows: the input rows inside the map.
            weight, bias: of this vector.
            where: bytes from the output's beginning to the row.
            ld: bytes between pixels of the output.
            carried: a running sum, or nothing.
        """
        f, types = body.f, self.types
        for tile in self.window.column_tiles(self.columns):

            def one(index: Index, carried: list[Value], tile: ColumnTile = tile) -> list[Value]:
                ox = f.add(f.mul(index, tile.size), tile.first)
                results = convolve_tile(body, self.window, tile, ox, rows, weight, body.load(bias), types.x)
                to = f.add(where, f.mul(ox, ld))
                y = f.offset(body["y"], to)
                residual = f.offset(body["residual"], to) if self.epilogue.residual else None
                written = []
                for o, value in enumerate(results):
                    written.append(self.epilogue.apply(body, value, residual, o * ld, types.y))
                    body.store(written[-1], y, o * ld, types.y)
                return [f.fadd(carried[0], tree_sum(body, written))] if carried else []

            carried = f.loop(0, tile.count, one, carried)
        return carried


def tree_sum(body: Body, values: Sequence[Value]) -> Value:
    """The sum of vectors, pair by pair."""
    while len(values) > 1:
        paired = [body.f.fadd(a, b) for a, b in zip(values[::2], values[1::2], strict=False)]
        values = paired + ([values[-1]] if len(values) % 2 else [])
    return values[0]


def convolve_tile(
    body: Body, window: Window, tile: ColumnTile, ox: Index, rows: TapRows, weight: Value, bias: Value,
    element: Element = FP32,
) -> list[Value]:  # fmt: skip
    """The sums of equation (1) for the outputs ox .. ox + tile.size - 1 of one row and one vector of channels.

    Args:
        body: where the code goes.
        window, tile: geometry.
        ox: first output column.
        rows: of the input.
        weight: [ky][kx] vectors.
        bias: where the sums begin.
        element: of the input.
    """
    f, width = body.f, body.target.vector_bytes
    (_, kernel_w), stride, dilation = window.kernel, window.stride[1], window.dilation[1]
    columns = f.mul(window.in_column(ox, f), rows.ld)

    def tap_row(ky: Index, carried: list[Value]) -> list[Value]:
        at, result = carried[0], carried[1:]
        source, row = f.offset(at, columns), f.offset(weight, f.mul(ky, kernel_w * width))
        weights = [body.load(row, kx * width) for kx in range(kernel_w)]
        for ix in range((tile.size - 1) * stride + (kernel_w - 1) * dilation + 1):
            users = [(o, kx) for kx in range(kernel_w) for o in tile.taps[kx] if o * stride + kx * dilation == ix]
            if users:
                value = body.load(source, ix * rows.ld, element)
                for o, kx in users:
                    result[o] = f.fma(value, weights[kx], result[o])
        return [rows.following(at), *result]

    return f.loop(*rows.taps, tap_row, [rows.first, *([bias] * tile.size)])[1:]


def pack_depthwise(weight: Array, bias: Array | None, lanes: int) -> tuple[Array, Array]:
    """[vector][ky][kx][lane] from (C, 1, K_H, K_W); and the bias with zeros behind it."""
    channels, _, kernel_h, kernel_w = weight.shape
    vectors = round_up(channels, lanes) // lanes
    padded = np.zeros((vectors * lanes, kernel_h, kernel_w), np.float32)
    padded[:channels] = weight[:, 0]
    behind = np.zeros(vectors * lanes, np.float32)
    if bias is not None:
        behind[:channels] = bias
    return padded.reshape(vectors, lanes, kernel_h, kernel_w).transpose(0, 2, 3, 1).ravel(), behind


def most_columns(target: Target, kernel_w: int) -> int:
    """Outputs per tile: the window's row of weights and one input need registers too."""
    return max(1, min(_MOST_SUMS, target.registers - kernel_w - 2))


def depthwise(
    target: Target, images: int, channels: int, window: Window, *, epilogue: Epilogue = PLAIN,
    sums: bool = False, least_tasks: int = 8, types: Types = ALL_FP32, tile: Tile = WHOLE, choice: Choice = AUTO,
) -> Depthwise:  # fmt: skip
    """Equation (1) with tiles and tasks chosen for a CPU: the rows that a window spans stay in half of the L1 cache.

    Args:
        target: the CPU.
        images, channels, window, epilogue, sums: see `Depthwise`.
        least_tasks: parts to cut into, if there are as many rows and blocks.
        tile, choice: what is not to be chosen here.
    """
    vectors = round_up(channels, target.lanes) // target.lanes
    block = target.l1_bytes // 2 // (window.reach * window.in_hw[1] * target.lanes * types.x.bytes)
    if tile.channels is not None:
        block = -(-tile.channels // target.lanes)
    block = max(1, min(vectors, block))
    blocks = Partition(vectors, block).count
    row_tasks = choice.row_parts or max(1, min(window.out_hw[0] // 4, -(-least_tasks // (images * blocks))))
    row_tasks = min(window.out_hw[0], row_tasks)
    columns = choice.outputs or most_columns(target, window.kernel[1])
    return Depthwise(images, channels, window, target.lanes, columns, block, row_tasks, epilogue, sums, types)
