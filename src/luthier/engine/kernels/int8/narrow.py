"""What becomes of sums on CPUs without vectors of bytes, such as microcontrollers: four channels at a time, in loops.

The equations are those of `result` and `reals`, and so are the bits that come out.  Rounding needs no instruction:

    rint(x) = bits(x + 1.5 * 2^23) - bits(1.5 * 2^23)         of |x| < 2^22, halves to even           (1)

and x is bounded by 1024 first, which nothing notices that is clamped to 0 .. 255 behind a zero point of 0 .. 255.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from luthier.engine.emit import F32, I1, I8, I32, Function, Index, Value, vector
from luthier.engine.kernels.int8.reals import Reals
from luthier.engine.kernels.int8.result import WORDS, Activation8, Result
from luthier.engine.kernels.int8.units import BYTES, UNIT, cast, halves, number, op, pick
from luthier.engine.kernels.kernel import Body

#: channels at a time
FOUR: Final = 4
BYTES4: Final = vector(I8, FOUR)
SUMS4: Final = vector(I32, FOUR)
REALS4: Final = vector(F32, FOUR)
_MOST: Final = 1024.0
_SHIFTER: Final = 1.5 * 2.0**23
_SHIFTER_BITS: Final = 0x4B400000


def to_bytes(f: Function, x: Value, zero: Value) -> Value:
    """clamp(rint(x) + zero, 0, 255) of four numbers, in 32 bits; NaN gives 0."""
    low, high = f.constant(-_MOST, REALS4), f.constant(_MOST, REALS4)
    x = f.select(f.assign(vector(I1, FOUR), f"fcmp oge {x}, {low.text}"), x, low)
    moved = cast(f, "bitcast", f.fadd(f.at_most(x, high), f.constant(_SHIFTER, REALS4)), SUMS4)
    return bounded(f, op(f, "add", op(f, "sub", moved, number(SUMS4, _SHIFTER_BITS)), zero))


def bounded(f: Function, q: Value, low: Value | None = None, high: Value | None = None) -> Value:
    """min(max(q, low), high), 0 and 255 where they are not given."""
    q = f.call("llvm.smax.v4i32", SUMS4, (q, number(SUMS4, 0) if low is None else low))
    return f.call("llvm.smin.v4i32", SUMS4, (q, number(SUMS4, 255) if high is None else high))


def load_bytes(f: Function, at: Value, by: Index = 0) -> Value:
    """Four bytes, in 32 bits each."""
    return cast(f, "zext", f.load(BYTES4, at, by, align=FOUR), SUMS4)


def store_bytes(f: Function, q: Value, at: Value, by: Index = 0) -> None:
    """Write four integers as bytes."""
    f.store(cast(f, "trunc", q, BYTES4), at, by, align=FOUR)


def quarters(f: Function, work: Callable[[Index], None], units: Index = 1) -> None:
    """Call `work(first channel)` for every four of some units."""
    f.loop(0, f.mul(units, UNIT // FOUR), lambda index, _: work(f.mul(index, FOUR)))


class Finish:
    """What becomes of four sums: a `Result`, or `Reals`.

    Args:
        result: what to do.
        body: where the code goes, with the operands that it reads.
    """

    def __init__(self, result: Result | Reals, body: Body) -> None:
        self.result, self.body = result, body

    def _word(self, name: str, mask: int = -1) -> Value:
        """A number that the whole kernel shares, in every lane."""
        f = self.body.f
        word = f.load(I32, self.body["numbers"], 4 * WORDS.index(name))
        return f.splat(word if mask == -1 else f.assign(I32, f"and {word}, {mask}"), FOUR)

    def scale(self, name: str) -> Value:
        """Likewise, a factor."""
        return self.body.f.splat(self.body.f.load(F32, self.body["numbers"], 4 * WORDS.index(name)), FOUR)

    def activated(self, kind: Activation8, q: Value, suffix: str = "") -> Value:
        """Equation (2) of `result`."""
        f = self.body.f
        if kind == "clamp":
            return bounded(f, q, self._word(f"low{suffix}", 255), self._word(f"high{suffix}", 255))
        if kind == "identity":
            return q
        table, found = self.body[f"table{suffix}"], q
        for lane in range(FOUR):
            index = f.assign(I32, f"extractelement {q}, i32 {lane}")
            at = f.assign(table.type, f"getelementptr inbounds i8, {table}, {index}")
            entry = f.assign(I32, f"zext {f.load(I8, at, align=1)} to i32")
            found = f.assign(SUMS4, f"insertelement {found}, {entry}, i32 {lane}")
        return found

    def term(self, q: Value, side: str, *, scaled: bool = True) -> Value:
        """(q - z) m of equation (3), or q - z alone; `side` is a or b."""
        f = self.body.f
        centred = cast(f, "sitofp", op(f, "sub", q, self._word(f"zero_{side}")), REALS4)
        return f.fmul(centred, self.scale(f"scale_{side}")) if scaled else centred

    def after(self, x: Value) -> Value:
        """Numbers as integers behind equation (3)."""
        assert isinstance(self.result, Result)
        q = to_bytes(self.body.f, x, self._word("zero_after", 0xFFFF))
        return self.activated(self.result.after, q, "_after")

    def write(self, sums: Value, scale: Value, y: Value, residual: Value | None, by: Index) -> None:
        """All of it.

        Args:
            sums: four of 32 bits.
            scale: pointer to their factors.
            y, residual: where the unit begins that they belong to.
            by: channels from there.
        """
        f, result = self.body.f, self.result
        product = f.fmul(cast(f, "sitofp", sums, REALS4), f.load(REALS4, scale, align=16))
        if isinstance(result, Reals):
            self._write_reals(result, product, y, residual, by)
            return
        q = self.activated(result.activation, to_bytes(f, product, self._word("zero", 0xFFFF)))
        if residual is not None:
            other = self.term(load_bytes(f, residual, by), "b")
            q = self.after(f.fadd(self.term(q, "a"), other))
        store_bytes(f, q, y, by)

    def _write_reals(self, result: Reals, product: Value, y: Value, residual: Value | None, by: Index) -> None:
        f, body = self.body.f, self.body
        beside = None if residual is None else f.offset(residual, f.mul(by, result.other.bytes))
        value = result.epilogue.apply(body, product, beside, 0, result.other)
        if result.element is not None:
            body.store(value, y, f.mul(by, result.element.bytes), result.element)
            return
        scale, zero = inverse_of(body)
        store_bytes(f, to_bytes(f, f.fmul(value, scale), zero), y, by)


def inverse_of(body: Body) -> tuple[Value, Value]:
    """1 / s and the zero point, from the operand `inverse`."""
    f = body.f
    zero = f.assign(I32, f"and {f.load(I32, body['inverse'], 4)}, 65535")
    return f.splat(f.load(F32, body["inverse"]), FOUR), f.splat(zero, FOUR)


def dot(f: Function, body: Body, sums: Value, x: Value, weight: Value) -> Value:
    """sums[i] + sum over t < 4 of byte t of x * byte t of weight[i]: x unsigned, weight signed.

    Cortex-M4 and -M7 multiply two pairs of 16 bits and add both at once (`smlad`), WebAssembly eight pairs at once
    (`i32x4.dot_i16x8_s`); elsewhere byte by byte.

    Args:
        f, body: where the code goes.
        sums: four of 32 bits.
        x: one word of four bytes.
        weight: four words.
    """
    if body.target.triple.startswith("thumbv7em"):
        return _dot_pairs(f, sums, x, weight)
    if body.target.isa == "wasm":
        words, right = cast(f, "bitcast", f.splat(x, FOUR), BYTES), cast(f, "bitcast", weight, BYTES)
        low, high = (f.call("llvm.wasm.dot", SUMS4, pair) for pair in halves(f, words, right))
        even, odd = (pick(f, low, lanes, high) for lanes in ((0, 2, 4, 6), (1, 3, 5, 7)))
        return op(f, "add", sums, op(f, "add", even, odd))
    for place in range(4):
        byte = f.assign(I32, f"and {f.assign(I32, f'lshr {x}, {8 * place}')}, 255")
        right = op(f, "ashr", op(f, "shl", weight, number(SUMS4, 24 - 8 * place)), number(SUMS4, 24))
        sums = op(f, "add", sums, op(f, "mul", f.splat(byte, FOUR), right))
    return sums


def _dot_pairs(f: Function, sums: Value, x: Value, weight: Value) -> Value:
    def pair(name: str, word: Value) -> tuple[Value, Value]:
        """Bytes 0 and 2, and bytes 1 and 3, as 16 bits each."""
        turned = f.call("llvm.fshr.i32", I32, (word, word, Value(I32, "8")))
        return f.call(f"llvm.arm.{name}", I32, (word,)), f.call(f"llvm.arm.{name}", I32, (turned,))

    left = pair("uxtb16", x)
    for lane in range(FOUR):
        total = f.assign(I32, f"extractelement {sums}, i32 {lane}")
        right = pair("sxtb16", f.assign(I32, f"extractelement {weight}, i32 {lane}"))
        for a, b in zip(left, right, strict=True):
            total = f.call("llvm.arm.smlad", I32, (a, b, total))
        sums = f.assign(SUMS4, f"insertelement {sums}, {total}, i32 {lane}")
    return sums
