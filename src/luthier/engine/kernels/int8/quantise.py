"""Numbers in the arena become integers: what a convolution on bytes reads where its input is stored as numbers.

    q = clamp(rint(x * g * (1 / s)) + z)                                                              (1)

with a gate g (N, C, 1, 1), or without.  `convert` does the same for arrays of callers, whatever their strides.
"""

from __future__ import annotations

from dataclasses import dataclass

from luthier.engine.emit import Index, Value
from luthier.engine.kernels.element import FP32, Element
from luthier.engine.kernels.int8 import narrow_maps
from luthier.engine.kernels.int8.reals import Quantiser
from luthier.engine.kernels.int8.result import store_units
from luthier.engine.kernels.int8.units import REALS, UNIT, join, units
from luthier.engine.kernels.kernel import Body, Kernel
from luthier.engine.kernels.partition import share
from luthier.engine.layout import round_up

_BLOCK = 4


@dataclass(frozen=True, slots=True)
class Quantise8(Kernel):
    """Equation (1).

    Attributes:
        shape: (N, C, H, W).
        lanes: of the target; pixels of x, and the gate, take a multiple of them.
        element: of x; the gate is fp32.
        gated: whether there is one.
        parts: of N * H rows.
    """

    shape: tuple[int, int, int, int]
    lanes: int
    element: Element
    gated: bool = False
    parts: int = 1

    @property
    def operands(self) -> tuple[str, ...]:  # type: ignore[override]
        """x, y, scale and zero point, the gate."""
        return ("x", "y", "inverse", *(["gate"] if self.gated else []))

    @property
    def tasks(self) -> int:
        """Parts of the rows."""
        return self.parts

    @property
    def title(self) -> str:
        """Of the kernel."""
        return f"int8_quantise_{self.element.name}{'_gated' if self.gated else ''}_1x{_BLOCK}"

    def emit(self, body: Body) -> None:
        """One task: some rows of some images, all pixels of a block of channels before the next block."""
        if body.target.is_narrow:
            narrow_maps.quantise(self, body)
            return
        f, quantiser = body.f, Quantiser(body)
        n, channels, h, w = self.shape
        ld, ld_y = round_up(channels, self.lanes), units(channels) * UNIT
        low, high = share(f, body.task, self.parts, n * h)

        def row(index: Index, first: Index, count: int, numbers: int) -> None:
            lane = f.mul(first, UNIT)
            x = body.at("x", (index, w * ld * self.element.bytes), (lane, self.element.bytes))
            y = body.at("y", (index, w * ld_y), (lane, 1))
            gate: list[Value] = []
            if self.gated:
                gate = self._loaded(body, body.at("gate", (f.div(index, h), 4 * ld), (lane, 4)), numbers, FP32)

            def pixel(ox: Index, _: object) -> None:
                values = self._loaded(body, body.at(x, (ox, ld * self.element.bytes)), numbers, self.element)
                if gate:
                    values = [f.fmul(a, b) for a, b in zip(values, gate, strict=True)]
                q = quantiser.bytes(values)
                store_units(body, q, range(0, count * UNIT, UNIT), body.at(y, (ox, ld_y)))

            f.loop(0, w, pixel)

        def block(first: Index, count: int, numbers: int) -> None:
            f.loop(low, high, lambda index, _: row(index, first, count, numbers))

        whole = ld // (_BLOCK * UNIT)
        f.loop(0, whole, lambda index, _: block(f.mul(index, _BLOCK), _BLOCK, _BLOCK * UNIT))
        if rest := ld - whole * _BLOCK * UNIT:
            block(whole * _BLOCK, units(rest), rest)

    def _loaded(self, body: Body, at: Value, numbers: int, element: Element) -> list[Value]:
        """Units of numbers; behind the last vector of a pixel the same again."""
        f, lanes = body.f, self.lanes
        parts = [body.load(at, start * element.bytes, element) for start in range(0, numbers, lanes)]
        parts += [parts[-1]] * (units(numbers) * UNIT // lanes - len(parts))
        each = UNIT // lanes
        found = [join(f, parts[start : start + each]) for start in range(0, len(parts), each)]
        assert all(value.type == REALS for value in found)
        return found
