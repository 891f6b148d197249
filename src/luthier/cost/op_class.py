"""Classes of ops that a run time handles alike: what efficiencies are measured by."""

from __future__ import annotations

from typing import Final

from luthier.cost.memory import VIEWS, is_depthwise
from luthier.graph.attrs import Conv
from luthier.graph.op import Graph, Op


def op_class(graph: Graph, op: Op) -> str:
    """The class of an op.

    class               ops
    pointwise           1x1 convolution of all channels, at any stride
    dense_k3_s2         convolution of all channels: window (its longer side), stride (the larger)
    depthwise_k3_s1     convolution of each channel with itself alone
    grouped_k3_s1       convolution in groups
    linear              linear layer
    elementwise         norm, activation, add, mul
    pool                pooling windows
    reduction           global and adaptive pooling
    movement            pad, subsample, concat and whatever else only moves data
    view                flatten, reshape: nothing runs

    Example:
        >>> from luthier.arch.presets import get
        >>> from luthier.graph import from_network
        >>> graph = from_network(get("mobilenetv2_100"), fold_norm=True)
        >>> sorted({op_class(graph, op) for op in graph.ops})[:4]
        ['dense_k3_s2', 'depthwise_k3_s1', 'depthwise_k3_s2', 'elementwise']
    """
    if isinstance(op.attrs, Conv):
        window, stride = max(graph.constants[op.constants["weight"]].shape[2:]), max(op.attrs.stride)
        if op.attrs.groups == 1:
            return "pointwise" if window == 1 else f"dense_k{window}_s{stride}"
        return f"{'depthwise' if is_depthwise(graph, op) else 'grouped'}_k{window}_s{stride}"
    if op.kind in VIEWS:
        return "view"
    return _CLASSES.get(op.kind, "movement")


_CLASSES: Final = {
    "linear": "linear", "norm": "elementwise", "activation": "elementwise", "add": "elementwise", "mul": "elementwise",
    "pool": "pool", "global_pool": "reduction", "adaptive_pool": "reduction",
}  # fmt: skip
