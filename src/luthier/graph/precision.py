"""A graph with other number types: the same ops and shapes, other bytes."""

from __future__ import annotations

from dataclasses import replace
from typing import cast

from luthier.arch.block import NumberType, Precision
from luthier.graph.op import Graph, Op, bias_dtype


def with_precision(graph: Graph, precision: Precision) -> Graph:
    """The graph with all weights and all activations in these number types.

    A bias takes what `bias_dtype` says, a norm's statistics stay as they are.  Scales and zero points are dropped: they
    belong to the number type that a tensor had.

    Example:
        >>> from luthier.graph.builder import Builder
        >>> build = Builder()
        >>> graph = build.graph(build.linear("fc", "head", build.input("x", (1, 8)), 10))
        >>> small = with_precision(graph, Precision.parse("W8A16"))
        >>> {name: tensor.dtype for name, tensor in {**small.tensors, **small.constants}.items()}
        {'x': 'fp16', 'fc': 'fp16', 'head.weight': 'int8', 'head.bias': 'int32'}
    """
    by_role = {"weight": precision.weight, "bias": bias_dtype(precision.weight)}
    roles = {name: role for op in graph.ops for role, name in op.constants.items()}
    return Graph(
        inputs=graph.inputs,
        outputs=graph.outputs,
        ops=graph.ops,
        tensors={
            name: replace(tensor, dtype=precision.activation, scale=None, zero_point=None)
            for name, tensor in graph.tensors.items()
        },
        constants={
            name: replace(tensor, dtype=by_role.get(roles.get(name, ""), tensor.dtype), scale=None, zero_point=None)
            for name, tensor in graph.constants.items()
        },
    )


def op_precision(graph: Graph, op: Op) -> Precision:
    """Number types that meet in an op: its weight's and those of what it reads; without a weight, the latter alone.

    Example:
        >>> from luthier.graph.builder import Builder
        >>> build = Builder()
        >>> graph = build.graph(build.linear("fc", "head", build.input("x", (1, 8)), 10))
        >>> op_precision(with_precision(graph, Precision.parse("W8A16")), graph.ops[0]).label
        'W8A16'
    """
    activation = cast(NumberType, graph.tensors[op.inputs[0]].dtype)
    if op.kind not in ("conv", "linear"):
        return Precision(weight=activation, activation=activation)
    return Precision(weight=cast(NumberType, graph.constants[op.constants["weight"]].dtype), activation=activation)
