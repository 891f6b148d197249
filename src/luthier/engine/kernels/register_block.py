"""The innermost block of every matrix product: rows x vectors of sums that stay in registers.

    acc[r, v] += a[r, k] * b[k, v]        for k = 0 .. K - 1                                          (1)

Which block: the one whose estimated cycles are fewest.  A step of k costs, in cycles of a core with two multipliers and
two loads,

    max(r v, r + v, 2 latency) / 2,       latency = 4                                                 (2)

and a block costs K such steps, a start of 8 cycles, and its epilogue; a block of few sums keeps several sets of them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from luthier.engine.emit import Index, Value
from luthier.engine.kernels.kernel import Body
from luthier.engine.kernels.partition import Partition
from luthier.engine.target import Target
from luthier.errors import SpecError

_LATENCY: Final = 4
_START_CYCLES: Final = 8
#: steps of k that are written out in a row
_UNROLL: Final = 4
_MOST_VECTORS: Final = 12
_LINE: Final = 64
#: bytes that a stream of weights is asked for ahead of its use
_DISTANCE: Final = 4096


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


@dataclass(frozen=True, slots=True)
class Ahead:
    """Memory that the caches are asked for while a block is computed.

    Attributes:
        start: of it.
        lines: cache lines per written-out group of k.
    """

    start: Value
    lines: int


def comes_from_afar(target: Target, weight_bytes: int, x_bytes: int) -> bool:
    """Whether fetching the weights takes a good part of a layer's time: they are many, and more than what they meet."""
    return weight_bytes > max(target.l1_bytes, x_bytes)


def ahead_of(body: Body, panel: Value, depth: int, vectors: int, index: Index, blocks: int) -> Ahead:
    """What to ask for during block `index` of the `blocks` that meet one panel: its share of the next panel.

    A panel that only one block meets is asked for itself, some way ahead.
    """
    f, step_bytes = body.f, vectors * body.target.vector_bytes
    if blocks == 1:
        return Ahead(f.offset(panel, _DISTANCE), -(-_UNROLL * step_bytes // _LINE))
    lines = -(-_UNROLL * step_bytes // (_LINE * blocks))
    share = f.mul(index, depth // _UNROLL * _LINE * lines)
    return Ahead(f.offset(f.offset(panel, depth * step_bytes), share), lines)


def block_cycles(rows: int, vectors: int, depth: int) -> float:
    """Estimate of one block, equation (2) times depth."""
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


def accumulate(
    body: Body,
    sums: Sequence[Value],
    a: Value,
    a_rows: Sequence[int],
    b: Value,
    depth: int,
    vectors: int,
    *,
    b_stride: int | None = None,
    a_stride: int = 4,
    ahead: Ahead | None = None,
) -> list[Value]:
    """Equation (1).

    Args:
        body: where the code goes.
        sums: row by row, `vectors` each.
        a: to the first factor of all rows.
        a_rows: bytes from `a` to each row.
        b: packed, `vectors` side by side for each k.
        depth: K.
        vectors: columns, in vectors.
        b_stride: bytes from one k to the next in b; None = packed.
        a_stride: bytes from one k to the next in a.
        ahead: weights to ask for meanwhile.
    """
    f, width = body.f, body.target.vector_bytes
    step_bytes = vectors * width if b_stride is None else b_stride
    # few sums would wait for each other: even and odd k get sums of their own
    chains = min(_UNROLL, -(-2 * _LATENCY // len(sums))) if depth > 2 * _UNROLL else 1

    def step(at_a: Value, at_b: Value, k: int, sums: Sequence[Value]) -> list[Value]:
        result, chain = list(sums), k % chains * len(a_rows) * vectors
        right = [body.load(at_b, k * step_bytes + v * width) for v in range(vectors)]
        for r, row in enumerate(a_rows):
            left = f.broadcast(at_a, row + k * a_stride)
            for v in range(vectors):
                place = chain + r * vectors + v
                result[place] = f.fma(left, right[v], result[place])
        return result

    def steps(index: Index, sums: list[Value]) -> list[Value]:
        at_a, at_b = f.offset(a, f.mul(index, a_stride)), f.offset(b, f.mul(index, step_bytes))
        if ahead is not None:
            line = f.offset(ahead.start, f.mul(f.div(index, _UNROLL), _LINE * ahead.lines))
            for number in range(ahead.lines):
                f.prefetch(line, _LINE * number)
        for k in range(_UNROLL):
            sums = step(at_a, at_b, k, sums)
        return sums

    whole = depth // _UNROLL * _UNROLL if depth > 2 * _UNROLL else 0
    zeros = [Value(f.vector, "zeroinitializer")] * (len(sums) * (chains - 1))
    result = f.loop(0, whole, steps, [*sums, *zeros], step=_UNROLL)
    for k in range(whole, depth):
        result = step(f.offset(a, whole * a_stride), f.offset(b, whole * step_bytes), k - whole, result)
    while len(result) > len(sums):
        half = len(sums) * -(-len(result) // len(sums) // 2)
        added = [f.fadd(x, y) for x, y in zip(result, result[half:], strict=False)]
        result = added + result[len(added) : half]
    return result
