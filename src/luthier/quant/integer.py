"""What a quantised graph computes, integer for integer: the oracle for kernels and exported files.

Every float32 operation below is rounded once, none is contracted; rint takes halves to even; z is a zero point, q' =
q - z; m as in `luthier.graph.integers.multipliers`; every result is clamped to 0 .. 255 (0 .. 15 where it is `int4`).

    quantise                  q_y = rint(x / s_y) + z_y
    conv, linear              acc = sum q'_x q_w + b (exact);  q_y = rint(fp32(acc) * m[c]) + z_y             (1)
                              or, where y is of numbers,  y = fp32(acc) * m[c];  padding adds 0
    relu, relu6               q_y = min(max(q_x, z), clamp(rint(6 / s) + z)), one scale on both sides         (2)
    other activations         q_y = T[q_x], see `luthier.graph.integers.activation_table`                     (3)
    add                       q_y = rint(fp32(q'_a) * m_a + fp32(q'_b) * m_b) + z_y                           (4)
    mul                       q_y = rint(fp32(q'_a q'_b) * m) + z_y                                           (5)
    averages                  q_y = rint(fp32(sum q'_x) * m) + z_y, m for the pixels of the window            (6)
    maxima                    q_y = max q_x, padding aside                                                    (7)
    concat, pad, slice,       the integers themselves; pad writes z                                           (8)
    reshape, shuffle, ...
    any other op              fp32, on real numbers: to_integers(op(to_reals(q_x))), or rounded to fp16 or
                              bf16 where that is what is stored; constants are q s, or rounded likewise       (9)

So the same oracle says what a mixture of number types computes.

Sums are taken by floating-point products whose every partial sum is an integer that the type holds: exact, and quick.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from luthier.errors import ShapeError
from luthier.graph.attrs import Activation, AdaptivePool, Conv, GlobalPool, Linear, Pad, Pads, Pool
from luthier.graph.halves import as_stored
from luthier.graph.integers import (
    activation_table,
    in_integers,
    is_integer,
    keeps_scale,
    levels,
    multipliers,
    qmax_of,
    round_to_u8,
    to_integers,
    to_reals,
)
from luthier.graph.op import Graph, Op, Tensor
from luthier.graph.reference import evaluate

Array = NDArray[Any]


def run(graph: Graph, constants: Mapping[str, Array], inputs: Mapping[str, Array]) -> dict[str, Array]:
    """Evaluate a quantised graph.

    Args:
        graph: its tensors carry number types, scales and zero points.
        constants: by name, as `luthier.quant.quantize` makes them: int8 weights, int32 biases.
        inputs: float32 by name, in the graph's shapes.
    Returns:
        The graph's outputs by name, float32.
    Raises:
        ShapeError: an input is missing or has another shape.
    """
    values = run_all(graph, constants, inputs)
    return {name: _handed_out(graph, name, values[name]) for name in graph.outputs}


def run_all(graph: Graph, constants: Mapping[str, Array], inputs: Mapping[str, Array]) -> dict[str, Array]:
    """Every activation by name: uint8 where it is of integers (outputs too), float32 elsewhere."""
    values: dict[str, Array] = {}
    for name in graph.inputs:
        tensor = graph.tensors[name]
        if name not in inputs or inputs[name].shape != tensor.shape:
            got = inputs[name].shape if name in inputs else "nothing"
            raise ShapeError(f"integer.run: input {name!r} must have shape {tensor.shape}, got {got}")
        values[name] = as_tensor(inputs[name], tensor)
    for op in graph.ops:
        sources = [values[name] for name in op.inputs]
        own = {role: constants[name] for role, name in op.constants.items()}
        values[op.outputs[0]] = compute(graph, op, sources, own)
    return values


def read_integers(x: Array, tensor: Tensor) -> Array:
    """What a conv or linear op in integers reads: the integers, or numbers rounded to them."""
    return x if is_integer(tensor) else to_integers(x, tensor)


def compute(graph: Graph, op: Op, inputs: list[Array], constants: Mapping[str, Array]) -> Array:
    """One op, equations (1) to (9), on arrays as they are stored."""
    out = graph.tensors[op.outputs[0]]
    if not in_integers(graph, op):
        return as_tensor(on_reals(graph, op, inputs, constants), out)
    qmax = qmax_of(out)
    x = read_integers(inputs[0], graph.tensors[op.inputs[0]])
    _, zero = levels(graph.tensors[op.inputs[0]])
    match op.attrs:
        case Conv() | Linear() as attrs:
            acc = sums(x, zero, constants["weight"], constants.get("bias"), attrs)
            scaled = acc.astype(np.float32)
            scaled *= multipliers(graph, op).reshape(1, -1, *(1,) * (acc.ndim - 2))
            return round_to_u8(scaled, levels(out)[1], qmax) if is_integer(out) else as_stored(scaled, out.dtype)
        case Activation() as attrs:
            return activation_table(attrs, graph.tensors[op.inputs[0]], out)[x]
        case Pool(reduce="max") as attrs:
            return _max_pool(x, attrs)
        case GlobalPool(reduce="max"):
            return np.asarray(x.max((2, 3), keepdims=True))
        case Pool() | GlobalPool() | AdaptivePool():
            return _average(graph, op, x, zero)
        case Pad(before=before, after=after, pads=pads):
            around = ((0, 0), (before, after), (pads[0], pads[2]), (pads[1], pads[3]))
            return np.pad(x, around[: x.ndim], constant_values=zero)
    if keeps_scale(op):
        return evaluate(op, inputs, {})
    a, b = (_centred(q, levels(graph.tensors[name])[1]) for name, q in zip(op.inputs, inputs, strict=True))
    factors = multipliers(graph, op)
    if op.kind == "add":
        return round_to_u8(a * factors[0] + b * factors[1], levels(out)[1], qmax)
    assert op.kind == "mul", op.kind
    return round_to_u8((a * b) * factors[0], levels(out)[1], qmax)


def real_constant(tensor: Tensor, value: Array) -> Array:
    """What a constant stands for, in fp32."""
    if tensor.scale is None:
        return as_stored(np.asarray(value, np.float32), tensor.dtype)
    along = np.array(tensor.scale, np.float32).reshape(-1, *(1,) * (value.ndim - 1))
    return np.asarray(value.astype(np.float32) * along)


def on_reals(graph: Graph, op: Op, inputs: list[Array], constants: Mapping[str, Array]) -> Array:
    """One op in fp32 on what arrays as they are stored stand for; not rounded to what its output stores."""
    reals = [
        to_reals(q, graph.tensors[name]) if is_integer(graph.tensors[name]) else q
        for name, q in zip(op.inputs, inputs, strict=True)
    ]
    own = {role: real_constant(graph.constants[op.constants[role]], value) for role, value in constants.items()}
    if not isinstance(op.attrs, Conv):
        return evaluate(op, reals, own).astype(np.float32, copy=False)
    y = convolve(reals[0], own["weight"], op.attrs)
    return y + own["bias"].reshape(1, -1, 1, 1) if "bias" in own else y


def as_tensor(y: Array, tensor: Tensor) -> Array:
    """Real numbers as a tensor stores them."""
    return to_integers(y, tensor) if is_integer(tensor) else as_stored(y, tensor.dtype)


def _handed_out(graph: Graph, name: str, value: Array) -> Array:
    return to_reals(value, graph.tensors[name]) if is_integer(graph.tensors[name]) else value


def _centred(q: Array, zero_point: int) -> Array:
    """q - z, as float32."""
    return q.astype(np.float32) - np.float32(zero_point)


def sums(x: Array, zero_point: int, weight: Array, bias: Array | None, attrs: Conv | Linear) -> Array:
    """acc of equation (1), exact.

    Float32 holds every integer up to 2^24, and so every partial sum if the largest possible one stays below; float64
    up to 2^53.
    """
    most = 255 * int(np.abs(weight.astype(np.int64)).reshape(len(weight), -1).sum(1).max())
    dtype = np.float32 if most < 2**24 else np.float64
    weight = weight.astype(dtype)
    x = x.astype(dtype)
    x -= dtype(zero_point)
    acc = x @ weight.T if isinstance(attrs, Linear) else convolve(x, weight, attrs)
    if bias is None:
        return acc
    return acc.astype(np.float64) + bias.reshape(1, -1, *(1,) * (acc.ndim - 2))


def _padded(x: Array, pads: Pads, value: float) -> Array:
    top, left, bottom, right = pads
    return np.pad(x, ((0, 0), (0, 0), (top, bottom), (left, right)), constant_values=value) if any(pads) else x


def convolve(x: Array, weight: Array, attrs: Conv) -> Array:
    """The sum over the taps of a window of products with the pixels that each tap meets."""
    x = _padded(x, attrs.pads, 0)
    out_channels, group_channels, kernel_h, kernel_w = weight.shape
    n, _, height, width = x.shape
    (down, right), (far_down, far_right), groups = attrs.stride, attrs.dilation, attrs.groups
    out_h = (height - far_down * (kernel_h - 1) - 1) // down + 1
    out_w = (width - far_right * (kernel_w - 1) - 1) // right + 1
    depthwise = group_channels == 1 and groups == out_channels
    acc: Array | None = None
    for i in range(kernel_h):
        for j in range(kernel_w):
            top, left = i * far_down, j * far_right
            tap = x[:, :, top : top + down * (out_h - 1) + 1 : down, left : left + right * (out_w - 1) + 1 : right]
            if depthwise:
                product = tap * weight[:, 0, i, j].reshape(1, -1, 1, 1)
            else:
                matrix = weight[:, :, i, j].reshape(1, groups, out_channels // groups, group_channels)
                product = matrix @ tap.reshape(n, groups, group_channels, out_h * out_w)
            acc = product if acc is None else np.add(acc, product, out=acc)
    assert acc is not None
    return acc.reshape(n, out_channels, out_h, out_w)


def _max_pool(x: Array, attrs: Pool) -> Array:
    """Padding is below every integer, and so is never the maximum of a window that holds one."""
    return np.asarray(_windows(_padded(x, attrs.pads, 0), attrs).max((4, 5)))


def _windows(x: Array, attrs: Pool) -> Array:
    windows = np.lib.stride_tricks.sliding_window_view(x, attrs.kernel, axis=(2, 3))
    return np.asarray(windows[:, :, :: attrs.stride[0], :: attrs.stride[1]])


def _average(graph: Graph, op: Op, x: Array, zero_point: int) -> Array:
    """Equation (6); the windows of a pool may hold different numbers of pixels, each with its own m."""
    centred = x.astype(np.int64) - zero_point
    match op.attrs:
        case GlobalPool():
            acc = centred.sum((2, 3), keepdims=True)
            counts = np.full((1, 1), x.shape[2] * x.shape[3])
        case Pool() as attrs:
            acc = _windows(_padded(centred, attrs.pads, 0), attrs).sum((4, 5))
            ones = _padded(np.ones((1, 1, *x.shape[2:]), np.int64), attrs.pads, int(attrs.count_pads))
            counts = _windows(ones, attrs).sum((4, 5))[0, 0]
        case _:
            acc, counts = _adaptive(graph, op, centred)
    factors = np.empty(counts.shape, np.float32)
    for count in np.unique(counts):
        factors[counts == count] = multipliers(graph, op, int(count))[0]
    out = graph.tensors[op.outputs[0]]
    return round_to_u8(acc.astype(np.float32) * factors, levels(out)[1], qmax_of(out))


def _adaptive(graph: Graph, op: Op, centred: Array) -> tuple[Array, Array]:
    """Sums over the windows of an adaptive pool, and the pixels in each."""
    out_h, out_w = graph.output_shape(op)[2:]
    edges = [
        [(i * size // out, -(-(i + 1) * size // out)) for i in range(out)]
        for size, out in zip(centred.shape[2:], (out_h, out_w), strict=True)
    ]
    acc = np.empty((*centred.shape[:2], out_h, out_w), np.int64)
    counts = np.empty((out_h, out_w), np.int64)
    for row, (top, bottom) in enumerate(edges[0]):
        for column, (left, right) in enumerate(edges[1]):
            acc[:, :, row, column] = centred[:, :, top:bottom, left:right].sum((2, 3))
            counts[row, column] = (bottom - top) * (right - left)
    return acc, counts
