"""What one op of a quantised graph does wrong, apart from all others: told from fp32 values alone.

    weights    op(x; w') - op(x; w)            x in fp32, w' the weights as stored; known exactly        (1)
    rounding   stored(v) - clip(v) + clip(y) - y, y in fp32; what the tensor's levels lose and clip      (2)
               v = y behind a product, v = op(stored(x)) behind any other op

Bias correction (`luthier.quant.correct`) keeps every channel's mean: (1) then counts without its mean over images and
pixels.  A rounding error of integers is spread evenly over a step, so that (2) has power step^2 / 12 where values are
many; where they are few, as the exact zeros behind a clip, it is what it is.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from luthier.graph.attrs import Conv, Linear
from luthier.graph.integers import keeps_scale, levels, qmax_of, to_reals
from luthier.graph.op import Graph, Op
from luthier.graph.reference import evaluate
from luthier.quant.integer import as_tensor, convolve, real_constant

Array = NDArray[Any]
Arrays = Mapping[str, Array]


def apply(op: Op, inputs: list[Array], own: Arrays) -> Array:
    """One op in fp32, convolutions by matrix products."""
    if not isinstance(op.attrs, Conv):
        return evaluate(op, inputs, own).astype(np.float32, copy=False)
    y = convolve(inputs[0], own["weight"], op.attrs)
    return y + own["bias"].reshape(1, -1, 1, 1) if "bias" in own else y


def centred(x: Array) -> Array:
    """Without the mean of each channel over images and pixels."""
    axes = tuple(axis for axis in range(x.ndim) if axis != 1)
    return np.asarray(x - x.mean(axes, keepdims=True, dtype=np.float64).astype(np.float32))


class Local:
    """Equations (1) and (2) of every op.

    Args:
        graph: fp32, norms folded.
        constants: its values by name.
        quantized: the same ops in fewer bits, as `luthier.quant.quantize` makes them.
        values: its constants by name.
        corrected: whether products with rounded weights had their biases corrected.
    """

    def __init__(
        self, graph: Graph, constants: Arrays, quantized: Graph, values: Arrays, *, corrected: bool = True
    ) -> None:
        self.graph, self.constants, self.quantized, self.corrected = graph, constants, quantized, corrected
        self._own = {
            op.name: {role: np.asarray(constants[name], np.float32) for role, name in op.constants.items()}
            for op in graph.ops
        }
        self._weights: dict[str, Array] = {}
        for op in quantized.ops:
            if isinstance(op.attrs, Conv | Linear):
                name = op.constants["weight"]
                self._weights[op.name] = real_constant(quantized.constants[name], values[name])

    def own(self, op: Op) -> dict[str, Array]:
        """The constants of an op in fp32, by role."""
        return self._own[op.name]

    def as_stored(self, op: Op) -> dict[str, Array]:
        """The constants of an op with its weights as they are stored."""
        return self.own(op) | ({"weight": self._weights[op.name]} if op.name in self._weights else {})

    def keeps_mean(self, op: Op) -> bool:
        """Whether a corrected bias brings the mean of what an op writes back to that of fp32."""
        if not self.corrected or op.name not in self._weights:
            return False
        name = next(other for other in self.quantized.ops if other.name == op.name).constants["weight"]
        return self.quantized.constants[name].scale is not None

    def weight_error(self, op: Op, inputs: list[Array]) -> Array | None:
        """Equation (1); None = the op has no weights, or they are what they were."""
        if op.name not in self._weights:
            return None
        lost = self._weights[op.name] - self.own(op)["weight"]
        if not lost.any():
            return None
        error = apply(op, inputs, {"weight": lost})
        return centred(error) if self.keeps_mean(op) else error

    def rounds(self, op: Op | None, tensor: str) -> bool:
        """Whether a tensor (of an op; None = an input) is rounded when it is written."""
        stored = self.quantized.tensors[tensor]
        if stored.scale is None and stored.dtype == "fp32":
            return False
        return op is None or stored.scale is None or not keeps_scale(op)

    def stored(self, tensor: str, x: Array) -> Array:
        """Numbers as a tensor holds them."""
        kept = self.quantized.tensors[tensor]
        q = as_tensor(x, kept)
        return q if kept.scale is None else to_reals(q, kept)

    def clipped(self, tensor: str, y: Array) -> Array:
        """What a tensor's levels leave of numbers before they are rounded."""
        return np.clip(y, *self.bounds(tensor))

    def residual(self, op: Op | None, tensor: str, y: Array, inputs: list[Array]) -> Array | None:
        """What rounding alone adds to numbers within the levels; None = nothing is rounded here.

        Sums of products take many values; any other op rounds what the levels in front of it become: a table has no
        more values than they, and a gate that stands at 1 hands integers on, where its result has their scale.
        """
        if not self.rounds(op, tensor):
            return None
        if op is not None and not isinstance(op.attrs, Conv | Linear):
            y = apply(op, [self.stored(name, x) for name, x in zip(op.inputs, inputs, strict=True)], self.own(op))
        return self.stored(tensor, y) - self.clipped(tensor, y)

    def rounding_error(self, op: Op | None, tensor: str, y: Array, inputs: list[Array]) -> Array | None:
        """Equation (2); None = nothing is rounded here."""
        lost = self.residual(op, tensor, y, inputs)
        return None if lost is None else lost + self.clipped(tensor, y) - y

    def bounds(self, tensor: str) -> tuple[float, float]:
        """The least and the largest number that a tensor holds; halves are not clipped."""
        kept = self.quantized.tensors[tensor]
        if kept.scale is None:
            return -np.inf, np.inf
        scale, zero = levels(kept)
        return float(-zero * scale), float((qmax_of(kept) - zero) * scale)
