"""What all frameworks can say, as ops of a draft: arithmetic, views, reductions, windows, products.

Each function appends ops to the draft and returns the tensor that they write.  `UnsupportedError` is raised for uses
that have no meaning here.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, Literal

from luthier.graph.attrs import (
    AdaptivePool,
    Add,
    Affine,
    ChannelPool,
    Concat,
    Conv,
    GlobalPool,
    Linear,
    Mul,
    Norm,
    Pad,
    Pads,
    Pair,
    Pool,
    Resize,
    Slice,
    Softmax,
    Subsample,
)
from luthier.graph.draft import Border, Clip, Const, Draft, Expand, Permute, UnsupportedError, Value, View
from luthier.graph.shapes import out_size

Number = int | float


def tensor(value: Value | Number | None) -> str:
    """An activation, refused if it is anything else."""
    if isinstance(value, str):
        return value
    raise UnsupportedError("a weight or a number stands where an activation must")


def const(value: Value | Number | None) -> Const:
    """A weight, refused if it is anything else."""
    if isinstance(value, Const):
        return value
    raise UnsupportedError("an activation stands where a weight must")


# -- arithmetic ---------------------------------------------------------------------------------------------------


def add(draft: Draft, a: Value | Number, b: Value | Number) -> str:
    """a + b, in either order."""
    if not isinstance(a, str):
        a, b = b, a
    if isinstance(b, str):
        return draft.add(Add(), *_ordered(draft, tensor(a), b))
    return _affine(draft, tensor(a), b, "bias")


def sub(draft: Draft, a: Value | Number, b: Value | Number) -> str:
    """a - b; of two activations the second is negated first."""
    if isinstance(b, str):
        return add(draft, draft.add(Affine(scale=-1.0), b), a)
    return add(draft, a, _mapped(b, "negative", lambda x: -x))


def mul(draft: Draft, a: Value | Number, b: Value | Number) -> str:
    """a * b, in either order."""
    if not isinstance(a, str):
        a, b = b, a
    if isinstance(b, str):
        return draft.add(Mul(), *_ordered(draft, tensor(a), b))
    return _affine(draft, tensor(a), b, "weight")


def div(draft: Draft, a: Value | Number, b: Value | Number) -> str:
    """a / b by a number or a weight."""
    if isinstance(b, str):
        raise UnsupportedError("a quotient of two activations")
    return mul(draft, a, _mapped(b, "inverse", lambda x: 1.0 / x))


def _mapped(value: Const | Number, suffix: str, function: Callable[[Any], Any]) -> Const | Number:
    if not isinstance(value, Const):
        if suffix == "inverse" and value == 0:
            raise UnsupportedError("a division by zero")
        return float(function(value))
    return value.changed(suffix, value.shape, None if value.value is None else function(value.value))


def _ordered(draft: Draft, a: str, b: str) -> tuple[str, str]:
    """The one that the other broadcasts to comes first; where neither does, one is spread over the other's map."""
    first, second = draft.shape(a), draft.shape(b)
    if len(first) != len(second):  # missing leading axes are 1
        rank = max(len(first), len(second))
        a, b = (view(draft, x, (1,) * (rank - len(draft.shape(x))) + draft.shape(x)) for x in (a, b))
        first, second = draft.shape(a), draft.shape(b)
    both = tuple(max(sizes) for sizes in zip(first, second, strict=True))
    if both not in (first, second):  # (C, H, 1) and (C, 1, W), (C, 1, 1) and (1, H, W)
        a, b = (a, b) if first[:2] == both[:2] else (b, a)
        return expand(draft, a, both), b
    return (b, a) if math.prod(second) > math.prod(first) else (a, b)


def _affine(draft: Draft, x: str, value: Const | Number, role: Literal["weight", "bias"]) -> str:
    if isinstance(value, Const) and math.prod(value.shape) == 1 and value.value is not None and not value.trained:
        value = float(value.value.reshape(()))
    if not isinstance(value, Const):
        return draft.add(Affine(scale=float(value)) if role == "weight" else Affine(shift=float(value)), x)
    shape = draft.shape(x)
    along = (1,) * (len(shape) - len(value.shape)) + value.shape
    if len(along) != len(shape) or any(size != 1 for axis, size in enumerate(along) if axis != 1):
        raise UnsupportedError(f"a weight of shape {value.shape} against an activation of shape {shape}")
    return draft.add(Affine(), x, **{role: value.reshaped((along[1],))})


def clip(draft: Draft, x: Value, low: float | None, high: float | None) -> str:
    """min(max(x, low), high)."""
    return draft.add(Clip(-math.inf if low is None else low, math.inf if high is None else high), tensor(x))


def axis_of(draft: Draft, x: Value, axis: int, *, more: int = 0) -> int:
    """An axis counted from the front; `more` axes will be added."""
    rank = len(draft.shape(x)) + more
    if not -rank <= axis < rank:
        raise UnsupportedError(f"axis {axis} of {draft.shape(x)}")
    return axis % rank


# -- shapes -------------------------------------------------------------------------------------------------------


def view(draft: Draft, x: Value, shape: Sequence[int]) -> str:
    """Another shape; one size may be -1."""
    name, sizes = tensor(x), [int(size) for size in shape]
    elements = math.prod(draft.shape(name))
    if sizes.count(-1) == 1:
        known = -math.prod(sizes)
        sizes[sizes.index(-1)] = elements // known if known > 0 else 0
    if min(sizes, default=1) < 1 or math.prod(sizes) != elements:
        raise UnsupportedError(f"a view of {draft.shape(name)} as {tuple(shape)}")
    return draft.add(View(tuple(sizes)), name)


def flatten(draft: Draft, x: Value, start: int = 0, stop: int = -1) -> str:
    """Axes start .. stop (included) as one."""
    shape = draft.shape(x)
    first, last = axis_of(draft, x, start), axis_of(draft, x, stop)
    return view(draft, x, (*shape[:first], math.prod(shape[first : last + 1]), *shape[last + 1 :]))


def squeeze(draft: Draft, x: Value, axes: Sequence[int] | None = None) -> str:
    """Without axes of one element; without these, if they have one."""
    shape = draft.shape(x)
    chosen = range(len(shape)) if axes is None else [axis_of(draft, x, axis) for axis in axes]
    return view(draft, x, [size for axis, size in enumerate(shape) if axis not in chosen or size != 1])


def unsqueeze(draft: Draft, x: Value, axes: Sequence[int]) -> str:
    """With further axes of one element; axes count in the result."""
    rank = len(draft.shape(x)) + len(axes)
    new = {axis_of(draft, x, axis, more=len(axes)) for axis in axes}
    if len(new) != len(axes):
        raise UnsupportedError(f"new axes {list(axes)}")
    sizes = iter(draft.shape(x))
    return view(draft, x, [1 if axis in new else next(sizes) for axis in range(rank)])


def permute(draft: Draft, x: Value, order: Sequence[int]) -> str:
    """Axes in another order."""
    return draft.add(Permute(tuple(axis_of(draft, x, axis) for axis in order)), tensor(x))


def expand(draft: Draft, x: Value, shape: Sequence[int]) -> str:
    """Broadcast; -1 keeps a size."""
    own = (1,) * (len(shape) - len(draft.shape(x))) + draft.shape(x)
    shape = [1] * (len(own) - len(shape)) + list(shape)
    if any(size not in (-1, 1, own_size) and own_size != 1 for own_size, size in zip(own, shape, strict=True)):
        raise UnsupportedError(f"a broadcast of {own} to {tuple(shape)}")
    wanted = tuple(
        own_size if size in (-1, 1) and own_size != 1 else max(int(size), 1)
        for own_size, size in zip(own, shape, strict=True)
    )
    return draft.add(Expand(wanted), view(draft, x, own) if own != draft.shape(x) else tensor(x))


def slice_(draft: Draft, x: Value, axis: int, start: int | None, stop: int | None, step: int = 1) -> str:
    """Indices start, start + step, .. below stop, along one axis."""
    shape, name = draft.shape(x), tensor(x)
    axis = axis_of(draft, x, axis)
    if step < 1:
        raise UnsupportedError(f"a slice with step {step}")
    low, high, _ = slice(start, stop).indices(shape[axis])
    if (low, high) != (0, shape[axis]):
        if axis == 0 or high <= low:
            raise UnsupportedError(f"a slice {low}:{high} of axis {axis} of {shape}")
        name = draft.add(Slice(axis, low, high), name)
    if step == 1:
        return name
    if len(shape) != 4 or axis < 2:
        raise UnsupportedError(f"a step of {step} along axis {axis} of {shape}")
    return draft.add(Subsample((step, 1) if axis == 2 else (1, step)), name)


def split(draft: Draft, x: Value, axis: int, sizes: Sequence[int]) -> list[str]:
    """Consecutive ranges of one axis."""
    starts = [sum(sizes[:i]) for i in range(len(sizes))]
    return [slice_(draft, x, axis, start, start + size) for start, size in zip(starts, sizes, strict=True)]


def concat(draft: Draft, values: Sequence[Value], axis: int) -> str:
    """One after another along any axis but the batch."""
    names = [tensor(value) for value in values]
    along = axis_of(draft, names[0], axis)
    if not 1 <= along <= 3:
        raise UnsupportedError(f"a concatenation along axis {axis}")
    return draft.add(Concat(along), *names) if len(names) > 1 else names[0]


def pad(draft: Draft, x: Value, before: Sequence[int], after: Sequence[int], value: float = 0.0) -> str:
    """`before` and `after` for the last len(before) axes; channels take zeros only, a crop is a slice."""
    name, rank = tensor(x), len(draft.shape(x))
    low, high = (
        [0] * (rank - len(before)) + [int(b) for b in before],
        [0] * (rank - len(after)) + [int(a) for a in after],
    )
    for axis, (first, last) in enumerate(zip(low, high, strict=True)):
        if first < 0 or last < 0:
            size = draft.shape(name)[axis]
            name = slice_(draft, name, axis, max(0, -first), size - max(0, -last))
            low[axis], high[axis] = max(0, first), max(0, last)
    if low[0] or high[0] or (value and (low[1] or high[1])) or (rank != 4 and any(low[2:] + high[2:])):
        raise UnsupportedError(f"padding {low} and {high} with {value}")
    if low[1] or high[1]:
        name = draft.add(Pad(low[1], high[1]), name)
    return draft.add(Border((low[2], low[3], high[2], high[3]), value), name) if rank == 4 else name


# -- reductions and windows ---------------------------------------------------------------------------------------


def reduce(draft: Draft, x: Value, axes: Sequence[int], keep: bool, how: Literal["max", "avg"]) -> str:
    """Over H and W, or over the one axis behind the channels; of a map also over its channels, H or W alone."""
    shape, name = draft.shape(x), tensor(x)
    chosen = sorted(axis_of(draft, x, axis) for axis in axes)
    if len(shape) == 4 and chosen in ([1], [2], [3]):
        made = _over_one_axis(draft, name, chosen[0], how)
        return made if keep else squeeze(draft, made, chosen)
    if chosen != list(range(2, len(shape))) or len(shape) not in (3, 4):
        raise UnsupportedError(f"a reduction of {shape} over axes {chosen}")
    pooled = draft.add(GlobalPool(how), view(draft, name, (*shape, 1)) if len(shape) == 3 else name)
    return view(draft, pooled, (*shape[:2], *(1,) * (len(shape) - 2)) if keep else shape[:2])


def _over_one_axis(draft: Draft, x: str, axis: int, how: Literal["max", "avg"]) -> str:
    height, width = draft.shape(x)[2:]
    if axis == 1:
        return draft.add(ChannelPool(how), x)
    return adaptive_pool(draft, x, (1, width) if axis == 2 else (height, 1), how)


def total(draft: Draft, x: Value, axes: Sequence[int], keep: bool) -> str:
    """The sum over axes: their mean, times the elements in it."""
    count = math.prod(draft.shape(x)[axis_of(draft, x, axis)] for axis in axes)
    return mul(draft, reduce(draft, x, axes, keep, "avg"), float(count))


def adaptive_pool(draft: Draft, x: Value, out: Sequence[int | None], how: Literal["max", "avg"] = "avg") -> str:
    """To out_hw windows; None keeps a size."""
    shape = draft.shape(x)
    if len(shape) != 4:
        raise UnsupportedError(f"adaptive pooling of {shape}")
    out_hw = tuple(size if size is not None else own for size, own in zip(out, shape[2:], strict=True))
    if out_hw == (1, 1):
        return draft.add(GlobalPool(how), tensor(x))
    if how == "max":
        down, right = (own // size for own, size in zip(shape[2:], out_hw, strict=True))
        if (down * out_hw[0], right * out_hw[1]) != shape[2:]:
            raise UnsupportedError(f"adaptive maxima of {shape} to {out_hw}, which does not divide it")
        return draft.add(Pool("max", (down, right), (down, right)), tensor(x))
    return draft.add(AdaptivePool((out_hw[0], out_hw[1])), tensor(x))


def pool(
    draft: Draft, x: Value, how: Literal["max", "avg"], kernel: Pair, stride: Pair, pads: Pads,
    *, dilation: Pair = (1, 1), ceil: bool = False, count_pads: bool = False,
) -> str:  # fmt: skip
    """Windows; rounding up becomes explicit padding at the end.

    out = ceil((H + top + bottom - K) / stride) + 1, one less if the last window would start behind the map  (1)
    """
    shape = draft.shape(x)
    if len(shape) != 4 or dilation != (1, 1):
        raise UnsupportedError(f"pooling of {shape} with dilation {dilation}")
    top, left, bottom, right = pads
    if ceil:
        count_pads = count_pads and any(pads)
        more_h = _ceil_pad(shape[2], kernel[0], stride[0], top, bottom)
        more_w = _ceil_pad(shape[3], kernel[1], stride[1], left, right)
        if count_pads and (more_h > bottom or more_w > right):
            raise UnsupportedError("an average that rounds its output up and counts padding")
        bottom, right = more_h, more_w
    attrs = Pool(how, kernel, stride, (top, left, bottom, right), how == "avg" and count_pads and any(pads))
    return draft.add(attrs, tensor(x))


def _ceil_pad(size: int, kernel: int, stride: int, before: int, after: int) -> int:
    out = -(-(size + before + after - kernel) // stride) + 1
    if (out - 1) * stride >= size + before:
        out -= 1
    if out == out_size(size, kernel, stride, before, after):
        return after
    return (out - 1) * stride + kernel - size - before


def conv(
    draft: Draft, x: Value, weight: Value, bias: Value | None, stride: Sequence[int], pads: Sequence[int],
    dilation: Sequence[int], groups: int,
) -> str:  # fmt: skip
    """1-D or 2-D convolution; `pads` before all axes, then behind them.  One axis is a map of width 1."""
    name, kernel = tensor(x), const(weight)
    shape, line = draft.shape(name), len(kernel.shape) == 3
    if len(kernel.shape) not in (3, 4) or len(shape) != len(kernel.shape):
        raise UnsupportedError(f"a convolution of {shape} with a weight {kernel.shape}")
    if line:
        name, kernel = view(draft, name, (*shape, 1)), kernel.reshaped((*kernel.shape, 1))
        stride, dilation, pads = (*stride, 1), (*dilation, 1), (pads[0], 0, pads[1], 0)
    attrs = Conv(_pair(stride), (pads[0], pads[1], pads[2], pads[3]), _pair(dilation), groups)
    y = draft.add(attrs, name, weight=kernel, bias=None if bias is None else const(bias))
    return view(draft, y, draft.shape(y)[:3]) if line else y


def _pair(values: Sequence[int]) -> Pair:
    return int(values[0]), int(values[1])


def norm(draft: Draft, x: Value, roles: Sequence[Value | None], eps: float) -> str:
    """Batch normalisation with stored weight, bias, mean and variance."""
    if any(role is None for role in roles):
        raise UnsupportedError("a normalisation without stored statistics or without weight and bias")
    weight, bias, mean, var = (const(role) for role in roles)
    return draft.add(Norm(eps), tensor(x), weight=weight, bias=bias, running_mean=mean, running_var=var)


def linear(draft: Draft, x: Value, weight: Value, bias: Value | None = None) -> str:
    """y = x W^T + b."""
    name = tensor(x)
    if len(draft.shape(name)) != 2:
        raise UnsupportedError(f"a linear layer on {draft.shape(name)}; it takes (N, K)")
    return draft.add(Linear(), name, weight=const(weight), bias=None if bias is None else const(bias))


def transposed(weight: Const) -> Const:
    """A matrix on its side, under its own name: the graph's linear weight is (K_out, K_in)."""
    value = None if weight.value is None else weight.value.T
    return Const(weight.name, (weight.shape[1], weight.shape[0]), value, weight.dtype)


def softmax(draft: Draft, x: Value, axis: int) -> str:
    """Over the channels."""
    if axis_of(draft, x, axis) != 1:
        raise UnsupportedError(f"softmax over axis {axis} of {draft.shape(x)}")
    return draft.add(Softmax(), tensor(x))


def resize(draft: Draft, x: Value, out_hw: Sequence[int], mode: Literal["nearest", "bilinear"]) -> str:
    """To another height and width."""
    return draft.add(Resize(_pair(out_hw), mode), tensor(x))
