"""A graph whose large tensors are bf16: which ones, by structure alone.

bf16: activations of more than one pixel, and weights of products.  fp32 stay: what callers pass and get, maps of one
pixel (gates, pooled features; they are few and meet every pixel), weights of depthwise convolutions (used one by one,
on vectors of fp32) and of convolutions on a caller's array, and whatever is added or scaled per channel.
"""

from __future__ import annotations

from dataclasses import replace

from luthier.graph.mbconv import is_depthwise
from luthier.graph.op import Graph, Op, Tensor


def as_bf16(graph: Graph) -> Graph:
    """The same graph, its large tensors stored as bf16; sums stay fp32 whatever is stored.

    Example:
        >>> from luthier.graph.builder import Builder
        >>> build = Builder()
        >>> features = build.conv("features", "features", build.input("x", (1, 3, 8, 8)), 16, kernel_size=3, bias=True)
        >>> graph = as_bf16(build.graph(build.conv("logits", "logits", features, 4, bias=True)))
        >>> [(tensor.name, tensor.dtype) for tensor in (*graph.tensors.values(), *graph.constants.values())]
        ... # doctest: +NORMALIZE_WHITESPACE
        [('x', 'fp32'), ('features', 'bf16'), ('logits', 'fp32'), ('features.weight', 'fp32'),
         ('features.bias', 'fp32'), ('logits.weight', 'bf16'), ('logits.bias', 'fp32')]
    """
    edges = {*graph.inputs, *graph.outputs}
    weights = {op.constants["weight"] for op in graph.ops if _is_product(graph, op)}

    def activation(tensor: Tensor) -> Tensor:
        small = tensor.name in edges or tensor.elements == tensor.shape[0] * tensor.shape[1]
        return tensor if small else replace(tensor, dtype="bf16")

    return replace(
        graph,
        tensors={name: activation(tensor) for name, tensor in graph.tensors.items()},
        constants={
            name: replace(tensor, dtype="bf16") if name in weights else tensor
            for name, tensor in graph.constants.items()
        },
    )


def _is_product(graph: Graph, op: Op) -> bool:
    on_input = op.kind == "conv" and op.inputs[0] in graph.inputs
    return op.kind in ("conv", "linear") and not is_depthwise(graph, op) and not on_input
