"""The vectors of the integer kernels: units of sixteen channels, whatever the CPU; and the instructions on them.

A tensor of bytes lies pixel by pixel, each pixel a whole number of units:

    address(n, c, h, w) = c + ld (w + W (h + H n)),     ld = C rounded up to a multiple of 16         (1)

Sixteen bytes are one 512-bit vector of sums, two of 256 and four of 128 bits; LLVM does the splitting, and only the
product of bytes, the packing, the rounding and the table are spelt out for each instruction set.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final

from luthier.engine.emit import F32, I32, Function, Index, Type, Value, vector
from luthier.engine.layout import Layout, round_up
from luthier.engine.target import Target
from luthier.graph.shapes import Shape

#: channels in a unit
UNIT: Final = 16
#: bytes behind every buffer that a kernel may read (never use) and that are never written: a tile of 64 columns
SLACK: Final = 64
I8: Final = Type("i8", 1, 1, "i8")
I16: Final = Type("i16", 2, 1, "i16")
BYTES: Final = vector(I8, UNIT)
SUMS: Final = vector(I32, UNIT)
REALS: Final = vector(F32, UNIT)
#: four units of bytes
QUAD: Final = vector(I8, 4 * UNIT)


def byte_layout(shape: Shape) -> Layout:
    """Equation (1)."""
    return Layout.padded(shape, UNIT)


def units(channels: int) -> int:
    """Units that hold some channels."""
    return round_up(channels, UNIT) // UNIT


def has(target: Target, feature: str) -> bool:
    """Whether code for a target may use what LLVM calls `feature`."""
    return f"+{feature}" in target.features.split(",")


# ---- integers, lane by lane


def op(f: Function, name: str, a: Value, b: Value) -> Value:
    """An instruction on two vectors of one type: add, sub, mul, and, or, shl, lshr, ashr."""
    assert a.type == b.type, f"{name}: {a.type.text} and {b.type.text}"
    return f.assign(a.type, f"{name} {a}, {b.text}")


def number(kind: Type, value: int) -> Value:
    """One integer in every lane."""
    return Value(kind, f"splat ({kind.element} {value})")


def zeros(kind: Type) -> Value:
    """Zero in every lane."""
    return Value(kind, "zeroinitializer")


def cast(f: Function, name: str, x: Value, kind: Type) -> Value:
    """A conversion: zext, sext, trunc, sitofp, bitcast."""
    return x if x.type == kind else f.assign(kind, f"{name} {x} to {kind.text}")


def pick(f: Function, a: Value, lanes: Sequence[int], b: Value | None = None) -> Value:
    """Lanes of `a`, and of `b` counted on behind them, in a new order; -1 = any."""
    kind = vector(Type(a.type.element, a.type.bytes // a.type.lanes, 1, a.type.element), len(lanes))
    second = f"{a.type.text} poison" if b is None else str(b)
    mask = ", ".join("i32 poison" if lane < 0 else f"i32 {lane}" for lane in lanes)
    return f.assign(kind, f"shufflevector {a}, {second}, <{len(lanes)} x i32> <{mask}>")


def pieces(f: Function, x: Value, lanes: int) -> list[Value]:
    """A vector cut into vectors of `lanes` lanes."""
    if x.type.lanes == lanes:
        return [x]
    return [pick(f, x, range(at, at + lanes)) for at in range(0, x.type.lanes, lanes)]


def join(f: Function, parts: Sequence[Value]) -> Value:
    """Vectors of one type, a power of two of them, one behind the other."""
    found = list(parts)
    while len(found) > 1:
        total = 2 * found[0].type.lanes
        found = [pick(f, a, range(total), b) for a, b in zip(found[::2], found[1::2], strict=True)]
    return found[0]


def by_pieces(f: Function, lanes: int, kind: Type, call: Callable[..., Value], *vectors: Value) -> Value:
    """Apply `call` to pieces of at most `lanes` lanes of `kind` (the first vector's), and join what it returns."""
    count = max(1, kind.lanes // lanes)
    cut = [pieces(f, x, x.type.lanes // count) for x in vectors]
    return join(f, [call(*parts) for parts in zip(*cut, strict=True)])


def broadcast_word(f: Function, pointer: Value, by: Index, kind: Type) -> Value:
    """The 32 bits behind a pointer, again and again, as a vector of any type."""
    word = f.splat(f.load(I32, pointer, by), kind.bytes // 4)
    return cast(f, "bitcast", word, kind)


# ---- instructions by CPU


def dot(f: Function, target: Target, sums: Value, x: Value, weight: Value) -> Value:
    """sums[i] + sum over t < 4 of x[4 i + t] * weight[4 i + t]: x unsigned, weight signed bytes, exact.

    Without a byte product of that kind the bytes are widened to 16 bits first: `vpmaddubsw` adds pairs of products in
    16 bits and would saturate.

    Args:
        sums: 16 of 32 bits.
        x, weight: 64 bytes each.
    """
    if has(target, "avx512vnni"):
        return _dot_instruction(f, 16, sums, x, weight)
    if has(target, "avxvnni"):
        return by_pieces(f, 8, SUMS, lambda s, a, b: _dot_instruction(f, 8, s, a, b), sums, x, weight)
    if target.is_x86:
        return by_pieces(f, target.lanes, SUMS, lambda s, a, b: _dot_widened(f, s, a, b), sums, x, weight)
    return by_pieces(f, 4, SUMS, lambda s, a, b: _dot_neon(f, s, a, b), sums, x, weight)


def _dot_instruction(f: Function, lanes: int, sums: Value, x: Value, weight: Value) -> Value:
    return f.call(f"llvm.x86.avx512.vpdpbusd.{32 * lanes}", sums.type, (sums, x, weight))


def halves(f: Function, x: Value, weight: Value) -> list[tuple[Value, Value]]:
    """Sixteen bytes each, as eight and eight of 16 bits."""
    wide = vector(I16, 8)
    return [
        (cast(f, "zext", pick(f, x, lanes), wide), cast(f, "sext", pick(f, weight, lanes), wide))
        for lanes in (range(8), range(8, 16))
    ]


def _dot_neon(f: Function, sums: Value, x: Value, weight: Value) -> Value:
    """A product of two bytes fits in 16 bits; neighbours are added in 32, twice."""
    kind = vector(I32, 4)
    products = [op(f, "mul", a, b) for a, b in halves(f, x, weight)]
    pairs = [f.call("llvm.aarch64.neon.saddlp.v4i32.v8i16", kind, (product,)) for product in products]
    return op(f, "add", sums, f.call("llvm.aarch64.neon.addp.v4i32", kind, pairs))


_PAIR_PRODUCTS: Final = {4: "llvm.x86.sse2.pmadd.wd", 8: "llvm.x86.avx2.pmadd.wd", 16: "llvm.x86.avx512.pmaddw.d.512"}


def _dot_widened(f: Function, sums: Value, x: Value, weight: Value) -> Value:
    words = vector(I16, 2 * sums.type.lanes)
    a, b, eight = cast(f, "bitcast", x, words), cast(f, "bitcast", weight, words), number(words, 8)
    even = op(f, "and", a, number(words, 255)), op(f, "ashr", op(f, "shl", b, eight), eight)
    odd = op(f, "lshr", a, eight), op(f, "ashr", b, eight)
    for pair in (even, odd):
        sums = op(f, "add", sums, f.call(_PAIR_PRODUCTS[sums.type.lanes], sums.type, pair))
    return sums


_ROUND: Final = {4: "llvm.x86.sse2.cvtps2dq", 8: "llvm.x86.avx.cvt.ps2dq.256"}


def rounded(f: Function, target: Target, x: Value) -> Value:
    """rint of 16 numbers as integers: halves to even; NaN and what is too large becomes -2^31."""
    if target.isa == "avx512":
        name = "llvm.x86.avx512.mask.cvtps2dq.512"
        rest = (zeros(SUMS), Value(I16, "-1"), Value(I32, "4"))
        return f.call(name, SUMS, (x, *rest))
    if target.is_x86:
        kind = vector(I32, target.lanes)
        return by_pieces(f, target.lanes, REALS, lambda part: f.call(_ROUND[target.lanes], kind, (part,)), x)
    low = f.constant(-(2.0**31), REALS)
    held = f.select(f.assign(vector(Type("i1", 1, 1, "i1"), UNIT), f"fcmp oge {x}, {low.text}"), x, low)
    return cast(f, "fptosi", f.call("llvm.roundeven.v16f32", REALS, (held,)), SUMS)


def packed(f: Function, target: Target, values: Sequence[Value], zero: Value) -> Value:
    """clamp(value + zero, 0, 255) of four vectors of sums, one behind the other, as bytes.

    Args:
        zero: 32 lanes of 16 bits.
    """
    assert len(values) == 4
    if target.isa == "avx512":
        words = vector(I16, 32)
        halves = []
        for a, b in ((values[0], values[1]), (values[2], values[3])):
            both = f.call("llvm.x86.avx512.packssdw.512", words, (a, b))
            halves.append(f.call("llvm.sadd.sat.v32i16", words, (both, zero)))
        mixed = f.call("llvm.x86.avx512.packuswb.512", QUAD, halves)
        # each 128 bits hold four bytes of every vector
        order = [16 * lane + 4 * v + i for v in range(4) for lane in range(4) for i in range(4)]
        return pick(f, mixed, order)
    wide = cast(f, "sext", pick(f, zero, range(UNIT)), SUMS)
    held = []
    for value in values:
        moved = op(f, "add", value, wide)
        low = f.call("llvm.smax.v16i32", SUMS, (moved, zeros(SUMS)))
        held.append(cast(f, "trunc", f.call("llvm.smin.v16i32", SUMS, (low, number(SUMS, 255))), BYTES))
    return join(f, held)


def load_table(f: Function, target: Target, table: Value) -> list[Value]:
    """256 bytes behind a pointer, as `look_up` wants them: in registers where there is an instruction for it."""
    if has(target, "avx512vbmi"):
        return [f.load(QUAD, table, 64 * i, align=64) for i in range(4)]
    return [table]


def look_up(f: Function, target: Target, loaded: Sequence[Value], x: Value) -> Value:
    """table[x] of 64 bytes; `loaded` comes from `load_table`."""
    if has(target, "avx512vbmi"):
        parts = loaded
        name = "llvm.x86.avx512.vpermi2var.qi.512"
        low, high = (f.call(name, QUAD, (a, x, b)) for a, b in ((parts[0], parts[1]), (parts[2], parts[3])))
        negative = f.assign(vector(Type("i1", 1, 1, "i1"), 64), f"icmp slt {x}, zeroinitializer")
        return f.select(negative, high, low)
    (table,) = loaded
    if target.is_x86:
        lanes = 32 if target.isa != "sse4" else 16
        return by_pieces(f, lanes, QUAD, lambda part: _look_up_sixteenths(f, table, part), x)
    return by_pieces(f, 16, QUAD, lambda part: _look_up_neon(f, table, part), x)


def _look_up_neon(f: Function, table: Value, x: Value) -> Value:
    """Each quarter of the table by one instruction, which gives 0 for an index behind it."""
    result = zeros(BYTES)
    for part in range(4):
        entries = [f.load(BYTES, table, 64 * part + 16 * i, align=16) for i in range(4)]
        moved = op(f, "xor", x, number(BYTES, 64 * part))
        result = op(f, "or", result, f.call("llvm.aarch64.neon.tbl4.v16i8", BYTES, (*entries, moved)))
    return result


def _look_up_sixteenths(f: Function, table: Value, x: Value) -> Value:
    """Each sixteenth of the table by a shuffle, which gives 0 wherever the index has its highest bit set."""
    kind, name = x.type, "llvm.x86.avx2.pshuf.b" if x.type.lanes == 32 else "llvm.x86.ssse3.pshuf.b.128"
    result = zeros(kind)
    for part in range(16):
        entries = pick(f, f.load(BYTES, table, 16 * part, align=16), [*range(16)] * (kind.lanes // 16))
        moved = op(f, "xor", x, number(kind, 16 * part))
        index = f.call(f"llvm.uadd.sat.v{kind.lanes}i8", kind, (moved, number(kind, 0x70)))
        result = op(f, "or", result, f.call(name, kind, (entries, index)))
    return result


#: bytes of four units <-> of each channel, the four units' bytes side by side
TO_GROUPS: Final = tuple(16 * unit + lane for lane in range(16) for unit in range(4))
FROM_GROUPS: Final = tuple(4 * lane + unit for unit in range(4) for lane in range(16))
