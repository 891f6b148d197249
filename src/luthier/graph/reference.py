"""What a graph means: every op in plain NumPy.  The oracle for modules and engines, not a way to run networks fast."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any, Final

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

from luthier.errors import ShapeError, SpecError
from luthier.graph.attrs import (
    Activation,
    AdaptivePool,
    Add,
    Affine,
    ChannelPool,
    Concat,
    Conv,
    Flatten,
    GlobalPool,
    Linear,
    Mul,
    Norm,
    Pad,
    Pads,
    Pair,
    Pool,
    Reshape,
    Resize,
    Shuffle,
    Slice,
    Softmax,
    Subsample,
    Unknown,
)
from luthier.graph.op import Graph, Op

Array = NDArray[Any]

_erf = np.vectorize(math.erf, otypes=[np.float64])


def _sigmoid(x: Array) -> Array:
    return 0.5 * (1.0 + np.tanh(0.5 * x))  # does not overflow, unlike 1 / (1 + exp(-x))


def _hard_sigmoid(x: Array) -> Array:
    return np.clip(x + 3.0, 0.0, 6.0) / 6.0


def _gelu(x: Array) -> Array:
    gelu: Array = 0.5 * x * (1.0 + _erf(x / math.sqrt(2.0)))
    return gelu.astype(x.dtype)


FUNCTIONS: Final[dict[str, Callable[[Array], Array]]] = {
    "identity": lambda x: x,
    "relu": lambda x: np.maximum(x, 0.0),
    "relu6": lambda x: np.clip(x, 0.0, 6.0),
    "silu": lambda x: x * _sigmoid(x),
    "hard_swish": lambda x: x * _hard_sigmoid(x),
    "gelu": _gelu,
    "sigmoid": _sigmoid,
    "hard_sigmoid": _hard_sigmoid,
    "tanh": np.tanh,
    "softplus": lambda x: np.logaddexp(x, 0.0),
    "mish": lambda x: x * np.tanh(np.logaddexp(x, 0.0)),
}


def activate(x: Array, attrs: Activation) -> Array:
    """The function of an activation, with its parameter where it has one."""
    match attrs.function:
        case "leaky_relu":
            return np.where(x >= 0, x, attrs.alpha * x)
        case "elu":
            return np.where(x >= 0, x, attrs.alpha * np.expm1(np.minimum(x, 0.0)))
        case name:
            return FUNCTIONS[name](x)


def run(graph: Graph, constants: Mapping[str, Array], inputs: Mapping[str, Array]) -> dict[str, Array]:
    """Evaluate a graph.

    Args:
        graph: what to compute.
        constants: arrays by name, as a state dict has them; further entries are ignored.
        inputs: arrays by name, with the shapes that the graph states.
    Returns:
        The graph's outputs by name.
    Raises:
        ShapeError: a constant or input is missing or has another shape than the graph says.
    Example:
        >>> from luthier.graph.builder import Builder
        >>> build = Builder()
        >>> graph = build.graph(build.activation("y", build.input("x", (1, 3)), "relu6"))
        >>> run(graph, {}, {"x": np.array([[-1.0, 2.0, 9.0]])})["y"].tolist()
        [[0.0, 2.0, 6.0]]
    """
    for what, wanted, given in (
        ("input", {name: graph.tensors[name] for name in graph.inputs}, inputs),
        ("constant", graph.constants, constants),
    ):
        for name, tensor in wanted.items():
            if name not in given:
                raise ShapeError(f"reference.run: {what} {name!r} is missing")
            if given[name].shape != tensor.shape:
                raise ShapeError(
                    f"reference.run: {what} {name!r} must have shape {tensor.shape}, got {given[name].shape}"
                )
    values = dict(inputs)
    for op in graph.ops:
        result = evaluate(
            op, [values[n] for n in op.inputs], {role: constants[name] for role, name in op.constants.items()}
        )
        assert result.shape == graph.output_shape(op), f"{op.name}: {result.shape} is not what shapes.infer said"
        values[op.outputs[0]] = result
    return {name: values[name] for name in graph.outputs}


def evaluate(op: Op, inputs: list[Array], constants: Mapping[str, Array]) -> Array:
    """One op on arrays; see `luthier.graph.attrs` for what each kind means."""
    x = inputs[0]
    match op.attrs:
        case Conv() as attrs:
            return conv2d(x, constants["weight"], constants.get("bias"), attrs)
        case Norm(eps=eps):
            scale = constants["weight"] / np.sqrt(constants["running_var"] + eps)
            shift = constants["bias"] - constants["running_mean"] * scale
            along = (1, -1) + (1,) * (x.ndim - 2)
            return x * scale.reshape(along) + shift.reshape(along)
        case Activation() as attrs:
            return activate(x, attrs)
        case Add():
            return np.add(x, inputs[1])
        case Mul():
            return np.multiply(x, inputs[1])
        case Pool() as attrs:
            return pool2d(x, attrs)
        case GlobalPool(reduce=reduce):
            reduced: Array = x.mean((2, 3), keepdims=True) if reduce == "avg" else x.max((2, 3), keepdims=True)
            return reduced
        case AdaptivePool(out_hw=out_hw):
            return adaptive_pool2d(x, out_hw)
        case ChannelPool(reduce=reduce):
            across: Array = x.mean(1, keepdims=True) if reduce == "avg" else x.max(1, keepdims=True)
            return across
        case Linear():
            y = x @ constants["weight"].T
            return y + constants["bias"] if "bias" in constants else y
        case Affine(scale=scale, shift=shift):
            along = (1, -1) + (1,) * (x.ndim - 2)
            y = scale * x * constants["weight"].reshape(along) if "weight" in constants else scale * x
            return y + shift + constants["bias"].reshape(along) if "bias" in constants else y + shift
        case Softmax():
            powers = np.exp(x - x.max(1, keepdims=True))
            shares: Array = powers / powers.sum(1, keepdims=True)
            return shares
        case Pad(before=before, after=after, pads=pads):
            channels = np.pad(x, ((0, 0), (before, after)) + ((0, 0),) * (x.ndim - 2))
            return _pad(channels, pads, 0.0) if any(pads) else channels
        case Subsample(stride=(down, right)):
            return x[:, :, ::down, ::right]
        case Slice(axis, start, stop):
            part: Array = x[(slice(None),) * axis + (slice(start, stop),)]
            return part
        case Shuffle(groups):
            grouped = x.reshape(x.shape[0], groups, x.shape[1] // groups, *x.shape[2:])
            return grouped.swapaxes(1, 2).reshape(x.shape)
        case Resize() as attrs:
            return resize2d(x, attrs)
        case Flatten():
            return x.reshape(x.shape[0], -1)
        case Reshape(shape=shape):
            return x.reshape(x.shape[0], *shape)
        case Concat(axis):
            return np.concatenate(inputs, axis=axis)
        case Unknown(what):
            raise SpecError(f"reference.run: {op.name}: {what} has no meaning here, only a shape")


def _pad(x: Array, pads: Pads, value: float) -> Array:
    top, left, bottom, right = pads
    return np.pad(x, ((0, 0), (0, 0), (top, bottom), (left, right)), constant_values=value)


def _windows(x: Array, kernel: Pair, stride: Pair, dilation: Pair = (1, 1)) -> Array:
    """(N, C, H, W) -> (N, C, H_out, W_out, K_H, K_W), a view."""
    reach = tuple(d * (k - 1) + 1 for k, d in zip(kernel, dilation, strict=True))
    view = sliding_window_view(x, reach, axis=(2, 3))
    windows: Array = view[:, :, :: stride[0], :: stride[1], :: dilation[0], :: dilation[1]]
    return windows


def conv2d(x: Array, weight: Array, bias: Array | None, attrs: Conv) -> Array:
    """Grouped cross-correlation of (N, C_in, H, W) with (C_out, C_in / groups, K_H, K_W)."""
    out_channels, group_channels, kernel_h, kernel_w = weight.shape
    windows = _windows(_pad(x, attrs.pads, 0.0), (kernel_h, kernel_w), attrs.stride, attrs.dilation)
    if group_channels == 1 and attrs.groups == out_channels:
        y: Array = np.einsum("nchwkl,ckl->nchw", windows, weight[:, 0])
    else:
        per_group = out_channels // attrs.groups
        parts = [
            np.tensordot(
                windows[:, group * group_channels : (group + 1) * group_channels],
                weight[group * per_group : (group + 1) * per_group],
                axes=((1, 4, 5), (1, 2, 3)),
            )
            for group in range(attrs.groups)
        ]
        y = np.moveaxis(np.concatenate(parts, axis=-1), -1, 1)
    if bias is not None:
        y = y + bias.reshape(1, -1, 1, 1)
    return y


def pool2d(x: Array, attrs: Pool) -> Array:
    """Maximum or average over windows."""
    if attrs.reduce == "max":
        highest: Array = _windows(_pad(x, attrs.pads, -np.inf), attrs.kernel, attrs.stride).max((4, 5))
        return highest
    total = _windows(_pad(x, attrs.pads, 0.0), attrs.kernel, attrs.stride).sum((4, 5))
    ones = _pad(np.ones_like(x[:1, :1]), attrs.pads, 1.0 if attrs.count_pads else 0.0)
    average: Array = total / _windows(ones, attrs.kernel, attrs.stride).sum((4, 5))
    return average


def adaptive_pool2d(x: Array, out_hw: Pair) -> Array:
    """Average over windows that start at floor(i H / H_out) and end before ceil((i + 1) H / H_out)."""
    out = np.empty((*x.shape[:2], *out_hw), x.dtype)
    for row in range(out_hw[0]):
        rows = slice(row * x.shape[2] // out_hw[0], -(-(row + 1) * x.shape[2] // out_hw[0]))
        for column in range(out_hw[1]):
            columns = slice(column * x.shape[3] // out_hw[1], -(-(column + 1) * x.shape[3] // out_hw[1]))
            out[:, :, row, column] = x[:, :, rows, columns].mean((2, 3))
    return out


def adaptive_matrix(size: int, out: int) -> Array:
    """The averages of `adaptive_pool2d` along one axis as a matrix (out, size).

    Example:
        >>> adaptive_matrix(4, 2).tolist()
        [[0.5, 0.5, 0.0, 0.0], [0.0, 0.0, 0.5, 0.5]]
    """
    matrix = np.zeros((out, size), np.float32)
    for i in range(out):
        low, high = i * size // out, -(-(i + 1) * size // out)
        matrix[i, low:high] = 1 / (high - low)
    return matrix


def resize2d(x: Array, attrs: Resize) -> Array:
    """Nearest or bilinear, see `Resize`; pixel centres lie at (i + 0.5) * H / H_out - 0.5."""
    for axis, out in zip((2, 3), attrs.out_hw, strict=True):
        size = x.shape[axis]
        if attrs.mode == "nearest":
            x = x.take([i * size // out for i in range(out)], axis)
            continue
        place = np.clip((np.arange(out) + 0.5) * size / out - 0.5, 0, size - 1)
        low = place.astype(int)
        share = (place - low).astype(x.dtype).reshape((-1,) + (1,) * (3 - axis))
        x = x.take(low, axis) * (1 - share) + x.take(np.minimum(low + 1, size - 1), axis) * share
    return x
