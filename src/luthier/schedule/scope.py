"""What a group of ops reads, keeps and hands out."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Final

from luthier.errors import SpecError
from luthier.graph.op import Graph, Op
from luthier.schedule.schedule import Group, Schedule

#: kinds that make a row of the output from the same row of each input, one element at a time
ELEMENTWISE: Final = frozenset({"norm", "activation", "add", "mul"})
#: kinds that write nothing: the same bytes under another shape
VIEWS: Final = frozenset({"flatten", "reshape"})


@dataclass(frozen=True, slots=True)
class Scope:
    """A group seen from its graph.

    Attributes:
        group: itself.
        ops: in order.
        inputs: activations read inside and written elsewhere.
        inside: activations written inside that nothing outside reads; with a tile they exist as bands of rows only.
        outputs: activations written inside that others read, or the graph hands out.
        leader: the last op that is not a global pool; a tile is a band of the rows that it writes.
        buffers: tensor -> the first of the tensors whose buffer it shares: an elementwise op writes over an
            input that has its size where nothing else in the group, and nothing later, reads that.
    """

    group: Group
    ops: tuple[Op, ...]
    inputs: tuple[str, ...]
    inside: tuple[str, ...]
    outputs: tuple[str, ...]
    leader: Op
    buffers: Mapping[str, str]

    @property
    def result(self) -> str:
        """The tensor that the leader writes."""
        return self.leader.outputs[0]

    @property
    def sums(self) -> tuple[Op, ...]:
        """The global pools beside the leader: running sums, finished with the last tile."""
        return tuple(op for op in self.ops if op.kind == "global_pool" and op is not self.leader)


def scopes(graph: Graph, schedule: Schedule) -> Iterator[Scope]:
    """The scope of every group, in order.

    Raises:
        SpecError: a group names an op that the graph lacks.
    """
    edges = _Edges(graph, [name for group in schedule for name in group.ops])
    for group in schedule:
        yield _scope(group, edges)


def scope(graph: Graph, group: Group) -> Scope:
    """The scope of one group; `scopes` is quicker for all.

    Raises:
        SpecError: the group names an op that the graph lacks.
    Example:
        >>> from luthier.graph.builder import Builder
        >>> build = Builder()
        >>> x = build.conv("expand", "e", build.input("x", (1, 8, 14, 14)), 48)
        >>> graph = build.graph(build.conv("depthwise", "d", x, 48, kernel_size=3, groups=48))
        >>> found = scope(graph, Group(("expand", "depthwise")))
        >>> found.inputs, found.inside, found.outputs
        (('x',), ('expand',), ('depthwise',))
    """
    return _scope(group, _Edges(graph, [op.name for op in graph.ops]))


class _Edges:
    """A graph's ops by name, makers and readers of its tensors, and the order in which it runs."""

    def __init__(self, graph: Graph, order: list[str]) -> None:
        self.graph = graph
        self.ops = {op.name: op for op in graph.ops}
        self.readers = graph.consumers()
        self.makers = {op.outputs[0]: op for op in graph.ops}
        self.position = dict.fromkeys(self.ops, len(order)) | {name: index for index, name in enumerate(order)}


def _scope(group: Group, edges: _Edges) -> Scope:
    for name in group.ops:
        if name not in edges.ops:
            raise SpecError(f"Schedule: {group.label}: the graph has no op {name!r}")
    ops, names = tuple(edges.ops[name] for name in group.ops), set(group.ops)
    written = tuple(name for op in ops for name in op.outputs)
    inputs = dict.fromkeys(name for op in ops for name in op.inputs if name not in written)
    inside = tuple(
        name
        for name in written
        if edges.readers[name]
        and name not in edges.graph.outputs
        and all(op.name in names for op in edges.readers[name])
    )
    buffers = {name: name for name in inputs}
    for op in ops:
        source = next((name for name in op.inputs if _writes_over(op, name, names, edges)), None)
        buffers[op.outputs[0]] = op.outputs[0] if source is None else buffers.get(source, source)
    outputs = tuple(name for name in written if name not in inside)
    leader = next((op for op in reversed(ops) if op.kind != "global_pool"), ops[-1])
    return Scope(group, ops, tuple(inputs), inside, outputs, leader, buffers)


def _writes_over(op: Op, source: str, names: set[str], edges: _Edges) -> bool:
    tensors, maker = edges.graph.tensors, edges.makers.get(source)
    if op.kind not in ELEMENTWISE or maker is None or source in edges.graph.outputs:
        return False
    if maker.kind in VIEWS or tensors[op.outputs[0]].bytes != tensors[source].bytes:
        return False
    own, last = op.name, edges.position[op.name]
    return all(
        reader.name == own
        or (edges.position[reader.name] < last and reader.name not in names and reader.kind not in VIEWS)
        for reader in edges.readers[source]
    )
