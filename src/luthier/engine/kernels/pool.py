"""Pools: the largest or the mean value of a window, of a cell of an adaptive grid, or of the whole map.

    y[n, c, oy, ox] = max or mean over (iy, ix) in cell(oy) x cell(ox) of x[n, c, iy, ix]             (1)

    cell(o) = the window's rows inside the map,  or  floor(o H / H_out) .. ceil((o + 1) H / H_out) - 1 (2)

A mean adds up each row of a cell and then the rows, so that rounding grows with H + W and not with H * W.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal

from luthier.engine.emit import F32, Function, Index, Value
from luthier.engine.kernels.element import ALL_FP32, Types
from luthier.engine.kernels.kernel import Body, Kernel
from luthier.engine.kernels.partition import Partition
from luthier.engine.kernels.window import Window
from luthier.engine.layout import round_up
from luthier.engine.target import Target

#: vectors of channels that are reduced side by side
_MOST_VECTORS: Final = 8


@dataclass(frozen=True, slots=True)
class Pooling(Kernel):
    """Equation (1).

    Attributes:
        images, channels: N and C.
        window: geometry; of an adaptive grid only the sizes of the maps matter.
        lanes: of the target.
        reduce: `max`, or `avg`.
        adaptive: whether cells are those of a grid that covers the map.
        divisor: of every sum; None = the number of elements inside the map.
        types: of x and y.
    """

    images: int
    channels: int
    window: Window
    lanes: int
    reduce: Literal["max", "avg"] = "avg"
    adaptive: bool = True
    divisor: int | None = None
    types: Types = ALL_FP32

    operands = ("x", "y")

    @property
    def blocks(self) -> Partition:
        """Channels, in vectors."""
        return Partition(round_up(self.channels, self.lanes) // self.lanes, _MOST_VECTORS)

    @property
    def tasks(self) -> int:
        """Images x channel blocks."""
        return self.images * self.blocks.count

    @property
    def title(self) -> str:
        """Of the kernel."""
        return (
            f"{self.types.title}_{self.reduce}pool_{'grid' if self.adaptive else self.window.title}_{self.blocks.limit}"
        )

    def emit(self, body: Body) -> None:
        """One task: a block of channels of one image."""
        f, types = body.f, self.types
        x_step, y_step = body.width(types.x), body.width(types.y)
        image, block = f.div(body.task, self.blocks.count), f.rem(body.task, self.blocks.count)
        x_ld, y_ld = self.blocks.total * x_step, self.blocks.total * y_step
        (in_h, in_w), (out_h, out_w) = self.window.in_hw, self.window.out_hw

        def channels(first: Index, count: int) -> None:
            x = body.at("x", (image, in_h * in_w * x_ld), (first, x_step))
            y = body.at("y", (image, out_h * out_w * y_ld), (first, y_step))

            def pixel(oy: Index, ox: Index) -> None:
                rows, columns = (cell(self.window, self.adaptive, f, o, axis) for axis, o in enumerate((oy, ox)))
                values = self._reduce(body, x, rows, columns, in_w * x_ld, x_ld, count)
                to = body.at(y, (oy, out_w * y_ld), (ox, y_ld))
                for v, value in enumerate(self._finish(body, values, rows, columns)):
                    body.store(value, to, v * y_step, types.y)

            f.loop(0, out_h, lambda oy, _: f.loop(0, out_w, lambda ox, _: pixel(oy, ox)))

        self.blocks.loop(f, channels, block, f.add(block, 1))

    def _reduce(
        self, body: Body, x: Value, rows: tuple[Index, Index], columns: tuple[Index, Index], down: int, right: int,
        count: int,
    ) -> list[Value]:  # fmt: skip
        f, element = body.f, self.types.x
        first = f.constant(float("-inf") if self.reduce == "max" else 0.0)
        start = [first] * count

        def combine(a: Value, b: Value) -> Value:
            if self.reduce == "avg":
                return f.fadd(a, b)
            return f.call(f"llvm.maximum.v{f.vector.lanes}f32", f.vector, (a, b))

        def row(iy: Index, total: list[Value]) -> list[Value]:
            at_row = f.offset(x, f.mul(iy, down))

            def column(ix: Index, part: list[Value]) -> list[Value]:
                at = f.offset(at_row, f.mul(ix, right))
                return [combine(value, body.load(at, v * body.width(element), element)) for v, value in enumerate(part)]

            part = f.loop(*columns, column, start)
            return [combine(a, b) for a, b in zip(total, part, strict=True)]

        return f.loop(*rows, row, start)

    def _finish(
        self, body: Body, values: list[Value], rows: tuple[Index, Index], columns: tuple[Index, Index]
    ) -> list[Value]:
        f = body.f
        if self.reduce == "max":
            return values
        if self.divisor is not None:
            below = f.constant(float(self.divisor))
        else:
            elements = f.index(f.mul(f.sub(rows[1], rows[0]), f.sub(columns[1], columns[0])))
            below = f.splat(f.assign(F32, f"sitofp {elements} to float"))
        return [f.fdiv(value, below) for value in values]


def cell(window: Window, adaptive: bool, f: Function, out: Index, axis: int) -> tuple[Index, Index]:
    """Equation (2): the range of rows (axis 0) or columns (axis 1) inside the map that one output takes."""
    size, cells = window.in_hw[axis], window.out_hw[axis]
    if adaptive:
        end = f.add(f.mul(f.add(out, 1), size), cells - 1)
        return f.div(f.mul(out, size), cells), f.div(end, cells)
    start = f.sub(f.mul(out, window.stride[axis]), window.pads[axis])
    low, high = window.taps(f, start, axis)
    return f.add(start, low), f.add(start, high)


def global_pooling(
    target: Target, images: int, channels: int, in_hw: tuple[int, int], reduce: Literal["max", "avg"] = "avg",
    divisor: int | None = None, types: Types = ALL_FP32,
) -> Pooling:  # fmt: skip
    """Over the whole map."""
    window = Window(in_hw, (1, 1), in_hw, (1, 1))
    return Pooling(images, channels, window, target.lanes, reduce, True, divisor, types)
