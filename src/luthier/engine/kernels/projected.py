"""A depthwise convolution and the pointwise one that alone reads it, band by band; before both, often, the expansion.

    e = producer(x),   d = consumer(e),   y = project(d),        neither e nor d is ever whole        (1)

For a band of output rows all channels of d are computed into the scratch, block by block where there is a producer
(`luthier.engine.kernels.banded`, with a ring for each block), and projected at once:

    scratch = rows * W_out * C + ring rows * W_in * C,      in numbers, C padded to whole vectors     (2)

A task is a part of an image's rows.  Weights are read once per band, so bands are worth their while where maps are
large and weights are few; and d, which would be written and read beyond the L2 cache, takes no memory.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Final

from numpy.typing import NDArray

from luthier.engine.emit import Index, Value
from luthier.engine.kernels.banded import Banded
from luthier.engine.kernels.depthwise import Depthwise
from luthier.engine.kernels.kernel import Body, Kernel
from luthier.engine.kernels.matmul import Matmul
from luthier.engine.kernels.partition import share
from luthier.engine.layout import round_up
from luthier.engine.target import Target
from luthier.schedule import Choice, Tile

Array = NDArray[Any]
_LINE: Final = 128


@dataclass(frozen=True, slots=True)
class Projected(Kernel):
    """Equation (1).

    Attributes:
        wide: what makes d: a depthwise convolution, or one with its producer; no sums.  Its parts of an image's rows
            are those of this kernel.
        project: of one output row: neither cut into tasks nor gated.
        rows: of the output, in a band.
    """

    wide: Banded | Depthwise
    project: Matmul
    rows: int

    def __post_init__(self) -> None:
        depthwise = self.depthwise
        assert not depthwise.sums
        assert not depthwise.epilogue.residual
        assert self.project.depth == depthwise.channels
        assert self.project.rows == depthwise.window.out_hw[1]
        assert self.project.tasks == 1
        assert not self.project.gate
        assert self.project.types.x == depthwise.types.y
        assert isinstance(self.wide, Depthwise) or self.wide.rows == self.rows

    @property
    def depthwise(self) -> Depthwise:
        """The convolution that makes d."""
        return self.wide if isinstance(self.wide, Depthwise) else self.wide.consumer

    @property
    def operands(self) -> tuple[str, ...]:  # type: ignore[override]
        """x, weights and biases in order, y, then what the last epilogue reads."""
        first = () if isinstance(self.wide, Depthwise) else ("first_weight", "first_bias")
        last = ("last_weight", "last_bias", "y", *self.project.epilogue.operands)
        return ("x", *first, "weight", "bias", *last)

    @property
    def tasks(self) -> int:
        """Images x parts of the rows."""
        return self.depthwise.images * self.depthwise.row_tasks

    @property
    def band_bytes(self) -> int:
        """Of d, in the scratch."""
        depthwise = self.depthwise
        row = depthwise.window.out_hw[1] * depthwise.vectors * depthwise.lanes * depthwise.types.y.bytes
        return round_up(self.rows * row, _LINE)

    @property
    def scratch_bytes(self) -> int:  # type: ignore[override]
        """Equation (2)."""
        rings = 0
        if isinstance(self.wide, Banded):
            rings = self.wide.ring_bytes * self.depthwise.vectors
        return self.band_bytes + rings

    @property
    def title(self) -> str:
        """Of the kernel."""
        return f"{self.wide.title}_{self.project.epilogue.title}_{self.project.block}x{self.rows}"

    @property
    def tile(self) -> Tile:
        """The band, and the block of channels of what is expanded."""
        return replace(self.wide.tile, rows=self.rows)

    @property
    def choice(self) -> Choice:
        """Of what makes d; the projection's block is its own."""
        return replace(self.wide.choice, projected=True)

    def emit(self, body: Body) -> None:
        """One task."""
        f, depthwise = body.f, self.depthwise
        parts, window = depthwise.row_tasks, depthwise.window
        image, part = f.div(body.task, parts), f.rem(body.task, parts)
        low, high = share(f, part, parts, window.out_hw[0])
        d_row = window.out_hw[1] * depthwise.vectors * body.width(depthwise.types.y)

        def band(oy: Index, produced: list[Value]) -> list[Value]:
            end = f.min(f.add(oy, self.rows), high)
            # d's rows lie where they would lie if the band were the whole of it
            beside = f.mul(f.add(f.mul(image, window.out_hw[0]), oy), d_row)
            inner = body.within(body.scratch, y=f.offset(body.scratch, f.sub(0, beside)))
            following = self._wide(inner, image, (oy, end), produced)
            self._project(body, image, (oy, end), d_row)
            return following

        f.loop(low, high, band, [f.index(f.max(window.in_row(low, f), 0))], step=self.rows)

    def _wide(
        self, body: Body, image: Index, rows: tuple[Index, Index], produced: list[Value]
    ) -> list[Value]:  # fmt: skip
        """A band of d."""
        f, wide = body.f, self.wide
        if isinstance(wide, Depthwise):
            f.loop(0, wide.vectors, lambda index, _: wide.sweep(body, image, index, rows, []))
            return produced
        span = wide.demand(f, rows, produced[0])
        x = wide.image_of(body, image)

        def block(first: Index, vectors: int) -> None:
            ring = f.offset(body.scratch, f.add(self.band_bytes, f.mul(first, wide.ring_bytes)))
            wide.band(body.within(ring), image, x, first, vectors, rows, span, None)

        wide.producer.panels.loop(f, block)
        return [f.index(f.max(*span))]

    def _project(self, body: Body, image: Index, rows: tuple[Index, Index], d_row: int) -> None:
        """The band's rows of y."""
        f, project, (out_h, out_w) = body.f, self.project, self.depthwise.window.out_hw
        inner = body.within(body.scratch, bias=body["last_bias"])
        y_row, d_pixel = out_w * project.ld(project.columns, project.types.y), d_row // out_w

        def panel(vector: Index, vectors: int) -> None:
            def row(oy: Index, _: object) -> None:
                y = f.mul(f.add(f.mul(image, out_h), oy), y_row)

                def cell(pixel: Index, count: int) -> None:
                    d = body.at(body.scratch, (f.sub(oy, rows[0]), d_row), (pixel, d_pixel))
                    project.cell(inner, d, body["last_weight"], y, pixel, count, vector, vectors)

                project.row_blocks.loop(f, cell)

            f.loop(*rows, row)

        project.panels.loop(f, panel)


def projected(
    target: Target, wide: Banded | Depthwise, project: Matmul, least_tasks: int = 8, rows: int | None = None,
    parts: int | None = None,
) -> Projected:  # fmt: skip
    """Equation (1), the band being the tallest whose scratch takes an eighth of the L2 cache, at least one row.

    Args:
        target: the CPU.
        wide, project: see `Projected`; parts and rows are set here.
        least_tasks: parts to cut into, if there are as many fours of rows.
        rows, parts: of a band, and of an image, instead.
    """
    depthwise = wide if isinstance(wide, Depthwise) else wide.consumer
    height = depthwise.window.out_hw[0]
    parts = min(height, parts or max(1, min(height // 4, -(-least_tasks // depthwise.images))))
    depthwise = replace(depthwise, row_tasks=parts)

    def of(count: int) -> Projected:
        made = depthwise if isinstance(wide, Depthwise) else replace(wide, consumer=depthwise, rows=count)
        return Projected(made, project, count)

    tallest = -(-height // parts)
    if rows is not None:
        return of(min(rows, tallest))
    fitting = (count for count in range(tallest, 1, -1) if of(count).scratch_bytes <= target.l2_bytes // 8)
    return of(next(fitting, 1))
