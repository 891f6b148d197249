"""What is done to a sum before it is written: activation, residual, activation."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from luthier.engine.emit import Value
from luthier.engine.kernels.activation import EXPONENTIAL, FOLDED, FOLDED_FACTOR, activate
from luthier.engine.kernels.element import FP32, Element
from luthier.engine.kernels.kernel import Body
from luthier.graph.attrs import GraphFunction


@dataclass(frozen=True, slots=True)
class Epilogue:
    """y = after(activation(sum) + residual).

    Attributes:
        activation: of the sum.
        residual: whether a tensor of the output's layout is added.
        after: of that total; `identity` without a residual.
        coarse: whether the result is kept as bf16, for which shorter activations will do.
        folded: whether the sum comes multiplied by `factor`, which weights and bias then carry.
    """

    activation: GraphFunction = "identity"
    residual: bool = False
    after: GraphFunction = "identity"
    coarse: bool = False
    folded: bool = False

    @property
    def operands(self) -> tuple[str, ...]:
        """Roles that it reads."""
        return ("residual",) if self.residual else ()

    @property
    def factor(self) -> float:
        """Of weights and bias: -log2 e where the activation takes it, else 1."""
        return FOLDED_FACTOR if self.folded and self.activation in FOLDED else 1.0

    @property
    def exponential(self) -> bool:
        """Whether it takes the registers of a polynomial."""
        return not {self.activation, self.after}.isdisjoint(EXPONENTIAL)

    @property
    def title(self) -> str:
        """Part of a kernel's name."""
        return "_".join([self.activation, *(["add", self.after] if self.residual else [])])

    def apply(self, body: Body, value: Value, residual: Value | None, by: int, element: Element = FP32) -> Value:
        """The value to write; `residual` points to where it is read, `by` bytes behind, as `element`."""
        if self.factor != 1.0:
            value = FOLDED[self.activation](body.f, body.target, value)
        else:
            value = activate(body.f, body.target, value, self.activation, coarse=self.coarse)
        if residual is None:
            return value
        total = body.f.fadd(value, body.load(residual, by, element))
        return activate(body.f, body.target, total, self.after, coarse=self.coarse)


#: the sum itself
PLAIN: Final = Epilogue()
