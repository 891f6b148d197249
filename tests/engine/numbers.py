"""Numbers for the constants of a network's graph, and how far a plan is from what the graph means."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from luthier.arch import Network
from luthier.engine.kernels.element import from_bf16, to_bf16
from luthier.graph import Graph, fold_constants, fold_norm_into_conv, from_network
from luthier.graph.reference import evaluate
from luthier.graph.reference import run as reference
from luthier.quant.plan import Plan

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
