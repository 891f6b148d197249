"""Graphs of random networks with numbers for their constants, for the tests of plans."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, get_args

import numpy as np
from hypothesis import strategies as st

from luthier.arch import Attention, Block, Head, Network, Stage
from luthier.arch.block import _PLACES, _SKIPS, Activation, BlockKind
from luthier.graph import Graph, fold_constants, fold_norm_into_conv, from_network
from luthier.graph.reference import evaluate
from luthier.graph.reference import run as reference

Array = np.ndarray[Any, Any]


@st.composite
def _blocks(draw: st.DrawFn, in_channels: int) -> Block:
    kind: BlockKind = draw(st.sampled_from([*get_args(BlockKind), "mbconv", "mbconv"]))
    attention = None
    if _PLACES[kind] and draw(st.booleans()):
        attention = Attention(
            kind=draw(st.sampled_from(["se", "se", "ese", "eca"])),
            place=draw(st.sampled_from(_PLACES[kind])),
            ratio=draw(st.sampled_from([0.25, 0.5])),
            gate=draw(st.sampled_from(["sigmoid", "hard_sigmoid"])),
        )
    out = in_channels if kind == "pool" else draw(st.sampled_from([in_channels, 7, 8, 17, 33]))
    skip = draw(st.sampled_from(_SKIPS[kind]))
    return Block(
        kind=kind,
        out_channels=max(out, in_channels) if skip == "pad" else out,
        kernel_size=draw(st.sampled_from([2, 3] if kind == "pool" else [1, 3, 5, 7])),
        stride=draw(st.sampled_from([1, 1, 2])),
        expand_ratio=draw(st.sampled_from([0.5, 1, 3, 6])),
        activation=draw(st.sampled_from([None, *get_args(Activation)])),
        attention=attention,
        skip=skip,
        norm=draw(st.booleans()),
        bias=draw(st.booleans()),
        pool=draw(st.sampled_from(["max", "avg"])),
    )


@st.composite
def networks(draw: st.DrawFn) -> Network:
    channels, stages = 3, []
    for index in range(draw(st.integers(1, 2))):
        block = draw(_blocks(channels))
        channels = block.out_channels
        stages.append(Stage(name=f"s{index}", blocks=(block,)))
    return Network(
        name="random",
        stages=tuple(stages),
        head=Head(
            num_classes=draw(st.integers(1, 40)),
            conv_channels=draw(st.sampled_from([None, 20])),
            pool_size=draw(st.sampled_from([1, 2, 3])),
            hidden=draw(st.sampled_from([(), (24,)])),
        ),
        activation=draw(st.sampled_from(get_args(Activation))),
        padding=draw(st.sampled_from(["symmetric", "tf_same"])),
        channel_divisor=1,
    )


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


def relative_error(got: Array, want: Array) -> float:
    """max |y - y64| / max |y64|."""
    return float(np.abs(got - want).max() / (np.abs(want).max() + 1e-30))
