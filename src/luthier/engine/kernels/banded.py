"""Two convolutions in one: a dense one (pointwise, or any other) and the depthwise one that alone reads it.

    e = producer(x),   y = consumer(e),       e is never whole                                        (1)

For one block of channels and a band of `rows` output rows, the producer writes the input rows that the band needs and
does not have yet into a ring; the consumer reads them there, and nothing else of e ever exists:

    ring rows = (rows - 1) * stride + reach,      row iy lies in slot iy mod (ring rows)              (2)

A producer on pixels alone may count the whole map as one row (`flat`): small maps make longer rows for it.

A task is one block of channels of a part of an image's rows.  Parts of one image compute the rows that both need twice.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from numpy.typing import NDArray

from luthier.engine.emit import Function, Index, Value
from luthier.engine.kernels.accumulate import ahead_of, comes_from_afar
from luthier.engine.kernels.conv import Convolution
from luthier.engine.kernels.depthwise import Depthwise, TapRows
from luthier.engine.kernels.kernel import Body, Kernel
from luthier.engine.kernels.matrix import matrix_block
from luthier.engine.kernels.partition import share
from luthier.engine.kernels.window import Window
from luthier.engine.layout import Layout
from luthier.engine.target import Target
from luthier.schedule import Choice, Tile

Array = NDArray[Any]


@dataclass(frozen=True, slots=True)
class Banded(Kernel):
    """Equation (1).

    Attributes:
        producer: one group, no residual; its panels are the blocks of channels.
        consumer: on the producer's output; its `row_tasks` are the parts of an image, and its epilogue has no residual.
        rows: of the output, in a band.
        streamed: whether the weights of a pointwise producer come from far away: each row asks for a part of the next
            block's.
    """

    producer: Convolution
    consumer: Depthwise
    rows: int
    streamed: bool = False

    def __post_init__(self) -> None:
        assert self.is_flat or self.producer.window.out_hw == self.consumer.window.in_hw
        assert self.producer.columns == self.consumer.channels
        assert not self.producer.epilogue.residual
        assert not self.consumer.epilogue.residual
        assert self.producer.groups == 1
        assert self.producer.types.y == self.consumer.types.x

    @property
    def is_flat(self) -> bool:
        """Whether the producer counts the map, all of which the only band needs, as one row."""
        (h, w), pixels = self.consumer.window.in_hw, self.producer.window.out_hw
        return h > 1 and pixels == (1, h * w) and self.consumer.row_tasks == 1 and self.ring_rows == h

    @property
    def operands(self) -> tuple[str, ...]:  # type: ignore[override]
        """x, the producer's weight and bias, the consumer's, y, then the sums."""
        sums = ("sums",) if self.consumer.sums else ()
        return ("x", "first_weight", "first_bias", "weight", "bias", "y", *sums)

    @property
    def tasks(self) -> int:
        """Images x blocks of channels x parts of the rows."""
        return self.consumer.images * self.producer.panels.count * self.consumer.row_tasks

    @property
    def ring_rows(self) -> int:
        """Equation (2); no more than the map has."""
        window = self.consumer.window
        return min((self.rows - 1) * window.stride[0] + window.reach, window.in_hw[0])

    @property
    def scratch_bytes(self) -> int:  # type: ignore[override]
        """The producer's, then the ring."""
        return self.producer.scratch_bytes + self.ring_bytes * self.producer.panels.sizes[0]

    @property
    def ring_bytes(self) -> int:
        """The ring of one vector of channels."""
        return self.consumer.types.x.bytes * self.ring_rows * self.consumer.window.in_hw[1] * self.producer.lanes

    @property
    def title(self) -> str:
        """Of the kernel."""
        first, second = self.producer, self.consumer
        names = f"{first.window.title}_{first.epilogue.title}_{second.window.title}_{second.epilogue.title}"
        return f"{self.consumer.types.title}_banded_{names}_{first.block}x{self.rows}"

    @property
    def tile(self) -> Tile:
        """The band, and the block of channels."""
        return Tile(self.rows, self.producer.tile.channels)

    @property
    def choice(self) -> Choice:
        """Of both convolutions; the parts of the rows are the second's."""
        first, second = self.producer.choice, self.consumer.choice
        return Choice(block=first.block, outputs=second.outputs, row_parts=second.row_parts)

    def emit(self, body: Body) -> None:
        """One task."""
        f, width = body.f, body.target.vector_bytes
        panels, parts = self.producer.panels, self.consumer.row_tasks
        per_image = panels.count * parts
        image, part = f.div(body.task, per_image), f.rem(body.task, per_image)
        block, row_part = f.div(part, parts), f.rem(part, parts)
        rows = share(f, row_part, parts, self.consumer.window.out_hw[0])
        x = self.image_of(body, image)

        def channels(first: Index, vectors: int) -> None:
            sums: Value | None = None
            if self.consumer.sums:
                ld = self.consumer.vectors * width
                sums = body.at("sums", (f.add(f.mul(image, parts), row_part), ld), (first, width))
                for v in range(vectors):
                    body.store(Value(f.vector, "zeroinitializer"), sums, v * width)
            self._bands(body, image, x, first, vectors, rows, sums)

        self.producer.begin(body)
        panels.loop(f, channels, block, f.add(block, 1))
        self.producer.end(body)

    def _bands(
        self, body: Body, image: Index, x: Value, first: Index, vectors: int, rows: tuple[Index, Index],
        sums: Value | None,
    ) -> None:  # fmt: skip
        """All bands of a task."""
        f, window = body.f, self.consumer.window
        low, high = rows

        def band(oy: Index, produced: list[Value]) -> list[Value]:
            these = oy, f.min(f.add(oy, self.rows), high)
            span = self.demand(f, these, produced[0])
            self.band(body, image, x, first, vectors, these, span, sums)
            return [f.index(f.max(*span))]

        f.loop(low, high, band, [f.index(f.max(window.in_row(low, f), 0))], step=self.rows)

    def image_of(self, body: Body, image: Index) -> Value:
        """The x of an image."""
        return body.at("x", (image, self.producer.types.x.bytes * self.producer.source.strides[0]))

    def demand(self, f: Function, rows: tuple[Index, Index], produced: Index) -> tuple[Index, Index]:
        """Which rows of e a band of output rows still needs; those below `produced` exist.

        The greater of the two numbers is the next `produced`.
        """
        window, (oy, end) = self.consumer.window, rows
        needed = f.add(window.in_row(f.sub(end, 1), f), window.reach)
        begin = f.max(produced, f.max(window.in_row(oy, f), 0))
        return begin, f.min(f.max(needed, 0), window.in_hw[0])

    def band(
        self, body: Body, image: Index, x: Value, first: Index, vectors: int, rows: tuple[Index, Index],
        span: tuple[Index, Index], sums: Value | None,
    ) -> None:  # fmt: skip
        """One band of a block of channels: the rows of e in `span`, and then the output's `rows`."""
        body.f.loop(*((0, 1) if self.is_flat else span), lambda iy, _: self._produce(body, x, first, vectors, iy))
        body.f.loop(0, vectors, lambda v, _: self._consume(body, image, first, vectors, v, rows, sums))

    def _slot(self, body: Body, iy: Index, vectors: int) -> Value:
        """Column 0 of an input row in the ring."""
        row_bytes = self.consumer.window.in_hw[1] * vectors * body.width(self.consumer.types.x)
        return body.at(self._ring(body), (body.f.rem(iy, self.ring_rows), row_bytes))

    def _ring(self, body: Body) -> Value:
        return body.f.offset(body.scratch, self.producer.scratch_bytes)

    def _produce(self, body: Body, x: Value, first: Index, vectors: int, iy: Index) -> None:
        """One row of e, into the ring."""
        width, producer = body.target.vector_bytes, self.producer
        taps = producer.window.kernel[0] * producer.window.kernel[1]
        weight = body.at("first_weight", (first, taps * producer.tap_steps * width))
        bias = body.at("first_bias", (first, width))
        ahead = None
        if self.streamed:
            ahead = ahead_of(body, weight, producer.tap_steps, vectors, iy, producer.window.out_hw[0])
        to = self._slot(body, iy, vectors)
        producer.row(body, iy, x, weight, bias, vectors, to, vectors * body.width(producer.types.y), ahead=ahead)

    def _consume(
        self, body: Body, image: Index, first: Index, vectors: int, v: Index, rows: tuple[Index, Index],
        sums: Value | None,
    ) -> None:  # fmt: skip
        """One vector of channels of one band."""
        f, width, consumer = body.f, body.target.vector_bytes, self.consumer
        window, index, types = consumer.window, f.add(first, v), consumer.types
        x_step, y_step = body.width(types.x), body.width(types.y)
        (out_h, out_w), ld, ring_ld = window.out_hw, consumer.vectors * y_step, vectors * x_step
        row_bytes = window.in_hw[1] * ring_ld
        weight = body.at("weight", (index, window.kernel[0] * window.kernel[1] * width))
        bias = body.at("bias", (index, width))
        lane = f.mul(v, x_step)
        ring_end = f.offset(self._ring(body), f.add(lane, self.ring_rows * row_bytes))

        def following(at: Value) -> Value:
            behind = f.offset(at, window.dilation[0] * row_bytes)
            wrapped = f.offset(behind, -self.ring_rows * row_bytes)
            return f.select(f.compare("uge", behind, ring_end), wrapped, behind)

        def row(oy: Index, carried: list[Value]) -> list[Value]:
            start = window.in_row(oy, f)
            taps = window.taps(f, start, 0)
            # a window that lies beside the map altogether has no first row; any slot will do
            top = f.max(f.add(start, f.mul(taps[0], window.dilation[0])), 0)
            at = f.offset(self._slot(body, top, vectors), lane)
            where = f.add(f.mul(f.add(f.mul(image, out_h), oy), out_w * ld), f.mul(index, y_step))
            return consumer.row(body, TapRows(taps, at, following, ring_ld), weight, bias, where, ld, carried)

        total = f.loop(*rows, row, [] if sums is None else [body.load(sums, f.mul(v, width))])
        if sums is not None:
            body.store(total[0], sums, f.mul(v, width))


def banded(target: Target, producer: Convolution, consumer: Depthwise, rows: int | None = None) -> Banded:
    """Equation (1); without `rows` the band is the tallest whose ring stays in the L1 cache, at least one row."""
    window = consumer.window
    row_bytes = window.in_hw[1] * producer.panels.sizes[0] * target.lanes * consumer.types.x.bytes
    fitting = (target.l1_bytes // row_bytes - window.reach) // window.stride[0] + 1
    tallest = -(-window.out_hw[0] // consumer.row_tasks)
    height, width = producer.window.in_hw
    types, depth = producer.types, producer.depth
    afar = comes_from_afar(target, 4 * producer.tap_steps * producer.columns, types.x.bytes * depth * height * width)
    band = max(1, min(rows or fitting, tallest))
    needed = (band - 1) * window.stride[0] + window.reach
    if producer.matrix and consumer.row_tasks == 1 and band == window.out_hw[0] and needed >= window.in_hw[0]:
        producer = _flat(producer)
    streamed = afar and producer.window.kernel == (1, 1) and not producer.matrix
    return Banded(producer, consumer, band, streamed)


def _flat(producer: Convolution) -> Convolution:
    """The same on a map of one row, where its pixels lie side by side."""
    n, c, h, w = producer.source.shape
    image, channel, down, right = producer.source.strides
    if producer.window.stride != (1, 1) or down != w * right:
        return producer
    pixels = h * w
    return replace(
        producer,
        source=Layout((n, c, 1, pixels), (image, channel, pixels * right, right)),
        window=Window((1, pixels), (1, pixels), (1, 1), (1, 1)),
        block=matrix_block(pixels, producer.block.vectors),
    )
