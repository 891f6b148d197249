"""ATen ops -> draft ops: one function or one line for each op that networks of this field use.

Arguments come as ATen's schema has them, tensors as names of activations or as weights.  Both forms are read: as
torch.export writes them, and as they are after functionalisation.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Final, Literal

from luthier.graph import attrs as kinds
from luthier.graph import translate as to
from luthier.graph.draft import Draft, Erf, UnsupportedError, Value

#: what hands on its input unchanged, in evaluation
ALIASES: Final = frozenset({
    "aten.dropout", "aten.feature_dropout", "aten.alpha_dropout", "aten.contiguous", "aten.clone", "aten.detach",
    "aten.alias", "aten.lift_fresh_copy", "aten.to", "aten._to_copy", "aten.type_as",
})  # fmt: skip
#: what only asserts something about the trace
CHECKS: Final = frozenset({"aten._assert_tensor_metadata", "aten._assert_scalar", "aten._assert_async"})


def _two(value: int | Sequence[int], count: int = 2) -> tuple[int, ...]:
    """A number for all axes, or one for each."""
    values = (value,) if isinstance(value, int) else tuple(value)
    return values * count if len(values) == 1 else values


def _alias(d: Draft, x: Value, *args: Any, **kwargs: Any) -> Value:
    return x


def _dropout(d: Draft, x: Value, p: float, train: bool) -> Value:
    if train and p:
        raise UnsupportedError("dropout that stays on in evaluation; pass training=self.training")
    return x


def _conv(
    d: Draft, x: Value, weight: Value, bias: Value | None = None, stride: Any = 1, padding: Any = 0, dilation: Any = 1,
    groups: int = 1,
) -> str:  # fmt: skip
    axes = len(d.shape(weight)) - 2
    spread = _two(dilation, axes)
    if isinstance(padding, str):
        total = [
            step * (k - 1) if padding == "same" else 0 for step, k in zip(spread, d.shape(weight)[2:], strict=True)
        ]
        before, after = [t // 2 for t in total], [t - t // 2 for t in total]
    else:
        before = after = list(_two(padding, axes))
    return to.conv(d, x, weight, bias, _two(stride, axes), [*before, *after], spread, groups)


def _convolution(
    d: Draft, x: Value, weight: Value, bias: Value | None, stride: Any, padding: Any, dilation: Any, transposed: bool,
    output_padding: Any, groups: int,
) -> str:  # fmt: skip
    if transposed:
        raise UnsupportedError("a transposed convolution")
    return _conv(d, x, weight, bias, stride, padding, dilation, groups)


def _batch_norm(
    d: Draft, x: Value, weight: Value | None, bias: Value | None, mean: Value | None, var: Value | None,
    training: bool, momentum: float, eps: float, cudnn: bool = True,
) -> str:  # fmt: skip
    if training:
        raise UnsupportedError("batch normalisation with the batch's own statistics")
    return to.norm(d, x, (weight, bias, mean, var), eps)


def _norm_decomposed(
    d: Draft, x: Value, weight: Value | None, bias: Value | None, mean: Value, var: Value, momentum: float, eps: float
) -> list[str | None]:
    return [to.norm(d, x, (weight, bias, mean, var), eps), None, None]


def _function(name: kinds.GraphFunction) -> Callable[..., str]:
    def handler(d: Draft, x: Value) -> str:
        return d.add(kinds.Activation(name), to.tensor(x))

    return handler


def _gelu(d: Draft, x: Value, approximate: str = "none") -> str:
    if approximate != "none":
        raise UnsupportedError(f"GELU approximated by {approximate}; ours is the exact one")
    return d.add(kinds.Activation("gelu"), to.tensor(x))


def _leaky(d: Draft, x: Value, negative_slope: float = 0.01) -> str:
    return d.add(kinds.Activation("leaky_relu", negative_slope), to.tensor(x))


def _elu(d: Draft, x: Value, alpha: float = 1.0, scale: float = 1.0, input_scale: float = 1.0) -> str:
    if (scale, input_scale) != (1, 1):
        raise UnsupportedError("a scaled ELU")
    return d.add(kinds.Activation("elu", alpha), to.tensor(x))


def _erf(d: Draft, x: Value) -> str:
    return d.add(Erf(), to.tensor(x))


def _clip(d: Draft, x: Value, low: float | None = None, high: float | None = None) -> str:
    return to.clip(d, x, low, high)


def _hardtanh(d: Draft, x: Value, min_val: float = -1.0, max_val: float = 1.0) -> str:
    return to.clip(d, x, min_val, max_val)


def _add(d: Draft, a: Value, b: Value | float, alpha: float = 1) -> str:
    return to.add(d, a, b if alpha == 1 else to.mul(d, b, alpha))


def _sub(d: Draft, a: Value | float, b: Value | float, alpha: float = 1) -> str:
    return to.sub(d, a, b if alpha == 1 else to.mul(d, b, alpha))


def _rsub(d: Draft, a: Value, b: Value | float, alpha: float = 1) -> str:
    return _sub(d, b, a, alpha)


def _div(d: Draft, a: Value, b: Value | float, rounding_mode: str | None = None) -> str:
    if rounding_mode is not None:
        raise UnsupportedError("a rounded quotient")
    return to.div(d, a, b)


def _neg(d: Draft, x: Value) -> str:
    return to.mul(d, x, -1.0)


def _reduce(how: Literal["max", "avg"]) -> Callable[..., str]:
    def handler(d: Draft, x: Value, dim: Any, keepdim: bool = False, dtype: object = None) -> str:
        axes = range(len(d.shape(x))) if dim is None else (dim,) if isinstance(dim, int) else dim
        return to.reduce(d, x, list(axes), keepdim, how)

    return handler


def _sum(d: Draft, x: Value, dim: Any, keepdim: bool = False, dtype: object = None) -> str:
    axes = range(len(d.shape(x))) if dim is None else (dim,) if isinstance(dim, int) else dim
    return to.total(d, x, list(axes), keepdim)


def _max(d: Draft, x: Value, dim: Any = None, keepdim: bool = False) -> list[str | None]:
    """Values and places; nobody may ask for the places."""
    if not isinstance(dim, int):
        raise UnsupportedError("a maximum of two tensors or of a whole one")
    return [to.reduce(d, x, [dim], keepdim, "max"), None]


def _softplus(d: Draft, x: Value, beta: float = 1.0, threshold: float = 20.0) -> str:
    if beta != 1 or threshold < 20:  # beyond 20 log(1 + e^x) - x is less than half a step of fp32
        raise UnsupportedError(f"softplus with beta {beta} and threshold {threshold}")
    return d.add(kinds.Activation("softplus"), to.tensor(x))


def _pool(how: Literal["max", "avg"]) -> Callable[..., str]:
    def handler(d: Draft, x: Value, kernel: Any, stride: Any = (), padding: Any = 0, *rest: Any, **named: Any) -> str:
        # behind the padding: max has (dilation, ceil_mode); avg (ceil_mode, count_include_pad, divisor_override)
        names = ("dilation", "ceil_mode") if how == "max" else ("ceil_mode", "count_include_pad", "divisor_override")
        given = {**dict(zip(names, rest, strict=False)), **named}
        if given.get("divisor_override") is not None:
            raise UnsupportedError("an average with a divisor of its own")
        window, side = _two(kernel), _two(padding)
        step = _two(stride) if stride not in ((), [], None) else window
        return to.pool(
            d, x, how, (window[0], window[1]), (step[0], step[1]), (side[0], side[1], side[0], side[1]),
            dilation=(_two(given.get("dilation", 1))[0], _two(given.get("dilation", 1))[1]),
            ceil=given.get("ceil_mode", False), count_pads=how == "avg" and given.get("count_include_pad", True),
        )  # fmt: skip

    return handler


def _pool_with_indices(d: Draft, *args: Any, **kwargs: Any) -> list[str | None]:
    return [_pool("max")(d, *args, **kwargs), None]


def _adaptive(how: Literal["max", "avg"]) -> Callable[..., Any]:
    def handler(d: Draft, x: Value, out: Any) -> str:
        return to.adaptive_pool(d, x, _two(out), how)

    return handler


def _adaptive_max(d: Draft, x: Value, out: Any) -> list[str | None]:
    return [to.adaptive_pool(d, x, _two(out), "max"), None]


def _linear(d: Draft, x: Value, weight: Value, bias: Value | None = None) -> str:
    return to.linear(d, x, weight, bias)


def _matmul(d: Draft, x: Value, weight: Value) -> str:
    return to.linear(d, x, to.transposed(to.const(weight)))


def _addmm(d: Draft, bias: Value, x: Value, weight: Value, beta: float = 1, alpha: float = 1) -> str:
    if (alpha, beta) != (1, 1):
        raise UnsupportedError("a weighted addmm")
    return to.linear(d, x, to.transposed(to.const(weight)), bias)


def _view(d: Draft, x: Value, shape: Any) -> str:
    return to.view(d, x, shape)


def _flatten(d: Draft, x: Value, start: int = 0, end: int = -1) -> str:
    return to.flatten(d, x, start, end)


def _unflatten(d: Draft, x: Value, axis: int, sizes: Sequence[int]) -> str:
    shape = d.shape(x)
    axis %= len(shape)
    return to.view(d, x, (*shape[:axis], *sizes, *shape[axis + 1 :]))


def _squeeze(d: Draft, x: Value, axes: Any = None) -> str:
    return to.squeeze(d, x, (axes,) if isinstance(axes, int) else axes)


def _unsqueeze(d: Draft, x: Value, axis: int) -> str:
    return to.unsqueeze(d, x, (axis,))


def _permute(d: Draft, x: Value, order: Sequence[int]) -> str:
    return to.permute(d, x, order)


def _transpose(d: Draft, x: Value, a: int = 0, b: int = 1) -> str:
    order = list(range(len(d.shape(x))))
    order[a], order[b] = order[b], order[a]
    return to.permute(d, x, order)


def _expand(d: Draft, x: Value, shape: Sequence[int], implicit: bool = False) -> str:
    return to.expand(d, x, shape)


def _expand_as(d: Draft, x: Value, other: Value) -> str:
    return to.expand(d, x, d.shape(other))


def _view_as(d: Draft, x: Value, other: Value) -> str:
    return to.view(d, x, d.shape(other))


def _slice(d: Draft, x: Value, dim: int = 0, start: int | None = None, end: int | None = None, step: int = 1) -> str:
    return to.slice_(d, x, dim, start, end, step)


def _select(d: Draft, x: Value, axis: int, index: int) -> str:
    size = d.shape(x)[axis]
    index %= size
    return to.squeeze(d, to.slice_(d, x, axis, index, index + 1), (axis,))


def _narrow(d: Draft, x: Value, dim: int, start: int, length: int) -> str:
    return to.slice_(d, x, dim, start, start + length)


def _chunk(d: Draft, x: Value, chunks: int, dim: int = 0) -> list[str]:
    return _split(d, x, -(-d.shape(x)[dim] // chunks), dim)


def _split(d: Draft, x: Value, size: int | Sequence[int], dim: int = 0) -> list[str]:
    whole = d.shape(x)[dim]
    sizes = [min(size, whole - i) for i in range(0, whole, size)] if isinstance(size, int) else list(size)
    return to.split(d, x, dim, sizes)


def _slice_scatter(
    d: Draft, x: Value, src: Value, dim: int = 0, start: int | None = None, end: int | None = None, step: int = 1
) -> str:
    """Writing over a range is a concatenation with what lies before and behind it."""
    if step != 1:
        raise UnsupportedError(f"writing with a step of {step}")
    low, high, size = *slice(start, end).indices(d.shape(x)[dim])[:2], d.shape(x)[dim]
    before = [to.slice_(d, x, dim, 0, low)] if low else []
    after = [to.slice_(d, x, dim, high, size)] if high < size else []
    return to.concat(d, [*before, src, *after], dim)


def _cat(d: Draft, values: Sequence[Value], dim: int = 0) -> str:
    return to.concat(d, values, dim)


def _pad(d: Draft, x: Value, pad: Sequence[int], mode: str | float = "constant", value: float | None = None) -> str:
    if isinstance(mode, int | float):  # constant_pad_nd has the value here
        value = mode
    elif mode != "constant":
        raise UnsupportedError(f"padding of mode {mode}")
    return to.pad(d, x, list(pad[::2])[::-1], list(pad[1::2])[::-1], value or 0.0)


def _shuffle(d: Draft, x: Value, groups: int) -> str:
    return d.add(kinds.Shuffle(groups), to.tensor(x))


def _softmax(d: Draft, x: Value, dim: int, dtype: object = None) -> str:
    return to.softmax(d, x, dim)


def _resize(mode: Literal["nearest", "bilinear"]) -> Callable[..., str]:
    def handler(d: Draft, x: Value, size: Any, *rest: Any, **named: Any) -> str:
        corners = mode == "bilinear" and (rest[0] if rest else named.get("align_corners"))
        factors: Any = rest[-1] if rest and not isinstance(rest[-1], bool) else named.get("scale_factors")
        if corners:
            raise UnsupportedError("bilinear resizing with aligned corners")
        if size is None:
            sizes = [int(side * factor) for side, factor in zip(d.shape(x)[2:], factors, strict=True)]
            # torch maps pixels by the factor itself, which is H / H_out only if the product is whole
            if any(out != side * f for out, side, f in zip(sizes, d.shape(x)[2:], factors, strict=True)):
                raise UnsupportedError(f"resizing {d.shape(x)[2:]} by {factors}")
            size = sizes
        return to.resize(d, x, size, mode)

    return handler


_BY_NAME: dict[str, Callable[..., Any]] = {
    "conv1d": _conv, "conv2d": _conv, "convolution": _convolution, "batch_norm": _batch_norm,
    "_native_batch_norm_legit_no_training": _norm_decomposed,
    "relu": _function("relu"), "relu6": _function("relu6"), "silu": _function("silu"), "mish": _function("mish"),
    "hardswish": _function("hard_swish"), "sigmoid": _function("sigmoid"), "hardsigmoid": _function("hard_sigmoid"),
    "tanh": _function("tanh"), "gelu": _gelu, "leaky_relu": _leaky, "elu": _elu,
    "softplus": _softplus, "erf": _erf, "special_erf": _erf,
    "clamp": _clip, "clip": _clip, "clamp_min": _clip, "hardtanh": _hardtanh,
    "add": _add, "sub": _sub, "rsub": _rsub, "mul": to.mul, "div": _div, "neg": _neg,
    "mean": _reduce("avg"), "amax": _reduce("max"), "max": _max, "sum": _sum,
    "max_pool2d": _pool("max"), "avg_pool2d": _pool("avg"),
    "max_pool2d_with_indices": _pool_with_indices, "adaptive_avg_pool2d": _adaptive("avg"),
    "_adaptive_avg_pool2d": _adaptive("avg"), "adaptive_max_pool2d": _adaptive_max,
    "linear": _linear, "matmul": _matmul, "mm": _matmul, "addmm": _addmm,
    "view": _view, "reshape": _view, "_unsafe_view": _view, "view_as": _view_as, "reshape_as": _view_as,
    "flatten": _flatten, "unflatten": _unflatten, "squeeze": _squeeze, "unsqueeze": _unsqueeze,
    "permute": _permute, "transpose": _transpose, "t": _transpose, "expand": _expand, "expand_as": _expand_as,
    "slice": _slice, "select": _select, "narrow": _narrow, "chunk": _chunk, "split": _split,
    "split_with_sizes": _split, "slice_scatter": _slice_scatter, "cat": _cat, "concat": _cat, "pad": _pad,
    "constant_pad_nd": _pad,
    "channel_shuffle": _shuffle, "native_channel_shuffle": _shuffle, "softmax": _softmax, "_softmax": _softmax,
    "upsample_nearest2d": _resize("nearest"), "upsample_bilinear2d": _resize("bilinear"),
}  # fmt: skip
TABLE: Final[dict[str, Callable[..., Any]]] = {
    **dict.fromkeys(ALIASES, _alias),
    **{f"aten.{name}": handler for name, handler in _BY_NAME.items()},
    **dict.fromkeys(("aten.dropout", "aten.feature_dropout", "aten.alpha_dropout"), _dropout),
}
