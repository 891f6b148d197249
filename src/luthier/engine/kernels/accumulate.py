"""The innermost block of every matrix product: rows x vectors of sums that stay in registers.

    acc[r, v] += a[r, k] * b[k, v]        for k = 0 .. K - 1                                          (1)

Where b is bf16, two neighbours along k lie side by side in one 32-bit lane, zero behind an odd K: one instruction
multiplies both pairs where the CPU has it and a is bf16 too; elsewhere both are widened to fp32 first.

A block of few sums keeps several sets of them, so that none waits for another.  Rounding errors of n terms, added one
after another, grow with n: a long sum is one of parts,

    acc[r, v] = sum_p (sum_(k in part p) a[r, k] * b[k, v])                                           (2)

Blanchard, Higham and Mary, "A class of fast and accurate summation algorithms", SIAM J. Sci. Comput. 42(3), 2020.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from luthier.engine.emit import BF16, I16, I32, Function, Index, Value, vector
from luthier.engine.kernels.element import BFLOAT16, FP32, Element
from luthier.engine.kernels.kernel import Body
from luthier.engine.target import Target

Array = NDArray[Any]
#: sums that must be under way so that a core's two multipliers never wait
_UNDER_WAY: Final = 8
#: steps of k that are written out in a row
_UNROLL: Final = 4
#: steps of k in one part of a long sum
_PART: Final = 1024
_LINE: Final = 64
#: bytes that a stream of weights is asked for ahead of its use
_DISTANCE: Final = 4096


@dataclass(frozen=True, slots=True)
class Ahead:
    """Memory that the caches are asked for while a block is computed.

    Attributes:
        start: of it.
        lines: cache lines per written-out group of k.
        locality: 3 = into the L1 cache, 2 = into the L2 cache.
    """

    start: Value
    lines: int
    locality: int = 2


def steps_of(depth: int, w: Element) -> int:
    """Steps of K: each meets one vector of b per vector of columns."""
    return depth if w == FP32 else -(-depth // 2)


def pack_panel(panel: Array, w: Element) -> Array:
    """(..., K, columns) as `accumulate` reads it: [K][columns], of bf16 [K / 2][columns][2].

    Example:
        >>> from luthier.engine.kernels.element import BFLOAT16
        >>> from luthier.graph.halves import from_bf16
        >>> from_bf16(pack_panel(np.array([[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]]), BFLOAT16)).tolist()
        [1.0, 3.0, 2.0, 4.0, 5.0, 0.0, 6.0, 0.0]
    """
    if w == FP32:
        return w.pack(panel).ravel()
    *outer, depth, columns = panel.shape
    even = np.zeros((*outer, -(-depth // 2) * 2, columns), np.float32)
    even[..., :depth, :] = panel
    return w.pack(even.reshape(*outer, -1, 2, columns).swapaxes(-1, -2)).ravel()


def comes_from_afar(target: Target, weight_bytes: int, x_bytes: int) -> bool:
    """Whether fetching the weights takes a good part of a layer's time: they are many, and more than what they meet."""
    return weight_bytes > max(target.l1_bytes, x_bytes)


def ahead_of(body: Body, panel: Value, depth: int, vectors: int, index: Index, blocks: int) -> Ahead:
    """What to ask for during block `index` of the `blocks` that meet one panel: its share of the next panel.

    `depth` counts steps of K.  A panel that only one block meets is asked for itself, some way ahead.  To ask for what
    lies a quarter of the L2 cache ahead was measured: 12 % slower where weights are many.
    """
    f, step_bytes = body.f, vectors * body.target.vector_bytes
    if blocks == 1:
        return Ahead(f.offset(panel, _DISTANCE), -(-_UNROLL * step_bytes // _LINE))
    lines = -(-_UNROLL * step_bytes // (_LINE * blocks))
    share = f.mul(index, depth // _UNROLL * _LINE * lines)
    return Ahead(f.offset(f.offset(panel, depth * step_bytes), share), lines)


def rows_ahead(rows: Value, count: int, ld: int, depth: int) -> Ahead:
    """To ask for the `count` rows at `rows`, of `ld` bytes each, while a block of as many rows is computed.

    `depth` counts steps of K.
    """
    return Ahead(rows, -(-count * ld // (_LINE * max(1, depth // _UNROLL))), locality=3)


def is_long(steps: int) -> bool:
    """Whether a sum of so many terms is one of parts, equation (2)."""
    return steps > 2 * _PART


def apart(f: Function, terms: Callable[..., list[Value]]) -> Callable[..., list[Value]]:
    """Of a loop that carries sums: each iteration begins its own at zero, and they are added to the carried ones."""

    def part(index: Index, sums: list[Value]) -> list[Value]:
        found = terms(index, [Value(total.type, "zeroinitializer") for total in sums])
        return [f.fadd(total, term) for total, term in zip(sums, found, strict=True)]

    return part


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
    a_stride: int | None = None,
    ahead: Ahead | None = None,
    x: Element = FP32,
    w: Element = FP32,
) -> list[Value]:
    """Equation (1), where K is large as in (2).

    Args:
        body: where the code goes.
        sums: row by row, `vectors` each.
        a: to the first factor of all rows.
        a_rows: bytes from `a` to each row.
        b: packed, `vectors` side by side for each k.
        depth: K.
        vectors: columns, in vectors.
        b_stride: bytes from one step of k to the next in b; None = packed.
        a_stride: bytes from one k to the next in a; None = side by side.
        ahead: weights to ask for meanwhile.
        x, w: number types of a and b.
    """
    f, width = body.f, body.target.vector_bytes
    step_bytes = vectors * width if b_stride is None else b_stride
    per_step = 1 if w == FP32 else 2
    a_stride = x.bytes if a_stride is None else a_stride
    steps = steps_of(depth, w)
    # few sums would wait for each other: even and odd k get sums of their own
    chains = min(_UNROLL, -(-_UNDER_WAY // len(sums))) if steps > 2 * _UNROLL else 1
    dot = w != FP32 and x == w and a_stride == x.bytes and body.target.has_bf16

    def step(at_a: Value, at_b: Value, k: int, sums: Sequence[Value], half: bool = False) -> list[Value]:
        result, chain = list(sums), k % chains * len(a_rows) * vectors

        def multiply(right: list[Value], left: Callable[[int], Value], fma: Callable[..., Value]) -> None:
            for r, row in enumerate(a_rows):
                factor = left(row)
                for v in range(vectors):
                    place = chain + r * vectors + v
                    result[place] = fma(factor, right[v], result[place])

        def number(first: int) -> Callable[[int], Value]:
            return lambda row: body.broadcast(at_a, row + (k * per_step + first) * a_stride, x)

        if dot:
            pairs = vector(BF16, 2 * body.target.lanes)
            right = [f.load(pairs, at_b, k * step_bytes + v * width, width) for v in range(vectors)]
            multiply(right, lambda row: _pair(body, at_a, row + k * 2 * x.bytes, half), _dot(body))
        elif w == FP32:
            multiply([body.load(at_b, k * step_bytes + v * width) for v in range(vectors)], number(0), f.fma)
        else:
            both = [widened(body, at_b, k * step_bytes + v * width) for v in range(vectors)]
            multiply([even for even, _ in both], number(0), f.fma)
            if not half:
                multiply([odd for _, odd in both], number(1), f.fma)
        return result

    def group(index: Index, sums: list[Value]) -> list[Value]:
        at_a, at_b = f.offset(a, f.mul(index, per_step * a_stride)), f.offset(b, f.mul(index, step_bytes))
        if ahead is not None:
            line = f.offset(ahead.start, f.mul(f.div(index, _UNROLL), _LINE * ahead.lines))
            for number in range(ahead.lines):
                f.prefetch(line, _LINE * number, ahead.locality)
        for k in range(_UNROLL):
            sums = step(at_a, at_b, k, sums)
        return sums

    whole = depth // per_step // _UNROLL * _UNROLL if steps > 2 * _UNROLL else 0
    zeros = [Value(f.vector, "zeroinitializer")] * (len(sums) * (chains - 1))
    result = [*sums, *zeros]
    if is_long(whole):

        def part(first: Index, sums: list[Value]) -> list[Value]:
            return f.loop(first, f.min(f.add(first, _PART), whole), group, sums, step=_UNROLL)

        result = f.loop(0, whole, apart(f, part), result, step=_PART)
    else:
        result = f.loop(0, whole, group, result, step=_UNROLL)
    at_a, at_b = f.offset(a, whole * per_step * a_stride), f.offset(b, whole * step_bytes)
    for k in range(whole, steps):
        result = step(at_a, at_b, k - whole, result, half=(k + 1) * per_step > depth)
    while len(result) > len(sums):
        middle = len(sums) * -(-len(result) // len(sums) // 2)
        added = [f.fadd(one, other) for one, other in zip(result, result[middle:], strict=False)]
        result = added + result[len(added) : middle]
    return result


def _pair(body: Body, a: Value, by: int, half: bool) -> Value:
    """Two neighbouring bf16 numbers in every lane, or one and a zero."""
    f, lanes = body.f, body.target.lanes
    word = f.load(I16 if half else I32, a, by, align=2)
    both = f.assign(I32, f"zext {word} to i32") if half else word
    pairs = vector(BF16, 2 * lanes)
    return f.assign(pairs, f"bitcast {f.splat(both)} to {pairs.text}")


def _dot(body: Body) -> Callable[[Value, Value, Value], Value]:
    """Two products per lane, added to a third number."""
    name = f"llvm.x86.avx512bf16.dpbf16ps.{32 * body.target.lanes}"
    return lambda left, right, total: body.f.call(name, body.f.vector, (total, left, right))


def widened(body: Body, b: Value, by: Index) -> tuple[Value, Value]:
    """The first and the second number of every pair, as fp32."""
    f = body.f
    wide = vector(I32, body.target.lanes)
    bits = f.load(wide, b, by, body.target.vector_bytes)
    first = f.assign(wide, f"shl {bits}, splat (i32 16)")
    second = f.assign(wide, f"and {bits}, splat (i32 -65536)")
    return tuple(f.assign(f.vector, f"bitcast {half} to {f.vector.text}") for half in (first, second))  # type: ignore[return-value]


def paired(body: Body, first: Value, second: Value) -> Value:
    """The other way round: rounded to bf16, side by side in one lane."""
    f, wide = body.f, vector(I32, body.target.lanes)
    low, high = (
        f.assign(wide, f"zext {BFLOAT16.rounded(f, body.target, value)} to {wide.text}") for value in (first, second)
    )
    return f.assign(wide, f"or {low}, {f.assign(wide, f'shl {high}, splat (i32 16)').text}")
