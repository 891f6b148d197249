"""Numbers for the constants of a network's graph, and how far a plan is from what the graph means."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from luthier.arch import Network, Precision
from luthier.graph import Graph, fold_norm_into_conv, from_network
from luthier.graph.halves import from_bf16, to_bf16
from luthier.graph.integers import in_integers
from luthier.graph.precision import with_precision
from luthier.graph.reference import evaluate
from luthier.graph.reference import run as reference
from luthier.graph.untrained import random_weights
from luthier.quant import integer, quantize
from luthier.quant.plan import Plan

#: equations (1) to (3) of `posed`
TOLERANCE, FACTOR = {"fp32": 1e-5, "bf16": 2e-2, "int8": 5e-2}, 3.0
TYPES = ("fp32", "bf16", "int8")
Array = np.ndarray[Any, Any]


def graph_with_numbers(network: Network, *, seed: int = 0, **how: Any) -> tuple[Graph, dict[str, Array]]:
    """A folded graph, and float32 constants under which every layer keeps its signal alive."""
    graph = fold_norm_into_conv(from_network(network, **how))
    return graph, random_weights(graph, seed)


@dataclass(frozen=True)
class Posed:
    """A graph in a number type, and what a plan of it must give.

    Attributes:
        want: the right answer.
        limit: of `relative_error` between a plan and `want`; 0 = every bit.
        noise: `relative_error` of the number type itself, in NumPy, from the truth.
    """

    graph: Graph
    constants: dict[str, Array]
    want: Array
    limit: float
    noise: float


def posed(graph: Graph, constants: dict[str, Array], x: Array, dtype: str, images: Array, truth: Array) -> Posed:
    """The graph in a number type.

        fp32    max |y - y64| <= max(1e-5, 3 e) max |y64|,     e = the relative error of NumPy in fp32     (1)
        bf16    max |y - y64| <= max(2e-2, 3 e) max |y64|,     e = that of NumPy, every tensor in bf16     (2)
        int8    every bit is that of `luthier.quant.integer`                                              (3)
                where an op stays in fp32:  max |y - y8| <= 5e-2 max |y8|

    Sums in any other order may be as far off as NumPy's.

    Args:
        images: (N, ...) for the scales of int8.
        truth: what the graph means, in double precision.
    """
    if dtype == "int8":
        graph, constants = quantize(graph, constants, images, correct_bias=False, from_sums=())
        want = integer.run(graph, constants, {graph.inputs[0]: x})[graph.outputs[0]]
        whole = all(in_integers(graph, op) for op in graph.ops)
        return Posed(graph, constants, want, 0.0 if whole else TOLERANCE["int8"], relative_error(want, truth))
    if dtype == "bf16":
        graph = with_precision(graph, Precision(weight="bf16", activation="bf16"))
        noise = relative_error(in_bf16(graph, constants, x), truth)
    else:
        noise = relative_error(reference(graph, constants, {graph.inputs[0]: x})[graph.outputs[0]], truth)
    return Posed(graph, constants, truth, max(TOLERANCE[dtype], FACTOR * noise), noise)


def exact(graph: Graph, constants: Mapping[str, Array], x: Array) -> Array:
    """What a graph means, in double precision."""
    wide = {name: np.asarray(value, np.float64) for name, value in constants.items()}
    return reference(graph, wide, {graph.inputs[0]: x.astype(np.float64)})[graph.outputs[0]]


def in_bf16(graph: Graph, constants: Mapping[str, Array], x: Array) -> Array:
    """A graph whose every tensor is rounded to bf16 as it is written; sums are exact."""

    def rounded(value: Array) -> Array:
        return from_bf16(to_bf16(value)).astype(np.float64)

    weights = {name: rounded(value) for name, value in constants.items()}
    seen = {graph.inputs[0]: rounded(x)}
    for op in graph.ops:
        roles = {role: weights[name] for role, name in op.constants.items()}
        seen[op.outputs[0]] = rounded(evaluate(op, [seen[name] for name in op.inputs], roles))
    return seen[graph.outputs[0]]


def relative_error(got: Array, want: Array) -> float:
    """max |y - y64| / max |y64|."""
    return float(np.abs(got - want).max() / (np.abs(want).max() + 1e-30))


def in_random_integers(graph: Graph, seed: int = 0) -> tuple[Graph, dict[str, Array]]:
    """A folded graph as if it had been quantised, with random constants under which few integers are clamped.

    All activations have one scale s; weights are uniform, and s_w is such that sums of them spread over 60 levels.
    """
    rng, plan, edges = np.random.default_rng(seed), Plan(graph), {*graph.outputs}
    tensors = {
        name: replace(tensor, dtype="fp32" if name in edges else "int8", scale=0.03125, zero_point=121)
        if name in plan.scaled
        else tensor
        for name, tensor in graph.tensors.items()
    }
    described, values = dict(graph.constants), dict[str, Array]()
    for op in graph.ops:
        if op.kind not in ("conv", "linear"):
            continue
        weight = graph.constants[op.constants["weight"]]
        spread = 73.0 * 73.0 * float(np.prod(weight.shape[1:])) ** 0.5
        scales = rng.uniform(0.8, 1.2, weight.shape[0]) * 60 / spread
        described[weight.name] = replace(weight, dtype="int8", scale=tuple(scales.tolist()), zero_point=0)
        values[weight.name] = rng.integers(-127, 128, weight.shape, dtype=np.int8)
        if "bias" in op.constants:
            name, sums = op.constants["bias"], tuple((0.03125 * scales).tolist())
            described[name] = replace(graph.constants[name], dtype="int32", scale=sums, zero_point=0)
            values[name] = rng.integers(-int(spread), int(spread), weight.shape[0]).astype(np.int32)
    return replace(graph, tensors=tensors, constants=described), values
