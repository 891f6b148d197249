"""Elementwise work on bytes: an activation, a sum or a product of two tensors, or one byte everywhere.

    q = min(max(x, low), high)   or   q = table[x]                                                    (1)
    q = clamp(rint(fp32(x - z_a) * m_a + fp32(r - z_b) * m_b) + z'),   then (1)                       (2)
    q = clamp(rint(fp32((x - z_a) * (r - z_b)) * m) + z'),   then (1)                                 (3)

r may be 1 along any axis where x is more: it is then used for all.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from luthier.engine.emit import Index, Value
from luthier.engine.kernels.int8 import narrow_maps
from luthier.engine.kernels.int8.result import Activation8, Opened, Result, store_units
from luthier.engine.kernels.int8.units import BYTES, I8, QUAD, UNIT, join, units
from luthier.engine.kernels.kernel import Body, Kernel
from luthier.engine.kernels.partition import share

_BLOCK = 4


@dataclass(frozen=True, slots=True)
class Unary8(Kernel):
    """Equation (1), or with `identity` a byte of `border` everywhere, over `total` units.

    Attributes:
        total: units.
        activation: `clamp`, `table`; `identity` = fill.
        parts: tasks.
    """

    total: int
    activation: Activation8
    parts: int = 1

    @property
    def operands(self) -> tuple[str, ...]:  # type: ignore[override]
        """By kind."""
        if self.activation == "identity":
            return ("border", "y")
        return ("x", "y", "numbers", *(["table"] if self.activation == "table" else []))

    @property
    def tasks(self) -> int:
        """Parts of the tensor."""
        return self.parts

    @property
    def title(self) -> str:
        """Of the kernel."""
        return f"int8_{'fill' if self.activation == 'identity' else 'unary_' + self.activation}_1x{_BLOCK}"

    def emit(self, body: Body) -> None:
        """One task: some units."""
        f = body.f
        if body.target.is_narrow:
            narrow_maps.unary(self, body)
            return
        if self.activation == "identity":
            border = f.load(QUAD, body["border"], align=QUAD.bytes)
        else:
            opened = Result(self.activation).open(body)

        def block(first: Index, count: int) -> None:
            at = f.mul(first, UNIT)
            if self.activation == "identity":
                q = border
            else:
                q = opened.activated(load_units(body, f.offset(body["x"], at), count))
            store_units(body, q, range(0, count * UNIT, UNIT), f.offset(body["y"], at))

        low, high = share(f, body.task, self.parts, self.total // _BLOCK)
        f.loop(low, high, lambda index, _: block(f.mul(index, _BLOCK), _BLOCK))
        if rest := self.total % _BLOCK:
            f.when(f.compare("eq", body.task, 0), lambda: block(self.total - rest, rest))


@dataclass(frozen=True, slots=True)
class Binary8(Kernel):
    """Equations (2) and (3).

    Attributes:
        kind: `add` or `mul`.
        shape: of x and y, (N, C, H, W).
        other: of r.
        result: with a residual, which is r; only what follows equation (1) is used.
        parts: of N * H rows.
    """

    kind: Literal["add", "mul"]
    shape: tuple[int, int, int, int]
    other: tuple[int, int, int, int]
    result: Result
    parts: int = 1

    @property
    def operands(self) -> tuple[str, ...]:  # type: ignore[override]
        """x, r, y and what equation (1) reads."""
        return ("x", "residual", "y", "numbers", *(["table_after"] if self.result.after == "table" else []))

    @property
    def tasks(self) -> int:
        """Parts of the rows."""
        return self.parts

    @property
    def title(self) -> str:
        """Of the kernel."""
        return f"int8_{self.kind}_{self.result.after}_1x{_BLOCK}"

    def emit(self, body: Body) -> None:
        """One task: some rows of some images, all pixels of a block of channels before the next block."""
        if body.target.is_narrow:
            narrow_maps.binary(self, body)
            return
        f, opened = body.f, self.result.open(body)
        n, channels, h, w = self.shape
        ld, other_ld = units(channels) * UNIT, units(self.other[1]) * UNIT
        steps = (self.other[2] * self.other[3] * other_ld, self.other[3] * other_ld, other_ld)
        deep, down, right = (
            0 if size == 1 else step for size, step in zip(self.other[::2] + self.other[3:], steps, strict=True)
        )

        def row(index: Index, first: Index, count: int) -> None:
            beside = body.at("residual", (f.div(index, h), deep), (f.rem(index, h), down))
            whole = self.other[1] > 1 or channels == 1
            beside = f.offset(beside, f.mul(first, UNIT)) if whole else beside
            at = f.add(f.mul(index, w * ld), f.mul(first, UNIT))
            x, y = f.offset(body["x"], at), f.offset(body["y"], at)
            held = self._other(body, opened, beside, count, whole) if right == 0 else None

            def pixel(ox: Index, _: object) -> None:
                terms = held or self._other(body, opened, f.offset(beside, f.mul(ox, right)), count, whole)
                q = load_units(body, f.offset(x, f.mul(ox, ld)), count)
                combine = opened.total if self.kind == "add" else opened.product
                store_units(body, combine(q, terms), range(0, count * UNIT, UNIT), f.offset(y, f.mul(ox, ld)))

            f.loop(0, w, pixel)

        low, high = share(f, body.task, self.parts, n * h)

        def block(first: Index, count: int) -> None:
            f.loop(low, high, lambda index, _: row(index, first, count))

        f.loop(0, units(channels) // _BLOCK, lambda index, _: block(f.mul(index, _BLOCK), _BLOCK))
        if rest := units(channels) % _BLOCK:
            block(units(channels) - rest, rest)

    def _other(self, body: Body, opened: Opened, at: Value, count: int, whole: bool) -> list[Value]:
        """The second operand of some units, as the first one is combined with it."""
        f = body.f
        if whole:
            loaded = [f.load(BYTES, at, UNIT * u, align=UNIT) for u in range(count)]
        else:
            loaded = [f.splat(f.load(I8, at, align=1), UNIT)] * count
        return [opened.term(x, 1, scaled=self.kind == "add") for x in loaded]


def load_units(body: Body, at: Value, count: int) -> Value:
    """At most four units, as 64 bytes; what is behind them has no meaning."""
    f = body.f
    if count == _BLOCK:
        return f.load(QUAD, at, align=UNIT)
    loaded = [f.load(BYTES, at, UNIT * u, align=UNIT) for u in range(count)]
    return join(f, [*loaded, *[loaded[-1]] * (_BLOCK - count)])
