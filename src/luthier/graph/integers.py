"""What the integers of a quantised graph stand for, and the numbers that an op on integers needs.

    real = scale * (q - zero_point)                                                                  (1)

An `int8` activation is stored unsigned, q in 0 .. 255, with one scale and one zero point; an `int8` weight signed, q in
-127 .. 127, zero point 0, one scale per output channel; a bias is `int32` with scale s_x * s_w[c].  `int4` is the same
with q in 0 .. 15 and -7 .. 7.  Scales are exact in float32.  An op runs in integers when all that it reads carries
scales; `luthier.quant.integer` says what it computes.

A tensor is stored in one of five ways:

    int8 or int4, scale         the integers
    fp32, no scale              numbers; a conv or linear op in integers writes its sum times fp32(s_x * s_w[c])
    fp16 or bf16, no scale      numbers, rounded to it
    fp32, scale (an output)     computed to integers, handed out by (1); a reader in integers gets the integers back
    bf16, scale                 numbers, rounded to bf16; a conv or linear op in integers reads them by (1), rounded
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from luthier.graph.attrs import Activation, Conv, GlobalPool, Linear, OpKind, Pool
from luthier.graph.connected import connected
from luthier.graph.op import DType, Graph, Op, Tensor
from luthier.graph.reference import activate

Array = NDArray[Any]

#: kinds that have a meaning in integers
INTEGER_KINDS: Final[frozenset[OpKind]] = frozenset(
    {"conv", "linear", "activation", "add", "mul", "pool", "global_pool", "adaptive_pool", "concat", "pad", "slice",
     "reshape", "flatten", "shuffle", "subsample"}
)  # fmt: skip
INTEGER_TYPES: Final[frozenset[DType]] = frozenset({"int8", "int4"})
#: kinds that move numbers and change none: what they write has the scale of what they read
MOVES: Final[frozenset[OpKind]] = frozenset({"concat", "pad", "slice", "reshape", "flatten", "shuffle", "subsample"})


def is_integer(tensor: Tensor) -> bool:
    """Whether an activation is computed to integers."""
    return tensor.scale is not None and tensor.dtype != "bf16"


def in_integers(graph: Graph, op: Op) -> bool:
    """Whether an op of a quantised graph computes with integers; others compute in fp32 on real numbers."""
    if op.kind not in INTEGER_KINDS:
        return False
    if isinstance(op.attrs, Conv | Linear):
        scaled = graph.tensors[op.inputs[0]].scale is not None
        return scaled and graph.constants[op.constants["weight"]].dtype in INTEGER_TYPES
    return all(is_integer(graph.tensors[name]) for name in (*op.inputs, *op.outputs))


def keeps_scale(op: Op) -> bool:
    """Whether an op writes with the scale and zero point that it reads: moves, maxima, clips at 0 (and 6)."""
    match op.attrs:
        case Activation(function=function):
            return function in ("identity", "relu", "relu6")
        case Pool(reduce=reduce) | GlobalPool(reduce=reduce):
            return reduce == "max"
        case _:
            return op.kind in MOVES


def scale_sets(ops: Iterable[Op], names: Iterable[str]) -> list[list[str]]:
    """Tensors in sets that have one scale each.

    Args:
        ops: those in integers, in order.
        names: the tensors that have a scale.
    """
    return connected(names, ((op.outputs[0], name) for op in ops if keeps_scale(op) for name in op.inputs))


def levels(tensor: Tensor) -> tuple[np.float32, int]:
    """Scale and zero point of an activation that has them."""
    assert isinstance(tensor.scale, float), f"{tensor.name}: {tensor.scale}"
    assert tensor.zero_point is not None, tensor.name
    return np.float32(tensor.scale), tensor.zero_point


def qmax_of(tensor: Tensor) -> int:
    """The largest integer that an activation with a scale holds; an output's integers have 8 bits."""
    return 15 if tensor.dtype == "int4" else 255


def round_to_u8(value: Array, zero_point: int, qmax: int = 255) -> Array:
    """clamp(rint(value) + zero_point, 0, qmax): halves to even, NaN to 0.

    Example:
        >>> round_to_u8(np.array([-9.0, -0.5, 0.5, 1.5, 300.0, np.nan], np.float32), 3).tolist()
        [0, 3, 3, 5, 255, 0]
    """
    rounded = np.rint(value)
    rounded += np.float32(zero_point)
    np.fmax(rounded, np.float32(0), out=rounded)
    np.fmin(rounded, np.float32(qmax), out=rounded)
    return rounded.astype(np.uint8)


def to_integers(x: Array, tensor: Tensor) -> Array:
    """q = clamp(rint(x / scale) + zero_point), the division in float32; uint8."""
    scale, zero_point = levels(tensor)
    return round_to_u8(np.asarray(x, np.float32) / scale, zero_point, qmax_of(tensor))


def to_reals(q: Array, tensor: Tensor) -> Array:
    """Equation (1) in float32."""
    scale, zero_point = levels(tensor)
    return (q.astype(np.int32) - zero_point).astype(np.float32) * scale


def sum_scales(graph: Graph, op: Op) -> NDArray[np.float64]:
    """What one unit of a conv's or linear layer's sum is worth: s_x * s_w[c], in double precision; (C_out,)."""
    weight = graph.constants[op.constants["weight"]]
    assert isinstance(weight.scale, tuple)
    return float(levels(graph.tensors[op.inputs[0]])[0]) * np.array(weight.scale, np.float64)


def multipliers(graph: Graph, op: Op, count: int = 1) -> NDArray[np.float32]:
    """The factors that take an op's sums to the levels of its output, each rounded once from double precision.

        conv, linear     m[c] = s_x * s_w[c] / s_y;   s_x * s_w[c] where the output is of numbers        (2)
        add              m = (s_a / s_y, s_b / s_y)                                                      (3)
        mul              m = s_a * s_b / s_y                                                             (4)
        averages         m = s_x / (s_y * count)                                                         (5)

    Args:
        count: pixels of which an average is taken.
    Returns:
        (C_out,) for conv and linear, (2,) for add, (1,) else.
    """
    out = graph.tensors[op.outputs[0]]
    if op.kind in ("conv", "linear"):
        unit = sum_scales(graph, op)
        return (unit / float(levels(out)[0]) if is_integer(out) else unit).astype(np.float32)
    scales = [float(levels(graph.tensors[name])[0]) for name in op.inputs]
    scale = float(levels(out)[0])
    match op.kind:
        case "add":
            return np.array([scales[0] / scale, scales[1] / scale], np.float32)
        case "mul":
            return np.array([scales[0] * scales[1] / scale], np.float32)
        case _:
            return np.array([scales[0] / (scale * count)], np.float32)


def activation_table(attrs: Activation, source: Tensor, result: Tensor) -> NDArray[np.uint8]:
    """T[q] = clamp(rint(f(s_x * (q - z_x)) / s_y) + z_y), all in double precision; (256,); past qmax as at qmax.

    With one scale and zero point on both sides, relu is max(q, z), and relu6 min(max(q, z), clamp(rint(6 / s) + z)).

    Example:
        >>> x = Tensor("x", (1, 3), "int8", 0.5, 100)
        >>> activation_table(Activation("relu6"), x, x)[[0, 99, 100, 101, 112, 255]].tolist()
        [100, 100, 100, 101, 112, 112]
    """
    (scale, zero_point), (result_scale, result_zero) = levels(source), levels(result)
    reals = float(scale) * (np.minimum(np.arange(256.0), qmax_of(source)) - zero_point)
    table = np.rint(activate(reals, attrs) / float(result_scale)) + result_zero
    return np.asarray(np.clip(table, 0, qmax_of(result)), np.uint8)
