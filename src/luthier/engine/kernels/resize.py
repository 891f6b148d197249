"""Another height and width: the nearest pixel, or a mean of the four around a place, weighted by nearness.

    nearest     i = floor(o H / H_out)                                                                (1)
    bilinear    p = clip((2 o + 1) H - H_out, 0, 2 H_out (H - 1)),  i = floor(p / 2 H_out),
                y = (1 - s) x[i] + s x[min(i + 1, H - 1)],          s = p / (2 H_out) - i             (2)

and likewise for columns.  Whole numbers, so that no place is rounded before it is compared.
"""

from __future__ import annotations

from dataclasses import dataclass

from luthier.engine.emit import F32, Function, Index, Value
from luthier.engine.kernels.element import ALL_FP32, Types
from luthier.engine.kernels.kernel import Body, Kernel
from luthier.engine.kernels.partition import share
from luthier.engine.layout import Layout
from luthier.engine.target import Target
from luthier.graph.attrs import Pair


@dataclass(frozen=True, slots=True)
class Resizing(Kernel):
    """Equations (1) and (2).

    Attributes:
        shape: of x, (N, C, H, W).
        out_hw: (H_out, W_out).
        bilinear: which of them.
        lanes: of the target.
        parts: of the N * H_out rows.
        types: of x and y.
    """

    shape: tuple[int, int, int, int]
    out_hw: Pair
    bilinear: bool
    lanes: int
    parts: int = 1
    types: Types = ALL_FP32

    operands = ("x", "y")

    @property
    def tasks(self) -> int:
        """Parts of the rows."""
        return self.parts

    @property
    def title(self) -> str:
        """Of the kernel."""
        return f"{self.types.title}_resize_{'bilinear' if self.bilinear else 'nearest'}_1x1"

    def emit(self, body: Body) -> None:
        """One task: some rows of some images."""
        f, types, n = body.f, self.types, self.shape[0]
        image, _, down, right = (types.x.bytes * s for s in Layout.padded(self.shape, self.lanes).strides)
        out = Layout.padded((*self.shape[:2], *self.out_hw), self.lanes)
        out_image, _, out_down, out_right = (types.y.bytes * s for s in out.strides)

        def row(index: Index, _: object) -> None:
            batch, oy = f.div(index, self.out_hw[0]), f.rem(index, self.out_hw[0])
            x = body.at("x", (batch, image))
            y = body.at("y", (batch, out_image), (oy, out_down))
            rows, share_down = self._places(f, oy, 0)

            def pixel(ox: Index, _: object) -> None:
                columns, share_right = self._places(f, ox, 1)
                corners = [[body.at(x, (r, down), (k, right)) for k in columns] for r in rows]
                to = body.at(y, (ox, out_right))

                def channels(v: Index, _: object) -> None:
                    by = f.mul(v, body.width(types.x))
                    lines = [[body.load(f.offset(corner, by), 0, types.x) for corner in line] for line in corners]
                    mixed = [_mix(f, line, share_right) for line in lines]
                    body.store(_mix(f, mixed, share_down), body.at(to, (v, body.width(types.y))), 0, types.y)

                f.loop(0, right // body.width(types.x), channels)

            f.loop(0, self.out_hw[1], pixel)

        f.loop(*share(f, body.task, self.parts, n * self.out_hw[0]), row)

    def _places(self, f: Function, out: Index, axis: int) -> tuple[list[Index], Value | None]:
        """What one row or column of y reads, and the share of the second one."""
        size, count = self.shape[2 + axis], self.out_hw[axis]
        if not self.bilinear:
            return [f.div(f.mul(out, size), count)], None
        place = f.sub(f.mul(f.add(f.mul(out, 2), 1), size), count)
        place = f.min(f.max(place, 0), 2 * count * (size - 1))
        low = f.div(place, 2 * count)
        over = f.assign(F32, f"sitofp {f.index(f.rem(place, 2 * count))} to float")
        part = f.fdiv(over, f.constant(2.0 * count, F32))
        return [low, f.min(f.add(low, 1), size - 1)], f.splat(part)


def _mix(f: Function, values: list[Value], part: Value | None) -> Value:
    if part is None:
        return values[0]
    first, second = values
    return f.fma(second, part, f.fmul(first, f.fsub(f.constant(1.0), part)))


def resizing(
    target: Target, shape: tuple[int, int, int, int], out_hw: Pair, bilinear: bool, least_tasks: int = 8,
    types: Types = ALL_FP32,
) -> Resizing:  # fmt: skip
    """Equations (1) and (2), cut into tasks."""
    return Resizing(shape, out_hw, bilinear, target.lanes, min(shape[0] * out_hw[0], least_tasks), types)
