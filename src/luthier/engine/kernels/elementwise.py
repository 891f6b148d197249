"""Elementwise work: an activation, a sum or product of two tensors, a scale and shift per channel, or zeros.

    y = function(x)          y = function(x + z)          y = function(x * z)                         (1)
    y = function(x * scale[c] + shift[c])                                                             (2)

z may be 1 along any axis where x is more: it is then used for all.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from luthier.engine.emit import Index, Value
from luthier.engine.kernels.activation import activate
from luthier.engine.kernels.element import ALL_FP32, Types
from luthier.engine.kernels.kernel import Body, Kernel
from luthier.engine.kernels.partition import share
from luthier.engine.layout import Layout
from luthier.engine.target import Target
from luthier.graph.attrs import GraphFunction

ElementwiseKind = Literal["unary", "add", "mul", "affine", "zero"]
_OPERANDS: dict[ElementwiseKind, tuple[str, ...]] = {
    "unary": ("x", "y"),
    "add": ("x", "z", "y"),
    "mul": ("x", "z", "y"),
    "affine": ("x", "scale", "shift", "y"),
    "zero": ("y",),
}


@dataclass(frozen=True, slots=True)
class Elementwise(Kernel):
    """Equations (1) and (2).

    Attributes:
        kind: which of them.
        shape: of x and y, (N, C, H, W).
        other: of z.
        lanes: of the target.
        function: applied last.
        parts: of N * H rows.
        types: of x, z and y; scale and shift are fp32.
        alpha: of the function.
    """

    kind: ElementwiseKind
    shape: tuple[int, int, int, int]
    other: tuple[int, int, int, int]
    lanes: int
    function: GraphFunction = "identity"
    parts: int = 1
    types: Types = ALL_FP32
    alpha: float = 0.0

    @property
    def operands(self) -> tuple[str, ...]:  # type: ignore[override]
        """By kind."""
        return _OPERANDS[self.kind]

    @property
    def tasks(self) -> int:
        """Parts of the rows."""
        return self.parts

    @property
    def title(self) -> str:
        """Of the kernel."""
        return f"{self.types.title}_{self.kind}_{self.function}_1x1"

    def emit(self, body: Body) -> None:
        """One task: some rows of some images."""
        f = body.f
        layout = Layout.padded(self.shape, self.lanes)
        n, _, h, w = self.shape
        ld = layout.strides[3]
        source = Layout.padded(self.other, self.lanes)
        # a step along an axis where z is 1 leads nowhere
        down, right, deep = (0 if self.other[a] == 1 else source.strides[a] for a in (2, 3, 0))

        def row(index: Index, _: object) -> None:
            image, y = f.div(index, h), f.rem(index, h)
            other = f.add(f.mul(image, deep), f.mul(y, down))

            def pixel(x: Index, _: object) -> None:
                at = f.add(f.mul(index, w * ld), f.mul(x, ld))
                beside = f.add(other, f.mul(x, right))
                f.loop(0, ld, lambda lane, _: self._vector(body, lane, at, beside), step=self.lanes)

            f.loop(0, w, pixel)

        f.loop(*share(f, body.task, self.parts, n * h), row)

    def _vector(self, body: Body, lane: Index, at: Index, beside: Index) -> None:
        """One vector; `at` and `beside` count elements."""
        f, types = body.f, self.types
        place = f.add(at, lane)
        value = Value(f.vector, "zeroinitializer")
        if self.kind != "zero":
            value = body.load(body.at("x", (place, types.x.bytes)), element=types.x)
        if self.kind == "affine":
            scale, shift = (body.load(body.at(role, (lane, 4))) for role in ("scale", "shift"))
            value = f.fma(value, scale, shift)
        elif self.kind in ("add", "mul"):
            whole = self.other[1] == self.shape[1]
            other = body.at("z", (f.add(beside, lane if whole else 0), types.w.bytes))
            second = body.load(other, 0, types.w) if whole else body.broadcast(other, 0, types.w)
            value = f.fadd(value, second) if self.kind == "add" else f.fmul(value, second)
        value = activate(f, body.target, value, self.function, self.alpha)
        body.store(value, body.at("y", (place, types.y.bytes)), element=types.y)


def elementwise(
    target: Target, kind: ElementwiseKind, shape: tuple[int, int, int, int],
    other: tuple[int, int, int, int] | None = None, function: GraphFunction = "identity", least_tasks: int = 8,
    types: Types = ALL_FP32, alpha: float = 0.0,
) -> Elementwise:  # fmt: skip
    """Equations (1) and (2), cut into tasks."""
    n, _, h, _ = shape
    return Elementwise(kind, shape, other or shape, target.lanes, function, min(n * h, least_tasks), types, alpha)
