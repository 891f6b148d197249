"""Peak activation memory by liveness: which tensors must exist together.

What is modelled: the ops run one by one in the graph's order; a tensor exists from the op that writes it to the last
op that reads it, the graph's input from the start, its output to the end.  At each op

    live_bytes = sum of the tensors that exist while it runs, inputs and outputs included            (1)

    peak_bytes = max over ops of live_bytes                                                          (2)

Views (flatten, reshape) cost nothing; a slice is a copy, as run times make it.  Not counted: weights, the kernel's own
scratch (im2col, accumulators), code, alignment and the allocator's gaps.  For "peak memory at the deployed precision,
batch 1" pass a folded graph of batch 1 with the deployed number types.  The order of the ops is the graph's;
`luthier.cost.order` finds the best one.  Groups that run tile by tile are `luthier.cost.scheduled_memory`'s.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator
from copy import copy
from dataclasses import dataclass
from typing import Final

from luthier.graph.mbconv import is_depthwise
from luthier.graph.op import Graph, Op
from luthier.schedule.scope import ELEMENTWISE, VIEWS, Scope

IN_PLACE: Final = ELEMENTWISE | {"softmax"}


@dataclass(frozen=True, slots=True)
class MemoryStep:
    """What is alive while one op runs.

    Attributes:
        op: its name.
        live_bytes: equation (1), with the scratch of an in-place depthwise.
        op_bytes: the part that the op itself reads and writes.
        tensors: names of the tensors alive; of those that share a buffer, the first.
    """

    op: str
    live_bytes: int
    op_bytes: int
    tensors: tuple[str, ...]


class Liveness:
    """The rules: what is alive after the ops that ran so far.  Every order of the ops is judged by this one.

    Attributes:
        live: buffer (named after its first tensor) -> bytes.
    """

    def __init__(
        self, graph: Graph, bytes_per_element: float | None = None, *, in_place_elementwise: bool = True,
        in_place_depthwise: bool = False, overwrite_inputs: bool = False,
    ) -> None:  # fmt: skip
        """Before the first op; see `memory_timeline` for the arguments."""
        self._graph = graph
        self._size = {
            name: tensor.bytes if bytes_per_element is None else math.ceil(tensor.elements * bytes_per_element)
            for name, tensor in graph.tensors.items()
        }
        self._reads = Counter(name for op in graph.ops for name in op.inputs)
        self._reads.update(graph.outputs)  # the caller reads them, after the last op
        self._in_place_elementwise = in_place_elementwise
        self._in_place_depthwise = in_place_depthwise
        self._kept = frozenset() if overwrite_inputs else frozenset(graph.inputs)
        self._buffer = {name: name for name in graph.inputs}  # tensor -> the tensor whose buffer it lives in
        self._pending = {name: self._reads[name] for name in graph.inputs}  # buffer -> reads still to come
        self.live = {name: self._size[name] for name in graph.inputs}

    def copy(self) -> Liveness:
        """The same state, to go on from in another way."""
        twin = copy(self)
        twin._buffer, twin._pending, twin.live = self._buffer.copy(), self._pending.copy(), self.live.copy()
        return twin

    def run(self, op: Op) -> MemoryStep:
        """Run one op, whose inputs exist."""
        out, size, live, pending = op.outputs[0], self._size, self.live, self._pending
        own = {self._buffer[name] for name in op.inputs}
        host, scratch = self._host(op)
        if host is None:
            host = out
            live[out] = size[out]
            pending[out] = 0
        self._buffer[out] = host
        pending[host] += self._reads[out]
        step = MemoryStep(
            op.name, sum(live.values()) + scratch, sum(live[name] for name in own | {host}) + scratch, tuple(live)
        )
        for name in op.inputs:
            pending[self._buffer[name]] -= 1
        dead = {name for name in own | {host} if pending[name] == 0}
        for name in dead:
            del live[name], pending[name]
        if host in live and op.kind not in VIEWS:
            live[host] = size[out]  # less than before where a depthwise with a stride wrote over its input
        if dead:  # a copied state stays small
            self._buffer = {name: buffer for name, buffer in self._buffer.items() if buffer not in dead}
        return step

    def run_together(self, scope: Scope, inside_bytes: int) -> MemoryStep:
        """Run a group tile by tile: its inputs stay to the last tile, its outputs exist from the first.

        Args:
            scope: the group, whose inputs exist.
            inside_bytes: of what exists inside it only.
        """
        own_reads = Counter(name for op in scope.ops for name in op.inputs)
        hosts = {name: self._buffer[name] for name in scope.inputs}
        for name in scope.outputs:
            host = hosts.get(scope.buffers[name], name)
            if host != name:
                own = sum(own_reads[other] for other, place in hosts.items() if place == host)
                if self._pending[host] != own or self.live[host] != self._size[name] or host in self._kept:
                    host = name
            if host == name:
                self.live[name], self._pending[name] = self._size[name], 0
            self._buffer[name] = host
            self._pending[host] += self._reads[name] - own_reads[name]
        ends = {*hosts.values(), *(self._buffer[name] for name in scope.outputs)}
        step = MemoryStep(
            scope.leader.name, sum(self.live.values()) + inside_bytes,
            sum(self.live[name] for name in ends) + inside_bytes, tuple(self.live),
        )  # fmt: skip
        for name in scope.inputs:
            self._pending[hosts[name]] -= own_reads[name]
        for name in ends:
            if self._pending[name] == 0:
                del self.live[name], self._pending[name]
        return step

    def _host(self, op: Op) -> tuple[str | None, int]:
        """The buffer that the op writes over, and the bytes of scratch that this takes; (None, 0) = a new buffer."""
        size, out = self._size, op.outputs[0]
        if op.kind in VIEWS:
            return self._buffer[op.inputs[0]], 0
        if self._in_place_elementwise and op.kind in IN_PLACE:
            return next((host for name in op.inputs if (host := self._reusable(op, name, size[out]))), None), 0
        source = op.inputs[0]
        if self._in_place_depthwise and is_depthwise(self._graph, op) and size[out] <= size[source]:
            host = self._reusable(op, source, self.live[self._buffer[source]])
            return host, 0 if host is None else math.ceil(size[out] / self._graph.tensors[out].shape[1])
        return None, 0

    def _reusable(self, op: Op, name: str, wanted: int) -> str | None:
        """The buffer of an input, if this op is its last reader and the size fits."""
        host = self._buffer[name]
        readings = sum(self._buffer[other] == host for other in op.inputs)
        free = self._pending[host] == readings and self.live[host] == wanted and host not in self._kept
        return host if free else None


def memory_timeline(
    graph: Graph,
    bytes_per_element: float | None = None,
    *,
    in_place_elementwise: bool = True,
    in_place_depthwise: bool = False,
    overwrite_inputs: bool = False,
) -> Iterator[MemoryStep]:
    """The live bytes at every op, in order.

    Args:
        graph: whose order is the execution order.
        bytes_per_element: of every activation (int4 0.5); None = each tensor's own number type.
        in_place_elementwise: norm, activation, add, mul, affine and softmax write over an input (the first, else the
            second) when nothing reads it later and it has the output's size.
        in_place_depthwise: a depthwise convolution that does not enlarge the map writes over its input channel by
            channel, through a scratch of one output channel (all of the batch).
        overwrite_inputs: whether the graph's inputs may be written over too; if not, they belong to the caller.
    """
    state = Liveness(
        graph, bytes_per_element, in_place_elementwise=in_place_elementwise, in_place_depthwise=in_place_depthwise,
        overwrite_inputs=overwrite_inputs,
    )  # fmt: skip
    return map(state.run, graph.ops)


def peak_activation_bytes(
    graph: Graph,
    bytes_per_element: float | None = None,
    *,
    in_place_elementwise: bool = True,
    in_place_depthwise: bool = False,
    overwrite_inputs: bool = False,
) -> int:
    """Equation (2); see `memory_timeline` for the arguments.

    Source:
        liveness as in Lin et al. 2021, arXiv:2110.15352 (MCUNetV2), which gives 1,372 KiB for MobileNetV2 with
        in-place depthwise at int8.
    Example:
        >>> from luthier.graph.builder import Builder
        >>> build = Builder()
        >>> x = build.conv("a", "a", build.input("x", (1, 3, 8, 8)), 4, kernel_size=3)
        >>> graph = build.graph(build.activation("y", x, "relu"))
        >>> peak_activation_bytes(graph, 1), peak_activation_bytes(graph)
        (448, 1792)
    """
    steps = memory_timeline(
        graph, bytes_per_element, in_place_elementwise=in_place_elementwise, in_place_depthwise=in_place_depthwise,
        overwrite_inputs=overwrite_inputs,
    )  # fmt: skip
    return max(step.live_bytes for step in steps)


def largest_op_bytes(graph: Graph, bytes_per_element: float | None = None) -> int:
    """Most bytes that a single op reads and writes, elementwise in place: no order of the ops needs less."""
    return max(step.op_bytes for step in memory_timeline(graph, bytes_per_element))
