"""From the outputs backwards: what each element of a tensor does to a weighted sum of the outputs.

With s = sum over outputs of z y, the adjoint of op t is a(t) = ds / dt.  By the chain rule, from an op's output to its
inputs:

    conv, linear     a(x) = w^T * a(y)                        (the transposed convolution)           (1)
    activation       a(x) = f'(x) a(y),  f' taken over the width of the noise at x                   (2)
    product          a(x) = g a(y),  a(g) = sum of x a(y) over what one element of g meets           (3)
    sum              a(a) = a(b) = a(y)                                                              (4)
    average          a(x) = a(y) / pixels                                                            (5)

Several readers add up.  An error e at t alone moves s by the inner product of a(t) and e, to first order.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from luthier.errors import UnsupportedError
from luthier.graph import attrs as kinds
from luthier.graph.op import Op
from luthier.graph.reference import activate, evaluate

Array = NDArray[Any]


def backwards(op: Op, inputs: list[Array], y: Array, a: Array, own: Mapping[str, Array], width: float) -> list[Array]:
    """The adjoint of every input of an op.

    Args:
        inputs: values that the op read.
        y: what it wrote.
        a: the adjoint of that.
        own: constants by role.
        width: of the noise at the input, over which a slope is taken.
    Raises:
        UnsupportedError: an op without a law.
    """
    x = inputs[0]
    match op.attrs:
        case kinds.Conv() as attrs:
            return [_transposed(a, own["weight"], attrs, x.shape)]
        case kinds.Linear():
            return [a @ own["weight"]]
        case kinds.Activation() as attrs:
            step = np.float32(max(width, 1e-3 * float(np.sqrt(np.mean(x * x))), 1e-12))
            return [a * (activate(x + step, attrs) - activate(x - step, attrs)) / (2 * step)]
        case kinds.Add():
            return [_met(a, one.shape) for one in inputs]
        case kinds.Mul():
            return [_met(a * inputs[1], x.shape), _met(a * x, inputs[1].shape)]
        case kinds.GlobalPool(reduce="avg"):
            return [np.broadcast_to(a / np.float32(x[0, 0].size), x.shape)]
        case kinds.Pool(reduce="avg") | kinds.AdaptivePool() | kinds.Resize():
            down, across = (_along(op, x.shape, axis) for axis in (2, 3))
            return [np.asarray(down.T @ a @ across, np.float32)]
        case kinds.GlobalPool(reduce="max") | kinds.ChannelPool(reduce="max"):
            return [a * (x == y)]
        case kinds.ChannelPool():
            return [np.broadcast_to(a / np.float32(x.shape[1]), x.shape)]
        case kinds.Pool() as attrs:
            return [_largest(x, y, a, attrs)]
        case kinds.Softmax():
            return [y * (a - (y * a).sum(1, keepdims=True))]
        case kinds.Affine() | kinds.Norm():
            shift = evaluate(op, [np.zeros_like(x[:1])], own)
            return [a * (evaluate(op, [np.ones_like(x[:1])], own) - shift)]
        case kinds.Flatten() | kinds.Reshape():
            return [a.reshape(x.shape)]
        case kinds.Concat(axis):
            return np.split(a, np.cumsum([one.shape[axis] for one in inputs])[:-1], axis)
        case kinds.Pad() | kinds.Slice() | kinds.Shuffle() | kinds.Subsample():
            return [_moved_back(op, x.shape, a)]
    raise UnsupportedError(f"noise: {op.name}: no adjoint for {op.kind}")


def _met(a: Array, shape: tuple[int, ...]) -> Array:
    """Summed over the axes along which an operand of this shape was repeated."""
    axes = tuple(axis for axis in range(1, a.ndim) if shape[axis] != a.shape[axis])
    return np.asarray(a.sum(axes, keepdims=True)) if axes else a


def _transposed(a: Array, weight: Array, attrs: kinds.Conv, shape: tuple[int, ...]) -> Array:
    """Each tap gives back to the pixels that it met."""
    n, channels, height, width = shape
    top, left, bottom, right = attrs.pads
    out_channels, group_channels, kernel_h, kernel_w = weight.shape
    groups, (down, across), (far_down, far_across) = attrs.groups, attrs.stride, attrs.dilation
    rows, columns = a.shape[2:]
    whole = np.zeros((n, channels, height + top + bottom, width + left + right), np.float32)
    depthwise = group_channels == 1 and groups == out_channels
    for i in range(kernel_h):
        for j in range(kernel_w):
            if depthwise:
                given = a * weight[:, 0, i, j].reshape(1, -1, 1, 1)
            else:
                matrix = weight[:, :, i, j].reshape(groups, out_channels // groups, group_channels)
                parts = matrix.swapaxes(1, 2) @ a.reshape(n, groups, -1, rows * columns)
                given = parts.reshape(n, channels, rows, columns)
            y, x = i * far_down, j * far_across
            whole[:, :, y : y + down * (rows - 1) + 1 : down, x : x + across * (columns - 1) + 1 : across] += given
    return whole[:, :, top : top + height, left : left + width]


def _along(op: Op, shape: tuple[int, ...], axis: int) -> Array:
    """The matrix (out, in) of an average or resize along one axis; the two axes do not mix."""
    side, other = shape[axis], shape[5 - axis]
    units = np.eye(side, dtype=np.float32)
    columns = np.repeat(units[:, :, None], other, 2) if axis == 2 else np.repeat(units[:, None], other, 1)
    y = evaluate(op, [columns[:, None]], {})[:, 0]
    middle = y.shape[4 - axis] // 2
    return np.asarray((y[:, :, middle] if axis == 2 else y[:, middle]).T)


def _largest(x: Array, y: Array, a: Array, attrs: kinds.Pool) -> Array:
    """To the maxima of every window; equal ones share."""
    top, left, bottom, right = attrs.pads
    padded = np.pad(x, ((0, 0), (0, 0), (top, bottom), (left, right)), constant_values=-np.inf)
    back = np.zeros_like(padded)
    (rows, columns), (down, across) = y.shape[2:], attrs.stride
    high, wide = down * (rows - 1) + 1, across * (columns - 1) + 1
    places = [
        (..., slice(i, i + high, down), slice(j, j + wide, across))
        for i in range(attrs.kernel[0])
        for j in range(attrs.kernel[1])
    ]
    count = sum((padded[place] == y).astype(np.float32) for place in places)
    for place in places:
        back[place] += a * (padded[place] == y) / count
    return back[:, :, top : top + x.shape[2], left : left + x.shape[3]]


def _moved_back(op: Op, shape: tuple[int, ...], a: Array) -> Array:
    """Each element of the output came from one of the input, or from none."""
    numbers = np.arange(1, 1 + int(np.prod(shape[1:])), dtype=np.float64).reshape(1, *shape[1:])
    source = evaluate(op, [numbers], {}).astype(np.int64).ravel()
    back = np.zeros((len(a), numbers.size + 1), np.float32)
    back[:, source] = a.reshape(len(a), -1)
    return back[:, 1:].reshape(shape)
