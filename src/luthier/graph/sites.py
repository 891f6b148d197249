"""Where a graph could carry attention: at the ends of its convolution layers and of its residual sums, by structure.

    layer    convolution -> [norm] -> [activation]                    its end: the last of these
    sum      a + b of two maps -> [activation]                        likewise

Some of these ends close a block, which is where the literature puts a gate:

    branch      the layer, or the gate behind it, that a residual sum adds to its shortcut (ResNet)
    depthwise   the depthwise layer of an inverted bottleneck (MobileNet, EfficientNet)
    layer       every layer of a graph that has neither (VGG)

A branch that holds a depthwise layer is an inverted bottleneck.  Layers of one pixel, and those inside gates, are left
out.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from luthier.graph.gates import find_gates
from luthier.graph.mbconv import find_mbconv
from luthier.graph.op import Graph, Op

SiteKind = Literal["layer", "sum"]


@dataclass(frozen=True, slots=True)
class Site:
    """One end of a layer or a sum.

    Attributes:
        kind: what ends.
        tensors: from the convolution's (the sum's) to the last one; each is a function of the one before alone.
        result: the last tensor, or the product of the gate that rescales it.
        shape: of all of them, (N, C, H, W).
        closes_block: whether a block ends here, see the module.
        gated: whether a gate rescales one of the tensors already.
    """

    kind: SiteKind
    tensors: tuple[str, ...]
    result: str
    shape: tuple[int, int, int, int]
    closes_block: bool
    gated: bool


def find_sites(graph: Graph) -> tuple[Site, ...]:
    """The sites of a graph, in its order.

    Example:
        >>> from luthier.arch.presets import get
        >>> from luthier.graph import from_network
        >>> found = find_sites(from_network(get("resnet20")))
        >>> sum(site.kind == "layer" for site in found), sum(site.kind == "sum" for site in found)
        (19, 9)
        >>> next(site.tensors for site in found if site.closes_block)
        ('stage1.0.second.conv', 'stage1.0.second.norm')
    """
    return tuple(_Finder(graph).sites())


class _Finder:
    def __init__(self, graph: Graph) -> None:
        self.graph, self.readers = graph, graph.consumers()
        gates = find_gates(graph)
        self.inside = {name for gate in gates for name in gate.ops}
        self.product = {gate.gated: gate.result for gate in gates}
        self.behind = {gate.result: gate.gated for gate in gates}
        blocks = find_mbconv(graph)
        self.closing = {self._chain(self._op(block.depthwise.conv))[-1] for block in blocks}
        inverted = {name for block in blocks for name in block.ops}
        for op in graph.ops:
            if self._sums(op) and op.name not in inverted:
                self.closing.add(self._ungated(op.inputs[0]))  # the longer branch comes first
        self.plain = not self.closing

    def sites(self) -> Iterator[Site]:
        for op in self.graph.ops:
            kind: SiteKind | None = "layer" if op.kind == "conv" else "sum" if self._sums(op) else None
            shape = self.graph.output_shape(op)
            if kind is None or op.name in self.inside or len(shape) != 4 or shape[2] * shape[3] == 1:
                continue
            tensors = self._chain(op)
            closes = tensors[-1] in self.closing or (self.plain and kind == "layer")
            gated = next((tensor for tensor in tensors if tensor in self.product), None)
            result = tensors[-1] if gated is None else self._gated(gated)
            yield Site(kind, tensors, result, (shape[0], shape[1], shape[2], shape[3]), closes, gated is not None)

    def _op(self, name: str) -> Op:
        return next(op for op in self.graph.ops if op.name == name)

    def _sums(self, op: Op) -> bool:
        first, *rest = self.graph.input_shapes(op)
        return op.kind == "add" and len(first) == 4 and rest == [first] and op.name not in self.inside

    def _chain(self, op: Op) -> tuple[str, ...]:
        """What an op writes, and the norm and the activation behind it where nothing else reads between."""
        tensors = [op.outputs[0]]
        for kinds in (("norm", "affine"), ("activation",)) if op.kind == "conv" else (("activation",),):
            readers = self.readers[tensors[-1]]
            if len(readers) == 1 and readers[0].kind in kinds and tensors[-1] not in self.graph.outputs:
                tensors.append(readers[0].outputs[0])
        return tuple(tensors)

    def _gated(self, tensor: str) -> str:
        while tensor in self.product:
            tensor = self.product[tensor]
        return tensor

    def _ungated(self, tensor: str) -> str:
        while tensor in self.behind:
            tensor = self.behind[tensor]
        return tensor
