"""Moves a block of numbers from one layout to another: what flatten, reshape, concat, pad and subsample come down to.

y[n, c, h, w] = x[n, c, h, w],     each with offset and strides of its own                        (1)
"""

from __future__ import annotations

from dataclasses import dataclass

from luthier.engine.emit import F32, Index
from luthier.engine.kernels.element import ALL_FP32, Types
from luthier.engine.kernels.kernel import Body, Kernel
from luthier.engine.kernels.partition import share
from luthier.engine.layout import round_up
from luthier.engine.target import Target

Strides = tuple[int, int, int, int]


@dataclass(frozen=True, slots=True)
class Copy(Kernel):
    """Equation (1).

    Attributes:
        shape: (N, C, H, W) of what is moved.
        source, destination: strides, in elements.
        start, first: elements before the first one, in y and in x.
        lanes: of the target, if whole vectors of channels are moved, else 1.
        parts: of N * H rows.
        types: of x and y.
    """

    shape: tuple[int, int, int, int]
    source: Strides
    destination: Strides
    start: int
    first: int
    lanes: int
    parts: int
    types: Types = ALL_FP32

    operands = ("x", "y")

    @property
    def tasks(self) -> int:
        """Parts of the rows."""
        return self.parts

    @property
    def title(self) -> str:
        """Of the kernel."""
        return f"{self.types.title}_copy_1x{self.lanes}"

    def emit(self, body: Body) -> None:
        """One task: some rows of some images."""
        f = body.f
        n, c, h, w = self.shape
        kind = f.vector if self.lanes > 1 else F32
        read, write = self.types.x, self.types.y
        source, destination = [read.bytes * s for s in self.source], [write.bytes * s for s in self.destination]
        x, y = f.offset(body["x"], read.bytes * self.first), f.offset(body["y"], write.bytes * self.start)

        def row(index: Index, _: object) -> None:
            image, down = f.div(index, h), f.rem(index, h)
            from_row = body.at(x, (image, source[0]), (down, source[2]))
            to_row = body.at(y, (image, destination[0]), (down, destination[2]))

            def pixel(right: Index, _: object) -> None:
                at, to = body.at(from_row, (right, source[3])), body.at(to_row, (right, destination[3]))

                def channel(c: Index, _: object) -> None:
                    value = read.load(f, kind, body.at(at, (c, source[1])), 0, read.bytes)
                    write.store(f, body.target, value, body.at(to, (c, destination[1])), 0, write.bytes)

                f.loop(0, round_up(c, self.lanes), channel, step=self.lanes)

            f.loop(0, w, pixel)

        f.loop(*share(f, body.task, self.parts, n * h), row)


def copy(
    target: Target, shape: tuple[int, int, int, int], source: Strides, destination: Strides, start: int = 0,
    first: int = 0, *, gaps: bool, least_tasks: int = 8, types: Types = ALL_FP32,
) -> Copy:  # fmt: skip
    """Equation (1), by whole vectors where channels lie side by side in both and nothing else is overwritten.

    Args:
        gaps: whether x and y have room behind their channels up to a whole vector.
    """
    whole = gaps or shape[1] % target.lanes == 0
    lanes = target.lanes if whole and source[1] == destination[1] == 1 else 1
    return Copy(shape, source, destination, start, first, lanes, min(shape[0] * shape[2], least_tasks), types)
