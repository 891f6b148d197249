"""What else a kernel could be: the same work with one choice made otherwise.

    kernel        choices
    product       block; loop order; gate; parts of rows and of channels
    convolution   block; parts of rows and of channels
    depthwise     outputs; parts of rows
    banded        block; outputs; rows of a band; parts of rows
    projected     as what it projects
    on bytes      likewise, see `luthier.engine.candidates8`

One choice at a time: the tuner moves from the best so far, so that good choices add up.  Blocks whose estimate is more
than a third above the best block's are left out, as are parts that would leave a thread without work.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from math import ceil
from typing import Final, Literal

from luthier.engine.candidates8 import parts_of, variants8
from luthier.engine.estimate import Estimate
from luthier.engine.expected import expected
from luthier.engine.kernels.banded import Banded
from luthier.engine.kernels.conv import Convolution
from luthier.engine.kernels.depthwise import Depthwise
from luthier.engine.kernels.kernel import Kernel
from luthier.engine.kernels.matmul import Matmul
from luthier.engine.kernels.projected import Projected
from luthier.engine.kernels.register_block import Block, block_candidates, product_cycles
from luthier.engine.layout import round_up
from luthier.engine.target import Target
from luthier.schedule import Choice, Tile

_WORST: Final = 4 / 3


@dataclass(frozen=True, slots=True)
class Candidate:
    """A tile and choices, and what the kernel that they make should take."""

    tile: Tile
    choice: Choice
    estimate: Estimate


def candidates(kernel: Kernel, target: Target, threads: int = 1) -> list[Candidate]:
    """All that differ from a kernel in one choice, by equation (1) of `luthier.engine.estimate`, the best first.

    Example:
        >>> from luthier.engine.kernels.matmul import matmul
        >>> from luthier.engine.target import neon
        >>> found = candidates(matmul(neon(), 1, 196, 80, 480), neon())
        >>> cycles = [candidate.estimate.cycles() for candidate in found]
        >>> cycles == sorted(cycles), len({candidate.choice for candidate in found}) == len(found) > 10
        (True, True)
    """
    found: dict[tuple[Tile, Choice], Candidate] = {}
    for variant in variants(kernel, target, threads):
        modelled = expected(variant, target)
        if modelled is not None and variant != kernel:
            found.setdefault((variant.tile, variant.choice), Candidate(variant.tile, variant.choice, modelled))
    return sorted(found.values(), key=lambda candidate: candidate.estimate.cycles(threads))


def variants(kernel: Kernel, target: Target, threads: int = 1) -> Iterator[Kernel]:
    """Kernels that do the same work and differ in one choice."""
    match kernel:
        case Matmul():
            yield from _products(kernel, target, threads)
        case Convolution():
            width = kernel.window.out_hw[1]
            for block in _blocks(kernel, target, width, kernel.tap_steps):
                yield replace(kernel, block=block, column_tasks=_fewer(kernel.column_tasks, kernel, block))
            for parts in parts_of(kernel.window.out_hw[0], kernel.panels.count, kernel.source.shape[0], threads):
                yield replace(kernel, row_tasks=parts[0], column_tasks=parts[1])
        case Depthwise():
            for columns in _outputs(kernel):
                yield replace(kernel, columns=columns)
            for rows, _ in parts_of(kernel.window.out_hw[0], 1, kernel.images * kernel.blocks.count, threads):
                yield replace(kernel, row_tasks=rows)
        case Banded():
            yield from _bands(kernel, target, threads)
        case Projected(wide=Banded() as wide):
            for other in _bands(wide, target, threads):
                yield replace(kernel, wide=other, rows=other.rows)
        case Projected(wide=Depthwise() as wide):
            for columns in _outputs(wide):
                yield replace(kernel, wide=replace(wide, columns=columns))
            tallest = ceil(wide.window.out_hw[0] / wide.row_tasks)
            for bands in range(1, tallest + 1):
                yield replace(kernel, rows=ceil(tallest / bands))
        case _ if not target.is_narrow:
            yield from variants8(kernel, target, threads)


def _products(kernel: Matmul, target: Target, threads: int) -> Iterator[Kernel]:
    for block in _blocks(kernel, target, kernel.rows, kernel.steps):
        fewer = replace(kernel, block=block)
        row_tasks = min(kernel.row_tasks, fewer.row_blocks.count)
        yield replace(fewer, row_tasks=row_tasks, column_tasks=_fewer(kernel.column_tasks, kernel, block))
    yield replace(kernel, row_major=not kernel.row_major)
    if kernel.gate:
        other: Literal["rows", "weights"] = "weights" if kernel.gate == "rows" else "rows"
        yield replace(kernel, gate=other)
    for rows, columns in parts_of(kernel.row_blocks.count, kernel.panels.count, kernel.images, threads):
        for row_major in (False, True):
            yield replace(kernel, row_tasks=rows, column_tasks=columns, row_major=row_major)


def _bands(kernel: Banded, target: Target, threads: int) -> Iterator[Banded]:
    first, second = kernel.producer, kernel.consumer
    tallest = ceil(second.window.out_hw[0] / second.row_tasks)
    for bands in range(1, tallest + 1):
        yield replace(kernel, rows=ceil(tallest / bands))
    for block in _blocks(first, target, first.window.out_hw[1], first.tap_steps):
        changed = replace(second, block=block.vectors)
        yield replace(kernel, producer=replace(first, block=block), consumer=changed)
    for columns in _outputs(second):
        yield replace(kernel, consumer=replace(second, columns=columns))
    panels = second.images * first.panels.count
    for rows, _ in parts_of(second.window.out_hw[0], 1, panels, threads):
        fitting = min(kernel.rows, ceil(second.window.out_hw[0] / rows))
        yield replace(kernel, rows=fitting, consumer=replace(second, row_tasks=rows))


def _blocks(kernel: Matmul | Convolution, target: Target, rows: int, depth: int) -> list[Block]:
    vectors = round_up(kernel.columns, kernel.lanes) // kernel.lanes
    cycles = {block: product_cycles(block, rows, vectors, depth) for block in block_candidates(target, rows, vectors)}
    best = min(cycles.values())
    return [block for block, value in cycles.items() if value <= _WORST * best]


def _fewer(parts: int, kernel: Matmul | Convolution, block: Block) -> int:
    return min(parts, replace(kernel, block=block).panels.count)


def _outputs(kernel: Depthwise) -> Iterator[int]:
    """Sizes that cut a row into 1, 2, 3 ... equal tiles, as far as two tiles' worth of registers."""
    width = kernel.window.out_hw[1]
    for tiles in range(1, width + 1):
        if 4 <= (size := ceil(width / tiles)) <= 24:
            yield size
