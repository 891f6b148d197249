"""A depthwise convolution on bytes and the pointwise one that alone reads it, band by band; often with the expansion.

    e = producer(x),   d = consumer(e),   y = project(d),        neither e nor d is ever whole        (1)

For a band of output rows all channels of d are computed, block by block, into a buffer, and projected at once as one
run of pixels.  Every block keeps a ring of its own (see `ring`), so that nothing is computed twice:

    scratch = rows * W_out * C + rings of all blocks + buffer of one block's e,      bytes            (2)

A task is a part of an image's rows.  Weights are read once per band, as in `luthier.engine.kernels.projected`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

from luthier.engine.emit import Index, Value
from luthier.engine.kernels.int8.banded import Banded8
from luthier.engine.kernels.int8.conv import Convolution8
from luthier.engine.kernels.int8.depthwise import Depthwise8
from luthier.engine.kernels.int8.ring import Ring, write_borders
from luthier.engine.kernels.int8.units import SLACK, UNIT, units
from luthier.engine.kernels.kernel import Body, Kernel
from luthier.engine.kernels.partition import share
from luthier.engine.layout import round_up
from luthier.engine.target import Target
from luthier.schedule import Choice, Tile

_LINE = 64


@dataclass(frozen=True, slots=True)
class Projected8(Kernel):
    """Equation (1).

    Attributes:
        wide: what makes d: a depthwise convolution, or one with its producer; of integers, without sums.  Its parts of
            an image's rows are those of this kernel.
        project: of the rows of d, line by line.
        rows: of the output, in a band.
    """

    wide: Banded8 | Depthwise8
    project: Convolution8
    rows: int

    def __post_init__(self) -> None:
        depthwise, geometry = self.depthwise, self.project.geometry
        assert not depthwise.sums
        assert not depthwise.result.residual
        assert depthwise.result.item_bytes == 1
        assert (geometry.lines, geometry.columns) == depthwise.window.out_hw
        assert geometry.pixel_bytes == depthwise.blocks.total * UNIT
        assert isinstance(self.wide, Depthwise8) or self.wide.rows == self.rows

    @property
    def depthwise(self) -> Depthwise8:
        """The convolution that makes d."""
        return self.wide if isinstance(self.wide, Depthwise8) else self.wide.consumer

    @property
    def operands(self) -> tuple[str, ...]:  # type: ignore[override]
        """What makes d reads, and what the projection does; y."""
        wide = tuple(role for role in self.wide.operands if role != "y")
        return (*wide, *(f"last_{role}" for role in self._last), "y")

    @property
    def _last(self) -> tuple[str, ...]:
        return tuple(role for role in self.project.operands if role not in ("x", "y"))

    @property
    def tasks(self) -> int:
        """Images x parts of the rows."""
        return self.depthwise.images * self.depthwise.row_tasks

    @property
    def band_bytes(self) -> int:
        """Of d, and what a tile may read behind it."""
        depthwise = self.depthwise
        return round_up(self.rows * depthwise.window.out_hw[1] * depthwise.blocks.total * UNIT + SLACK, _LINE)

    @property
    def _ring_bytes(self) -> int:
        """Of one unit's ring; a block's begins at that of its first unit."""
        ring = self.depthwise.ring(1)
        return (ring.slots + 1) * ring.row_bytes

    @property
    def _own_bytes(self) -> int:
        """Of the matrix unit's sums, which the two products take in turn."""
        producer = 0 if isinstance(self.wide, Depthwise8) else self.wide.producer.scratch_bytes
        return max(producer, self.project.scratch_bytes)

    @property
    def scratch_bytes(self) -> int:  # type: ignore[override]
        """Equation (2)."""
        buffer = 0 if isinstance(self.wide, Depthwise8) else self.wide.buffer_bytes
        return self._own_bytes + self.band_bytes + self._ring_bytes * self.depthwise.blocks.total + buffer

    @property
    def title(self) -> str:
        """Of the kernel."""
        return f"{self.wide.title}_{self.project.title.removeprefix('int8_')}x{self.rows}"

    @property
    def tile(self) -> Tile:
        """The band, and the block of channels of what is expanded."""
        return replace(self.wide.tile, rows=self.rows)

    @property
    def choice(self) -> Choice:
        """That of what makes d; the projection's own block the kernel chooses."""
        return replace(self.wide.choice, projected=True)

    def emit(self, body: Body) -> None:
        """One task."""
        f, depthwise = body.f, self.depthwise
        parts, window, blocks = depthwise.row_tasks, depthwise.window, depthwise.blocks
        image, part = f.div(body.task, parts), f.rem(body.task, parts)
        low, high = share(f, part, parts, window.out_hw[0])
        d = f.offset(body.scratch, self._own_bytes)
        rings = f.offset(d, self.band_bytes)
        buffer = f.offset(rings, self._ring_bytes * blocks.total)
        d_row = window.out_hw[1] * blocks.total * UNIT

        def ring_of(first: Index, count: int) -> tuple[Ring, Body]:
            return depthwise.ring(count), body.within(body.at(rings, (first, self._ring_bytes)))

        def open_ring(first: Index, count: int) -> None:
            ring, inner = ring_of(first, count)
            write_borders(inner, ring)

        blocks.loop(f, open_ring)

        def band(oy: Index, staged: list[Value]) -> list[Value]:
            these = oy, f.min(f.add(oy, self.rows), high)
            span = depthwise.demand(f, these, staged[0])
            # d's rows lie where they would lie if the band were the whole of it
            beside = f.mul(f.add(f.mul(image, window.out_hw[0]), oy), d_row)
            y = f.offset(d, f.sub(0, beside))

            def block(first: Index, count: int) -> None:
                ring, inner = ring_of(first, count)
                if isinstance(self.wide, Depthwise8):
                    x, ld = self._x(body, image, first), blocks.total * UNIT
                else:
                    x, ld = self.wide.produce(body, buffer, image, first, count, span), count * UNIT
                depthwise.sweep(inner.within(inner.scratch, y=y), ring, x, ld, image, first, these, staged[0], None)

            if not isinstance(self.wide, Depthwise8):
                self.wide.begin(body)
            blocks.loop(f, block)
            if not isinstance(self.wide, Depthwise8):
                self.wide.producer.end(body)
            self._project(body, image, these, d)
            return [f.index(span[1])]

        f.loop(low, high, band, [f.index(f.max(window.in_row(low, f), 0))], step=self.rows)

    def _x(self, body: Body, image: Index, first: Index) -> Value:
        (height, width), ld = self.depthwise.window.in_hw, self.depthwise.blocks.total * UNIT
        return body.at("x", (image, height * width * ld), (first, UNIT))

    def _project(self, body: Body, image: Index, rows: tuple[Index, Index], d: Value) -> None:
        """The band's rows of y."""
        f, project, (out_h, out_w) = body.f, self.project, self.depthwise.window.out_hw
        inner = body.within(body.scratch, **{role: body[f"last_{role}"] for role in self._last})
        ld = units(project.channels) * UNIT
        pixel = f.mul(f.add(f.mul(image, out_h), rows[0]), out_w)
        pixels = f.mul(f.sub(rows[1], rows[0]), out_w)

        def panel(unit: Index, wide: int) -> None:
            where = f.add(f.mul(pixel, ld), f.mul(unit, UNIT))
            project.run(inner, d, pixels, unit, wide, *project.places(inner, where), ld)

        project.begin(inner)
        project.panels.loop(f, panel)
        project.end(inner)


def projected8(
    target: Target, make: Callable[[int | None, int | None], Banded8 | Depthwise8], project: Convolution8, images: int,
    least_tasks: int = 1, *, rows: int | None = None, parts: int | None = None,
) -> Projected8:  # fmt: skip
    """Equation (1), the band being the tallest whose scratch takes an eighth of the L2 cache, at least one row.

    Args:
        target: the CPU.
        make: what makes d, of a number of rows in a band and of parts of an image.
        project: see `Projected8`.
        images: N.
        least_tasks: parts to cut into, if there are as many fours of rows.
        rows, parts: of a band, and of an image, instead.
    """
    height = project.geometry.lines
    parts = min(height, parts or max(1, min(height // 4, -(-least_tasks // images))))
    tallest = -(-height // parts)
    if rows is not None:
        return Projected8(make(min(rows, tallest), parts), project, min(rows, tallest))
    made = Projected8(make(1, parts), project, 1)
    for count in range(tallest, 1, -1):
        taller = Projected8(make(count, parts), project, count)
        if taller.scratch_bytes <= target.l2_bytes // 8:
            return taller
    return made
