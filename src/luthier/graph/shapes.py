"""The one truth about shapes: what an op makes of the shapes that enter it.

    H_out = floor((H + top + bottom - dilation * (K - 1) - 1) / stride) + 1                          (1)

and likewise for W.  All routes into a graph build with it, `Graph` validates with it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import prod

from luthier.errors import ShapeError
from luthier.graph.attrs import (
    Activation,
    AdaptivePool,
    Add,
    Affine,
    Attrs,
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

Shape = tuple[int, ...]


def out_size(size: int, kernel: int, stride: int, before: int, after: int, dilation: int = 1) -> int:
    """Pixels along one axis behind a window, equation (1); 0 where the window does not fit.

    Example:
        >>> out_size(224, kernel=3, stride=2, before=1, after=1), out_size(1, kernel=2, stride=2, before=0, after=0)
        (112, 0)
    """
    return max(0, (size + before + after - dilation * (kernel - 1) - 1) // stride + 1)


def same_pads(size: Pair, kernel: int, stride: int) -> Pads:
    """Padding for ceil(in / stride) outputs, the odd pixel at the end (TensorFlow's SAME).

    Example:
        >>> same_pads((224, 224), kernel=3, stride=2), same_pads((7, 8), kernel=5, stride=1)
        ((0, 0, 1, 1), (2, 2, 2, 2))
    """
    top, bottom = _same(size[0], kernel, stride)
    left, right = _same(size[1], kernel, stride)
    return top, left, bottom, right


def _same(size: int, kernel: int, stride: int) -> Pair:
    total = max(0, (-(-size // stride) - 1) * stride + kernel - size)
    return total // 2, total - total // 2


def infer(who: str, attrs: Attrs, inputs: Sequence[Shape], constants: Mapping[str, Shape]) -> Shape:
    """Shape of the op's output.

    Args:
        who: the op's name; opens every error message.
        attrs: what the op does.
        inputs: shapes of the activations that enter, (N, C, H, W) or (N, K).
        constants: shapes of its weights by role (`weight`, `bias`, ...).
    Raises:
        ShapeError: the shapes do not agree, or nothing is left of the map.
    Example:
        >>> infer("stem", Conv(stride=(2, 2), pads=(1, 1, 1, 1)), [(1, 3, 224, 224)], {"weight": (32, 3, 3, 3)})
        (1, 32, 112, 112)
    """
    shape = inputs[0]
    out = shape
    match attrs:
        case Conv():
            out = _conv(who, attrs, _map(who, shape), constants)
        case Norm():
            for role in ("weight", "bias", "running_mean", "running_var"):
                _equal(who, role, constants.get(role), (shape[1],))
        case Activation() | Softmax():
            pass
        case Affine():
            for role, own in constants.items():
                if own != (1,):
                    _equal(who, role, own, (shape[1],))
        case Add() | Mul():
            _broadcasts(who, shape, inputs[1])
        case Pool():
            out = _window(who, _map(who, shape), attrs.kernel, attrs.stride, attrs.pads, (1, 1))
        case GlobalPool():
            out = (*_map(who, shape)[:2], 1, 1)
        case AdaptivePool():
            out = (*_map(who, shape)[:2], *attrs.out_hw)
        case ChannelPool():
            out = (shape[0], 1, *_map(who, shape)[2:])
        case Linear():
            out = _linear(who, shape, constants)
        case Pad():
            out = (shape[0], attrs.before + shape[1] + attrs.after, *shape[2:])
            if attrs.pads != (0, 0, 0, 0):
                top, left, bottom, right = attrs.pads
                out = (*_map(who, out)[:2], top + shape[2] + bottom, left + shape[3] + right)
        case Subsample():
            n, c, h, w = _map(who, shape)
            out = (n, c, -(-h // attrs.stride[0]), -(-w // attrs.stride[1]))
        case Slice(axis, start, stop):
            if not (1 <= axis < len(shape) and 0 <= start < stop <= shape[axis]):
                raise ShapeError(f"{who}: indices {start} to {stop} of axis {axis} do not lie in {shape}")
            out = (*shape[:axis], stop - start, *shape[axis + 1 :])
        case Shuffle():
            if attrs.groups < 1 or shape[1] % attrs.groups:
                raise ShapeError(f"{who}: {shape[1]} channels cannot be shuffled in {attrs.groups} groups")
        case Resize():
            out = (*_map(who, shape)[:2], *attrs.out_hw)
        case Unknown():
            out = attrs.shape
        case Flatten():
            out = (shape[0], prod(shape[1:]))
        case Reshape():
            if prod(attrs.shape) != prod(shape[1:]):
                raise ShapeError(f"{who}: cannot reshape {shape[1:]} to {attrs.shape}, the element counts differ")
            out = (shape[0], *attrs.shape)
        case Concat(axis):
            if not 1 <= axis < len(shape):
                raise ShapeError(f"{who}: concat along axis {axis} of {shape}")
            for other in inputs[1:]:
                if (*other[:axis], *other[axis + 1 :]) != (*shape[:axis], *shape[axis + 1 :]):
                    along = ("channels", "rows", "columns")[axis - 1]
                    raise ShapeError(f"{who}: concat needs equal shapes but for the {along}, got {shape} and {other}")
            out = (*shape[:axis], sum(s[axis] for s in inputs), *shape[axis + 1 :])
    if min(out) < 1:
        raise ShapeError(f"{who}: nothing is left of the map, {shape} -> {out}; raise the resolution or lower a stride")
    return out


def _map(who: str, shape: Shape) -> tuple[int, int, int, int]:
    if len(shape) != 4:
        raise ShapeError(f"{who}: expected a feature map (N, C, H, W), got {shape}")
    return shape[0], shape[1], shape[2], shape[3]


def _equal(who: str, what: str, got: Shape | None, want: Shape) -> None:
    if got != want:
        raise ShapeError(f"{who}: {what} must have shape {want}, got {got}")


def _window(
    who: str, shape: tuple[int, int, int, int], kernel: Pair, stride: Pair, pads: Pads, dilation: Pair
) -> Shape:
    n, c, h, w = shape
    top, left, bottom, right = pads
    return (
        n,
        c,
        out_size(h, kernel[0], stride[0], top, bottom, dilation[0]),
        out_size(w, kernel[1], stride[1], left, right, dilation[1]),
    )


def _conv(who: str, attrs: Conv, shape: tuple[int, int, int, int], constants: Mapping[str, Shape]) -> Shape:
    weight = constants["weight"]
    if len(weight) != 4 or shape[1] != weight[1] * attrs.groups or weight[0] % attrs.groups:
        raise ShapeError(f"{who}: weight {weight} with groups={attrs.groups} does not fit {shape[1]} input channels")
    if "bias" in constants:
        _equal(who, "bias", constants["bias"], (weight[0],))
    n, _, h, w = _window(who, shape, (weight[2], weight[3]), attrs.stride, attrs.pads, attrs.dilation)
    return n, weight[0], h, w


def _linear(who: str, shape: Shape, constants: Mapping[str, Shape]) -> Shape:
    weight = constants["weight"]
    if len(shape) != 2 or len(weight) != 2 or shape[1] != weight[1]:
        raise ShapeError(f"{who}: weight {weight} does not fit the input {shape}; linear needs (N, K_in)")
    if "bias" in constants:
        _equal(who, "bias", constants["bias"], (weight[0],))
    return shape[0], weight[0]


def _broadcasts(who: str, first: Shape, second: Shape) -> None:
    if len(first) != len(second) or any(b not in (a, 1) for a, b in zip(first, second, strict=True)):
        raise ShapeError(f"{who}: the second input {second} does not broadcast to the first {first}")
