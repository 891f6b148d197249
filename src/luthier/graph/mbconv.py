"""Finds the mobile inverted bottlenecks of any graph, by structure alone: no op's name is read.

    source -> [expand 1x1] -> [gates] -> depthwise -> [gates] -> project 1x1 -> [gates] -> [+ source] -> [gates]

`[ ]` may be missing.  Every convolution may carry a norm and then an activation.  A gate is a multiplication of a
tensor by something computed from that tensor alone (squeeze-and-excitation, ECA, spatial attention, ...).  Nothing
outside the group reads a tensor inside it, so that a group can run as one.

A 1x1 convolution between two depthwise ones belongs to the first, as its projection (MobileNetV1); so does a gate.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from luthier.arch.block import AttentionPlace
from luthier.graph.attrs import Conv
from luthier.graph.gates import gate_ops
from luthier.graph.op import Graph, Op


@dataclass(frozen=True, slots=True)
class ConvLayer:
    """Names of a convolution and of what follows it at once.

    Attributes:
        conv: the op.
        norm: the norm that reads it; None on folded graphs.
        activation: behind both; None = linear.
    """

    conv: str
    norm: str | None
    activation: str | None

    @property
    def ops(self) -> tuple[str, ...]:
        """The names that exist, in order."""
        return tuple(name for name in (self.conv, self.norm, self.activation) if name is not None)


@dataclass(frozen=True, slots=True)
class Gate:
    """Attention: the ops that compute the scales, and last the multiplication that applies them."""

    place: AttentionPlace
    ops: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class MBConv:
    """One inverted bottleneck (or depthwise-separable convolution), as names in a graph.

    Attributes:
        source: the tensor that enters.
        result: the tensor that leaves.
        expand: None = the depthwise convolution reads `source` or a gate of it.
        gates: in order of execution.
        add: the residual sum, or None.
        ops: all of the above in the graph's order.
    """

    source: str
    result: str
    expand: ConvLayer | None
    depthwise: ConvLayer
    project: ConvLayer
    gates: tuple[Gate, ...]
    add: str | None
    ops: tuple[str, ...]

    @property
    def activations(self) -> tuple[str, ...]:
        """The activation ops behind the convolutions, those inside gates left out."""
        layers = (self.expand, self.depthwise, self.project)
        return tuple(layer.activation for layer in layers if layer is not None and layer.activation is not None)

    @property
    def attention(self) -> tuple[str, ...]:
        """The ops of all gates."""
        return tuple(name for gate in self.gates for name in gate.ops)


def is_depthwise(graph: Graph, op: Op) -> bool:
    """Whether an op is a convolution of each channel with itself alone."""
    if not isinstance(op.attrs, Conv):
        return False
    weight = graph.constants[op.constants["weight"]].shape
    return weight[1] == 1 and op.attrs.groups == weight[0] > 1


def is_pointwise(graph: Graph, op: Op) -> bool:
    """Whether an op is a dense 1x1 convolution without stride or padding."""
    if not isinstance(op.attrs, Conv):
        return False
    window = graph.constants[op.constants["weight"]].shape[2:]
    return window == (1, 1) and op.attrs.groups == 1 and op.attrs.stride == (1, 1) and not any(op.attrs.pads)


def find_mbconv(graph: Graph) -> tuple[MBConv, ...]:
    """The inverted bottlenecks of a graph, folded or not, in the order of their depthwise convolutions.

    Example:
        >>> from luthier.arch.presets import get
        >>> from luthier.graph import from_network
        >>> found = find_mbconv(from_network(get("mobilenetv2_100"), fold_norm=True))
        >>> len(found), found[0].expand, found[2].expand.ops
        (17, None, ('stage2.1.expand.conv', 'stage2.1.expand.activation'))
        >>> found[2].source, found[2].add, found[2].result
        ('stage2.0.project.conv', 'stage2.1.add', 'stage2.1.add')
    """
    return tuple(_Finder(graph).groups())


class _Finder:
    """The graph's edges in both directions, and the ops that a group has taken."""

    def __init__(self, graph: Graph) -> None:
        self.graph = graph
        self.readers = graph.consumers()
        self.maker = graph.makers()
        self.position = {op.name: index for index, op in enumerate(graph.ops)}
        self.taken: set[str] = set()

    def groups(self) -> Iterator[MBConv]:
        for op in self.graph.ops:
            if is_depthwise(self.graph, op) and (found := self._around(op)) is not None:
                self.taken.update(found.ops)
                yield found

    def _around(self, op: Op) -> MBConv | None:
        source, expand, before = self._above(op)
        depthwise, tensor = self._layer(op)
        tensor, after = self._gates(tensor, "after_depthwise")
        reader = self._only_reader(tensor)
        if reader is None or not is_pointwise(self.graph, reader):
            return None
        project, tensor = self._layer(reader)
        tensor, behind = self._gates(tensor, "after_project")
        gates, add = [*before, *after, *behind], None
        reader = self._only_reader(tensor)
        if reader is not None and reader.kind == "add" and set(reader.inputs) == {source, tensor}:
            add = reader.name
            tensor, last = self._gates(reader.outputs[0], "after_sum")
            gates += last
        layers = (*(expand.ops if expand else ()), *depthwise.ops, *project.ops)
        names = [*layers, *(name for gate in gates for name in gate.ops), *([] if add is None else [add])]
        ordered = sorted(names, key=self.position.__getitem__)
        return MBConv(source, tensor, expand, depthwise, project, tuple(gates), add, tuple(ordered))

    def _only_reader(self, tensor: str) -> Op | None:
        """The op that alone reads a tensor."""
        readers = self.readers[tensor]
        return readers[0] if len(readers) == 1 and tensor not in self.graph.outputs else None

    def _layer(self, conv: Op) -> tuple[ConvLayer, str]:
        """A convolution with what follows, and the tensor that leaves."""
        tensor, found = conv.outputs[0], dict[str, str]()
        for kind in ("norm", "activation"):
            reader = self._only_reader(tensor)
            if reader is not None and reader.kind == kind:
                found[kind], tensor = reader.name, reader.outputs[0]
        return ConvLayer(conv.name, found.get("norm"), found.get("activation")), tensor

    def _above(self, depthwise: Op) -> tuple[str, ConvLayer | None, list[Gate]]:
        """Source, expansion and the gates between, read upwards from a depthwise convolution."""
        tensor, gates = depthwise.inputs[0], list[Gate]()
        if self._only_reader(tensor) is not depthwise:
            return tensor, None, gates
        while (made := self._gate_that_makes(tensor)) is not None:
            gate, tensor = made
            gates.insert(0, gate)
            if not self._private(tensor, gate):  # the residual sum reads it too
                return tensor, None, gates
        conv = self._conv_that_makes(tensor)
        return (tensor, None, gates) if conv is None else (conv.inputs[0], self._layer(conv)[0], gates)

    def _conv_that_makes(self, tensor: str) -> Op | None:
        """The free 1x1 convolution whose layer ends in a tensor."""
        op = self.maker.get(tensor)
        while op is not None and op.kind in ("activation", "norm"):
            op = self.maker.get(op.inputs[0])
        if op is None or op.name in self.taken or not is_pointwise(self.graph, op):
            return None
        return op if self._layer(op)[1] == tensor else None

    def _gates(self, tensor: str, place: AttentionPlace) -> tuple[str, list[Gate]]:
        """The gates that follow a tensor which nothing else reads, and the tensor behind them."""
        gates = list[Gate]()
        while True:
            for reader in self.readers[tensor]:
                names = self._gate(reader, tensor)
                if names is not None and self._private(tensor, Gate(place, names)):
                    gates.append(Gate(place, names))
                    tensor = reader.outputs[0]
                    break
            else:
                return tensor, gates

    def _gate_that_makes(self, tensor: str) -> tuple[Gate, str] | None:
        """The free gate whose product a tensor is, and what it gates."""
        op = self.maker.get(tensor)
        if op is None or op.kind != "mul" or op.name in self.taken:
            return None
        for gated in op.inputs:
            names = self._gate(op, gated)
            if names is not None:
                return Gate("before_depthwise", names), gated
        return None

    def _gate(self, mul: Op, gated: str) -> tuple[str, ...] | None:
        """The ops of a gate in order: `mul`, and all that makes its other operand out of `gated` and nothing else."""
        if mul.kind != "mul" or mul.inputs[0] == mul.inputs[1]:
            return None
        (gate,) = (name for name in mul.inputs if name != gated)
        scales = gate_ops(self.maker, gate, {gated})
        if scales is None or any(op.name in self.taken for op in scales):
            return None
        inside = {mul.name, *(op.name for op in scales)}
        outside = (r for op in scales for r in self.readers[op.outputs[0]] if r.name not in inside)
        if any(op.outputs[0] in self.graph.outputs for op in scales) or next(outside, None) is not None:
            return None
        return tuple(sorted(inside, key=self.position.__getitem__))

    def _private(self, tensor: str, gate: Gate) -> bool:
        """Whether a tensor has no reader outside a gate."""
        return tensor not in self.graph.outputs and all(op.name in gate.ops for op in self.readers[tensor])
