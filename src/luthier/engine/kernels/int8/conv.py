"""Convolution and linear layer on bytes: one matrix product whose rows are read where they lie.

    sum[r, n] = bias[n] + sum over taps and k of x[r at tap, start(n) + k] * weight[n, k, tap]        (1)

x is unsigned and its zero point is in the bias: bias[n] = b[n] - z_x * sum(weight[n]).  So every tap must be there: a
map that is padded is first copied into a larger one with a border of z_x.  Four channels, side by side, make one
32-bit word of x, which `vpdpbusd` multiplies with four weights; weights are packed likewise,

    panel: [tap][word][unit][16 columns][4 channels]                                                  (2)

which is also what the tiles of AMX want: sixteen words of one unit are the second factor of `tdpbusd`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from luthier.engine.emit import I64, Index, Value
from luthier.engine.kernels.accumulate import Ahead
from luthier.engine.kernels.int8.blocks import choose, given, tile_blocks
from luthier.engine.kernels.int8.geometry import Geometry
from luthier.engine.kernels.int8.narrow_dense import dense_unit
from luthier.engine.kernels.int8.reals import Reals
from luthier.engine.kernels.int8.result import Result
from luthier.engine.kernels.int8.tiles import TileBlock, accumulate_tiles, ask, configure, load_configuration, release
from luthier.engine.kernels.int8.units import QUAD, REALS, SUMS, UNIT, broadcast_word, dot, units, zeros
from luthier.engine.kernels.kernel import Body, Kernel
from luthier.engine.kernels.partition import Partition, share
from luthier.engine.kernels.register_block import Block
from luthier.engine.layout import round_up
from luthier.engine.target import Target
from luthier.schedule import AUTO, Choice

Array = NDArray[Any]
_UNROLL = 4
#: bytes ahead of its use at which a panel is asked for that only one block meets
_DISTANCE = 4096
_WAY_OUT = 40


@dataclass(frozen=True, slots=True)
class Convolution8(Kernel):
    """Equation (1).

    Attributes:
        geometry: of the rows.
        channels: C_out.
        block: rows and units of sums in registers, or in tiles.
        result: behind the sum.
        grouped: whether each panel begins at an input channel of its own, operand `starts`.
        tiles: whether the matrix unit is used; `block.rows` is then a multiple of what one tile takes.
        row_tasks, column_tasks: parts of the lines (of the blocks, where there is one line), and of the panels.
        row_major: whether each block of rows meets all panels before the next one comes; else the other way round.
    """

    geometry: Geometry
    channels: int
    block: Block
    result: Result | Reals
    grouped: bool = False
    tiles: bool = False
    row_tasks: int = 1
    column_tasks: int = 1
    row_major: bool = True

    @property
    def operands(self) -> tuple[str, ...]:  # type: ignore[override]
        """x, weight, bias, y, the panels' first channels, and what the result reads."""
        starts = ("starts",) if self.grouped else ()
        return ("x", "weight", "bias", "y", *starts, *(["config"] if self.tiles else []), *self.result.operands)

    @property
    def panels(self) -> Partition:
        """Output channels, in units."""
        return Partition(units(self.channels), self.block.vectors)

    @property
    def row_blocks(self) -> Partition:
        """Blocks of a line's rows."""
        return Partition(self.geometry.columns, self.block.rows)

    @property
    def tasks(self) -> int:
        """Parts of the rows x parts of the panels."""
        return self.row_tasks * self.column_tasks

    @property
    def scratch_bytes(self) -> int:  # type: ignore[override]
        """The sums of a block, on their way from the tiles."""
        return 4 * TileBlock.bytes if self.tiles else 0

    @property
    def title(self) -> str:
        """Of the kernel."""
        kind = "tiled" if self.tiles else "dot"
        return f"int8_conv_{kind}_{len(self.geometry.taps)}_{self.result.title}_{self.block}"

    @property
    def choice(self) -> Choice:
        """Block (its vectors are units), loop order, parts."""
        order: Literal["rows", "channels"] = "rows" if self.row_major else "channels"
        block = self.block.rows, self.block.vectors
        return Choice(block=block, order=order, row_parts=self.row_tasks, channel_parts=self.column_tasks)

    @property
    def words(self) -> int:
        """Of four channels, in one tap; a tile takes sixteen."""
        depth = self.geometry.depth
        return round_up(depth, 64) // 4 if self.tiles else depth // 4

    def _panel_bytes(self, unit_count: int) -> int:
        return len(self.geometry.taps) * self.words * unit_count * 64

    def pack(self, weight: Array) -> Array:
        """Equation (2).

        Args:
            weight: int8, (taps, channels of x that a tap takes, C_out).
        """
        taps, depth, _ = weight.shape
        full = np.zeros((taps, 4 * self.words, self.panels.total * UNIT), np.int8)
        full[:, :depth, : self.channels] = weight
        quads = full.reshape(taps, self.words, 4, -1, UNIT).transpose(0, 1, 3, 4, 2)
        ends = np.cumsum([0, *self.panels.sizes])
        return np.concatenate([quads[:, :, a:b].ravel() for a, b in pairwise(ends)])

    def config(self) -> Array:
        """What tiles look like: see `configure`."""
        return configure(self.tile_rows)

    @property
    def tile_rows(self) -> int:
        """Rows of one tile: no more than sixteen, no more than needed."""
        rows = self.row_blocks.sizes[0]
        return -(-rows // -(-rows // 16))

    def emit(self, body: Body) -> None:
        """One task: some lines, or blocks of the only one, by some panels."""
        f, geometry = body.f, self.geometry
        lines = geometry.images * geometry.lines
        row_part, column_part = f.rem(body.task, self.row_tasks), f.div(body.task, self.row_tasks)
        panels = share(f, column_part, self.column_tasks, self.panels.count)
        some_lines: tuple[Index, Index] = (0, 1)
        some_blocks: tuple[Index, Index] = (0, self.row_blocks.count)
        if lines > 1:
            some_lines = share(f, row_part, self.row_tasks, lines)
        else:
            some_blocks = share(f, row_part, self.row_tasks, self.row_blocks.count)
        self.begin(body)

        def line(index: Index, panel: tuple[Index, int] | None) -> None:
            image, down = f.div(index, geometry.lines), f.rem(index, geometry.lines)
            x = body.at("x", (image, geometry.image_bytes), (down, geometry.line_bytes))
            pixel = f.mul(index, geometry.columns)

            def row_block(first: Index, count: int) -> None:
                if panel is not None:
                    self._cell(body, x, pixel, first, count, *panel)
                else:
                    self.panels.loop(f, lambda *which: self._cell(body, x, pixel, first, count, *which), *panels)

            self.row_blocks.loop(f, row_block, *some_blocks)

        def all_lines(panel: tuple[Index, int] | None) -> None:
            f.loop(*some_lines, lambda index, _: line(index, panel))

        if self.row_major:
            all_lines(None)
        else:
            self.panels.loop(f, lambda *which: all_lines(which), *panels)
        self.end(body)

    def begin(self, body: Body) -> None:
        """Take the matrix unit, if it is used; before the first `run`."""
        if self.tiles:
            load_configuration(body.f, body["config"])

    def end(self, body: Body) -> None:
        """Give it back."""
        if self.tiles:
            release(body.f)

    def _cell(self, body: Body, x: Value, pixel: Index, first: Index, count: int, unit: Index, wide: int) -> None:
        """One block: `count` rows from `first` of a line, `wide` units from `unit`."""
        f, ld = body.f, units(self.channels) * UNIT
        source = body.at(x, (first, self.geometry.pixel_bytes))
        where = f.add(f.mul(f.add(pixel, first), ld), f.mul(unit, UNIT))
        ahead = self._ahead(body, body.at("weight", (unit, self._panel_bytes(1))), first, wide)
        self.cell(body, source, count, unit, wide, *self.places(body, where), ld, ahead)

    def places(self, body: Body, where: Index) -> tuple[Value, Value | None]:
        """Element `where` of y, and of the residual."""
        f, result = body.f, self.result
        residual = f.offset(body["residual"], f.mul(where, result.residual_bytes)) if result.residual else None
        return f.offset(body["y"], f.mul(where, result.item_bytes)), residual

    def cell(
        self, body: Body, source: Value, count: int, unit: Index, wide: int, y: Value, residual: Value | None, ld: int,
        ahead: Ahead | None = None,
    ) -> None:  # fmt: skip
        """One block whose first row begins at `source`; its first unit goes to `y`, its rows `ld` elements apart."""
        f = body.f
        if self.grouped:
            source = f.offset(source, f.load(I64, body.at("starts", (unit, 8)), align=8))
        weight = body.at("weight", (unit, self._panel_bytes(1)))
        if body.target.is_narrow:
            assert count == wide == 1, "blocks of one row and one unit"
            dense_unit(self, body, source, unit, weight, y, residual)
            return
        bias, scale = body.at("bias", (unit, 64)), body.at("scale", (unit, 64))
        sums = (self._tiled if self.tiles else self._sums)(body, source, weight, bias, count, wide, ahead)
        scales = [f.load(REALS, scale, 64 * v, align=64) for v in range(wide)] * count
        places = [r * ld + v * UNIT for r in range(count) for v in range(wide)]
        self.result.open(body).write(sums, scales, places, y, residual)

    def run(
        self, body: Body, x: Value, pixels: Index, unit: Index, wide: int, y: Value, residual: Value | None, ld: int
    ) -> None:
        """Some rows that lie side by side, at least a block of them; the last block begins where it ends with them.

        Args:
            body: where the code goes.
            x: the first row.
            pixels: how many; 0, or no fewer than `block.rows`.
            unit, wide: a panel.
            y, residual, ld: see `cell`.
        """
        f, count, result = body.f, self.block.rows, self.result

        def block(index: Index, _: object) -> None:
            first = f.min(f.mul(index, count), f.sub(pixels, count))
            ahead = None
            if self.geometry.lines == 1:
                ahead = self._ahead(body, body.at("weight", (unit, self._panel_bytes(1))), first, wide)
            to = body.at(y, (first, ld * result.item_bytes))
            beside = None if residual is None else body.at(residual, (first, ld * result.residual_bytes))
            self.cell(body, body.at(x, (first, self.geometry.pixel_bytes)), count, unit, wide, to, beside, ld, ahead)

        f.loop(0, f.div(f.add(pixels, count - 1), count), block)

    def _ahead(self, body: Body, panel: Value, first: Index, wide: int) -> Ahead | None:
        """What a block asks the caches for: its share of the next panel, where one panel meets few rows."""
        blocks = self.row_blocks.count
        if self.row_major or len(self.geometry.taps) > 1:
            return None
        step_lines = wide * (16 if self.tiles else _UNROLL)
        if blocks == 1:
            return Ahead(body.f.offset(panel, _DISTANCE), step_lines)
        lines = -(-step_lines // blocks)
        number = body.f.div(first, self.row_blocks.sizes[-1])
        steps = self.words // (16 if self.tiles else _UNROLL)
        following = body.f.offset(panel, self._panel_bytes(wide))
        return Ahead(body.at(following, (number, steps * lines * 64)), lines)

    def _tiled(
        self, body: Body, x: Value, weight: Value, bias: Value, count: int, wide: int, ahead: Ahead | None
    ) -> list[Value]:
        block = TileBlock(self.geometry.pixel_bytes, count, self.tile_rows, wide, self.words // 16)
        return accumulate_tiles(body, block, x, self.geometry.taps, weight, bias, ahead)

    def _sums(
        self, body: Body, x: Value, weight: Value, bias: Value, count: int, wide: int, ahead: Ahead | None
    ) -> list[Value]:
        f, geometry = body.f, self.geometry
        sums = [f.load(SUMS, bias, 64 * v, align=64) for v in range(wide)] * count
        rows = [r * geometry.pixel_bytes for r in range(count)]
        for tap, offset in enumerate(geometry.taps):
            panel = f.offset(weight, tap * self.words * wide * 64)
            sums = accumulate(body, sums, f.offset(x, offset), rows, panel, self.words, wide, ahead)
        return sums


def accumulate(
    body: Body, sums: Sequence[Value], x: Value, rows: Sequence[int], weight: Value, words: int, wide: int,
    ahead: Ahead | None = None,
) -> list[Value]:  # fmt: skip
    """Adds the products of one tap to sums in registers.

    Args:
        body: where the code goes.
        sums: row by row, `wide` units each.
        x: to the first word of all rows.
        rows: bytes from x to each row.
        weight: [word][unit][64 bytes].
        words: to sum over.
        wide: units.
        ahead: weights to ask for meanwhile.
    """
    f, target = body.f, body.target
    # a sum waits five cycles for its predecessor: few of them get a second set
    chains = min(_UNROLL, -(-10 // len(sums))) if words > 2 * _UNROLL else 1

    def step(at_x: Value, at_weight: Value, word: int, sums: Sequence[Value]) -> list[Value]:
        result, chain = list(sums), word % chains * len(rows) * wide
        right = [f.load(QUAD, at_weight, (word * wide + v) * 64, align=64) for v in range(wide)]
        for r, row in enumerate(rows):
            left = broadcast_word(f, at_x, row + 4 * word, QUAD)
            for v in range(wide):
                place = chain + r * wide + v
                result[place] = dot(f, target, result[place], left, right[v])
        return result

    def steps(index: Index, sums: list[Value]) -> list[Value]:
        at_x, at_weight = f.offset(x, f.mul(index, 4)), f.offset(weight, f.mul(index, 64 * wide))
        if ahead is not None:
            ask(body, ahead, f.div(index, _UNROLL))
        for word in range(_UNROLL):
            sums = step(at_x, at_weight, word, sums)
        return sums

    whole = words // _UNROLL * _UNROLL if words > 2 * _UNROLL else 0
    result = f.loop(0, whole, steps, [*sums, *[zeros(SUMS)] * (len(sums) * (chains - 1))], step=_UNROLL)
    for word in range(whole, words):
        result = step(f.offset(x, 4 * whole), f.offset(weight, 64 * wide * whole), word - whole, result)
    while len(result) > len(sums):
        half = len(sums) * -(-len(result) // len(sums) // 2)
        added = [f.assign(SUMS, f"add {a}, {b.text}") for a, b in zip(result, result[half:], strict=False)]
        result = added + result[len(added) : half]
    return result


def convolution8(
    target: Target, geometry: Geometry, channels: int, result: Result | Reals, *, grouped: bool = False,
    tiles: bool = False, least_tasks: int = 1, choice: Choice = AUTO,
) -> Convolution8:  # fmt: skip
    """Equation (1) with block, loop order and tasks chosen for a CPU.

    Args:
        target: the CPU.
        geometry, channels, result, grouped: see `Convolution8`.
        tiles: whether the matrix unit may be used; it is where its estimate is smaller: for sixteen rows of a unit, in
            cycles, 8 words of each tap against 16 for every 64 channels of a tap and 40 on the way in and out.
        least_tasks: parts to cut into, if there are as many.
        choice: what is not to be chosen here.
    Raises:
        SpecError: a block that needs more registers than there are.
    """
    words, columns, unit_count = geometry.depth // 4, geometry.columns, units(channels)
    tap_count = len(geometry.taps)
    dots, products = 8 * words * tap_count, 16 * tap_count * (round_up(geometry.depth, 64) // 64)
    tiles = tiles and columns >= 4 and products + _WAY_OUT < dots
    if tiles:
        block = tile_blocks(columns, unit_count)[0]
    else:
        block = choose(target, columns, unit_count, words * len(geometry.taps))
    if choice.block is not None and not target.is_narrow:
        block = given(target, choice.block, columns, unit_count, tiles)
    if grouped:
        block = replace(block, vectors=1)
    lines, panels = geometry.images * geometry.lines, Partition(unit_count, block.vectors).count
    row_parts = lines if lines > 1 else Partition(columns, block.rows).count
    weight_bytes = 4 * words * len(geometry.taps) * UNIT * unit_count
    # small maps: cut the panels, so that each weight is read by one thread
    small = geometry.rows * geometry.depth < weight_bytes
    row_tasks = max(1, min(row_parts, choice.row_parts or min(least_tasks, 1 if small else geometry.rows // 32)))
    column_tasks = max(1, min(panels, choice.channel_parts or -(-least_tasks // row_tasks)))
    kept = target.l1_bytes // 2 if small else target.l2_bytes // 2
    row_major = weight_bytes // column_tasks <= kept if choice.order is None else choice.order == "rows"
    return Convolution8(geometry, channels, block, result, grouped, tiles, row_tasks, column_tasks, row_major)
