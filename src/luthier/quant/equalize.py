"""Channels of one tensor brought to one range, without a change of what the network computes.

A tensor has one scale, so a channel of small values has few levels.  Ops that treat channels apart and are
homogeneous, f(x / t) = f(x) / t for t > 0, hand factors t[c] on: relu, sums, averages, maxima, and a gate's product
with its first operand.  Tensors that they connect are divided by one t, which the products around take up:

    a product that makes one       w[c], b[c] / t[c]                                                  (1)
    a function that makes one      is followed by an affine op, 1 / t[c]                              (2)
    a product that reads one       w[:, c] * t[c]                                                     (3)

Legal where all who make and read such tensors are of these kinds, and none is an input or output of the graph.  relu6
and the curved functions are not homogeneous; (2) is used for those that are computed from a sum, where the factor costs
no rounding, and in front of depthwise convolutions alone, where it pays most.

t is chosen for the least noise at the outputs, as rounding alone makes it:

    sum over tensors    D^2 / 12 sum_c g[c] t[c]^2 n,    D = (max_c high[c] / t[c] - min_c low[c] / t[c]) / qmax
    + dense readers     k sum_o g_y[o] n_y sum_c e[o, c]^2 Var x[c] / t[c]^2                          (4)

g is the gain to the outputs (`luthier.quant.gain`), n the elements of a channel, e what rounding does to w t.  An error
of a weight multiplies x without its mean, which the bias takes up (`luthier.quant.correct`); what is left changes sign
from place to place.  Were places independent, k would be 1, and n_y (up to 3,136) were it alike everywhere; measured
on MobileNetV3-Small it is 1.8 to 5.4.  Here k = 10, for the t that is chosen is one whose cost came out too low: with
1, 3 and 10 its scores are at 15.5, 15.7 and 15.8 dB.  A depthwise reader has a scale for each channel's weights, and so
loses nothing.  Tried are t = max(high, -low / rho)^a for some rho and a; a = 0 changes nothing.

Source: (1), (3) Nagel et al. 2019, arXiv:1906.04721, section 4.1, there for pairs of layers and a = 1/2.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import product
from math import prod
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from luthier.graph import attrs as kinds
from luthier.graph.connected import connected
from luthier.graph.mbconv import is_depthwise
from luthier.graph.op import Graph, Op, Tensor
from luthier.quant.affine import ACTIVATION_TYPES, WEIGHT_TYPES, quantize_weight, weight_scales
from luthier.quant.plan import Plan, is_product

Array = NDArray[Any]
_RATIOS: Final = (0.02, 0.05, 0.1, 0.2, 0.4, 1.0)
_POWERS: Final = (0.0, 0.25, 0.5, 0.75, 1.0)
#: k of (4)
_COHERENCE: Final = 10.0
#: a channel is not magnified beyond this share of the largest factor
_LEAST_SHARE: Final = 1e-3


@dataclass(frozen=True, slots=True)
class Seen:
    """What the channels of a tensor held: smallest, largest, mean, mean square; (C,) each."""

    low: Array
    high: Array
    mean: Array
    power: Array

    @property
    def variance(self) -> Array:
        """Mean square of the distance from the mean; (C,).

        Example:
            >>> Seen(np.zeros(1), np.array([4.0]), np.array([3.0]), np.array([10.0])).variance.tolist()
            [1.0]
        """
        return np.asarray(np.maximum(self.power - self.mean**2, 0))


@dataclass(frozen=True, slots=True)
class Tied:
    """Tensors that share factors.

    Attributes:
        tensors: their names.
        made: products that take up 1 / t.
        functions: activations that an affine op follows.
        read: products that take up t.
    """

    tensors: tuple[str, ...]
    made: tuple[Op, ...]
    functions: tuple[Op, ...]
    read: tuple[Op, ...]


def tied(plan: Plan) -> list[Tied]:
    """Where equations (1) to (3) are legal, in the graph's order."""
    graph = plan.graph
    sets = connected(graph.tensors, ((op.outputs[0], name) for op in graph.ops for name in _through(graph, op)))
    maker = graph.makers()
    owners = Counter(name for op in graph.ops for name in op.constants.values())
    found = []
    for inside in map(set, sets):
        members = [name for name in graph.tensors if name in inside]
        made = [maker.get(name) for name in members]
        readers = [op for op in graph.ops if inside.intersection(op.inputs)]
        ends = [op for op in readers if not _passes(graph, op, inside)]
        starts = [op for op in made if op is None or not _passes(graph, op, inside)]
        if not ends or inside.intersection(graph.outputs) or not all(_takes(plan, op, owners) for op in ends):
            continue
        products = [op for op in starts if op is not None and owns(op, owners)]
        apart = all(op.kind == "conv" and is_depthwise(graph, op) for op in ends)
        functions = [op for op in starts if op is not None and plan.from_sum(op) and apart]
        if len(products) + len(functions) == len(starts) and inside & plan.scaled:
            found.append(Tied(tuple(members), tuple(products), tuple(functions), tuple(ends)))
    return found


def _through(graph: Graph, op: Op) -> tuple[str, ...]:
    """The inputs of an op whose factors its output has too."""
    match op.attrs:
        case kinds.Activation(function="relu" | "identity") | kinds.Pool() | kinds.GlobalPool() | kinds.AdaptivePool():
            return op.inputs
        case kinds.Add() if len({graph.tensors[name].shape[1] for name in op.inputs}) == 1:
            return op.inputs
        case kinds.Mul() if op.inputs[0] != op.inputs[1]:
            return op.inputs[:1]
        case kinds.Flatten() | kinds.Reshape() if graph.output_shape(op)[1] == graph.input_shapes(op)[0][1]:
            return op.inputs
        case _:
            return ()


def _passes(graph: Graph, op: Op, inside: set[str]) -> bool:
    """Whether an op lies within a set: it writes to it, and all that it reads of it hands factors on."""
    through = _through(graph, op)
    return bool(through) and op.outputs[0] in inside and inside.intersection(op.inputs) <= set(through)


def _takes(plan: Plan, op: Op, owners: Counter[str]) -> bool:
    if not owns(op, owners):
        return False
    return not isinstance(op.attrs, kinds.Conv) or op.attrs.groups == 1 or is_depthwise(plan.graph, op)


def owns(op: Op, owners: Counter[str]) -> bool:
    """Whether an op is a product that shares its constants with no other.

    Args:
        owners: how many ops have each constant, by name.
    """
    return is_product(op) and all(owners[name] == 1 for name in op.constants.values())


def equalize(
    plan: Plan, constants: Mapping[str, Array], seen: Mapping[str, Seen], gains: Mapping[str, Array]
) -> tuple[Graph, dict[str, Array]]:
    """The graph with equations (1) to (3) applied where (4) says that it pays; it computes the same.

    Args:
        plan: of a graph in fp32, norms folded.
        constants: values by name.
        seen: of the tensors of `tied`.
        gains: g of all tensors, (C,).
    """
    chosen = [(one, _best(plan, constants, one, seen, gains)) for one in tied(plan)]
    return rescaled(plan.graph, constants, [(one, factors) for one, factors in chosen if factors is not None])


def rescaled(
    graph: Graph, constants: Mapping[str, Array], chosen: Sequence[tuple[Tied, Array]]
) -> tuple[Graph, dict[str, Array]]:
    """Equations (1) to (3) for given factors, (C,) each and above 0; the graph computes the same."""
    values = dict(constants)
    behind: dict[str, Op] = {}
    for one, factors in chosen:
        for op in one.made:
            for name in op.constants.values():
                values[name] = values[name] / factors.reshape(-1, *(1,) * (values[name].ndim - 1))
        for op in one.functions:
            source = op.outputs[0]
            name = f"{source}.equalized"
            behind[source] = Op(name, kinds.Affine(), (source,), (name,), {"weight": f"{name}.weight"}, op.block)
            values[f"{name}.weight"] = (1 / factors).astype(np.float32)
        for op in one.read:
            name = op.constants["weight"]
            values[name] = values[name] * _along(graph, op, factors)
    return (_with_factors(graph, behind) if behind else graph), values


def _along(graph: Graph, op: Op, factors: Array) -> Array:
    """Factors of an op's inputs beside its weight."""
    rank = len(graph.constant_shapes(op)["weight"])
    if op.kind == "conv" and is_depthwise(graph, op):
        each = graph.output_shape(op)[1] // len(factors)
        return factors.repeat(each).reshape(-1, *(1,) * (rank - 1))
    return factors.reshape(1, -1, *(1,) * (rank - 2))


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


def _best(
    plan: Plan, values: Mapping[str, Array], one: Tied, seen: Mapping[str, Seen], gains: Mapping[str, Array]
) -> Array | None:
    """t of least (4); None = as it is."""
    functions = {op.outputs[0] for op in one.functions}
    stored = [name for name in one.tensors if name in functions or (name in plan.scaled and plan.counted(name))]
    if not stored:
        return None
    found: list[tuple[float, Array | None]] = []
    for ratio, power in product(_RATIOS, _POWERS):
        if power == 0 and found:
            continue
        factors = _held(_reference((seen[name] for name in stored), ratio) ** power)
        cost = sum(_stored_noise(plan, name, seen[name], gains[name], factors) for name in stored)
        cost += sum(_weight_noise(plan, values, op, seen[op.inputs[0]], gains, factors) for op in one.read)
        found.append((cost, factors if power else None))
    return min(found, key=lambda pair: pair[0])[1]


def _reference(tensors: Iterable[Seen], ratio: float) -> Array:
    """The reach of every channel, as a share of the largest, in the tensor where that is most."""
    reaches = [np.maximum(one.high, -one.low / ratio) for one in tensors]
    return np.asarray(np.max([reach / max(float(reach.max()), 1e-30) for reach in reaches], 0), np.float64)


def _held(factors: Array) -> Array:
    return np.maximum(factors, _LEAST_SHARE * max(float(factors.max()), 1e-30))


def _stored_noise(plan: Plan, name: str, seen: Seen, gain: Array, factors: Array) -> float:
    kind = ACTIVATION_TYPES.get(plan.stored[name], ACTIVATION_TYPES["int8"])
    level = (max(0.0, float((seen.high / factors).max())) - min(0.0, float((seen.low / factors).min()))) / kind.qmax
    pixels = prod(plan.graph.tensors[name].shape[2:])
    return level**2 / 12 * float(gain @ factors**2) * pixels


def _weight_noise(
    plan: Plan, values: Mapping[str, Array], op: Op, seen: Seen, gains: Mapping[str, Array], factors: Array
) -> float:
    weight_type = plan.numbers[op.name].weight
    if weight_type not in WEIGHT_TYPES or (op.kind == "conv" and is_depthwise(plan.graph, op)):
        return 0.0
    kind = WEIGHT_TYPES[weight_type]
    weight = values[op.constants["weight"]] * _along(plan.graph, op, factors)
    scales = weight_scales(weight, None, 1.0, kind).reshape(-1, *(1,) * (weight.ndim - 1))
    error = weight - scales * quantize_weight(weight, scales.ravel(), kind)
    met = (error**2).reshape(*weight.shape[:2], -1).sum(2) @ (seen.variance / factors**2)
    return _COHERENCE * float(gains[op.outputs[0]] @ met) * prod(plan.graph.output_shape(op)[2:])
