"""Between numbers and integers.

    q = clamp(rint(x / s) + z), the division in fp32, halves to even; NaN gives 0                     (1)
    x = fp32(q - z) * s                                                                               (2)

The numbers may have any strides: a caller's array, NCHW or NHWC, is read where it lies.
"""

from __future__ import annotations

from dataclasses import dataclass

from luthier.engine.emit import F32, I32, Index, Value
from luthier.engine.kernels.copy import Strides
from luthier.engine.kernels.int8 import narrow_maps
from luthier.engine.kernels.int8.units import I8, REALS, SUMS, UNIT, cast, number, op, rounded, zeros
from luthier.engine.kernels.kernel import Body, Kernel
from luthier.engine.kernels.partition import share

#: beyond this any quotient is clamped anyway
_FAR = 2.0**20
_WORD = 4


@dataclass(frozen=True, slots=True)
class Convert(Kernel):
    """Equation (1), or (2) if `back`; sixteen pixels of a row at once, four channels to a 32-bit word.

    Attributes:
        shape: (N, C, H, W).
        real: strides of the numbers, in elements.
        integer: strides of the integers, in bytes; channels side by side, from a multiple of 4 on.
        start: bytes before the first integer.
        back: whether numbers are made from integers.
        parts: of N * H rows.
    """

    shape: tuple[int, int, int, int]
    real: Strides
    integer: Strides
    start: int = 0
    back: bool = False
    parts: int = 1

    @property
    def operands(self) -> tuple[str, ...]:  # type: ignore[override]
        """The numbers, the integers; scale and zero point."""
        return ("real", "integer", "levels")

    @property
    def tasks(self) -> int:
        """Parts of the rows."""
        return self.parts

    @property
    def title(self) -> str:
        """Of the kernel."""
        return f"int8_{'dequantise' if self.back else 'quantise'}_16x4"

    def emit(self, body: Body) -> None:
        """One task: some rows of some images."""
        if body.target.is_narrow:
            narrow_maps.convert(self, body)
            return
        f = body.f
        n, c, h, w = self.shape
        scale = f.splat(f.load(F32, body["levels"]), UNIT)
        zero = f.splat(f.load(I32, body["levels"], 4), UNIT)

        def row(index: Index, _: object) -> None:
            image, down = f.div(index, h), f.rem(index, h)
            real = body.at("real", (image, 4 * self.real[0]), (down, 4 * self.real[2]))
            integer = body.at(f.offset(body["integer"], self.start), (image, self.integer[0]), (down, self.integer[2]))

            def group(channel: Index, count: int) -> None:
                numbers, integers = f.offset(real, f.mul(channel, 4 * self.real[1])), f.offset(integer, channel)

                def some(first: Index, size: int) -> None:
                    at = body.at(numbers, (first, 4 * self.real[3]))
                    to = body.at(integers, (first, self.integer[3]))
                    make = self._make_numbers if self.back else self._make_integers
                    make(body, at, to, count, size, scale, zero)

                f.loop(0, w // UNIT, lambda index, _: some(f.mul(index, UNIT), UNIT))
                if w % UNIT:
                    some(w // UNIT * UNIT, w % UNIT)

            f.loop(0, c // _WORD, lambda index, _: group(f.mul(index, _WORD), _WORD))
            if c % _WORD:
                group(c // _WORD * _WORD, c % _WORD)

        f.loop(*share(f, body.task, self.parts, n * h), row)

    def _make_integers(
        self, body: Body, at: Value, to: Value, count: int, size: int, scale: Value, zero: Value
    ) -> None:
        f, words = body.f, zeros(SUMS)
        for channel in range(count):
            x = self._loaded(body, f.offset(at, 4 * channel * self.real[1]), size)
            quotient = f.at_most(f.at_least(f.fdiv(x, scale), f.constant(-_FAR, REALS)), f.constant(_FAR, REALS))
            q = op(f, "add", rounded(f, body.target, quotient), zero)
            for name, bound in (("smax", 0), ("smin", 255)):
                q = f.call(f"llvm.{name}.v16i32", SUMS, (q, number(SUMS, bound)))
            words = op(f, "or", words, op(f, "shl", q, number(SUMS, 8 * channel)))
        if size == UNIT and self.integer[3] == _WORD:
            f.store(words, to, align=4)
            return
        for pixel in range(size):
            word = f.assign(I32, f"extractelement {words}, i32 {pixel}")
            if count == _WORD or self.integer[3] % _WORD == 0:
                f.store(word, to, pixel * self.integer[3], align=1)
                continue
            for channel in range(count):
                byte = f.assign(I32, f"lshr {word}, {8 * channel}")
                f.store(f.assign(I8, f"trunc {byte} to i8"), to, pixel * self.integer[3] + channel, align=1)

    def _loaded(self, body: Body, at: Value, size: int) -> Value:
        f = body.f
        if self.real[3] == 1 and size == UNIT:
            return f.load(REALS, at, align=4)
        x = zeros(REALS)
        for pixel in range(size):
            one = f.load(F32, at, 4 * pixel * self.real[3])
            x = f.assign(REALS, f"insertelement {x}, {one}, i32 {pixel}")
        return x

    def _make_numbers(self, body: Body, at: Value, to: Value, count: int, size: int, scale: Value, zero: Value) -> None:
        f = body.f
        for channel in range(count):
            q = zeros(SUMS)
            for pixel in range(size):
                byte = f.load(I8, to, pixel * self.integer[3] + channel, align=1)
                wide = f.assign(I32, f"zext {byte} to i32")
                q = f.assign(SUMS, f"insertelement {q}, {wide}, i32 {pixel}")
            x = f.fmul(cast(f, "sitofp", op(f, "sub", q, zero), REALS), scale)
            base = f.offset(at, 4 * channel * self.real[1])
            if self.real[3] == 1 and size == UNIT:
                f.store(x, base, align=4)
                continue
            for pixel in range(size):
                f.store(f.assign(F32, f"extractelement {x}, i32 {pixel}"), base, 4 * pixel * self.real[3])
