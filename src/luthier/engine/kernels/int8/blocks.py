"""Blocks of sums of products on bytes: in vector registers, or in the tiles of a matrix unit."""

from __future__ import annotations

from dataclasses import replace

from luthier.engine.kernels.int8.units import UNIT
from luthier.engine.kernels.register_block import Block, choose_block, given_block
from luthier.engine.target import Target
from luthier.errors import SpecError


def in_units(target: Target) -> Target:
    """The CPU with as many registers as it has for sums of a unit: each takes one of 512 bits, or two, or four."""
    return replace(target, registers=max(8, target.registers * target.lanes // UNIT))


def choose(target: Target, rows: int, unit_count: int, words: int) -> Block:
    """The block of `dot` products that costs least."""
    return Block(1, 1) if target.is_narrow else choose_block(in_units(target), rows, unit_count, words)


def tile_blocks(columns: int, unit_count: int) -> list[Block]:
    """What the matrix unit's registers hold: one or two tiles of rows by one or two units, the largest first."""
    rows = sorted({min(columns, 32) if columns <= 16 else 32, min(columns, 16)}, reverse=True)
    return [Block(r, v) for r in rows for v in range(min(unit_count, 2), 0, -1)]


def given(target: Target, block: tuple[int, int], rows: int, unit_count: int, tiles: bool) -> Block:
    """A block that a schedule states, cut to the product.

    Raises:
        SpecError: it needs more registers than there are.
    """
    if not tiles:
        return given_block(in_units(target), block, rows, unit_count)
    found = Block(block[0], min(block[1], unit_count))  # tiles may have more rows than there are
    if found.rows > 32 or found.vectors > 2:
        raise SpecError(f"Choice: a block of {found} does not fit the matrix unit of {target.isa}, 32x2 is the largest")
    return found
