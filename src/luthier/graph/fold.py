"""Batch normalisation folded into the convolution before it, as every deployment does.

    conv(W, b) -> norm(weight, bias, mean, var)   becomes   conv(W * s, (b - mean) * s + bias)       (1)
    s = weight / sqrt(var + eps), one value per output channel

Legal when nothing else reads what the convolution writes and no other op shares its weight.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from luthier.errors import ShapeError
from luthier.graph.attrs import Norm
from luthier.graph.op import Graph, Op, Tensor, bias_dtype

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Array = NDArray[Any]


def _pairs(graph: Graph) -> Iterator[tuple[Op, Op]]:
    """Every convolution (or linear layer) with the norm that can be folded into it."""
    readers = Counter(name for op in graph.ops for name in op.inputs)
    readers.update(graph.outputs)
    owners = Counter(name for op in graph.ops for name in op.constants.values())
    maker = {op.outputs[0]: op for op in graph.ops if op.kind in ("conv", "linear")}
    for norm in graph.ops:
        conv = maker.get(norm.inputs[0])
        if norm.kind != "norm" or conv is None or readers[norm.inputs[0]] != 1:
            continue
        if all(owners[name] == 1 for name in conv.constants.values()):
            yield conv, norm


def _bias_name(conv: Op) -> str:
    return conv.constants.get("bias") or conv.constants["weight"].removesuffix("weight") + "bias"


def fold_norm_into_conv(graph: Graph) -> Graph:
    """The graph with equation (1) applied wherever it is legal; other norms stay.

    The convolution keeps its name, the name of its output and of its weight; a bias is added where there was none.

    Example:
        >>> from luthier.graph.builder import Builder
        >>> build = Builder()
        >>> graph = build.graph(build.conv_norm("a", "a", build.input("x", (1, 3, 8, 8)), 4, kernel_size=3))
        >>> [op.name for op in graph.ops], [op.name for op in fold_norm_into_conv(graph).ops]
        (['a.conv', 'a.norm'], ['a.conv'])
    """
    pairs = list(_pairs(graph))
    folded = {conv.name for conv, _ in pairs}
    gone = {norm.name for _, norm in pairs}
    renamed = {norm.outputs[0]: conv.outputs[0] for conv, norm in pairs}
    ops: list[Op] = []
    constants: dict[str, Tensor] = {}
    for op in graph.ops:
        if op.name in gone:
            continue
        constants.update((name, graph.constants[name]) for name in op.constants.values())
        inputs = tuple(renamed.get(name, name) for name in op.inputs)
        roles = op.constants
        if op.name in folded:
            weight, bias = graph.constants[op.constants["weight"]], _bias_name(op)
            constants[bias] = Tensor(bias, weight.shape[:1], bias_dtype(weight.dtype))
            roles = {**op.constants, "bias": bias}
        ops.append(Op(op.name, op.attrs, inputs, op.outputs, roles, op.block))
    return Graph(
        inputs=graph.inputs,
        outputs=tuple(renamed.get(name, name) for name in graph.outputs),
        ops=tuple(ops),
        tensors={name: tensor for name, tensor in graph.tensors.items() if name not in renamed},
        constants=constants,
    )


def fold_constants(graph: Graph, constants: Mapping[str, Array]) -> dict[str, Array]:
    """Values for `fold_norm_into_conv(graph)` from the values of `graph`, by equation (1).

    Args:
        graph: before folding.
        constants: arrays by name, see `take_constants`.
    """
    import numpy as np  # a graph of shapes alone does without it

    values = {name: constants[name] for name in graph.constants}
    for conv, norm in _pairs(graph):
        assert isinstance(norm.attrs, Norm)
        weight, bias, mean, var = (
            values.pop(norm.constants[role]) for role in ("weight", "bias", "running_mean", "running_var")
        )
        scale = weight / np.sqrt(var + norm.attrs.eps)
        kernel = values[conv.constants["weight"]]
        before = values[conv.constants["bias"]] if "bias" in conv.constants else np.zeros_like(mean)
        values[conv.constants["weight"]] = kernel * scale.reshape(-1, *(1,) * (kernel.ndim - 1))
        values[_bias_name(conv)] = (before - mean) * scale + bias
    return values


def take_constants(graph: Graph, state: Mapping[str, Array]) -> dict[str, Array]:
    """The values that a graph needs, out of a module's state dict.

    Other entries are left behind.  An array with as many elements in another shape is reshaped: torch keeps ECA's
    convolution as (1, 1, k), the graph as (1, 1, k, 1).

    Raises:
        ShapeError: an array is missing or has another number of elements.
    """
    values: dict[str, Array] = {}
    for name, tensor in graph.constants.items():
        value = state.get(name)
        if value is None or value.size != tensor.elements:
            got = "nothing" if value is None else value.shape
            raise ShapeError(f"take_constants: {name!r} must have shape {tensor.shape}, got {got}")
        values[name] = value.reshape(tensor.shape)
    return values
