"""Finds the gates of any graph, by structure alone: products of a tensor with something computed from that tensor.

kind       the gate is      found in
channel    (N, C, 1, 1)     squeeze-and-excitation, effective SE, ECA, CBAM's first half
spatial    (N, 1, H, W)     spatial attention, CBAM's second half
rows       (N, C, H, 1)     coordinate attention
columns    (N, C, 1, W)     coordinate attention
full       (N, C, H, W)     a gate of its own for every element

Products of several gates with one tensor, x * a(x) * b(x), are as many gates.  x * sigmoid(x) is an activation, not a
gate: some op of a gate must look at more than one element.  Gates made from another tensor than the one they rescale
(gated linear units, selective kernels) are not found.
"""

from __future__ import annotations

from collections.abc import Mapping, Set
from dataclasses import dataclass
from typing import Final, Literal

from luthier.graph.op import Graph, Op
from luthier.graph.shapes import Shape

GateKind = Literal["channel", "spatial", "rows", "columns", "full"]
#: ops; a longer way back from a multiplication is not attention (coordinate attention has about a dozen)
_LARGEST_GATE: Final = 32
_ELEMENTWISE: Final = ("activation", "affine")


@dataclass(frozen=True, slots=True)
class GatedTensor:
    """One product of a tensor and its gate, as names in a graph.

    Attributes:
        mul: the multiplication.
        gated: the tensor that is rescaled, (N, C, H, W).
        gate: the tensor that rescales it.
        result: their product.
        kind: what the gate tells apart.
        ops: that compute the gate, in the graph's order.
        block: of the network, where the multiplication stands.
    """

    mul: str
    gated: str
    gate: str
    result: str
    kind: GateKind
    ops: tuple[str, ...]
    block: str


def gate_ops(maker: Mapping[str, Op], gate: str, sources: Set[str]) -> list[Op] | None:
    """All ops that make a tensor out of `sources` and nothing else.

    Args:
        maker: see `Graph.makers`.
        gate: the tensor.
        sources: where the way back ends.
    Returns:
        None where the tensor needs something else, the way back is too long, or every op is elementwise.
    """
    inside, waiting = dict[str, Op](), [gate]
    while waiting:
        op = maker.get(waiting.pop())
        if op is None or len(inside) > _LARGEST_GATE:
            return None
        inside[op.name] = op
        waiting += [name for name in op.inputs if name not in sources]
    found = list(inside.values())
    return None if all(op.kind in _ELEMENTWISE for op in found) else found


def find_gates(graph: Graph) -> tuple[GatedTensor, ...]:
    """The gates of a graph, folded or not, in the order of their multiplications.

    Example:
        >>> from luthier.arch.presets import get
        >>> from luthier.graph import from_network
        >>> found = find_gates(from_network(get("mobilenetv3_small_100"), fold_norm=True))
        >>> len(found), found[0].kind, found[0].gated, found[0].mul
        (9, 'channel', 'stage1.0.depthwise.activation', 'stage1.0.attention.mul')
    """
    maker, position = graph.makers(), {op.name: index for index, op in enumerate(graph.ops)}
    found = dict[str, GatedTensor]()
    sources = dict[str, frozenset[str]]()
    for op in graph.ops:
        if op.kind != "mul" or op.inputs[0] == op.inputs[1]:
            continue
        for gated, gate in (op.inputs, op.inputs[::-1]):
            # behind one gate, the next may still be made from what both rescale
            before = frozenset({gated}) | sources.get(gated, frozenset())
            kind = _kind(graph.tensors[gated].shape, graph.tensors[gate].shape)
            ops = gate_ops(maker, gate, before) if kind and gate not in before else None
            if kind is not None and ops is not None:
                names = tuple(sorted((one.name for one in ops), key=position.__getitem__))
                found[op.name] = GatedTensor(op.name, gated, gate, op.outputs[0], kind, names, op.block)
                sources[op.outputs[0]] = before
                break
    inner = {name for one in found.values() for name in one.ops}
    return tuple(one for one in found.values() if one.mul not in inner)


def _kind(gated: Shape, gate: Shape) -> GateKind | None:
    if len(gated) != 4 or len(gate) != 4:
        return None
    for kind, spans in _SPANS.items():
        if gate == tuple(size if spanned else 1 for size, spanned in zip(gated, spans, strict=True)):
            return kind
    return None


#: which of N, C, H, W each kind spans; the first that fits names a gate of a 1 x 1 map
_SPANS: Final[dict[GateKind, tuple[bool, bool, bool, bool]]] = {
    "channel": (True, True, False, False),
    "spatial": (True, False, True, True),
    "rows": (True, True, True, False),
    "columns": (True, True, False, True),
    "full": (True, True, True, True),
}
