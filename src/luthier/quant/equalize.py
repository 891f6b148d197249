"""Channels of one tensor brought to one range, without a change of what the network computes.

A tensor has one scale, so a channel of small values has few levels.  Where a depthwise convolution or a product reads
the tensor, its channels may be divided by factors t[c] > 0 that the reader's weights take up:

    first -> relu -> second      w1[c], b1[c] / t[c]     and   w2[:, c] * t[c]                        (1)
    first -> f -> depthwise      f -> affine by 1 / t[c]   and   w2[c] * t[c]                         (2)

(1) is legal for relu and for no function at all, since relu(x / t) = relu(x) / t.  relu6 and the curved functions do
not have that property; (2) is legal for all of them, and is made where f is computed from the sum anyway, so that the
factor costs no rounding.

A depthwise convolution keeps channels apart and has a weight scale of its own for each: t may bring every channel to
the same range, and nothing is lost in the weights.  Of values between low[c] <= 0 and high[c] it is, with g[c] what
noise in the channel costs at the outputs (`luthier.quant.gain`),

    t[c] = max(high[c], -low[c] / rho),   rho minimising  (1 + rho)^2 sum g[c] t[c]^2                 (3)

A dense reader has one weight scale for all the channels that it sums; there the ranges of both are balanced:

    t[c] = sqrt(r1[c] / r2[c]),   r1[c] = max |x[c]|,   r2[c] = max |w2[:, c]|                        (4)

Source: (1), (4) Nagel et al. 2019, arXiv:1906.04721, section 4.1.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from luthier.graph.attrs import Activation, Affine
from luthier.graph.mbconv import is_depthwise
from luthier.graph.op import Graph, Op, Tensor
from luthier.quant.plan import Plan

Array = NDArray[Any]
#: smallest and largest value of each channel, (C,) each
Ranges = tuple[Array, Array]
_RATIOS: Final = np.geomspace(0.01, 1.0, 41)
#: a channel is not magnified beyond this share of the largest factor
_LEAST_SHARE: Final = 1e-4


@dataclass(frozen=True, slots=True)
class Pair:
    """A tensor whose channels may be scaled, with who makes and who reads it.

    Attributes:
        tensor: what `second` reads.
        first: product that takes up 1 / t, equation (1); None = an affine op behind the tensor does, equation (2).
        second: product that takes up t.
    """

    tensor: str
    first: Op | None
    second: Op


def pairs(plan: Plan) -> list[Pair]:
    """Where equation (1) or (2) is legal and may help, in the graph's order."""
    graph = plan.graph
    maker = {op.outputs[0]: op for op in graph.ops}
    owners = Counter(name for op in graph.ops for name in op.constants.values())
    found = []
    for second in graph.ops:
        if not plan.reads_integers(second) or any(owners[name] > 1 for name in second.constants.values()):
            continue
        source = second.inputs[0]
        made = maker.get(source)
        if made is None or len(plan.readers[source]) > 1 or source in graph.outputs:
            continue
        first: Op | None = made
        if isinstance(made.attrs, Activation):
            alone = len(plan.readers[made.inputs[0]]) == 1 and made.inputs[0] not in graph.outputs
            first = maker.get(made.inputs[0]) if alone and made.attrs.function in ("relu", "identity") else None
            if first is None and not (plan.from_sum(made) and is_depthwise(graph, second)):
                continue
        if first is not None:
            grouped = getattr(second.attrs, "groups", 1) > 1 and not is_depthwise(graph, second)
            shared = any(owners[name] > 1 for name in first.constants.values())
            if first.kind not in ("conv", "linear") or grouped or shared:
                continue
        found.append(Pair(source, first, second))
    return found


def equalize(
    plan: Plan, constants: Mapping[str, Array], ranges: Mapping[str, Ranges], gains: Mapping[str, Array]
) -> tuple[Graph, dict[str, Array]]:
    """The graph with equations (1) and (2) applied; it computes the same.

    Args:
        plan: of a graph in fp32, norms folded.
        constants: values by name.
        ranges: of the tensors of `pairs`.
        gains: g of those tensors, (C,).
    """
    graph, values = plan.graph, dict(constants)
    behind: dict[str, Op] = {}
    for pair in pairs(plan):
        weight = values[pair.second.constants["weight"]]
        low, high = ranges[pair.tensor]
        if is_depthwise(graph, pair.second):
            factors = _one_range(low, high, gains[pair.tensor])
        elif high.max() <= 0 or pair.second.kind == "linear":
            continue
        else:
            factors = _balanced(np.maximum(high, -low), np.abs(weight).max((0, 2, 3)))
        factors = factors.astype(weight.dtype)
        along = (-1, 1, 1, 1) if is_depthwise(graph, pair.second) else (1, -1, 1, 1)
        values[pair.second.constants["weight"]] = weight * factors.reshape(along)
        if pair.first is None:
            name = f"{pair.tensor}.equalized"
            weights = {"weight": f"{name}.weight"}
            behind[pair.tensor] = Op(name, Affine(), (pair.tensor,), (name,), weights, pair.second.block)
            values[f"{name}.weight"] = (1 / factors).astype(np.float32)
        else:
            for name in pair.first.constants.values():
                values[name] = values[name] / factors.reshape(-1, *(1,) * (values[name].ndim - 1))
    return (_with_factors(graph, behind) if behind else graph), values


def _with_factors(graph: Graph, behind: Mapping[str, Op]) -> Graph:
    """The graph with an op behind some tensors, which their readers read instead."""
    ops = []
    for op in graph.ops:
        ops.append(replace(op, inputs=tuple(behind[n].outputs[0] if n in behind else n for n in op.inputs)))
        if op.outputs[0] in behind:
            ops.append(behind[op.outputs[0]])
    tensors, described = dict(graph.tensors), dict(graph.constants)
    for source, op in behind.items():
        tensors[op.outputs[0]] = replace(graph.tensors[source], name=op.outputs[0])
        weight = op.constants["weight"]
        described[weight] = Tensor(weight, (graph.tensors[source].shape[1],))
    return replace(graph, ops=tuple(ops), tensors=tensors, constants=described)


def _one_range(low: Array, high: Array, gain: Array) -> Array:
    """Equation (3)."""
    low, high = np.minimum(low, 0.0), np.maximum(high, 0.0)
    if not low.any():
        return _held(high)
    found = [_held(np.maximum(high, -low / ratio)) for ratio in _RATIOS]
    costs = [(1 + ratio) ** 2 * float(gain @ factors**2) for ratio, factors in zip(_RATIOS, found, strict=True)]
    return found[int(np.argmin(costs))]


def _balanced(values: Array, weights: Array) -> Array:
    """Equation (4); a channel that is always 0, or that nobody weighs, stays as it is."""
    used = (values > 0) & (weights > 0)
    return _held(np.sqrt(np.divide(values, weights, out=np.ones_like(values), where=used)))


def _held(factors: Array) -> Array:
    largest = factors.max()
    return np.maximum(factors, _LEAST_SHARE * largest) if largest > 0 else np.ones_like(factors)
