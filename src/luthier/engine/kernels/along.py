"""A convolution along the channels of one pixel, as the gate of efficient channel attention has it.

    y[n, c] = f(b + sum over k of w[k] x[n, c + k - p]),   x = 0 outside 0 .. C - 1                   (1)

Channels lie side by side, so that a step along them is the next number in memory: no copy into another shape.
"""

from __future__ import annotations

from dataclasses import dataclass

from luthier.engine.emit import Index, Value
from luthier.engine.kernels.activation import activate
from luthier.engine.kernels.element import ALL_FP32, FP32, Types
from luthier.engine.kernels.kernel import Body, Kernel
from luthier.engine.layout import round_up
from luthier.graph.attrs import GraphFunction


@dataclass(frozen=True, slots=True)
class Along(Kernel):
    """Equation (1).

    Attributes:
        images: N.
        channels: C.
        taps: of w, 2 p + 1.
        lanes: of the target; at least p.
        biased: whether there is a b.
        function: f.
        types: of x and y; w and b are fp32.
    """

    images: int
    channels: int
    taps: int
    lanes: int
    biased: bool = False
    function: GraphFunction = "identity"
    types: Types = ALL_FP32

    @property
    def operands(self) -> tuple[str, ...]:  # type: ignore[override]
        """With a bias or without."""
        return ("x", "weight", *(["bias"] if self.biased else []), "y")

    @property
    def tasks(self) -> int:
        """Images."""
        return self.images

    @property
    def title(self) -> str:
        """Of the kernel."""
        return f"{self.types.title}_along{self.taps}_{self.function}_1x1"

    @property
    def _vectors(self) -> int:
        return round_up(self.channels, self.lanes) // self.lanes

    @property
    def scratch_bytes(self) -> int:  # type: ignore[override]
        """A line of x between zeros."""
        return 4 * (self._vectors + 2) * self.lanes

    def emit(self, body: Body) -> None:
        """One image."""
        f, line, width = body.f, body.scratch, body.width(FP32)
        x = body.at("x", (body.task, self._vectors * body.width(self.types.x)))
        y = body.at("y", (body.task, self._vectors * body.width(self.types.y)))
        self._lay_out(body, x)
        taps = [body.broadcast(body["weight"], 4 * k) for k in range(self.taps)]
        bias = body.broadcast(body["bias"]) if self.biased else Value(f.vector, "zeroinitializer")

        def some(v: Index, _: object) -> None:
            here, total = f.offset(line, f.mul(v, width)), bias
            for k, tap in enumerate(taps):
                start = 4 * (self.lanes + k - self.taps // 2)
                total = f.fma(FP32.load(f, f.vector, here, start, 4), tap, total)
            value = activate(f, body.target, total, self.function)
            body.store(value, f.offset(y, f.mul(v, body.width(self.types.y))), 0, self.types.y)

        f.loop(0, self._vectors, some)

    def _lay_out(self, body: Body, x: Value) -> None:
        """x into the scratch, a vector of zeros on either side of it; the lanes behind C hold anything at all."""
        f, line, width = body.f, body.scratch, body.width(FP32)
        each, zeros = body.width(self.types.x), Value(f.vector, "zeroinitializer")
        whole, left = divmod(self.channels, self.lanes)
        body.store(zeros, line)

        def move(v: Index, _: object) -> None:
            value = body.load(f.offset(x, f.mul(v, each)), 0, self.types.x)
            body.store(value, f.offset(line, f.add(f.mul(v, width), width)))

        f.loop(0, whole, move)
        if left:
            value = f.select(body.first_lanes(left), body.load(x, whole * each, self.types.x), zeros)
            body.store(value, line, (whole + 1) * width)
        body.store(zeros, line, (self._vectors + 1) * width)
