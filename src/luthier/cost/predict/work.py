"""What a graph asks of a device, as named sums over its ops: the features that a latency predictor learns from.

    feature = sum over ops of one class of (count, MACs, bytes, ...)                                 (1)

Sums add up: two halves of a network have together the features of the whole.  A device that runs op after op has a
latency that is nearly linear in them, each coefficient a time per op, per MAC or per byte.  What they leave out
(kernels that are chosen by shape, caches, overlap) is the business of the other terms of the predictor.
"""

from __future__ import annotations

from collections import defaultdict
from math import prod

from luthier.cost.macs import op_elementwise, op_macs
from luthier.graph.attrs import Activation, Conv
from luthier.graph.mbconv import is_depthwise
from luthier.graph.op import Graph, Op
from luthier.schedule.scope import VIEWS

#: vector units and blocked layouts work on channels in groups of this many
LANES = 16
#: upper ends of the classes of a map's height times width: 3 x 3, 7 x 7, 14 x 14, 28 x 28, 56 x 56
MAP_PIXELS = (9, 49, 196, 784, 3136)
#: upper ends of the classes of what an op reads and writes; between two of them lies each level of most caches
FOOTPRINT_KIB = (64, 256, 1024, 4096, 16384)


def graph_work(graph: Graph) -> dict[str, float]:
    """Equation (1) for every class of op.

    name                                summed over the ops of the class
    <class>.count                       1
    <class>.activation_bytes            read and written
    <class>.elementwise                 operations, see `macs.op_elementwise`; of classes without MACs
    <class>.macs                        multiply-accumulates
    <class>.padded_macs                 the same with both channel counts rounded up to multiples of 16
    <class>.weight_bytes                read
    <class>.<detail>.<count or macs>    the same by window and stride, and by size of the output map
    <class>.<detail>.bytes              read and written by ops of one class of footprint: where a cache ends

    Classes: pointwise, depthwise, grouped and dense convolutions, linear (also 1x1 convolutions of a single pixel), and
    the other kinds of `luthier.graph.attrs`, activations by function.  Views are free.

    Args:
        graph: as deployed, normally with norms folded.
    Example:
        >>> from luthier.graph.builder import Builder
        >>> build = Builder()
        >>> graph = build.graph(build.conv("c", "c", build.input("x", (1, 8, 4, 4)), 16, kernel_size=1))
        >>> work = graph_work(graph)
        >>> [work[f"pointwise.{key}"] for key in ("count", "macs", "padded_macs", "activation_bytes", "weight_bytes")]
        [1.0, 2048.0, 4096.0, 1536.0, 512.0]
    """
    work: defaultdict[str, float] = defaultdict(float)
    for op in graph.ops:
        if op.kind in VIEWS:
            continue
        name = work_class(graph, op)
        activation_bytes = sum(graph.tensors[tensor].bytes for tensor in (*op.inputs, *op.outputs))
        weight_bytes = sum(graph.constants[constant].bytes for constant in op.constants.values())
        macs = op_macs(graph, op)
        work[f"{name}.count"] += 1
        work[f"{name}.activation_bytes"] += activation_bytes
        work[f"{name}.{_footprint(activation_bytes + weight_bytes)}.bytes"] += activation_bytes + weight_bytes
        if not macs:
            work[f"{name}.elementwise"] += op_elementwise(graph, op)
            continue
        work[f"{name}.macs"] += macs
        work[f"{name}.weight_bytes"] += weight_bytes
        work[f"{name}.padded_macs"] += macs * _padding(graph, op)
        for detail in _details(graph, op):
            work[f"{name}.{detail}.count"] += 1
            work[f"{name}.{detail}.macs"] += macs
    return dict(work)


def work_class(graph: Graph, op: Op) -> str:
    """The class that an op is summed under, see `graph_work`."""
    if isinstance(op.attrs, Activation):
        return f"activation_{op.attrs.function}"
    if not isinstance(op.attrs, Conv):
        return op.kind
    weight = graph.constants[op.constants["weight"]].shape
    if is_depthwise(graph, op):
        return "depthwise"
    if op.attrs.groups > 1:
        return "grouped"
    if prod(weight[2:]) == 1:
        return "linear" if prod(graph.output_shape(op)[2:]) == 1 else "pointwise"
    return "dense"


def _padding(graph: Graph, op: Op) -> float:
    """Factor on an op's MACs when channels come in whole groups of `LANES`."""
    weight = graph.constants[op.constants["weight"]].shape
    sides = weight[:1] if is_depthwise(graph, op) else weight[:2]
    return prod(-(-side // LANES) * LANES / side for side in sides)


def _footprint(total_bytes: int) -> str:
    return next((f"to_{limit}_KiB" for limit in FOOTPRINT_KIB if total_bytes <= 1024 * limit), "more_KiB")


def _details(graph: Graph, op: Op) -> tuple[str, ...]:
    if not isinstance(op.attrs, Conv):
        return ()
    shape = graph.output_shape(op)
    pixels = next((f"to_{limit}_pixels" for limit in MAP_PIXELS if prod(shape[2:]) <= limit), "more_pixels")
    height, width = graph.constants[op.constants["weight"]].shape[2:]
    return pixels, f"{height}x{width}_stride_{op.attrs.stride[0]}"
