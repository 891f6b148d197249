"""Depthwise convolution on bytes: four neighbouring pixels of a row make one 32-bit word of each channel.

    sum[n, c, oy, ox] = bias[c] + sum over ky, kx of x[n, c, iy, ix] * weight[c, ky, kx]              (1)

The rows that a window needs lie in a ring (`ring`), four pixels to a word, so that one `vpdpbusd` multiplies up to four
taps of sixteen channels.  An output whose first tap is byte p of a word meets the words with weights shifted by p and
zero elsewhere: a set of words of weights for every p that occurs.  The borders, and a row of their own for what lies
above and below the map, hold the zero point of x; bias[c] = b[c] - z_x * sum(weight[c]).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from luthier.engine.emit import Function, Index, Value
from luthier.engine.kernels.int8.reals import Reals
from luthier.engine.kernels.int8.result import Result
from luthier.engine.kernels.int8.ring import WORD, Ring, stage_row, write_borders
from luthier.engine.kernels.int8.units import (
    QUAD,
    REALS,
    SUMS,
    UNIT,
    dot,
    op,
    units,
    zeros,
)
from luthier.engine.kernels.kernel import Body, Kernel
from luthier.engine.kernels.partition import Partition, share
from luthier.engine.kernels.window import Window
from luthier.engine.target import Target
from luthier.schedule import Choice

Array = NDArray[Any]
_MOST_UNITS = 4


@dataclass(frozen=True, slots=True)
class Depthwise8(Kernel):
    """Equation (1).

    Attributes:
        images, channels: N and C.
        window: geometry.
        result: behind the sum.
        columns: most outputs in a tile, a multiple of the ring's period.
        block: units that share a ring.
        row_tasks: parts of the output's rows.
        sums: whether the outputs are summed over each part of the rows, into (N, row_tasks, C): integers of 32 bits, or
            fp32 where the outputs are numbers.
    """

    images: int
    channels: int
    window: Window
    result: Result | Reals
    columns: int
    block: int
    row_tasks: int = 1
    sums: bool = False

    @property
    def operands(self) -> tuple[str, ...]:  # type: ignore[override]
        """x, 64 bytes of its zero point, weight, bias, y, then the sums and what the result reads."""
        return ("x", "border", "weight", "bias", "y", *(["sums"] if self.sums else []), *self.result.operands)

    @property
    def choice(self) -> Choice:
        """Outputs, parts."""
        return Choice(outputs=self.columns, row_parts=self.row_tasks)

    @property
    def blocks(self) -> Partition:
        """Channels, in units."""
        return Partition(units(self.channels), self.block)

    @property
    def tasks(self) -> int:
        """Images x blocks of channels x parts of the rows."""
        return self.images * self.blocks.count * self.row_tasks

    def ring(self, unit_count: int) -> Ring:
        """Of a block."""
        return Ring(self.window, unit_count)

    @property
    def scratch_bytes(self) -> int:  # type: ignore[override]
        """The ring."""
        return self.ring(self.blocks.sizes[0]).bytes

    @property
    def title(self) -> str:
        """Of the kernel."""
        return f"int8_depthwise_{self.window.title}_{self.result.title}_{self.columns}x{self.block}"

    @property
    def weight_bytes(self) -> int:
        """Of one unit."""
        return self.window.kernel[0] * len(self.ring(1).variants) * WORD

    def pack(self, weight: Array) -> Array:
        """[unit][ky][variant][16 channels][4 pixels] from int8 (C, 1, K_H, K_W)."""
        kernel_h, kernel_w = self.window.kernel
        padded = np.zeros((units(self.channels) * UNIT, kernel_h, kernel_w), np.int8)
        padded[: self.channels] = weight[:, 0]
        variants = self.ring(1).variants
        packed = np.zeros((len(padded) // UNIT, kernel_h, len(variants), UNIT, 4), np.int8)
        for index, (phase, word) in enumerate(variants):
            for place in range(4):
                kx, rest = divmod(4 * word + place - phase, self.window.dilation[1])
                if not rest and 0 <= kx < kernel_w:
                    packed[:, :, index, :, place] = padded[:, :, kx].reshape(-1, UNIT, kernel_h).transpose(0, 2, 1)
        return packed.ravel()

    def emit(self, body: Body) -> None:
        """One task: some rows of a block of channels of one image."""
        f, window = body.f, self.window
        ld = units(self.channels) * UNIT

        def work(image: Index, first: Index, count: int, rows: tuple[Index, Index], sums: Value | None) -> None:
            ring = self.ring(count)
            source = body.at("x", (image, window.in_hw[0] * window.in_hw[1] * ld), (first, UNIT))
            write_borders(body, ring)
            staged = f.index(f.max(window.in_row(rows[0], f), 0))
            self.sweep(body, ring, source, ld, image, first, rows, staged, sums)

        self.task(body, work)

    def task(self, body: Body, work: Callable[[Index, Index, int, tuple[Index, Index], Value | None], None]) -> None:
        """What a task is: `work(image, first unit, units, rows of the output, where their sums are)`."""
        f, parts = body.f, self.row_tasks
        per_image = self.blocks.count * parts
        image, part = f.div(body.task, per_image), f.rem(body.task, per_image)
        block, row_part = f.div(part, parts), f.rem(part, parts)
        rows = share(f, row_part, parts, self.window.out_hw[0])

        def channels(first: Index, count: int) -> None:
            sums: Value | None = None
            if self.sums:
                ld = units(self.channels) * WORD
                sums = body.at("sums", (f.add(f.mul(image, parts), row_part), ld), (first, WORD))
                for u in range(count):
                    f.store(zeros(self.result.sum_type), sums, WORD * u, align=WORD)
            work(image, first, count, rows, sums)

        self.blocks.loop(f, channels, block, f.add(block, 1))

    def sweep(
        self, body: Body, ring: Ring, x: Value, ld: int, image: Index, first: Index, rows: tuple[Index, Index],
        staged: Value, sums: Value | None,
    ) -> None:  # fmt: skip
        """Some rows of a block; input rows below `staged` are in the ring.

        Args:
            body: where the code goes; its scratch is the ring.
            ring: of the block.
            x: to the block's first channel of pixel (0, 0); of bytes that the rows need, no others are read.
            ld: bytes of a pixel of x.
            image, first: of the block.
            rows: of the output.
            sums: see `task`.
        """
        f, in_h = body.f, self.window.in_hw[0]

        def row(oy: Index, staged: list[Value]) -> list[Value]:
            start = self.window.in_row(oy, f)
            upto = f.min(f.max(f.add(start, self.window.reach), 0), in_h)
            begin = f.max(staged[0], f.max(start, 0))
            f.loop(begin, upto, lambda iy, _: stage_row(body, ring, x, iy, ld))
            f.loop(0, ring.units, lambda u, _: self.row(body, ring, image, first, u, oy, sums))
            return [f.index(f.max(begin, upto))]

        f.loop(*rows, row, [staged])

    def demand(self, f: Function, rows: tuple[Index, Index], staged: Index) -> tuple[Index, Index]:
        """Input rows, from and to, that rows of the output need and the ring lacks; the second is the next `staged`."""
        window = self.window
        low = f.max(staged, f.max(window.in_row(rows[0], f), 0))
        needed = f.add(window.in_row(f.sub(rows[1], 1), f), window.reach)
        return low, f.max(low, f.min(f.max(needed, 0), window.in_hw[0]))

    def row(self, body: Body, ring: Ring, image: Index, first: Index, u: Index, oy: Index, sums: Value | None) -> None:
        """One output row of unit `u` of a block that begins at unit `first`; its input rows are in the ring."""
        f, window, result = body.f, self.window, self.result
        (out_h, out_w), ld = window.out_hw, units(self.channels) * UNIT
        unit = f.add(first, u)
        weight, bias = body.at("weight", (unit, self.weight_bytes)), body.at("bias", (unit, WORD))
        scale = f.load(REALS, body.at("scale", (unit, WORD)), align=WORD)
        start, above = window.in_row(oy, f), body.at(body.scratch, (ring.slots * ring.units, ring.row_bytes))
        lines = []
        for ky in range(window.kernel[0]):
            iy = f.add(start, ky * window.dilation[0])
            slot = f.rem(f.add(iy, ring.slots * (1 + window.pads[0] // ring.slots)), ring.slots)
            line = body.at(body.scratch, (slot, ring.units * ring.row_bytes), (u, ring.row_bytes))
            inside = f.both(f.compare("sge", iy, 0), f.compare("slt", iy, window.in_hw[0]))
            lines.append(f.select(inside, line, above))
        to = f.add(f.mul(f.add(f.mul(image, out_h), oy), out_w * ld), f.mul(unit, UNIT))
        opened = result.open(body)
        start_sum = f.load(SUMS, bias, align=WORD)

        def tile(ox: Index, count: int, carried: list[Value]) -> list[Value]:
            at = f.div(f.mul(ox, window.stride[1]), 4)
            found = self._tile(body, ring, lines, f.mul(at, WORD), count, weight, start_sum)
            where = f.add(to, f.mul(ox, ld))
            y = body.at("y", (where, result.item_bytes))
            residual = body.at("residual", (where, result.residual_bytes)) if result.residual else None
            return opened.write(found, [scale] * count, [o * ld for o in range(count)], y, residual, carried)

        carried = [] if sums is None else [zeros(result.sum_type)]
        periods = Partition(-(-out_w // ring.period), self.columns // ring.period)
        for size, _, count, item in periods.runs():
            low, wide = item * ring.period, size * ring.period
            whole = min(count, (out_w - low) // wide)

            def one(index: Index, carried: list[Value], low: int = low, wide: int = wide) -> list[Value]:
                return tile(f.add(f.mul(index, wide), low), wide, carried)

            carried = f.loop(0, whole, one, carried)
            rest = min(out_w - low - whole * wide, (count - whole) * wide)
            if rest > 0:
                carried = tile(low + whole * wide, rest, carried)
        if sums is not None:
            place = body.at(sums, (u, WORD))
            before = f.load(result.sum_type, place, align=WORD)
            total = f.fadd(before, carried[0]) if before.type.is_float else op(f, "add", before, carried[0])
            f.store(total, place, align=WORD)

    def _tile(
        self, body: Body, ring: Ring, lines: list[Value], at: Index, count: int, weight: Value, first: Value
    ) -> list[Value]:
        """The sums of `count` neighbouring outputs, the first of which begins `at` bytes into the ring's rows."""
        f, variants = body.f, ring.variants
        result = [first] * count
        by_word: dict[int, list[tuple[int, int]]] = {}
        for o in range(count):
            for word, phase, j in ring.uses(o):
                by_word.setdefault(word, []).append((o, variants.index((phase, j))))
        for ky, line in enumerate(lines):
            source, row = f.offset(line, at), f.offset(weight, ky * len(variants) * WORD)
            weights = [f.load(QUAD, row, WORD * v, align=WORD) for v in range(len(variants))]
            for word, users in sorted(by_word.items()):
                x = f.load(QUAD, source, WORD * word, align=WORD)
                for o, variant in users:
                    result[o] = dot(f, body.target, result[o], x, weights[variant])
        return result


def depthwise8(
    target: Target, images: int, channels: int, window: Window, result: Result | Reals, *, sums: bool = False,
    least_tasks: int = 1, block: int | None = None, parts: int | None = None, outputs: int | None = None,
) -> Depthwise8:  # fmt: skip
    """Equation (1) with tiles and tasks chosen for a CPU.

    Args:
        target: the CPU.
        images, channels, window, result, sums: see `Depthwise8`.
        least_tasks: parts to cut into, if there are as many fours of rows.
        block: units that share a ring; None = as many as fit in half of the L1 cache.
        parts: of the rows; None = as `least_tasks` wants.
        outputs: of a row side by side; None = as many as the registers hold.
    """
    ring = Ring(window, 1)
    fitting = max(1, min(_MOST_UNITS, target.l1_bytes // 2 // (ring.slots * ring.row_bytes)))
    block = min(units(channels), block or fitting)
    blocks = Partition(units(channels), block).count
    row_tasks = min(window.out_hw[0], parts or max(1, min(window.out_hw[0] // 4, -(-least_tasks // (images * blocks)))))
    most = outputs or max(4, target.registers * target.lanes // UNIT // 2)
    columns = max(1, most // ring.period) * ring.period
    return Depthwise8(images, channels, window, result, columns, block, row_tasks, sums)
