"""Moves bytes from one layout to another: what pad, slice, concat, shuffle, subsample and reshape come down to.

y[n, c, h, w] = x[n, c, h, w],     each with offset and strides of its own                        (1)
"""

from __future__ import annotations

from dataclasses import dataclass
from math import gcd

from luthier.engine.emit import Index, vector
from luthier.engine.kernels.copy import Strides
from luthier.engine.kernels.int8.units import I8, UNIT
from luthier.engine.kernels.kernel import Body, Kernel
from luthier.engine.kernels.partition import share


@dataclass(frozen=True, slots=True)
class Copy8(Kernel):
    """Equation (1).

    Attributes:
        shape: (N, C, H, W) of what is moved.
        source, destination: strides, in bytes.
        start, first: bytes before the first one, in y and in x.
        parts: of N * H rows.
    """

    shape: tuple[int, int, int, int]
    source: Strides
    destination: Strides
    start: int = 0
    first: int = 0
    parts: int = 1

    operands = ("x", "y")

    @property
    def tasks(self) -> int:
        """Parts of the rows."""
        return self.parts

    @property
    def piece(self) -> int:
        """Channels that are moved at once: a power of two that divides all that it must."""
        if (self.source[1], self.destination[1]) != (1, 1):
            return 1
        return gcd(UNIT, self.shape[1])

    @property
    def title(self) -> str:
        """Of the kernel."""
        return f"int8_copy_1x{self.piece}"

    def emit(self, body: Body) -> None:
        """One task: some rows of some images."""
        f, piece = body.f, self.piece
        n, c, h, w = self.shape
        kind = vector(I8, piece) if piece > 1 else I8
        x, y = f.offset(body["x"], self.first), f.offset(body["y"], self.start)

        def row(index: Index, _: object) -> None:
            image, down = f.div(index, h), f.rem(index, h)
            at_row = body.at(x, (image, self.source[0]), (down, self.source[2]))
            to_row = body.at(y, (image, self.destination[0]), (down, self.destination[2]))

            def pixel(right: Index, _: object) -> None:
                at, to = body.at(at_row, (right, self.source[3])), body.at(to_row, (right, self.destination[3]))

                def channel(index: Index, _: object) -> None:
                    value = f.load(kind, body.at(at, (index, self.source[1])), align=1)
                    f.store(value, body.at(to, (index, self.destination[1])), align=1)

                f.loop(0, c, channel, step=piece)

            f.loop(0, w, pixel)

        f.loop(*share(f, body.task, self.parts, n * h), row)
