"""What becomes of sums that leave the integers: numbers, activated and added to others in fp32.

    v = after(activation(fp32(sum) * m[c]) + r)                                                       (1)
    y = v in fp32 or bf16,      or      q = clamp(rint(v * (1 / s)) + z)                              (2)

m[c] = fp32(s_x * s_w[c]).  A network whose activations and sums are numbers, while its products are of integers, rounds
once where integers alone round three times: behind the sum, behind the activation, behind what is added.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Final

import numpy as np
from numpy.typing import NDArray

from luthier.engine.emit import Type, Value, vector
from luthier.engine.kernels.element import FP32, Element
from luthier.engine.kernels.epilogue import PLAIN, Epilogue
from luthier.engine.kernels.int8.result import store_units
from luthier.engine.kernels.int8.units import (
    I16,
    REALS,
    UNIT,
    broadcast_word,
    cast,
    join,
    packed,
    pieces,
    rounded,
)
from luthier.engine.kernels.kernel import Body

Array = NDArray[Any]
#: above this any quotient is clamped anyway
_FAR: Final = 2.0**20


@dataclass(frozen=True, slots=True)
class Reals:
    """Equations (1) and (2).

    Attributes:
        epilogue: of equation (1).
        element: of y; None = integers, whose `inverse` is read.
        other: element of r.
    """

    epilogue: Epilogue = PLAIN
    element: Element | None = FP32
    other: Element = FP32

    sum_type: ClassVar[Type] = REALS

    @property
    def residual(self) -> bool:
        """Whether something is added."""
        return self.epilogue.residual

    @property
    def operands(self) -> tuple[str, ...]:
        """Roles that it reads, `scale` (m) first."""
        return ("scale", *(["inverse"] if self.element is None else []), *self.epilogue.operands)

    @property
    def item_bytes(self) -> int:
        """Of an element of the output."""
        return 1 if self.element is None else self.element.bytes

    @property
    def residual_bytes(self) -> int:
        """Of an element of r."""
        return self.other.bytes

    @property
    def title(self) -> str:
        """Part of a kernel's name."""
        return f"{'u8' if self.element is None else self.element.name}_{self.epilogue.title}"

    def open(self, body: Body) -> OpenedReals:
        """Load what is the same for all sums."""
        return OpenedReals(self, body)


def inverse(scale: np.float32, zero: int) -> Array:
    """The operand `inverse`: 1 / s, and the zero point twice in 16 bits."""
    words = np.zeros(2, np.uint32)
    words[0] = np.float32(1 / float(scale)).view(np.uint32)
    words[1] = zero * 0x10001
    return words


class Quantiser:
    """Equation (2), its numbers in registers."""

    def __init__(self, body: Body) -> None:
        self.body = body
        self.inverse = broadcast_word(body.f, body["inverse"], 0, REALS)
        self.zero = broadcast_word(body.f, body["inverse"], 4, vector(I16, 2 * UNIT))

    def bytes(self, values: Sequence[Value]) -> Value:
        """At most four units as 64 bytes; what lies behind fewer has no meaning."""
        f, target = self.body.f, self.body.target
        far = f.constant(_FAR, REALS)
        found = [rounded(f, target, f.at_most(f.fmul(value, self.inverse), far)) for value in values]
        return packed(f, target, [*found, *[found[-1]] * (4 - len(found))], self.zero)


class OpenedReals:
    """A `Reals` with its numbers in registers."""

    def __init__(self, result: Reals, body: Body) -> None:
        self.result, self.body = result, body
        self.quantiser = Quantiser(body) if result.element is None else None

    def _value(self, total: Value, scale: Value, residual: Value | None, place: int) -> Value:
        """Equation (1) of one unit; vectors of the target's width, since functions are written for those."""
        f, body, lanes = self.body.f, self.body, self.body.target.lanes
        other = self.result.other
        product = f.fmul(cast(f, "sitofp", total, REALS), scale)
        parts = [
            self.result.epilogue.apply(body, part, residual, (place + lanes * index) * other.bytes, other)
            for index, part in enumerate(pieces(f, product, lanes))
        ]
        return join(f, parts)

    def write(
        self, sums: Sequence[Value], scales: Sequence[Value], places: Sequence[int], y: Value,
        residual: Value | None = None, carried: Sequence[Value] = (),
    ) -> list[Value]:  # fmt: skip
        """As of integers, see `luthier.engine.kernels.int8.result`."""
        f, body, element, total = self.body.f, self.body, self.result.element, list(carried)
        for first in range(0, len(sums), 4):
            part = slice(first, first + 4)
            values = [
                self._value(a, m, residual, place)
                for a, m, place in zip(sums[part], scales[part], places[part], strict=True)
            ]
            if self.quantiser is not None:
                store_units(body, self.quantiser.bytes(values), places[part], y)
            elif element is not None:
                for value, place in zip(values, places[part], strict=True):
                    element.store(f, body.target, value, y, element.bytes * place, element.bytes * UNIT)
            for value in values if total else ():
                total = [f.fadd(total[0], value)]
        return total
