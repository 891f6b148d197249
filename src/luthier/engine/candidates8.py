"""What else a kernel on bytes could be, see `luthier.engine.candidates`.

kernel        choices
convolution   block (of the matrix unit: one or two tiles each way); loop order; parts of lines and of channels
depthwise     outputs; parts of rows
banded        rows of a band, but where the whole map is one run; outputs; parts of rows
projected     rows of a band; outputs; parts of rows
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from math import ceil
from typing import Final

from luthier.engine.kernels.int8.banded import Banded8
from luthier.engine.kernels.int8.blocks import in_units, tile_blocks
from luthier.engine.kernels.int8.conv import Convolution8
from luthier.engine.kernels.int8.depthwise import Depthwise8
from luthier.engine.kernels.int8.projected import Projected8
from luthier.engine.kernels.kernel import Kernel
from luthier.engine.kernels.register_block import Block, block_candidates, product_cycles
from luthier.engine.target import Target

_WORST: Final = 4 / 3
#: tasks per thread beyond which parts only cost
_MOST_TASKS: Final = 16
_MOST_OUTPUTS: Final = 16


def variants8(kernel: Kernel, target: Target, threads: int = 1) -> Iterator[Kernel]:
    """Kernels that do the same work on bytes and differ in one choice."""
    match kernel:
        case Convolution8():
            yield from _products(kernel, target, threads)
        case Depthwise8():
            for columns in _outputs(kernel):
                yield replace(kernel, columns=columns)
            for rows, _ in parts_of(kernel.window.out_hw[0], 1, kernel.images * kernel.blocks.count, threads):
                yield replace(kernel, row_tasks=rows)
        case Banded8():
            yield from _bands(kernel, threads)
        case Projected8():
            yield from _projections(kernel, threads)


def _products(kernel: Convolution8, target: Target, threads: int) -> Iterator[Convolution8]:
    geometry = kernel.geometry
    lines = geometry.images * geometry.lines
    if not kernel.grouped:
        for block in _blocks(kernel, target):
            other = replace(kernel, block=block)
            rows = lines if lines > 1 else other.row_blocks.count
            tasks = min(kernel.row_tasks, rows), min(kernel.column_tasks, other.panels.count)
            yield replace(other, row_tasks=tasks[0], column_tasks=tasks[1])
    yield replace(kernel, row_major=not kernel.row_major)
    count = lines if lines > 1 else kernel.row_blocks.count
    for rows, columns in parts_of(count, kernel.panels.count, 1, threads):
        for row_major in (False, True):
            yield replace(kernel, row_tasks=rows, column_tasks=columns, row_major=row_major)


def _blocks(kernel: Convolution8, target: Target) -> list[Block]:
    rows, total = kernel.geometry.columns, kernel.panels.total
    if kernel.tiles:
        return tile_blocks(rows, total)
    depth = kernel.words * len(kernel.geometry.taps)
    candidates = block_candidates(in_units(target), rows, total)
    cycles = {block: product_cycles(block, rows, total, depth) for block in candidates}
    best = min(cycles.values())
    return [block for block, value in cycles.items() if value <= _WORST * best]


def _bands(kernel: Banded8, threads: int) -> Iterator[Banded8]:
    second = kernel.consumer
    for columns in _outputs(second):
        yield replace(kernel, consumer=replace(second, columns=columns))
    if kernel.is_whole:
        return
    height = second.window.out_hw[0]
    tallest = ceil(height / second.row_tasks)
    for bands in range(1, tallest + 1):
        yield replace(kernel, rows=ceil(tallest / bands))
    for rows, _ in parts_of(height, 1, second.images * second.blocks.count, threads):
        yield replace(kernel, rows=min(kernel.rows, ceil(height / rows)), consumer=replace(second, row_tasks=rows))


def _projections(kernel: Projected8, threads: int) -> Iterator[Projected8]:
    wide, depthwise = kernel.wide, kernel.depthwise
    height = depthwise.window.out_hw[0]

    def made(rows: int, second: Depthwise8) -> Projected8:
        if isinstance(wide, Depthwise8):
            return replace(kernel, wide=second, rows=rows)
        return replace(kernel, wide=replace(wide, consumer=second, rows=rows), rows=rows)

    for columns in _outputs(depthwise):
        yield made(kernel.rows, replace(depthwise, columns=columns))
    if isinstance(wide, Banded8) and wide.is_whole:
        return
    tallest = ceil(height / depthwise.row_tasks)
    for bands in range(1, tallest + 1):
        yield made(ceil(tallest / bands), depthwise)
    for parts, _ in parts_of(height, 1, depthwise.images, threads):
        yield made(min(kernel.rows, ceil(height / parts)), replace(depthwise, row_tasks=parts))


def _outputs(kernel: Depthwise8) -> Iterator[int]:
    """Whole periods of the ring, as far as a row has outputs."""
    period = kernel.ring(1).period
    yield from range(period, min(_MOST_OUTPUTS, kernel.window.out_hw[1] + period - 1) + 1, period)


def parts_of(rows: int, columns: int, others: int, threads: int) -> Iterator[tuple[int, int]]:
    """Powers of two, as many as there are rows and columns; at least a task for every thread where that can be."""
    least, most = min(threads, rows * columns * others), max(_MOST_TASKS * threads, others)
    for a in range(rows.bit_length()):
        for b in range(columns.bit_length()):
            if least <= (1 << a + b) * others <= most:
                yield 1 << a, 1 << b
