"""What one tile of a group needs at once, in bytes.

    bytes(tensor) = rows * W * channels * bits / 8                                                   (1)

    total = inputs + inside + outputs + weights + accumulators                                       (2)

with the rows of `rows.bands`: of every input the rows that a tile reads, of every tensor inside the group its ring, of
the result the rows of the tile.  Tensors that share a buffer (`Scope.buffers`) count once, the larger.  Weights are all
weights of the group (with a channel block their part, as every weight then belongs to one channel).  Accumulators are
the sums of global pools: 32 bits per channel wherever the pooled tensor has fewer.  Not counted: what a kernel keeps in
registers.  One image at a time, whatever the batch.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil

from luthier.graph.op import DTYPE_BITS, Graph
from luthier.schedule.legal import by_channel
from luthier.schedule.rows import bands
from luthier.schedule.schedule import Group, Tile
from luthier.schedule.scope import Scope, scope

_SUM_BITS = 32


@dataclass(frozen=True, slots=True)
class WorkingSet:
    """Bytes of one tile, the terms of equation (2).

    Attributes:
        input_bytes: bands of the group's inputs.
        inside_bytes: rings of the tensors that exist inside the group only.
        output_bytes: band of the result.
        weight_bytes: of all its ops, or of the channel block.
        accumulator_bytes: sums of global pools.
    """

    input_bytes: int
    inside_bytes: int
    output_bytes: int
    weight_bytes: int
    accumulator_bytes: int

    @property
    def activation_bytes(self) -> int:
        """All but the weights."""
        return self.input_bytes + self.inside_bytes + self.output_bytes + self.accumulator_bytes

    @property
    def total_bytes(self) -> int:
        """Equation (2)."""
        return self.activation_bytes + self.weight_bytes


def working_set(
    graph: Graph, group: Group | Scope, tile: Tile | None = None, bytes_per_element: float | None = None
) -> WorkingSet:
    """What a group needs in fast memory while one tile runs.

    Args:
        graph: whose number types count.
        group: of that graph; a `Scope` saves finding it again.
        tile: instead of the group's own.
        bytes_per_element: of every activation; None = each tensor's own number type.
    Example:
        >>> from luthier.graph.builder import Builder
        >>> build = Builder()
        >>> x = build.conv("expand", "e", build.input("x", (1, 8, 14, 14)), 48)
        >>> graph = build.graph(build.conv("depthwise", "d", x, 48, kernel_size=3, groups=48))
        >>> found = working_set(graph, Group(("expand", "depthwise"), Tile(rows=4)))
        >>> found.inside_bytes == 6 * 14 * 48 * 4, found.output_bytes == 4 * 14 * 48 * 4, found.weight_bytes
        (True, True, 3264)
    """
    view = group if isinstance(group, Scope) else scope(graph, group)
    tile = view.group.tile if tile is None else tile
    size = tensor_bytes(graph, view, tile, bytes_per_element)
    buffers: dict[str, int] = {}
    for name, host in view.buffers.items():
        buffers[host] = max(buffers.get(host, 0), size[name])
    entering = set(view.inputs)
    leaving = {view.buffers[name] for name in view.outputs} - entering
    return WorkingSet(
        input_bytes=sum(buffers[host] for host in entering),
        inside_bytes=sum(n for host, n in buffers.items() if host not in entering | leaving),
        output_bytes=sum(buffers[host] for host in leaving),
        weight_bytes=_weight_bytes(graph, view, tile),
        accumulator_bytes=_accumulator_bytes(graph, view, tile, bytes_per_element),
    )


def tensor_bytes(graph: Graph, view: Scope, tile: Tile, bytes_per_element: float | None = None) -> dict[str, int]:
    """Equation (1) for every tensor of a group, by name."""
    rows = bands(graph, view, tile.rows)
    whole = {name for op in view.ops if not by_channel(graph, op) for name in op.inputs}
    found = {}
    for name, count in rows.items():
        tensor = graph.tensors[name]
        channels = tensor.shape[1] if name in whole else _block(tile, tensor.shape[1])
        width = tensor.shape[3] if len(tensor.shape) == 4 else 1
        each = DTYPE_BITS[tensor.dtype] / 8 if bytes_per_element is None else bytes_per_element
        found[name] = ceil(count * width * channels * each)
    return found


def _accumulator_bytes(graph: Graph, view: Scope, tile: Tile, bytes_per_element: float | None) -> int:
    """Sums of the global pools beside a tiled group; 0 where the pooled tensor itself is wide enough to sum in."""
    total = 0
    for op in view.sums if tile.rows is not None else ():
        tensor = graph.tensors[op.outputs[0]]
        bits = DTYPE_BITS[tensor.dtype] if bytes_per_element is None else 8 * bytes_per_element
        total += _block(tile, tensor.shape[1]) * _SUM_BITS // 8 if bits < _SUM_BITS else 0
    return total


def _block(tile: Tile, channels: int) -> int:
    return channels if tile.channels is None else min(tile.channels, channels)


def _weight_bytes(graph: Graph, view: Scope, tile: Tile) -> int:
    names = dict.fromkeys(name for op in view.ops for name in op.constants.values())
    total = 0
    for name in names:
        tensor = graph.constants[name]
        part = _block(tile, tensor.shape[0])
        total += ceil(tensor.elements * part / tensor.shape[0] * DTYPE_BITS[tensor.dtype] / 8)
    return total
