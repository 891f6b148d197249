"""Where a window of a convolution or pool meets the map: rows are counted when the code runs, columns when it is made.

    iy = oy * stride - top + ky * dilation,     0 <= iy < H                                           (1)

Output columns are cut into tiles.  A tile whose windows all lie inside the map is the same code wherever it stands; a
tile at the border leaves out the taps that would fall beside the map.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from luthier.engine.emit import Function, Index
from luthier.engine.kernels.partition import Partition
from luthier.graph.attrs import Pads, Pair


@dataclass(frozen=True, slots=True)
class ColumnTile:
    """Neighbouring outputs of one row, and the taps that each of them has.

    Attributes:
        first: output column of the first of `count` equal tiles.
        size: outputs per tile.
        count: tiles.
        taps: for every kx the outputs (0 .. size - 1) whose tap lies inside the map.
    """

    first: int
    size: int
    count: int
    taps: tuple[tuple[int, ...], ...]


@dataclass(frozen=True, slots=True)
class Window:
    """Geometry of a convolution or pool.

    Attributes:
        in_hw, out_hw: of the maps.
        kernel, stride, dilation: (down, right).
        pads: top, left, bottom, right.
    """

    in_hw: Pair
    out_hw: Pair
    kernel: Pair
    stride: Pair
    pads: Pads = (0, 0, 0, 0)
    dilation: Pair = (1, 1)

    @property
    def title(self) -> str:
        """Part of a kernel's name."""
        return f"{self.kernel[0]}x{self.kernel[1]}s{self.stride[0]}"

    @property
    def is_pixel(self) -> bool:
        """Whether it is a single pixel inside the map."""
        return self.kernel == (1, 1) and not any(self.pads)

    @property
    def reach(self) -> int:
        """Rows from a window's first tap to its last."""
        return (self.kernel[0] - 1) * self.dilation[0] + 1

    def in_column(self, ox: Index, f: Function, kx: int = 0) -> Index:
        """ix of equation (1) for output column ox, negative beside the map."""
        return f.sub(f.mul(ox, self.stride[1]), self.pads[1] - kx * self.dilation[1])

    def in_row(self, oy: Index, f: Function) -> Index:
        """iy of equation (1) for ky = 0, negative above the map."""
        return f.sub(f.mul(oy, self.stride[0]), self.pads[0])

    def taps(self, f: Function, start: Index, axis: int) -> tuple[Index, Index]:
        """The range of ky (axis 0) or kx (axis 1) that lies inside the map, for a window whose first tap is `start`."""
        step, size, kernel = self.dilation[axis], self.in_hw[axis], self.kernel[axis]
        if not (self.pads[axis] or self.pads[axis + 2]):
            return 0, kernel
        low = f.div(f.add(f.max(f.sub(0, start), 0), step - 1), step)
        high = f.div(f.add(f.max(f.sub(size, start), 0), step - 1), step)
        return low, f.min(high, kernel)

    def column_tiles(self, limit: int) -> Iterator[ColumnTile]:
        """All output columns, in tiles of at most `limit`; neighbours that are equal inside the map are one entry.

        Example:
            >>> window = Window((9, 9), (9, 9), (3, 3), (1, 1), (1, 1, 1, 1))
            >>> [(tile.first, tile.size, tile.count) for tile in window.column_tiles(2)]
            [(0, 2, 1), (2, 2, 3), (8, 1, 1)]
            >>> next(window.column_tiles(2)).taps
            ((1,), (0, 1), (0, 1))
        """
        waiting: ColumnTile | None = None
        first = 0
        for size in Partition(self.out_hw[1], limit).sizes:
            tile = ColumnTile(first, size, 1, tuple(self._inside(first, size, kx) for kx in range(self.kernel[1])))
            whole = all(len(outputs) == size for outputs in tile.taps)
            if waiting is not None and whole and waiting.taps == tile.taps:
                waiting = ColumnTile(waiting.first, size, waiting.count + 1, tile.taps)
            else:
                if waiting is not None:
                    yield waiting
                waiting = tile
            first += size
        assert waiting is not None
        yield waiting

    def _inside(self, first: int, size: int, kx: int) -> tuple[int, ...]:
        start = first * self.stride[1] - self.pads[1] + kx * self.dilation[1]
        return tuple(o for o in range(size) if 0 <= start + o * self.stride[1] < self.in_hw[1])
