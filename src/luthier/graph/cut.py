"""The part of a graph that some of its tensors need."""

from __future__ import annotations

from collections.abc import Sequence

from luthier.graph.op import Graph, Op


def cut(graph: Graph, outputs: Sequence[str]) -> Graph:
    """The graph that computes `outputs` and nothing else; its inputs stay.

    Args:
        outputs: names of activations that ops write; a name given twice counts once.
    Example:
        >>> from luthier.graph.builder import Builder
        >>> build = Builder()
        >>> first = build.activation("a", build.input("x", (1, 3)), "relu")
        >>> graph = build.graph(build.activation("c", build.activation("b", first, "silu"), "relu"))
        >>> [op.name for op in cut(graph, ["a"]).ops]
        ['a']
    """
    needed, kept = set(outputs), list[Op]()
    for op in reversed(graph.ops):
        if needed.intersection(op.outputs):
            needed.update(op.inputs)
            kept.append(op)
    needed.update(graph.inputs)
    roles = {name for op in kept for name in op.constants.values()}
    return Graph(
        inputs=graph.inputs,
        outputs=tuple(dict.fromkeys(outputs)),
        ops=tuple(reversed(kept)),
        tensors={name: tensor for name, tensor in graph.tensors.items() if name in needed},
        constants={name: constant for name, constant in graph.constants.items() if name in roles},
    )
