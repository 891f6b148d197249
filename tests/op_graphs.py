"""Small graphs that between them hold every kind of op that run times are given."""

from __future__ import annotations

from typing import Any

import numpy as np

from luthier.graph import Graph, Tensor
from luthier.graph import attrs as kinds
from luthier.graph.builder import Builder
from luthier.graph.untrained import random_weights

Array = np.ndarray[Any, np.dtype[Any]]
X = (2, 8, 11, 9)
SAME_2 = (0, 0, 1, 1)  # of 3 x 3 at stride 2 on an even side


def one_op(name: str, attrs: kinds.Attrs, shape: tuple[int, ...] = X, **constants: tuple[int, ...]) -> Graph:
    """A graph of one op."""
    build = Builder()
    x = build.input("x", shape)
    held = {role: Tensor(f"{name}.{role}", size) for role, size in constants.items()}
    return build.graph(build.op(name, attrs, x, constants=held))


def of_two(attrs: kinds.Attrs, inner: kinds.Attrs | None = None) -> Graph:
    """An op on a tensor and what `inner` makes of it."""
    build = Builder()
    x = build.input("x", X)
    return build.graph(build.op("two", attrs, x, build.op("inner", inner or kinds.Activation("relu"), x)))


def fused() -> Graph:
    """Convolution and sum, each with a ReLU behind it that only it feeds, and a ReLU6 that may not be absorbed."""
    build = Builder()
    x = build.input("x", X)
    a = build.activation("a", build.conv("c", "c", x, 8, kernel_size=3), "relu")
    b = build.activation("b", build.add("s", a, x), "relu6")
    raw = build.conv("d", "d", b, 8, kernel_size=1)
    return build.graph(build.add("t", raw, build.activation("e", raw, "relu6")))


CONV = {"weight": (12, 8, 3, 3), "bias": (12,)}
DEPTHWISE = {"weight": (8, 1, 3, 3), "bias": (8,)}
GRAPHS: dict[str, Graph] = {
    "conv_same": one_op("c", kinds.Conv((1, 1), (1, 1, 1, 1)), **CONV),
    "conv_valid_no_bias": one_op("c", kinds.Conv(), weight=(12, 8, 3, 3)),
    "conv_symmetric_at_stride_2": one_op("c", kinds.Conv((2, 2), (1, 1, 1, 1)), (1, 8, 12, 10), **CONV),
    "conv_same_at_stride_2": one_op("c", kinds.Conv((2, 2), SAME_2), (1, 8, 12, 10), **CONV),
    "conv_uneven": one_op("c", kinds.Conv((2, 1), (2, 0, 1, 1)), **CONV),
    "conv_dilated": one_op("c", kinds.Conv((1, 1), (2, 2, 2, 2), (2, 2)), **CONV),
    "conv_grouped": one_op("c", kinds.Conv((1, 1), (1, 1, 1, 1), groups=2), weight=(12, 4, 3, 3), bias=(12,)),
    "depthwise": one_op("c", kinds.Conv((1, 1), (1, 1, 1, 1), groups=8), **DEPTHWISE),
    "depthwise_doubled": one_op("c", kinds.Conv((2, 2), (1, 1, 1, 1), groups=8), weight=(16, 1, 3, 3)),
    "fused": fused(),
    **{
        name: one_op("a", kinds.Activation(name, 0.1))
        for name in ("relu", "relu6", "silu", "hard_swish", "gelu", "sigmoid", "hard_sigmoid", "tanh", "leaky_relu",
                     "identity")
    },
    "mul": of_two(kinds.Mul()),
    "gate": of_two(kinds.Mul(), kinds.GlobalPool()),
    "add": of_two(kinds.Add()),
    "concat_rows": of_two(kinds.Concat(2), kinds.Activation("sigmoid")),
    "concat": of_two(kinds.Concat(), kinds.Activation("sigmoid")),
    "max_pool": one_op("p", kinds.Pool("max", (3, 3), (2, 2), (1, 1, 1, 1))),
    "avg_pool": one_op("p", kinds.Pool("avg", (2, 2), (2, 2))),
    "avg_pool_same": one_op("p", kinds.Pool("avg", (3, 3), (1, 1), (1, 1, 1, 1))),
    "avg_pool_counted": one_op("p", kinds.Pool("avg", (3, 3), (2, 2), (2, 1, 1, 0), True)),
    "mean": one_op("g", kinds.GlobalPool()),
    "peak": one_op("g", kinds.GlobalPool("max")),
    "channel_mean": one_op("g", kinds.ChannelPool()),
    "channel_peak": one_op("g", kinds.ChannelPool("max")),
    "nearest": one_op("r", kinds.Resize((22, 5))),
    "bilinear": one_op("r", kinds.Resize((22, 5), "bilinear")),
    "norm": one_op("n", kinds.Norm(), weight=(8,), bias=(8,), running_mean=(8,), running_var=(8,)),
    "affine": one_op("n", kinds.Affine(0.5, 0.25), weight=(8,), bias=(8,)),
    "pad": one_op("p", kinds.Pad(2, 3, (1, 0, 2, 1))),
    "subsample": one_op("s", kinds.Subsample((2, 3))),
    "slice": one_op("s", kinds.Slice(1, 2, 7)),
    "slice_rows": one_op("s", kinds.Slice(2, 1, 4)),
    "shuffle": one_op("s", kinds.Shuffle(4)),
    "flatten": one_op("f", kinds.Flatten()),
    "reshape_to_a_line": one_op("r", kinds.Reshape((1, 8, 1)), (2, 8, 1, 1)),
    "reshape_to_a_map": one_op("r", kinds.Reshape((4, 2, 99))),
    "softmax": one_op("s", kinds.Softmax(), (2, 8)),
    "linear": one_op("l", kinds.Linear(), (2, 8), weight=(5, 8), bias=(5,)),
}  # fmt: skip


def filled(graph: Graph) -> tuple[dict[str, Array], Array]:
    """Constants and an input, both with numbers of either sign."""
    constants = random_weights(graph)
    x = np.random.default_rng(1).normal(scale=3, size=graph.tensors[graph.inputs[0]].shape)
    return constants, x.astype(np.float32)
