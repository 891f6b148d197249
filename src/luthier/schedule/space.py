"""The tiles that a group may have, as data: what a tuner searches.

Of all row counts that cut a map of H rows into n tiles the smallest needs the least memory, so only these count:

    rows(n) = ceil(H / n)        for every number of tiles n                                         (1)

which are about 2 sqrt(H) different ones.  Channel blocks are C, C / 2, C / 4, ... rounded up to `multiple`.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from luthier.graph.op import Graph
from luthier.schedule.legal import channel_problem, row_problem
from luthier.schedule.schedule import Group, Tile
from luthier.schedule.scope import Scope, scope


@dataclass(frozen=True, slots=True)
class TileSpace:
    """The choices of one group.

    Attributes:
        rows: descending; the first leaves the map whole.
        channels: descending; the first is None, all channels.
    """

    rows: tuple[int | None, ...]
    channels: tuple[int | None, ...]

    def __iter__(self) -> Iterator[Tile]:
        return (Tile(rows, channels) for channels in self.channels for rows in self.rows)

    def __len__(self) -> int:
        return len(self.rows) * len(self.channels)


def tile_space(graph: Graph, group: Group | Scope, *, multiple: int = 8) -> TileSpace:
    """Every tile of a group worth trying; all of them are legal.

    Args:
        graph: of the group.
        group: its own tile does not matter.
        multiple: channel blocks are multiples of this, normally the lanes of a vector register.
    Example:
        >>> from luthier.graph.builder import Builder
        >>> build = Builder()
        >>> x = build.conv("expand", "e", build.input("x", (1, 8, 14, 14)), 48)
        >>> graph = build.graph(build.conv("depthwise", "d", x, 48, kernel_size=3, groups=48))
        >>> tile_space(graph, Group(("expand", "depthwise")))
        TileSpace(rows=(None, 7, 5, 4, 3, 2, 1), channels=(None, 24, 16, 8))
    """
    view = group if isinstance(group, Scope) else scope(graph, group)
    rows: tuple[int | None, ...] = (None,)
    channels: tuple[int | None, ...] = (None,)
    shape = graph.tensors[view.result].shape
    if row_problem(graph, view) is None:
        height = shape[2]
        rows += tuple(sorted({-(-height // tiles) for tiles in range(2, height + 1)}, reverse=True))
    if channel_problem(graph, view) is None:
        count = shape[1]
        halves = (
            -(-count // (parts * multiple)) * multiple for parts in (1 << n for n in range(1, count.bit_length()))
        )
        channels += tuple(sorted({size for size in halves if size < count}, reverse=True))
    return TileSpace(rows, channels)
