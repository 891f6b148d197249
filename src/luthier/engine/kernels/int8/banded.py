"""Two convolutions on bytes in one: a dense one and the depthwise one that alone reads it, band by band.

    e = producer(x),   y = consumer(e),       e is never whole                                        (1)

For one block of channels and a band of `rows` output rows, the producer writes the rows of e that the band needs and
that do not exist yet into a buffer, pixel by pixel; the consumer takes each of them into its ring (see `ring`),
which keeps those that the next band needs again:

    buffer rows = min((rows - 1) * stride + reach, H_in)                                              (2)

A band is one run of pixels for the producer where rows lie side by side: a small map is a single run (`is_whole`), and
tiles of the matrix unit are full as if the map were one row.  Every op rounds and clamps as it would alone.

A task is one block of channels of a part of an image's rows.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from luthier.engine.emit import Index, Value
from luthier.engine.kernels.int8.conv import Convolution8, convolution8
from luthier.engine.kernels.int8.depthwise import Depthwise8, depthwise8
from luthier.engine.kernels.int8.geometry import Geometry
from luthier.engine.kernels.int8.reals import Reals
from luthier.engine.kernels.int8.result import Result
from luthier.engine.kernels.int8.ring import write_borders
from luthier.engine.kernels.int8.units import UNIT, units
from luthier.engine.kernels.kernel import Body, Kernel
from luthier.engine.kernels.partition import Partition
from luthier.engine.kernels.window import Window
from luthier.engine.target import Target
from luthier.schedule import AUTO, Choice, Tile


@dataclass(frozen=True, slots=True)
class Banded8(Kernel):
    """Equation (1).

    Attributes:
        producer: of integers, not grouped; its panels are the blocks of channels.
        consumer: on the producer's output; its `row_tasks` are the parts of an image.
        rows: of the output, in a band.
    """

    producer: Convolution8
    consumer: Depthwise8
    rows: int

    def __post_init__(self) -> None:
        geometry, window = self.producer.geometry, self.consumer.window
        assert geometry.lines * geometry.columns == window.in_hw[0] * window.in_hw[1]
        assert self.producer.panels == self.consumer.blocks
        assert self.producer.row_blocks.sizes[0] == self.producer.block.rows
        assert self.producer.result.item_bytes == 1
        assert not self.producer.grouped
        assert not self.producer.result.residual
        assert not self.is_whole or self.buffer_rows == window.in_hw[0]

    @property
    def is_whole(self) -> bool:
        """Whether the map is one run of the producer's, all of which the only band needs."""
        return self.producer.geometry.lines == 1 and self.consumer.window.in_hw[0] > 1

    @property
    def operands(self) -> tuple[str, ...]:  # type: ignore[override]
        """x, what else the producer reads, and all that the consumer does."""
        return ("x", *(f"first_{role}" for role in self._first), *self.consumer.operands[1:])

    @property
    def _first(self) -> tuple[str, ...]:
        return tuple(role for role in self.producer.operands if role not in ("x", "y"))

    @property
    def tasks(self) -> int:
        """Images x blocks of channels x parts of the rows."""
        return self.consumer.tasks

    @property
    def buffer_rows(self) -> int:
        """Equation (2)."""
        window = self.consumer.window
        return min((self.rows - 1) * window.stride[0] + window.reach, window.in_hw[0])

    @property
    def buffer_bytes(self) -> int:
        """Of a block."""
        return self.buffer_rows * self.consumer.window.in_hw[1] * self.consumer.blocks.sizes[0] * UNIT

    @property
    def scratch_bytes(self) -> int:  # type: ignore[override]
        """The producer's, the ring, the buffer."""
        return self.producer.scratch_bytes + self.consumer.scratch_bytes + self.buffer_bytes

    @property
    def title(self) -> str:
        """Of the kernel."""
        first = self.producer.title.removeprefix("int8_")
        return f"{self.consumer.title.replace('depthwise', 'banded')}_{first}_{self.rows}"

    @property
    def tile(self) -> Tile:
        """The band, and the block of channels."""
        return Tile(self.rows, min(self.consumer.blocks.sizes[0] * UNIT, self.consumer.channels))

    @property
    def choice(self) -> Choice:
        """The producer's block; outputs and parts of the consumer."""
        return replace(self.consumer.choice, block=self.producer.choice.block)

    def emit(self, body: Body) -> None:
        """One task."""
        f = body.f
        ring = f.offset(body.scratch, self.producer.scratch_bytes)
        buffer = f.offset(ring, self.consumer.scratch_bytes)

        def work(image: Index, first: Index, count: int, rows: tuple[Index, Index], sums: Value | None) -> None:
            inner = body.within(ring)
            write_borders(inner, self.consumer.ring(count))

            def band(oy: Index, staged: list[Value]) -> list[Value]:
                these = oy, f.min(f.add(oy, self.rows), rows[1])
                span = self.consumer.demand(f, these, staged[0])
                e = self.produce(body, buffer, image, first, count, span)
                block = self.consumer.ring(count)
                self.consumer.sweep(inner, block, e, count * UNIT, image, first, these, staged[0], sums)
                return [f.index(span[1])]

            f.loop(*rows, band, [f.index(f.max(self.consumer.window.in_row(rows[0], f), 0))], step=self.rows)

        self.begin(body)
        self.consumer.task(body, work)
        self.producer.end(body)

    def begin(self, body: Body) -> None:
        """Before the first `produce`; the producer's `end` comes behind the last."""
        self.producer.begin(self._producing(body))

    def produce(
        self, body: Body, buffer: Value, image: Index, first: Index, count: int, span: tuple[Index, Index]
    ) -> Value:
        """Some rows of a block of e, into the buffer; a pointer to where row 0 would be."""
        f, geometry, ld = body.f, self.producer.geometry, count * UNIT
        (low, high), inner = span, self._producing(body)
        x = body.at("x", (image, geometry.image_bytes))
        if self.is_whole:
            self.producer.run(inner, x, geometry.columns, first, count, buffer, None, ld)
        elif geometry.is_run:
            pixels = f.mul(f.sub(high, low), geometry.columns)
            self.producer.run(inner, body.at(x, (low, geometry.line_bytes)), pixels, first, count, buffer, None, ld)
        else:

            def line(iy: Index, _: object) -> None:
                at, to = body.at(x, (iy, geometry.line_bytes)), body.at(buffer, (f.sub(iy, low), geometry.columns * ld))
                self.producer.run(inner, at, geometry.columns, first, count, to, None, ld)

            f.loop(low, high, line)
        return f.offset(buffer, f.sub(0, f.mul(low, self.consumer.window.in_hw[1] * ld)))

    def _producing(self, body: Body) -> Body:
        return body.within(body.scratch, **{role: body[f"first_{role}"] for role in self._first})


def in_runs(
    target: Target, geometry: Geometry, channels: int, result: Result | Reals, *, tiles: bool, choice: Choice = AUTO
) -> Convolution8:
    """A convolution whose blocks are those of a line: what `Convolution8.run` wants; of `choice` the block counts."""
    made = convolution8(target, geometry, channels, result, tiles=tiles, choice=Choice(block=choice.block))
    rows = Partition(geometry.columns, made.block.rows).sizes[0]
    return replace(
        made, block=replace(made.block, rows=rows), row_tasks=1, column_tasks=1, row_major=geometry.lines > 1
    )


def banded8(
    target: Target, geometry: Geometry, first: Result | Reals, channels: int, window: Window, result: Result | Reals,
    *, sums: bool = False, tiles: bool = False, least_tasks: int = 1, rows: int | None = None, parts: int | None = None,
    choice: Choice = AUTO,
) -> Banded8:  # fmt: skip
    """Equation (1); without `rows` the band is the tallest whose buffer and ring stay in half of the L1 cache.

    Args:
        target: the CPU.
        geometry: of the producer, line by line.
        first, result: behind the producer's sums, and the consumer's.
        channels: of both.
        window: of the consumer.
        sums, least_tasks, parts: see `depthwise8`.
        tiles: see `convolution8`.
        rows: of a band.
        choice: block and outputs that are not to be chosen here.
    """
    for whole in (True, False):
        lines = geometry.flat(images=False) if whole else geometry
        producer = in_runs(target, lines, channels, first, tiles=tiles, choice=choice)
        consumer = depthwise8(
            target, geometry.images, channels, window, result, sums=sums, least_tasks=least_tasks,
            block=producer.block.vectors, parts=parts, outputs=choice.outputs,
        )  # fmt: skip
        row_bytes = window.in_hw[1] * producer.block.vectors * UNIT
        fitting = ((target.l1_bytes // 2 - consumer.scratch_bytes) // row_bytes - window.reach) // window.stride[0] + 1
        tallest = -(-window.out_hw[0] // consumer.row_tasks)
        band = max(1, min(rows or fitting, tallest))
        needed = (band - 1) * window.stride[0] + window.reach - window.pads[0]
        if consumer.row_tasks == 1 and band == window.out_hw[0] and needed >= window.in_hw[0] and geometry.is_run:
            break
    assert units(channels) == producer.panels.total
    return Banded8(producer, consumer, band)
