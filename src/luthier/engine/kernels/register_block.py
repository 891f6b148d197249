"""Which block of a matrix product stays in registers, rows x vectors of sums: the one of the fewest estimated cycles.

A step of k costs, in cycles of a core with two multipliers and two loads,

    max(r v, r + v, 2 latency) / 2,       latency = 4                                                 (1)

and a block costs K such steps, a start of 8 cycles, and its epilogue; `accumulate` writes it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from luthier.engine.kernels.partition import Partition
from luthier.engine.target import Target
from luthier.errors import SpecError

_LATENCY: Final = 4
_START_CYCLES: Final = 8
_MOST_VECTORS: Final = 12


@dataclass(frozen=True, slots=True)
class Block:
    """Sums that are kept in registers.

    Attributes:
        rows: pixels.
        vectors: of output channels.
    """

    rows: int
    vectors: int

    def __str__(self) -> str:
        return f"{self.rows}x{self.vectors}"


def block_cycles(rows: int, vectors: int, depth: int) -> float:
    """Estimate of one block, equation (1) times depth."""
    return max(rows * vectors, rows + vectors, 2 * _LATENCY) / 2 * depth + _START_CYCLES + rows * vectors


def fits(rows: int, vectors: int, registers: int) -> bool:
    """Whether the sums, one row of b and one broadcast have registers; a single row reads b from memory."""
    return rows * vectors + (vectors if rows > 1 else 1) + 1 <= registers


def given_block(target: Target, block: tuple[int, int], rows: int, vectors: int) -> Block:
    """A block that a schedule states, cut to the product.

    Raises:
        SpecError: it needs more registers than there are.
    """
    found = Block(min(block[0], rows), min(block[1], vectors))
    if not fits(found.rows, found.vectors, target.registers):
        raise SpecError(f"Choice: a block of {found} does not fit the {target.registers} registers of {target.isa}")
    return found


def block_candidates(target: Target, rows: int, vectors: int, *, roomy: bool = False) -> list[Block]:
    """Blocks that fit, see `choose_block`."""
    most = target.registers * 3 // 4
    return [
        Block(r, v)
        for v in range(1, min(vectors, _MOST_VECTORS) + 1)
        for r in range(1, min(rows, target.registers) + 1)
        if fits(r, v, target.registers) and not (roomy and r * v > most)
    ]


def product_cycles(block: Block, rows: int, vectors: int, depth: int) -> float:
    """Estimate of a whole product, cut into such blocks."""
    return sum(
        block_cycles(r, v, depth) * m * n
        for r, _, m, _ in Partition(rows, block.rows).runs()
        for v, _, n, _ in Partition(vectors, block.vectors).runs()
    )


def choose_block(
    target: Target, rows: int, vectors: int, depth: int, *, roomy: bool = False, width: int | None = None
) -> Block:
    """The cheapest block for rows x depth times depth x vectors.

    Args:
        target: the CPU.
        rows, vectors, depth: of the product.
        roomy: whether the epilogue needs registers of its own, a quarter of all: one with an exponential is up to an
            eighth faster with them.
        width: vectors that the block must have.
    Raises:
        SpecError: no block of this width fits the registers.

    Example:
        >>> from luthier.engine.target import neon
        >>> choose_block(neon(), rows=12544, vectors=24, depth=64)
        Block(rows=14, vectors=2)
    """

    candidates = block_candidates(target, rows, vectors, roomy=roomy)
    if width is not None:
        candidates = [block for block in candidates if block.vectors == min(width, vectors)]
        if not candidates:
            raise SpecError(f"Tile: blocks of {width * target.lanes} channels do not fit the registers of {target.isa}")
    return min(candidates, key=lambda b: (product_cycles(b, rows, vectors, depth), -b.vectors, b.rows))
