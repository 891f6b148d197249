"""Peak activation memory by liveness: which tensors must exist together.

What is modelled: the ops run one by one in the graph's order; a tensor exists from the op that writes it to the last
op that reads it, the graph's input from the start, its output to the end.  At each op

    live_bytes = sum of the tensors that exist while it runs, inputs and outputs included            (1)

    peak_bytes = max over ops of live_bytes                                                          (2)

Views (flatten, reshape) cost nothing; a slice is a copy, as run times make it.  Not counted: weights, the kernel's own
scratch (im2col, accumulators), code, alignment and the allocator's gaps.  For "peak memory at the deployed precision,
batch 1" pass a folded graph of batch 1 with the deployed number types.  Not modelled here: other execution orders and
tile-by-tile schedules.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from luthier.graph.attrs import Conv
from luthier.graph.op import Graph, Op

ELEMENTWISE: Final = frozenset({"norm", "activation", "add", "mul", "affine", "softmax"})
VIEWS: Final = frozenset({"flatten", "reshape"})


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


def is_depthwise(graph: Graph, op: Op) -> bool:
    """Whether an op is a convolution of each channel with itself alone."""
    if not isinstance(op.attrs, Conv):
        return False
    weight = graph.constants[op.constants["weight"]].shape
    return weight[1] == 1 and op.attrs.groups == weight[0] > 1


def memory_timeline(
    graph: Graph,
    bytes_per_element: float | None = None,
    *,
    in_place_elementwise: bool = True,
    in_place_depthwise: bool = False,
) -> Iterator[MemoryStep]:
    """The live bytes at every op, in order.

    Args:
        graph: whose order is the execution order.
        bytes_per_element: of every activation (int4 0.5); None = each tensor's own number type.
        in_place_elementwise: norm, activation, add, mul, affine and softmax write over their first input when
            nothing reads it later and it has the output's size; the graph's inputs are never written over.
        in_place_depthwise: a depthwise convolution that does not enlarge the map writes over its input channel by
            channel, through a scratch of one output channel (all of the batch).
    """
    size = {
        name: tensor.bytes if bytes_per_element is None else math.ceil(tensor.elements * bytes_per_element)
        for name, tensor in graph.tensors.items()
    }
    reads = Counter(name for op in graph.ops for name in op.inputs)
    reads.update(graph.outputs)  # the caller reads them, after the last op
    buffer = {name: name for name in graph.inputs}  # tensor -> the tensor whose buffer it lives in
    pending = {name: reads[name] for name in graph.inputs}  # buffer -> reads still to come
    live = {name: size[name] for name in graph.inputs}
    for op in graph.ops:
        out, scratch = op.outputs[0], 0
        own = {buffer[name] for name in op.inputs}
        host = None
        if op.kind in VIEWS:
            host = buffer[op.inputs[0]]
        elif in_place_elementwise and op.kind in ELEMENTWISE:
            host = _reusable(op, size[out], buffer, pending, live, graph)
        elif in_place_depthwise and is_depthwise(graph, op) and size[out] <= size[op.inputs[0]]:
            host = _reusable(op, live[buffer[op.inputs[0]]], buffer, pending, live, graph)
            scratch = 0 if host is None else math.ceil(size[out] / graph.tensors[out].shape[1])
        if host is None:
            host = out
            live[out] = size[out]
            pending[out] = 0
        buffer[out] = host
        pending[host] += reads[out]
        yield MemoryStep(
            op.name, sum(live.values()) + scratch, sum(live[name] for name in own | {host}) + scratch, tuple(live)
        )
        for name in op.inputs:
            pending[buffer[name]] -= 1
        for name in own | {host}:
            if pending[name] == 0:
                del live[name], pending[name]
            elif name == host and op.kind not in VIEWS:
                live[name] = size[out]  # less than before where a depthwise with a stride wrote over its input


def _reusable(
    op: Op, wanted: int, buffer: dict[str, str], pending: dict[str, int], live: dict[str, int], graph: Graph
) -> str | None:
    """The buffer of the first input, if this op is its last reader and the size fits."""
    host = buffer[op.inputs[0]]
    readings = sum(buffer[name] == host for name in op.inputs)
    free = pending[host] == readings and live[host] == wanted and host not in graph.inputs
    return host if free else None


def peak_activation_bytes(
    graph: Graph,
    bytes_per_element: float | None = None,
    *,
    in_place_elementwise: bool = True,
    in_place_depthwise: bool = False,
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
        graph, bytes_per_element, in_place_elementwise=in_place_elementwise, in_place_depthwise=in_place_depthwise
    )
    return max(step.live_bytes for step in steps)


def largest_op_bytes(graph: Graph, bytes_per_element: float | None = None) -> int:
    """Most bytes that a single op reads and writes, elementwise in place: no order of the ops needs less."""
    return max(step.op_bytes for step in memory_timeline(graph, bytes_per_element))
