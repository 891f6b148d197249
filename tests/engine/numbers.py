"""Numbers for the constants of a network's graph, and how far a plan is from what the graph means."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from luthier.arch import Network
from luthier.graph import Graph, fold_constants, fold_norm_into_conv, from_network
from luthier.graph.halves import from_bf16, to_bf16
from luthier.graph.reference import evaluate
from luthier.graph.reference import run as reference

Array = np.ndarray[Any, Any]


def graph_with_numbers(
    network: Network, *, seed: int = 0, x: Array | None = None, **how: Any
) -> tuple[Graph, dict[str, Array]]:
    """A folded graph, and float32 constants under which every layer keeps its signal alive.

    Weights are random; the statistics of every norm are those of its own input, layer by layer, when the network sees
    `x`.  Far from that input a deep network multiplies every rounding error: fp32 of any kind is wrong there.
    """
    graph = from_network(network, **how)
    rng = np.random.default_rng(seed)
    values: dict[str, Array] = {}
    for name, tensor in graph.constants.items():
        if len(tensor.shape) > 1:
            fan_in = float(np.prod(tensor.shape[1:]))
            values[name] = rng.normal(size=tensor.shape) / fan_in**0.5
        else:
            low, high = (0.5, 1.5) if name.endswith(("weight", "var")) else (-0.5, 0.5)
            values[name] = rng.uniform(low, high, tensor.shape)
    seen = {graph.inputs[0]: rng.normal(size=graph.tensors[graph.inputs[0]].shape) if x is None else x}
    for op in graph.ops:
        inputs = [seen[name] for name in op.inputs]
        if op.kind == "norm":
            axes = tuple(axis for axis in range(inputs[0].ndim) if axis != 1)
            values[op.constants["running_mean"]] = inputs[0].mean(axes)
            # of a few pixels alone some channels would have next to none, and be blown up
            variance = inputs[0].var(axes)
            values[op.constants["running_var"]] = np.maximum(variance, variance.mean()) + 1e-3
        seen[op.outputs[0]] = evaluate(op, inputs, {role: values[name] for role, name in op.constants.items()})
    folded = {name: value.astype(np.float32) for name, value in fold_constants(graph, values).items()}
    return fold_norm_into_conv(graph), folded


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
