"""Which rows of which tensor a tile touches.

One output row reads `size` input rows; so output rows first .. last read the input rows

    first * stride - before  ..  last * stride - before + size - 1                                   (1)

clipped to the map; `size` spans a dilated window, the rows between its taps included.  A group's tiles run from the top
to the bottom of the leader's output.  In each tile an op makes only the rows that were never made before, so that
nothing is computed twice; a row stays until no later tile reads it.  At tile i the rows of a tensor inside the group
that exist are

    min over tiles j >= i of the first row read in j  ..  the last row made so far                   (2)

and the band that has to be kept for it is the most rows of (2) over all tiles.  Between an expansion and a depthwise
convolution that is (rows_out - 1) * stride + size, or fewer on a map of one or two tiles.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

from luthier.graph.attrs import Conv, Pool, Subsample
from luthier.graph.op import Graph, Op
from luthier.schedule.scope import Scope


@dataclass(frozen=True, slots=True)
class Window:
    """How the rows of an op's output read the rows of one of its inputs, equation (1).

    Attributes:
        size: input rows read by one output row.
        stride: input rows from one output row to the next.
        before: rows of padding above the map.
    """

    size: int = 1
    stride: int = 1
    before: int = 0

    def reads(self, first: int, end: int, height: int) -> tuple[int, int]:
        """Input rows (first, end) that the output rows first .. end - 1 read, of a map of `height` rows.

        Example:
            >>> Window(size=3, stride=2, before=1).reads(0, 4, 112), Window(3, 2, 1).reads(4, 8, 112)
            ((0, 8), (7, 16))
        """
        top = first * self.stride - self.before
        bottom = (end - 1) * self.stride - self.before + self.size
        return min(max(top, 0), height), max(min(bottom, height), 0)


def row_window(graph: Graph, op: Op) -> Window:
    """The window of a conv, pool or subsample along H; of any other op, one row reads one row."""
    match op.attrs:
        case Conv():
            size = graph.constants[op.constants["weight"]].shape[2]
            return Window((size - 1) * op.attrs.dilation[0] + 1, op.attrs.stride[0], op.attrs.pads[0])
        case Pool():
            return Window(op.attrs.kernel[0], op.attrs.stride[0], op.attrs.pads[0])
        case Subsample():
            return Window(1, op.attrs.stride[0], 0)
    return Window()


def bands(graph: Graph, scope: Scope, rows: int | None) -> dict[str, int]:
    """Most rows of each tensor of a group that a tile needs at once, by the tensor's name.

    Args:
        graph: of the group.
        scope: the group; with `rows` it must be one that `legal.check` lets run tile by tile.
        rows: of the leader's output in one tile; None = all in one.
    Returns:
        For tensors inside the group the band of equation (2); for its inputs the rows that one tile reads; for its
        result `rows`; for what global pools write 1.
    Example:
        >>> from luthier.graph.builder import Builder
        >>> from luthier.schedule.schedule import Group
        >>> from luthier.schedule.scope import scope
        >>> build = Builder()
        >>> x = build.conv("expand", "e", build.input("x", (1, 8, 14, 14)), 48)
        >>> graph = build.graph(build.conv("depthwise", "d", x, 48, kernel_size=3, groups=48))
        >>> bands(graph, scope(graph, Group(("expand", "depthwise"))), rows=4)
        {'x': 5, 'expand': 6, 'depthwise': 4}
    """
    names = (*scope.inputs, *(op.outputs[0] for op in scope.ops))
    heights = tuple(shape[2] if len(shape := graph.tensors[name].shape) == 4 else 1 for name in names)
    if rows is None:
        return dict(zip(names, heights, strict=True))
    number = {name: index for index, name in enumerate(names)}
    steps = tuple(
        (row_window(graph, op), number[op.outputs[0]], tuple(number[name] for name in op.inputs))
        for op in reversed(scope.ops)
        if op.kind != "global_pool"
    )
    inside = tuple(number[name] for name in scope.inside)
    most = _most_rows(steps, heights, inside, rows)
    for op in scope.sums:
        most = (*most[: number[op.outputs[0]]], 1, *most[number[op.outputs[0]] + 1 :])
    return dict(zip(names, most, strict=True))


@lru_cache(maxsize=4096)
def _most_rows(
    steps: tuple[tuple[Window, int, tuple[int, ...]], ...], heights: tuple[int, ...], inside: tuple[int, ...], rows: int
) -> tuple[int, ...]:
    """`bands` on numbered tensors, so that equal blocks are worked out once.

    Args:
        steps: window, output and inputs of every op, the leader first.
        heights: rows of every tensor.
        inside: the tensors inside the group.
        rows: of a tile.
    """
    result = steps[0][1]
    made = [0] * len(heights)
    tiles: list[tuple[dict[int, tuple[int, int]], list[int]]] = []
    for first in range(0, heights[result], rows):
        read = {result: (first, min(first + rows, heights[result]))}
        for window, out, inputs in steps:
            begin, end = made[out], read.get(out, (0, 0))[1]
            if end <= begin:
                continue
            made[out] = end
            for source in inputs:
                whole = heights[source] == 1 < heights[out]  # a gate: one value for all rows
                low, high = (0, 1) if whole else window.reads(begin, end, heights[source])
                known = read.get(source)
                read[source] = (low, high) if known is None else (min(low, known[0]), max(high, known[1]))
        tiles.append((read, made.copy()))
    most = [0] * len(heights)
    needed: dict[int, int] = {}  # tensor -> the first row that this tile or a later one reads
    for read, ends in reversed(tiles):
        for tensor, (low, high) in read.items():
            needed[tensor] = min(low, needed.get(tensor, low))
            if tensor not in inside:
                most[tensor] = max(most[tensor], high - low)
        for tensor in inside:
            if tensor in needed:
                most[tensor] = max(most[tensor], ends[tensor] - needed[tensor])
    return tuple(most)
