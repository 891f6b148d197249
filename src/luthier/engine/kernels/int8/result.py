"""What becomes of sums before they are written: requantised, activated, added to another tensor.

    q = clamp(rint(fp32(sum) * m[c]) + z)                                                             (1)
    q = min(max(q, low), high)   or   q = table[q]                                                    (2)
    q = clamp(rint(fp32(q - z_a) * m_a + fp32(r - z_b) * m_b) + z'),   then (2) once more             (3)

Every operation in fp32 is rounded once: a product and the sum behind it are never contracted.  The numbers are
operands, not code, so that layers of one shape share their code.  Sums that leave the integers: `reals`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Final, Literal

import numpy as np
from numpy.typing import NDArray

from luthier.engine.emit import Function, Type, Value, vector
from luthier.engine.kernels.int8.units import (
    BYTES,
    I16,
    QUAD,
    REALS,
    SUMS,
    TO_GROUPS,
    UNIT,
    broadcast_word,
    cast,
    dot,
    load_table,
    look_up,
    number,
    op,
    packed,
    pick,
    rounded,
    zeros,
)
from luthier.engine.kernels.kernel import Body

Array = NDArray[Any]
#: equation (2): nothing, bounds, or a table
Activation8 = Literal["identity", "clamp", "table"]
#: of the operand `numbers`, 32 bits each
WORDS: Final = (
    "zero",
    "low",
    "high",
    "zero_a",
    "zero_b",
    "scale_a",
    "scale_b",
    "zero_after",
    "low_after",
    "high_after",
)
#: below this a product of a sum and its factor can be converted to an integer as it is
_SAFE: Final = 2.0**30


@dataclass(frozen=True, slots=True)
class Result:
    """Equations (1) to (3).

    Attributes:
        activation: behind equation (1).
        residual: whether equation (3) follows.
        after: behind it.
        wide: whether products may be too large for 32 bits, and are bounded before they are converted.
    """

    activation: Activation8 = "identity"
    residual: bool = False
    after: Activation8 = "identity"
    wide: bool = False

    item_bytes: ClassVar[int] = 1
    residual_bytes: ClassVar[int] = 1
    sum_type: ClassVar[Type] = SUMS

    @property
    def operands(self) -> tuple[str, ...]:
        """Roles that it reads, `scale` (m) first."""
        tables = [role for role, kind in (("table", self.activation), ("table_after", self.after)) if kind == "table"]
        return ("scale", "numbers", *tables, *(["residual"] if self.residual else []))

    @property
    def title(self) -> str:
        """Part of a kernel's name."""
        return "_".join([self.activation, *(["add", self.after] if self.residual else [])])

    def open(self, body: Body) -> Opened:
        """Load the numbers, once for a block of sums."""
        return Opened(self, body)


def numbers(
    zero: int = 0, bounds: tuple[int, int] = (0, 255), *, zeros: tuple[int, int] = (0, 0),
    scales: tuple[float, float] = (1.0, 1.0), zero_after: int = 0, bounds_after: tuple[int, int] = (0, 255),
) -> Array:  # fmt: skip
    """The operand `numbers`: words of 32 bits; zero points doubled, bounds four times, as vectors take them.

    Args:
        zero, bounds: z, low and high of equations (1) and (2).
        zeros, scales, zero_after, bounds_after: z_a, z_b, m_a, m_b, z', low and high of equation (3).
    """
    words = np.zeros(len(WORDS), np.uint32)
    words[[0, 7]] = np.array([zero, zero_after]) * 0x10001
    words[[1, 2, 8, 9]] = np.array([*bounds, *bounds_after]) * 0x1010101
    words[3:5] = zeros
    words[5:7] = np.array(scales, np.float32).view(np.uint32)
    return words


def is_wide(most: Array, scale: Array) -> bool:
    """Whether some |sum| <= most[c] times its scale may not fit in 32 bits."""
    return bool((most.astype(np.float64) * np.abs(scale.astype(np.float64))).max(initial=0.0) >= _SAFE)


class Opened:
    """A `Result` with its numbers in registers.

    Args:
        result: what to do.
        body: where the code goes.
    """

    def __init__(self, result: Result, body: Body) -> None:
        self.result, self.body = result, body
        self.zero = self._word("zero", vector(I16, 2 * UNIT))
        self.activation = self._activation(result.activation, "")
        if result.residual:
            self.zero_after = self._word("zero_after", vector(I16, 2 * UNIT))
            self.centres = [self._word(f"zero_{side}", SUMS) for side in "ab"]
            self.scales = [self._word(f"scale_{side}", REALS) for side in "ab"]
            self.after = self._activation(result.after, "_after")

    def _word(self, name: str, kind: Any) -> Value:
        return broadcast_word(self.body.f, self.body["numbers"], 4 * WORDS.index(name), kind)

    def _activation(self, kind: Activation8, suffix: str) -> list[Value]:
        f, target = self.body.f, self.body.target
        if kind == "table":
            return load_table(f, target, self.body[f"table{suffix}"])
        return [self._word(f"{end}{suffix}", QUAD) for end in ("low", "high")] if kind == "clamp" else []

    def _activated(self, kind: Activation8, held: Sequence[Value], x: Value) -> Value:
        f = self.body.f
        if kind == "table":
            return look_up(f, self.body.target, held, x)
        if kind == "clamp":
            low, high = held
            return f.call("llvm.umin.v64i8", QUAD, (f.call("llvm.umax.v64i8", QUAD, (x, low)), high))
        return x

    def _products(self, sums: Sequence[Value], scales: Sequence[Value]) -> list[Value]:
        f = self.body.f
        return [self._held(f.fmul(cast(f, "sitofp", a, REALS), m)) for a, m in zip(sums, scales, strict=True)]

    def _held(self, x: Value) -> Value:
        f = self.body.f
        if not self.result.wide:
            return x
        return f.at_most(f.at_least(x, f.constant(-_SAFE, REALS)), f.constant(_SAFE, REALS))

    def bytes(self, sums: Sequence[Value], scales: Sequence[Value]) -> Value:
        """Equations (1) and (2) of at most four units of sums: 64 bytes; what lies behind fewer has no meaning."""
        f, target = self.body.f, self.body.target
        found = [rounded(f, target, x) for x in self._products(sums, scales)]
        found += [found[-1]] * (4 - len(found))
        return self.activated(packed(f, target, found, self.zero))

    def activated(self, q: Value) -> Value:
        """Equation (2) of 64 bytes."""
        return self._activated(self.result.activation, self.activation, q)

    def term(self, x: Value, side: int, *, scaled: bool) -> Value:
        """fp32(x - z) of a unit of bytes, times its m if `scaled`; side 0 = a, 1 = b of equation (3)."""
        f = self.body.f
        centred = cast(f, "sitofp", op(f, "sub", cast(f, "zext", x, SUMS), self.centres[side]), REALS)
        return f.fmul(centred, self.scales[side]) if scaled else centred

    def total(self, q: Value, terms: Sequence[Value]) -> Value:
        """Equation (3): 64 bytes, and the second term of at most four units."""
        f = self.body.f
        first = (self.term(x, 0, scaled=True) for x in _units_of(f, q))
        return self._after([f.fadd(a, b) for a, b in zip(first, terms, strict=False)])

    def product(self, q: Value, factors: Sequence[Value]) -> Value:
        """clamp(rint(fp32((q - z_a) * factor) * m_a) + z'): the product of two bytes is exact in fp32."""
        f = self.body.f
        first = (self.term(x, 0, scaled=False) for x in _units_of(f, q))
        return self._after([f.fmul(f.fmul(a, b), self.scales[0]) for a, b in zip(first, factors, strict=False)])

    def added(self, q: Value, residuals: Sequence[Value]) -> Value:
        """Equation (3) of 64 bytes and of the units that are added, at most four."""
        return self.total(q, [self.term(x, 1, scaled=True) for x in residuals])

    def _after(self, values: Sequence[Value]) -> Value:
        f, target = self.body.f, self.body.target
        found = [rounded(f, target, self._held(x)) for x in values]
        found += [found[-1]] * (4 - len(found))
        return self._activated(self.result.after, self.after, packed(f, target, found, self.zero_after))

    def write(
        self, sums: Sequence[Value], scales: Sequence[Value], places: Sequence[int], y: Value,
        residual: Value | None = None, carried: Sequence[Value] = (),
    ) -> list[Value]:  # fmt: skip
        """All of it, and the stores.

        Args:
            sums, scales: as many units.
            places: elements from y (and from the residual) to each unit.
            y, residual: where `places` begins.
            carried: a sum, to which what is written is added; the units are then of the same channels.
        Returns:
            `carried`, continued.
        """
        f, body, total = self.body.f, self.body, list(carried)
        for first in range(0, len(sums), 4):
            part = slice(first, first + 4)
            q = self.bytes(sums[part], scales[part])
            if residual is not None:
                q = self.added(q, [f.load(BYTES, residual, place, align=UNIT) for place in places[part]])
            store_units(body, q, places[part], y)
            if total:
                count = UNIT * len(sums[part])
                lanes = [lane if lane < count else QUAD.lanes for lane in TO_GROUPS]
                total = [dot(f, body.target, total[0], pick(f, q, lanes, zeros(QUAD)), number(QUAD, 1))]
        return total


def _units_of(f: Function, q: Value) -> list[Value]:
    return [pick(f, q, range(UNIT * place, UNIT * (place + 1))) for place in range(4)]


def store_units(body: Body, q: Value, places: Sequence[int], y: Value) -> None:
    """Write the units of 64 bytes, those that are neighbours together."""
    f, start = body.f, 0
    while start < len(places):
        end = start + 1
        while end < len(places) and places[end] == places[end - 1] + UNIT:
            end += 1
        for size in (4, 2, 1):
            while end - start >= size:
                piece = pick(f, q, range(UNIT * start, UNIT * (start + size))) if size < 4 else q
                f.store(piece, y, places[start], align=UNIT)
                start += size
