"""Pools of bytes: the largest integer of a window, of a cell of a grid or of the map, or the mean.

q = max over the cell                       q = clamp(rint(fp32(start[cell] + sum over the cell) * m[cell]) + z)

start[cell] = -z_x * pixels of the cell inside the map,     m for the pixels that count                  (1)
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from luthier.engine.emit import F32, I32, Index, Value
from luthier.engine.kernels.int8 import narrow_maps
from luthier.engine.kernels.int8.result import Result, store_units
from luthier.engine.kernels.int8.units import BYTES, SUMS, UNIT, cast, join, op, units, zeros
from luthier.engine.kernels.kernel import Body, Kernel
from luthier.engine.kernels.partition import Partition
from luthier.engine.kernels.pool import cell
from luthier.engine.kernels.window import Window

_BLOCK = 4


@dataclass(frozen=True, slots=True)
class Pooling8(Kernel):
    """Equation (1).

    Attributes:
        images, channels: N and C.
        window: geometry; of an adaptive grid only the sizes of the maps matter.
        reduce: `max`, or `avg`.
        adaptive: whether cells are those of a grid that covers the map.
        summed: whether x holds sums in 32 bits instead of bytes.
    """

    images: int
    channels: int
    window: Window
    reduce: Literal["max", "avg"] = "avg"
    adaptive: bool = True
    summed: bool = False

    @property
    def operands(self) -> tuple[str, ...]:  # type: ignore[override]
        """x, y; a mean also reads (1) and z."""
        return ("x", "y") if self.reduce == "max" else ("x", "y", "start", "scale", "numbers")

    @property
    def blocks(self) -> Partition:
        """Channels, in units."""
        return Partition(units(self.channels), _BLOCK)

    @property
    def tasks(self) -> int:
        """Images x blocks of channels."""
        return self.images * self.blocks.count

    @property
    def title(self) -> str:
        """Of the kernel."""
        where = "grid" if self.adaptive else self.window.title
        return f"int8_{self.reduce}pool_{where}_{'sums' if self.summed else 'bytes'}_{_BLOCK}"

    def emit(self, body: Body) -> None:
        """One task: a block of channels of one image."""
        if body.target.is_narrow:
            narrow_maps.pooling(self, body)
            return
        f = body.f
        image, block = f.div(body.task, self.blocks.count), f.rem(body.task, self.blocks.count)
        ld = units(self.channels) * UNIT
        (in_h, in_w), (out_h, out_w) = self.window.in_hw, self.window.out_hw
        item = 4 if self.summed else 1

        def channels(first: Index, count: int) -> None:
            lane = f.mul(first, UNIT)
            x = body.at("x", (image, in_h * in_w * ld * item), (lane, item))
            y = body.at("y", (image, out_h * out_w * ld), (lane, 1))

            def pixel(oy: Index, ox: Index) -> None:
                rows, columns = (cell(self.window, self.adaptive, f, o, axis) for axis, o in enumerate((oy, ox)))
                at = f.add(f.mul(oy, out_w), ox)
                first = zeros(BYTES)
                if self.reduce == "avg":
                    first = f.splat(f.load(I32, body.at("start", (at, 4))), UNIT)
                values = self._reduce(body, x, rows, columns, first, count)
                if self.reduce == "max":
                    q = join(f, [*values, *[values[-1]] * (_BLOCK - count)])
                else:
                    scale = f.splat(f.load(F32, body.at("scale", (at, 4))), UNIT)
                    q = Result().open(body).bytes(values, [scale] * count)
                store_units(body, q, range(0, UNIT * count, UNIT), f.offset(y, f.mul(at, ld)))

            f.loop(0, out_h, lambda oy, _: f.loop(0, out_w, lambda ox, _: pixel(oy, ox)))

        self.blocks.loop(f, channels, block, f.add(block, 1))

    def _reduce(
        self, body: Body, x: Value, rows: tuple[Index, Index], columns: tuple[Index, Index], first: Value, count: int
    ) -> list[Value]:
        f, item = body.f, 4 if self.summed else 1
        right = units(self.channels) * UNIT * item
        down = self.window.in_hw[1] * right

        def add(value: Value, at: Value, u: int) -> Value:
            if self.reduce == "max":
                return f.call("llvm.umax.v16i8", BYTES, (value, f.load(BYTES, at, UNIT * u, align=UNIT)))
            loaded = f.load(SUMS if self.summed else BYTES, at, UNIT * item * u, align=UNIT * item)
            return op(f, "add", value, cast(f, "zext", loaded, SUMS))

        def row(iy: Index, values: list[Value]) -> list[Value]:
            at_row = f.offset(x, f.mul(iy, down))

            def column(ix: Index, values: list[Value]) -> list[Value]:
                at = f.offset(at_row, f.mul(ix, right))
                return [add(value, at, u) for u, value in enumerate(values)]

            return f.loop(*columns, column, values)

        return f.loop(*rows, row, [first] * count)
