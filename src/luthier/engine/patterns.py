"""Which ops of a graph run as one: found by structure, before anything is lowered.

    conv | linear -> [activation] -> [+ tensor -> [activation]]       one kernel, the rest is its epilogue
    linear -> (N, C, 1, 1) -> activation                              likewise: the view moves nothing
    add | mul | norm | affine -> [activation]                                likewise
    (N, C, 1, 1) -> (N, 1, C, 1) -> conv of one channel -> back -> [activation]      along the channels, nothing moves
    x * gate (N, C, 1, 1) -> pointwise conv                           the gate is applied as the product reads x
    depthwise -> [activation] -> global average                       the depthwise sums what it writes
    conv -> [activation] -> depthwise ...                             in bands of rows, the first never whole
    ... depthwise -> [activation] -> pointwise conv ...               likewise, where it is wanted

`->` is legal where nothing else reads the tensor, except before the average, where the tensor is written anyway.
"""

from __future__ import annotations

from collections.abc import Callable, Set
from dataclasses import dataclass, replace

from luthier.engine.kernels.activation import FUNCTIONS
from luthier.engine.layout import rank4
from luthier.graph.attrs import Activation, Conv, GlobalPool, GraphFunction, Pool
from luthier.graph.mbconv import is_depthwise, is_pointwise
from luthier.graph.op import Graph, Op
from luthier.schedule.scope import VIEWS

_WITH_EPILOGUE = frozenset({"conv", "linear"})
#: of a convolution along channels; half of them lie within the narrowest vector
_MOST_TAPS = 9
_WITH_ACTIVATION = frozenset({"add", "mul", "norm", "affine"})


@dataclass(frozen=True, slots=True)
class Fused:
    """Ops that one kernel does.

    Attributes:
        head: the op that computes.
        ops: head and followers, in order.
        output: tensor that leaves.
        activation, residual, after: the epilogue; residual names the tensor that is added.
        gate: tensor that multiplies the head's input.
        source: the head's input, before the gate.
        first: the group that makes the source band by band; its ops are in `ops` too.  The head is a depthwise
            convolution, or a pointwise one and then `first` is a depthwise group.
        along: whether the head goes along the channels of `source`, which its own input shows as a column.
    """

    head: Op
    ops: tuple[Op, ...]
    output: str
    activation: GraphFunction = "identity"
    residual: str | None = None
    after: GraphFunction = "identity"
    gate: str | None = None
    source: str = ""
    first: Fused | None = None
    along: bool = False


def is_global_average(graph: Graph, op: Op) -> bool:
    """Whether an op is the mean of a whole map, or of the one window that covers it."""
    if isinstance(op.attrs, Pool):
        whole = graph.tensors[op.inputs[0]].shape[2:]
        return op.attrs.reduce == "avg" and op.attrs.kernel == whole and not any(op.attrs.pads)
    return op.attrs == GlobalPool("avg")


class Patterns:
    """The groups of a graph, in an order in which they can run.

    Args:
        separate: names of convolutions that are not to run in bands with what follows.
        joins: whether a depthwise group is to run in bands with this pointwise one behind it; None = never.
    """

    def __init__(
        self, graph: Graph, separate: Set[str] = frozenset(), joins: Callable[[Fused, Fused], bool] | None = None
    ) -> None:
        self.graph, self.separate, self.joins = graph, separate, joins
        self._readers = graph.consumers()
        self._maker = graph.makers()
        self._taken: set[str] = set()

    def groups(self) -> list[Fused]:
        """Every op is in exactly one group.  A group runs where its last op stands."""
        position = {op.name: index for index, op in enumerate(self.graph.ops)}
        found = []
        for op in reversed(self.graph.ops):  # of two branches that are added, the later one takes the sum
            if op.kind in _WITH_EPILOGUE and op.name not in self._taken:
                found.append(self._along(op) or self._with_epilogue(op))
        for op in self.graph.ops:
            if op.name not in self._taken:
                found.append(self._simple(op))
        return sorted(self._projected(self._banded(found)), key=lambda group: position[group.ops[-1].name])

    def _banded(self, groups: list[Fused]) -> list[Fused]:
        """Depthwise groups joined by the convolution whose result they alone read."""
        makers = {group.output: group for group in groups if self._may_come_first(group)}
        joined = {}
        for group in groups:
            first = makers.get(group.source)
            depthwise = is_depthwise(self.graph, group.head) and not group.along
            if first is not None and depthwise and group.residual is None:
                joined[group.head.name] = replace(group, ops=first.ops + group.ops, first=first)
        gone = {group.first.head.name for group in joined.values() if group.first is not None}
        return [joined.get(g.head.name, g) for g in groups if g.head.name not in gone]

    def _projected(self, groups: list[Fused]) -> list[Fused]:
        """Pointwise groups joined by the depthwise group whose result they alone read."""
        makers = {
            group.output: group
            for group in groups
            if is_depthwise(self.graph, group.head)
            and group.residual is None
            and len(self._readers[group.output]) == 1
            and group.output not in self.graph.outputs
        }
        joined = {}
        for group in groups:
            first = makers.get(group.source)
            possible = first is not None and is_pointwise(self.graph, group.head) and group.gate is None
            if first is not None and possible and self.joins is not None and self.joins(first, group):
                joined[group.head.name] = replace(group, ops=first.ops + group.ops, first=first)
        gone = {group.first.head.name for group in joined.values() if group.first is not None}
        return [joined.get(g.head.name, g) for g in groups if g.head.name not in gone]

    def _may_come_first(self, group: Fused) -> bool:
        head = group.head
        return (
            isinstance(head.attrs, Conv)
            and head.attrs.groups == 1
            and not group.along
            and group.residual is None
            and group.gate is None
            and len(self._readers[group.output]) == 1
            and group.output not in self.graph.outputs
            and self.separate.isdisjoint(op.name for op in group.ops)
        )

    def _only_reader(self, tensor: str) -> Op | None:
        readers = self._readers[tensor]
        free = len(readers) == 1 and tensor not in self.graph.outputs and readers[0].name not in self._taken
        return readers[0] if free else None

    def _activation(self, tensor: str, ops: list[Op]) -> tuple[GraphFunction, str]:
        view, reader = None, self._only_reader(tensor)
        if reader is not None and self._is_view(reader):
            view, reader = reader, self._only_reader(reader.outputs[0])
        if reader is None or not isinstance(reader.attrs, Activation) or reader.attrs.function not in FUNCTIONS:
            return "identity", tensor
        ops += [reader] if view is None else [view, reader]
        return reader.attrs.function, reader.outputs[0]

    def _is_view(self, op: Op) -> bool:
        """Whether an op writes what it reads: (N, C) as (N, C, 1, 1), or the other way round."""
        before, after = (rank4(self.graph.tensors[name].shape) for name in (op.inputs[0], op.outputs[0]))
        return op.kind in VIEWS and before == after

    def _with_epilogue(self, head: Op) -> Fused:
        ops = [head]
        activation, tensor = self._activation(head.outputs[0], ops)
        residual: str | None = None
        after: GraphFunction = "identity"
        reader = self._only_reader(tensor)
        if reader is not None and reader.kind == "add" and reader.inputs[0] != reader.inputs[1]:
            other = reader.inputs[1] if reader.inputs[0] == tensor else reader.inputs[0]
            shapes = {self.graph.tensors[name].shape for name in (tensor, other)}
            if len(shapes) == 1:
                ops.append(reader)
                residual = other
                after, tensor = self._activation(reader.outputs[0], ops)
        source, gate = head.inputs[0], None
        product = self._maker.get(source)
        if (
            product is not None
            and product.kind == "mul"
            and is_pointwise(self.graph, head)
            and self._only_reader(source) is head
            and self.graph.tensors[product.inputs[1]].shape == (*self.graph.tensors[product.inputs[0]].shape[:2], 1, 1)
        ):
            source, gate = product.inputs
            ops.insert(0, product)
        self._taken.update(op.name for op in ops)
        return Fused(head, tuple(ops), tensor, activation, residual, after, gate, source)

    def _along(self, head: Op) -> Fused | None:
        """A convolution of one channel on a column of real numbers that is a list of channels, and back."""
        before = self._maker.get(head.inputs[0])
        behind = self._only_reader(head.outputs[0])
        if before is None or behind is None or not isinstance(head.attrs, Conv):
            return None
        n, c, *_ = listed = self.graph.tensors[before.inputs[0]].shape
        taps = self.graph.constant_shapes(head)["weight"][2]
        if (
            {before.kind, behind.kind} != {"reshape"}
            or self._only_reader(before.outputs[0]) is not head
            or listed != (n, c, 1, 1)
            or self.graph.tensors[behind.outputs[0]].shape != listed
            or self.graph.input_shapes(head)[0] != (n, 1, c, 1)
            or head.attrs != Conv(pads=(taps // 2, 0, taps // 2, 0))
            or self.graph.constant_shapes(head)["weight"] != (1, 1, taps, 1)
            or not 1 <= taps % 2 <= taps <= _MOST_TAPS
            or any(self.graph.tensors[op.inputs[0]].scale is not None for op in (before, head, behind))
            or self.graph.constants[head.constants["weight"]].scale is not None
        ):
            return None
        ops = [before, head, behind]
        function, tensor = self._activation(behind.outputs[0], ops)
        self._taken.update(op.name for op in ops)
        return Fused(head, tuple(ops), tensor, function, source=before.inputs[0], along=True)

    def _simple(self, head: Op) -> Fused:
        ops = [head]
        function: GraphFunction = "identity"
        tensor = head.outputs[0]
        if head.kind in _WITH_ACTIVATION:
            function, tensor = self._activation(tensor, ops)
        self._taken.update(op.name for op in ops)
        return Fused(head, tuple(ops), tensor, function, source=head.inputs[0])

    def averaged(self, group: Fused) -> Op | None:
        """The global average of what a depthwise group writes."""
        if not is_depthwise(self.graph, group.head):
            return None
        for reader in self._readers[group.output]:
            if is_global_average(self.graph, reader):
                return reader
        return None
