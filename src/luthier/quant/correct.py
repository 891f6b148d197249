"""Layer by layer, on what the layers before hand on: weights rounded to sums, and biases that keep every mean.

    b'[c] = rint((E[y_fp32[c]] - E[sum without bias]) / (s_x * s_w[c]))                              (1)

Rounding errors of weights and activations have a mean, and what follows may amplify it: a depthwise kernel whose taps
nearly cancel multiplies a large input by a small sum.  Layers are corrected in order, each on what the corrected ones
before it hand on, so that later means also make up for what rounding behind a function shifts.

Source: Nagel et al. 2019, arXiv:1906.04721, section 4.2, with the means measured instead of derived.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from types import MappingProxyType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from luthier.graph.attrs import Conv, Linear
from luthier.graph.integers import in_integers, levels, sum_scales, to_reals
from luthier.graph.op import Graph, Op, Tensor
from luthier.quant.affine import WEIGHT_TYPES
from luthier.quant.calibrate import Batch
from luthier.quant.gain import channel_means
from luthier.quant.integer import as_tensor, compute, on_reals, read_integers
from luthier.quant.rounding import covariances, round_to_sums

Array = NDArray[Any]


def refine(
    graph: Graph, constants: Mapping[str, Array], batches: Sequence[Batch], means: Mapping[str, Array] | None,
    exact: Mapping[str, Array] = MappingProxyType({}),
) -> tuple[Graph, dict[str, Array]]:  # fmt: skip
    """Equation (1) for every product with integer weights; a bias is added where there was none.

    Args:
        graph: quantised.
        constants: its values by name.
        batches: float32 arrays in the order of the graph's inputs.
        means: in fp32, of what those layers write, by the tensor's name; (C_out,).  None = biases stay.
        exact: weights before rounding, by name; those are rounded as `luthier.quant.rounding` says first.
    """
    values = dict(constants)
    described, ops = dict(graph.constants), []
    stored: dict[str, list[Callable[[], Array]]] = {
        name: [partial(as_tensor, batch[i], graph.tensors[name]) for batch in batches]
        for i, name in enumerate(graph.inputs)
    }
    last_reader = {name: op.name for op in graph.ops for name in op.inputs}
    for op in graph.ops:
        if isinstance(op.attrs, Conv | Linear) and graph.constants[op.constants["weight"]].scale is not None:
            weight, source = op.constants["weight"], stored[op.inputs[0]]
            if weight in exact:
                values[weight] = _rounded(graph, op, exact[weight], source)
            if means is not None:
                op, bias = _with_bias(graph, op)
                described[bias.name] = bias
                graph = replace(graph, constants=described)
                values[bias.name] = _corrected(graph, op, values, source, means[op.outputs[0]])
        own = {role: values[name] for role, name in op.constants.items()}
        out = [
            partial(_computed, graph, op, arrays, own) for arrays in zip(*(stored[n] for n in op.inputs), strict=True)
        ]
        # sums that a function is computed from are never kept: numbers of 32 bits, and many
        passing = op.kind in ("conv", "linear") and graph.tensors[op.outputs[0]].scale is None
        stored[op.outputs[0]] = [*out] if passing else [partial(_same, make()) for make in out]
        for name in op.inputs:
            if last_reader[name] == op.name:
                stored.pop(name, None)
        ops.append(op)
    return replace(graph, ops=tuple(ops)), values


def _computed(graph: Graph, op: Op, inputs: Sequence[Callable[[], Array]], own: Mapping[str, Array]) -> Array:
    return compute(graph, op, [make() for make in inputs], own)


def _same(array: Array) -> Array:
    return array


def _with_bias(graph: Graph, op: Op) -> tuple[Op, Tensor]:
    if "bias" in op.constants:
        return op, graph.constants[op.constants["bias"]]
    name, count = f"{op.name}.bias", graph.output_shape(op)[1]
    bias = Tensor(name, (count,))
    if in_integers(graph, op):
        bias = Tensor(name, (count,), "int32", tuple(sum_scales(graph, op).tolist()), 0)
    return replace(op, constants={**op.constants, "bias": bias.name}), bias


def _rounded(graph: Graph, op: Op, exact: Array, batches: Sequence[Callable[[], Array]]) -> Array:
    assert isinstance(op.attrs, Conv | Linear)
    source, weight = graph.tensors[op.inputs[0]], graph.constants[op.constants["weight"]]
    reals = (
        x if source.scale is None else to_reals(read_integers(x, source), source) for x in (make() for make in batches)
    )
    met = covariances(reals, op.attrs, exact.shape[2:])
    kind = WEIGHT_TYPES[weight.dtype]  # type: ignore[index]  # int8 or int4, since it has a scale
    return round_to_sums(exact, np.array(weight.scale), met, kind)


def _corrected(
    graph: Graph, op: Op, values: Mapping[str, Array], batches: Sequence[Callable[[], Array]], want: Array
) -> Array:
    assert isinstance(op.attrs, Conv | Linear)
    weight = values[op.constants["weight"]]
    if not in_integers(graph, op):
        own = {"weight": weight}
        got = np.mean([channel_means(on_reals(graph, op, [make()], own)) for make in batches], 0)
        return np.asarray(want - got, np.float32)
    unit = sum_scales(graph, op)
    source = graph.tensors[op.inputs[0]]
    zero, out_hw = levels(source)[1], graph.output_shape(op)[2:]
    got = np.mean([mean_sums(read_integers(make(), source), zero, op.attrs, weight, out_hw) for make in batches], 0)
    return np.asarray(np.rint(want / unit - got), np.int32)


def mean_sums(x: Array, zero: int, attrs: Conv | Linear, weight: Array, out_hw: tuple[int, ...]) -> Array:
    """The mean of the sums of equation (1), from the mean of what each tap meets: sums need not be taken.

        E[sum of w[o, c, tap] q'(c, place + tap)] = sum of w[o, c, tap] E[q'(c, place + tap)]        (2)

    Args:
        x: integers (N, C, H, W), or (N, C).
        zero: of x; padding counts as such.
        weight: (C_out, C / G, K_H, K_W), or (C_out, C).
        out_hw: of the sums.
    Returns:
        (C_out,) float64.
    Example:
        >>> row = np.array([[[[1, 2, 3]]]], np.uint8)
        >>> mean_sums(row, 0, Conv((1, 1), (0, 1, 0, 1)), np.ones((1, 1, 1, 3)), (1, 3)).tolist()  # 3, 6, 5
        [4.666666666666667]
    """
    if isinstance(attrs, Linear):
        return np.asarray(weight.astype(np.float64) @ (x.mean(0, dtype=np.float64) - zero))
    top, left, bottom, right = attrs.pads
    if any(attrs.pads):
        x = np.pad(x, ((0, 0), (0, 0), (top, bottom), (left, right)), constant_values=zero)
    kernel, places = weight.shape[2:], len(x) * out_hw[0] * out_hw[1]
    met = np.empty((x.shape[1], *kernel))

    def reach(axis: int, tap: int) -> slice:
        first = tap * attrs.dilation[axis]
        return slice(first, first + attrs.stride[axis] * (out_hw[axis] - 1) + 1, attrs.stride[axis])

    for i in range(kernel[0]):
        columns = x[:, :, reach(0, i)].sum((0, 2), dtype=np.float64)
        for j in range(kernel[1]):
            met[:, i, j] = columns[:, reach(1, j)].sum(1) / places - zero
    grouped = weight.astype(np.float64).reshape(attrs.groups, -1, met[0].size * weight.shape[1])
    return np.asarray((grouped @ met.reshape(attrs.groups, -1, 1)).ravel())
