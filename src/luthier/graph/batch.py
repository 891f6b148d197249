"""The same graph for another number of images at a time."""

from __future__ import annotations

from dataclasses import replace

from luthier.errors import ShapeError
from luthier.graph.op import Graph


def with_batch(graph: Graph, batch: int) -> Graph:
    """N of every tensor.

    Raises:
        ShapeError: tensors of the graph do not agree on N, so that something but images goes along their first axis.
    Example:
        >>> from luthier.graph.builder import Builder
        >>> build = Builder()
        >>> graph = build.graph(build.activation("y", build.input("x", (8, 3, 2, 2)), "relu"))
        >>> with_batch(graph, 1).tensors["y"].shape
        (1, 3, 2, 2)
    """
    counts = {tensor.shape[0] for tensor in graph.tensors.values()}
    if len(counts) > 1:
        raise ShapeError(f"with_batch: tensors have first axes {', '.join(map(str, sorted(counts)))}, want one batch")
    tensors = {name: replace(tensor, shape=(batch, *tensor.shape[1:])) for name, tensor in graph.tensors.items()}
    return replace(graph, tensors=tensors)
