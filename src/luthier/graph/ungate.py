"""A graph without some of its gates, and gates without a factor that the layer behind can carry.

before                                                    ->  after                                      where
x * gate(x)                                               ->  x                                          asked for
x * (s * g(x)) -> [relu, pool, view] -> conv or linear W  ->  x * g(x) -> [the same] -> conv, linear s W    (1)

(1) is legal for s > 0 where nothing else reads the product, what is made of it, or W; it changes no bit for powers of
two, unless a number leaves the range of its type.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final

from luthier.graph.attrs import Activation, Affine
from luthier.graph.cut import cut
from luthier.graph.gates import GatedTensor, find_gates
from luthier.graph.op import Graph, Op

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Array = NDArray[Any]
#: f(s x) = s f(x) for s > 0
_HOMOGENEOUS: Final = frozenset({
    "pool", "global_pool", "adaptive_pool", "channel_pool", "flatten", "reshape", "subsample", "slice", "shuffle",
})  # fmt: skip


def ungate(graph: Graph, muls: Collection[str]) -> Graph:
    """The graph in which the gates whose multiplications are named hand on what they rescale.

    Example:
        >>> from luthier.arch.presets import get
        >>> from luthier.cost import graph_macs
        >>> from luthier.graph import from_network
        >>> graph = from_network(get("seresnet50"))
        >>> bare = ungate(graph, [gate.mul for gate in find_gates(graph)])
        >>> graph_macs(bare) == graph_macs(from_network(get("resnet50")))
        True
    """
    source = {gate.result: gate.gated for gate in find_gates(graph) if gate.mul in muls}

    def before(tensor: str) -> str:
        while tensor in source:
            tensor = source[tensor]
        return tensor

    ops = [replace(op, inputs=tuple(map(before, op.inputs))) for op in graph.ops if op.name not in muls]
    tensors = {name: tensor for name, tensor in graph.tensors.items() if name not in source}
    outputs = tuple(map(before, graph.outputs))
    return cut(Graph(graph.inputs, outputs, tuple(ops), tensors, graph.constants), outputs)


def fold_gate_factors(graph: Graph, constants: Mapping[str, Array]) -> tuple[Graph, dict[str, Array]]:
    """Equation (1), wherever it is legal.

    Args:
        graph: norms folded.
        constants: values by name.
    """
    readers, values = graph.consumers(), dict(constants)
    owners = Counter(name for op in graph.ops for name in op.constants.values())
    maker = {op.outputs[0]: op for op in graph.ops}
    gone: dict[str, str] = {}
    for gate in find_gates(graph):
        factor = _factor(graph, gate, maker, readers)
        layer = _carrier(graph, readers, gate.result)
        if factor is None or layer is None or owners[layer.constants["weight"]] != 1:
            continue
        name = layer.constants["weight"]
        values[name] = values[name] * values[name].dtype.type(factor)
        gone[gate.gate] = maker[gate.gate].inputs[0]
    ops = tuple(
        replace(op, inputs=tuple(gone.get(name, name) for name in op.inputs))
        for op in graph.ops
        if op.outputs[0] not in gone
    )
    tensors = {name: tensor for name, tensor in graph.tensors.items() if name not in gone}
    return Graph(graph.inputs, graph.outputs, ops, tensors, graph.constants), values


def _factor(
    graph: Graph, gate: GatedTensor, maker: Mapping[str, Op], readers: Mapping[str, tuple[Op, ...]]
) -> float | None:
    """s, where the gate is a tensor times one positive number, and only the product reads it."""
    op = maker.get(gate.gate)
    if op is None or not isinstance(op.attrs, Affine) or op.constants or op.attrs.shift != 0 or op.attrs.scale <= 0:
        return None
    alone = len(readers[gate.gate]) == 1 and gate.gate not in graph.outputs
    return op.attrs.scale if alone else None


def _carrier(graph: Graph, readers: Mapping[str, tuple[Op, ...]], tensor: str) -> Op | None:
    """The convolution or linear layer that alone reads a tensor, or what homogeneous ops make of it."""
    while len(readers[tensor]) == 1 and tensor not in graph.outputs:
        (op,) = readers[tensor]
        if op.kind in ("conv", "linear"):
            return op
        if op.kind not in _HOMOGENEOUS and op.attrs != Activation("relu"):
            return None
        tensor = op.outputs[0]
    return None
