"""ONNX ops -> draft ops: one function or one line for each op that networks of this field use."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal

from luthier.graph import attrs as kinds
from luthier.graph import translate as to
from luthier.graph.attrs import Pads, Pair
from luthier.graph.draft import Const, Draft, Erf, Mix, UnsupportedError, Value


@dataclass(frozen=True)
class Call:
    """One node: what it reads and how it is set.

    Attributes:
        op: ONNX's name for it.
        inputs: activations by name, weights, None where an optional input is left out.
        attributes: as the file has them; missing ones have the default of the opset.
        opset: of the default domain.
        outputs: how many it writes.
    """

    op: str
    inputs: list[Value | None]
    attributes: dict[str, Any]
    opset: int
    outputs: int

    def value(self, index: int) -> Value:
        """An input that must be there."""
        found = self.optional(index)
        if found is None:
            raise UnsupportedError(f"input {index} is missing")
        return found

    def optional(self, index: int) -> Value | None:
        """An input that may be left out."""
        return self.inputs[index] if index < len(self.inputs) else None

    def numbers(self, index: int, attribute: str = "") -> list[float] | None:
        """Plain numbers: an attribute in old opsets, an input in new ones; None where neither is there."""
        if attribute and attribute in self.attributes:
            given = self.attributes[attribute]
            return [given] if isinstance(given, int | float) else list(given)
        found = self.optional(index)
        if found is None:
            return None
        if not isinstance(found, Const) or found.value is None:
            raise UnsupportedError(f"its input {index} is computed from the data")
        if found.value.size > MAX_NUMBERS:
            raise UnsupportedError(f"its input {index} holds {found.value.size} numbers, more than any shape has")
        return [x.item() for x in found.value.reshape(-1)]

    def ints(self, index: int, attribute: str = "") -> list[int] | None:
        """The same for whole numbers."""
        found = self.numbers(index, attribute)
        return None if found is None else [int(x) for x in found]

    def text(self, name: str, default: str) -> str:
        """An attribute that is a word."""
        word = self.attributes.get(name, default)
        return word.decode("utf-8", "replace") if isinstance(word, bytes) else str(word)


#: most numbers that an op takes as shape, axes or limits
MAX_NUMBERS: Final = 1 << 12
Handler = Callable[[Draft, Call], Any]


def _pair(values: Sequence[int]) -> Pair:
    return int(values[0]), int(values[1])


def _window(d: Draft, c: Call, kernel: Sequence[int]) -> tuple[list[int], list[int], list[int]]:
    """stride, pads, dilation per axis; `auto_pad` becomes numbers."""
    axes = len(kernel)
    stride, dilation = list(c.attributes.get("strides", [1] * axes)), list(c.attributes.get("dilations", [1] * axes))
    pads = list(c.attributes.get("pads", [0] * (2 * axes)))
    auto = c.text("auto_pad", "NOTSET")
    if auto.startswith("SAME"):
        sizes = d.shape(c.value(0))[2:]
        total = [
            max(0, (-(-size // s) - 1) * s + r * (k - 1) + 1 - size)
            for size, k, s, r in zip(sizes, kernel, stride, dilation, strict=True)
        ]
        small, large = [t // 2 for t in total], [t - t // 2 for t in total]
        pads = small + large if auto == "SAME_UPPER" else large + small
    elif auto == "VALID":
        pads = [0] * (2 * axes)
    if len(stride) != axes or len(dilation) != axes or len(pads) != 2 * axes or min(*stride, *dilation) < 1:
        raise UnsupportedError(f"strides {stride}, dilations {dilation} and pads {pads} of a window {tuple(kernel)}")
    if min(pads) < 0:
        raise UnsupportedError(f"negative pads {pads}")
    return stride, pads, dilation


def _conv(d: Draft, c: Call) -> str:
    kernel = to.const(c.value(1)).shape[2:]
    stride, pads, dilation = _window(d, c, kernel)
    return to.conv(d, c.value(0), c.value(1), c.optional(2), stride, pads, dilation, int(c.attributes.get("group", 1)))


def _pool(how: Literal["max", "avg"]) -> Handler:
    def handler(d: Draft, c: Call) -> str:
        kernel = c.attributes["kernel_shape"]
        stride, pads, dilation = _window(d, c, kernel)
        if len(kernel) != 2 or min(kernel) < 1:
            raise UnsupportedError(f"a window {tuple(kernel)}")
        borders: Pads = (pads[0], pads[1], pads[2], pads[3])
        return to.pool(
            d, c.value(0), how, _pair(kernel), _pair(stride), borders, dilation=_pair(dilation),
            ceil=bool(c.attributes.get("ceil_mode", 0)), count_pads=bool(c.attributes.get("count_include_pad", 0)),
        )  # fmt: skip

    return handler


def _global(how: Literal["max", "avg"]) -> Handler:
    def handler(d: Draft, c: Call) -> str:
        return to.reduce(d, c.value(0), range(2, len(d.shape(c.value(0)))), True, how)

    return handler


def _reduce(how: Literal["max", "avg"]) -> Handler:
    def handler(d: Draft, c: Call) -> str:
        axes = c.ints(1, "axes")
        keep = bool(c.attributes.get("keepdims", 1))
        return to.reduce(d, c.value(0), range(len(d.shape(c.value(0)))) if axes is None else axes, keep, how)

    return handler


def _sum_over(d: Draft, c: Call) -> str:
    axes = c.ints(1, "axes")
    every = range(len(d.shape(c.value(0))))
    return to.total(d, c.value(0), every if axes is None else axes, bool(c.attributes.get("keepdims", 1)))


def _norm(d: Draft, c: Call) -> str:
    if c.attributes.get("training_mode", 0):
        raise UnsupportedError("batch normalisation in training mode")
    return to.norm(d, c.value(0), [c.value(i) for i in range(1, 5)], c.attributes.get("epsilon", 1e-5))


def _function(name: kinds.GraphFunction, default: float | None = None) -> Handler:
    def handler(d: Draft, c: Call) -> str:
        alpha = 0.0 if default is None else float(c.attributes.get("alpha", default))
        return d.add(kinds.Activation(name, alpha), to.tensor(c.value(0)))

    return handler


def _hard_sigmoid(d: Draft, c: Call) -> str:
    """clip(alpha x + beta, 0, 1), which is hard_sigmoid(6 alpha x + 6 beta - 3)."""
    alpha, beta = float(c.attributes.get("alpha", 0.2)), float(c.attributes.get("beta", 0.5))
    inside = d.add(kinds.Affine(6 * alpha, 6 * beta - 3), to.tensor(c.value(0)))
    return d.add(kinds.Activation("hard_sigmoid"), inside)


def _gelu(d: Draft, c: Call) -> str:
    if c.text("approximate", "none") != "none":
        raise UnsupportedError("an approximated GELU; ours is the exact one")
    return d.add(kinds.Activation("gelu"), to.tensor(c.value(0)))


def _swish(d: Draft, c: Call) -> str:
    if c.attributes.get("alpha", 1.0) != 1:
        raise UnsupportedError("a swish with a slope of its own")
    return d.add(kinds.Activation("silu"), to.tensor(c.value(0)))


def _erf(d: Draft, c: Call) -> str:
    return d.add(Erf(), to.tensor(c.value(0)))


def _clip(d: Draft, c: Call) -> str:
    low, high = c.numbers(1, "min"), c.numbers(2, "max")
    return to.clip(d, c.value(0), low[0] if low else None, high[0] if high else None)


def _softmax(d: Draft, c: Call) -> str:
    shape = d.shape(c.value(0))
    axis = int(c.attributes.get("axis", -1 if c.opset >= 13 else 1))
    if c.opset < 13 and math.prod(shape[axis:]) != shape[axis]:
        raise UnsupportedError(f"softmax over axes {axis} and later of {shape}")
    return to.softmax(d, c.value(0), axis)


def _two(function: Callable[[Draft, Any, Any], str]) -> Handler:
    def handler(d: Draft, c: Call) -> str:
        return function(d, c.value(0), c.value(1))

    return handler


def _sum(d: Draft, c: Call) -> Value:
    total = c.value(0)
    for i in range(1, len(c.inputs)):
        total = to.add(d, total, c.value(i))
    return total


def _neg(d: Draft, c: Call) -> str:
    return to.mul(d, c.value(0), -1.0)


def _matmul(d: Draft, c: Call) -> str:
    a, b = c.value(0), c.value(1)
    for axis, x, matrix in ((2, b, a), (3, a, b)):  # averages along rows or columns
        if isinstance(x, str) and len(d.shape(x)) == 4 and isinstance(matrix, Const) and len(matrix.shape) == 2:
            if matrix.value is None or matrix.shape[3 - axis] != d.shape(x)[axis]:
                break
            return d.add(Mix(axis, matrix.value), x)
    return to.linear(d, a, to.transposed(_matrix(b)))


def _matrix(value: Value) -> Const:
    weight = to.const(value)
    if len(weight.shape) != 2:
        raise UnsupportedError(f"a product with a weight of shape {weight.shape}")
    return weight


def _gemm(d: Draft, c: Call) -> str:
    weight, bias = _matrix(c.value(1)), c.optional(2)
    if c.attributes.get("transA", 0):
        raise UnsupportedError("a transposed activation")
    weight = weight if c.attributes.get("transB", 0) else to.transposed(weight)
    weight = _times(weight, c.attributes.get("alpha", 1.0))
    if bias is None or c.attributes.get("beta", 1.0) == 0:
        return to.linear(d, c.value(0), weight)
    if isinstance(bias, Const) and math.prod(bias.shape) == weight.shape[0]:
        bias = _times(bias.reshaped((weight.shape[0],)), c.attributes.get("beta", 1.0))
        return to.linear(d, c.value(0), weight, bias)
    if c.attributes.get("beta", 1.0) != 1:
        raise UnsupportedError("a scaled sum with an activation")
    return to.add(d, to.linear(d, c.value(0), weight), bias)


def _times(weight: Const, factor: float) -> Const:
    if factor == 1:
        return weight
    return weight.changed("scaled", weight.shape, None if weight.value is None else weight.value * factor)


def _alias(d: Draft, c: Call) -> Value:
    return c.value(0)


def _dropout(d: Draft, c: Call) -> Value:
    training = c.numbers(2)
    if training and training[0]:
        raise UnsupportedError("dropout in training mode")
    return c.value(0)


def _cast(d: Draft, c: Call) -> Value:
    if c.attributes.get("to") not in (1, 10, 11, 16):
        raise UnsupportedError(f"a cast of an activation to number type {c.attributes.get('to')}")
    return c.value(0)


def _flatten(d: Draft, c: Call) -> str:
    shape = d.shape(c.value(0))
    axis = int(c.attributes.get("axis", 1))
    axis += len(shape) if axis < 0 else 0
    return to.view(d, c.value(0), (math.prod(shape[:axis]), math.prod(shape[axis:])))


def _reshape(d: Draft, c: Call) -> str:
    shape, own = c.ints(1, "shape") or [], d.shape(c.value(0))
    if 0 in shape and c.attributes.get("allowzero", 0):
        raise UnsupportedError("an empty tensor")
    return to.view(d, c.value(0), [own[i] if size == 0 else size for i, size in enumerate(shape)])


def _squeeze(d: Draft, c: Call) -> str:
    return to.squeeze(d, c.value(0), c.ints(1, "axes"))


def _unsqueeze(d: Draft, c: Call) -> str:
    return to.unsqueeze(d, c.value(0), c.ints(1, "axes") or [])


def _transpose(d: Draft, c: Call) -> str:
    rank = len(d.shape(c.value(0)))
    order = list(c.attributes.get("perm", range(rank)[::-1]))
    if sorted(order) != list(range(rank)):
        raise UnsupportedError(f"axes in the order {order} of {rank}")
    return to.permute(d, c.value(0), order)


def _expand(d: Draft, c: Call) -> str:
    return to.expand(d, c.value(0), c.ints(1) or [])


def _concat(d: Draft, c: Call) -> str:
    return to.concat(d, [value for value in c.inputs if value is not None], int(c.attributes["axis"]))


def _split(d: Draft, c: Call) -> list[str]:
    axis = int(c.attributes.get("axis", 0))
    whole = d.shape(c.value(0))[axis]
    each = -(-whole // c.outputs)
    sizes = c.ints(1, "split") or [min(each, whole - i) for i in range(0, whole, each)]
    if sum(sizes) != whole or min(sizes) < 1 or len(sizes) != c.outputs:
        raise UnsupportedError(f"a split of {whole} into {sizes}")
    return to.split(d, c.value(0), axis, sizes)


def _slice(d: Draft, c: Call) -> Value:
    starts, ends = c.ints(1) or [], c.ints(2) or []
    axes = c.ints(3) or list(range(len(starts)))
    steps = c.ints(4) or [1] * len(starts)
    x = c.value(0)
    for axis, start, end, step in zip(axes, starts, ends, steps, strict=True):
        x = to.slice_(d, x, axis, start, end, step)
    return x


def _gather(d: Draft, c: Call) -> str:
    index, axis = to.const(c.value(1)), int(c.attributes.get("axis", 0))
    if index.shape != () or index.value is None:
        raise UnsupportedError("a gather of several indices")
    size = d.shape(c.value(0))[axis]
    first = int(index.value) % size
    return to.squeeze(d, to.slice_(d, c.value(0), axis, first, first + 1), (axis,))


def _pad(d: Draft, c: Call) -> str:
    if c.text("mode", "constant") != "constant":
        raise UnsupportedError(f"padding of mode {c.text('mode', '')}")
    pads, value, axes = c.ints(1, "pads") or [], c.numbers(2), c.ints(3)
    rank = len(d.shape(c.value(0)))
    chosen = range(rank) if axes is None else [to.axis_of(d, c.value(0), axis) for axis in axes]
    before, after = [0] * rank, [0] * rank
    for position, axis in enumerate(chosen):
        before[axis], after[axis] = pads[position], pads[position + len(chosen)]
    return to.pad(d, c.value(0), before, after, value[0] if value else 0.0)


def _resize(d: Draft, c: Call) -> str:
    shape, scales, sizes = d.shape(c.value(0)), c.numbers(2), c.ints(3)
    place = c.text("coordinate_transformation_mode", "half_pixel")
    mode, nearest = c.text("mode", "nearest"), c.text("nearest_mode", "round_prefer_floor")
    if len(shape) != 4 or c.attributes.get("antialias", 0) or "axes" in c.attributes:
        raise UnsupportedError(f"resizing {shape} with antialias or along chosen axes")
    wanted: list[float] = list(sizes or [])
    if not wanted:
        wanted = [size * scale for size, scale in zip(shape, scales or [], strict=True)]
    out = [int(size) for size in wanted]
    if out != wanted or out[:2] != list(shape[:2]):
        raise UnsupportedError(f"resizing {shape} to {wanted}")
    whole = all(o % s == 0 for o, s in zip(out[2:], shape[2:], strict=True))
    if mode == "nearest" and ((place, nearest) == ("asymmetric", "floor") or (place == "half_pixel" and whole)):
        return to.resize(d, c.value(0), out[2:], "nearest")
    if mode == "linear" and (place == "half_pixel" or (place == "pytorch_half_pixel" and min(out[2:]) > 1)):
        return to.resize(d, c.value(0), out[2:], "bilinear")
    raise UnsupportedError(f"resizing by {mode}, {place}, {nearest}")


TABLE: Final[dict[str, Handler]] = {
    "Conv": _conv, "BatchNormalization": _norm, "Gemm": _gemm, "MatMul": _matmul,
    "Relu": _function("relu"), "Sigmoid": _function("sigmoid"), "HardSwish": _function("hard_swish"),
    "Tanh": _function("tanh"), "Mish": _function("mish"), "Softplus": _function("softplus"),
    "LeakyRelu": _function("leaky_relu", 0.01),
    "Elu": _function("elu", 1.0), "HardSigmoid": _hard_sigmoid, "Gelu": _gelu, "Swish": _swish, "Erf": _erf,
    "Clip": _clip, "Softmax": _softmax,
    "Add": _two(to.add), "Sub": _two(to.sub), "Mul": _two(to.mul), "Div": _two(to.div), "Sum": _sum, "Neg": _neg,
    "MaxPool": _pool("max"), "AveragePool": _pool("avg"), "GlobalAveragePool": _global("avg"),
    "GlobalMaxPool": _global("max"), "ReduceMean": _reduce("avg"), "ReduceMax": _reduce("max"),
    "ReduceSum": _sum_over,
    "Identity": _alias, "Dropout": _dropout, "Cast": _cast, "Flatten": _flatten, "Reshape": _reshape,
    "Squeeze": _squeeze, "Unsqueeze": _unsqueeze, "Transpose": _transpose, "Expand": _expand, "Concat": _concat,
    "Split": _split, "Slice": _slice, "Gather": _gather, "Pad": _pad, "Resize": _resize,
}  # fmt: skip
