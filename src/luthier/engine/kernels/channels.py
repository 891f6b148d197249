"""What needs all channels of a pixel at once: their largest or mean value, and softmax.

    y[n, 0, h, w] = max or mean over c of x[n, c, h, w]                                               (1)
    y[n, c, h, w] = e^(x[n, c, h, w] - m) / sum over k of e^(x[n, k, h, w] - m),   m = max over c     (2)

Error of (2), measured: 8e-7 of max(share, 1e-3).  A share below 2^-126 of the largest one counts as that much.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from luthier.engine.emit import I32, Index, Value
from luthier.engine.kernels.element import ALL_FP32, FP32, Element, Types
from luthier.engine.kernels.exponential import LOG2_E, exp2
from luthier.engine.kernels.kernel import Body, Kernel
from luthier.engine.kernels.partition import share
from luthier.engine.layout import round_up
from luthier.engine.target import Target

#: vectors that are reduced side by side, so that none waits for the one before
_SIDE_BY_SIDE = 4
_Combine = Callable[[Value, Value], Value]


@dataclass(frozen=True, slots=True)
class Channels(Kernel):
    """Equations (1) and (2).

    Attributes:
        kind: which of them.
        pixels: N * H * W.
        channels: of x.
        lanes: of the target.
        parts: of the pixels.
        types: of x and y.
    """

    kind: Literal["max", "avg", "softmax"]
    pixels: int
    channels: int
    lanes: int
    parts: int = 1
    types: Types = ALL_FP32

    operands = ("x", "y")

    @property
    def tasks(self) -> int:
        """Parts of the pixels."""
        return self.parts

    @property
    def title(self) -> str:
        """Of the kernel."""
        return f"{self.types.title}_channel{self.kind}_1x{_SIDE_BY_SIDE}"

    def emit(self, body: Body) -> None:
        """One task: some pixels."""
        f, types = body.f, self.types
        out = 1 if self.kind != "softmax" else self._vectors

        def pixel(index: Index, _: object) -> None:
            x = body.at("x", (index, self._vectors * body.width(types.x)))
            y = body.at("y", (index, out * body.width(types.y)))
            if self.kind == "softmax":
                self._softmax(body, x, y)
                return
            value = self._reduce(body, x, types.x, self.kind == "max")
            if self.kind == "avg":
                value = f.fmul(value, f.constant(1.0 / self.channels))
            body.store(value, y, 0, types.y)

        f.loop(*share(f, body.task, self.parts, self.pixels), pixel)

    @property
    def _vectors(self) -> int:
        return round_up(self.channels, self.lanes) // self.lanes

    @property
    def scratch_bytes(self) -> int:  # type: ignore[override]
        """The powers of a pixel, before they are divided."""
        return 4 * self._vectors * self.lanes if self.kind == "softmax" else 0

    def _softmax(self, body: Body, x: Value, y: Value) -> None:
        f, types, powers = body.f, self.types, body.scratch
        largest = self._reduce(body, x, types.x, True)

        def power(v: Index, _: object) -> None:
            value = body.load(f.offset(x, f.mul(v, body.width(types.x))), 0, types.x)
            below = f.fmul(f.fsub(value, largest), f.constant(LOG2_E))
            body.store(exp2(f, body.target, below), powers, f.mul(v, body.width(FP32)))

        def divide(v: Index, _: object) -> None:
            part = f.fdiv(body.load(powers, f.mul(v, body.width(FP32))), total)
            body.store(part, f.offset(y, f.mul(v, body.width(types.y))), 0, types.y)

        f.loop(0, self._vectors, power)
        total = self._reduce(body, powers, FP32, False)
        f.loop(0, self._vectors, divide)

    def _reduce(self, body: Body, x: Value, element: Element, largest: bool) -> Value:
        """The largest value or the sum of all channels, in every lane."""
        f, width = body.f, body.width(element)
        neutral = f.constant(float("-inf") if largest else 0.0)

        def combine(a: Value, b: Value) -> Value:
            if not largest:
                return f.fadd(a, b)
            return f.call(f"llvm.maximum.v{f.vector.lanes}f32", f.vector, (a, b))

        whole, left = divmod(self.channels, self.lanes)
        rounds = whole // _SIDE_BY_SIDE

        def step(index: Index, sums: list[Value]) -> list[Value]:
            by = f.mul(index, _SIDE_BY_SIDE * width)
            return [combine(a, body.load(f.offset(x, by), i * width, element)) for i, a in enumerate(sums)]

        sums = f.loop(0, rounds, step, [neutral] * _SIDE_BY_SIDE)
        for number in range(rounds * _SIDE_BY_SIDE, whole):
            place = number % _SIDE_BY_SIDE
            sums[place] = combine(sums[place], body.load(x, number * width, element))
        if left:  # the lanes behind C hold anything at all
            last = body.load(x, whole * width, element)
            sums[-1] = combine(sums[-1], f.select(body.first_lanes(left), last, neutral))
        while len(sums) > 1:
            sums = [combine(a, b) for a, b in zip(sums[::2], sums[1::2], strict=True)]
        return _across(body, sums[0], combine)


def _across(body: Body, value: Value, combine: _Combine) -> Value:
    """All lanes combined, in every lane."""
    f, lanes = body.f, body.f.vector.lanes
    step = lanes // 2
    while step:
        order = ", ".join(f"{I32.text} {lane ^ step}" for lane in range(lanes))
        other = f"shufflevector {value}, {value.type.text} poison, <{lanes} x i32> <{order}>"
        value = combine(value, f.assign(value.type, other))
        step //= 2
    return value


def over_channels(
    target: Target, kind: Literal["max", "avg", "softmax"], shape: tuple[int, int, int, int], least_tasks: int = 8,
    types: Types = ALL_FP32,
) -> Channels:  # fmt: skip
    """Equations (1) and (2) for x of a shape (N, C, H, W), cut into tasks."""
    n, c, h, w = shape
    return Channels(kind, n * h * w, c, target.lanes, min(n * h * w, least_tasks), types)
