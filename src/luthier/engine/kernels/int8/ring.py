"""The rows of a map of bytes that a window needs, as a depthwise convolution reads them.

Pixel i of a row, counted from a border to its left, is byte i mod 4 of the word i div 4:

    ring: [row mod slots][unit][i div 4][16 channels][i mod 4],     i = ix + 4 ceil(left / 4)         (1)

Behind all rows lies one of borders alone, for what is above and below the map.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import gcd

from luthier.engine.emit import Index, Value
from luthier.engine.kernels.int8.units import BYTES, QUAD, TO_GROUPS, UNIT, join, pick
from luthier.engine.kernels.kernel import Body
from luthier.engine.kernels.window import Window

#: bytes of a word of all channels of a unit
WORD = 64


@dataclass(frozen=True, slots=True)
class Ring:
    """Equation (1) for one window.

    Attributes:
        window: geometry; its input rows are what the ring holds.
        units: of channels.
    """

    window: Window
    units: int

    @property
    def reach(self) -> int:
        """Columns from a window's first tap to its last."""
        return (self.window.kernel[1] - 1) * self.window.dilation[1] + 1

    @property
    def left(self) -> int:
        """Words of border before column 0."""
        return -(-self.window.pads[1] // 4)

    @property
    def origin(self) -> int:
        """Place of the first tap of output 0."""
        return 4 * self.left - self.window.pads[1]

    @property
    def filled(self) -> int:
        """Words that hold pixels, the last one perhaps border too."""
        return -(-self.window.in_hw[1] // 4)

    @property
    def words(self) -> int:
        """Of a row, borders included."""
        last = self.origin + (self.window.out_hw[1] - 1) * self.window.stride[1] + self.reach - 1
        return max(self.left + self.filled, last // 4 + 1)

    @property
    def slots(self) -> int:
        """Rows: a power of two, no less than a window spans."""
        return 1 << (self.window.reach - 1).bit_length()

    @property
    def row_bytes(self) -> int:
        """Of one unit's row."""
        return self.words * WORD

    @property
    def bytes(self) -> int:
        """All rows, and the one of borders behind them."""
        return (self.slots * self.units + 1) * self.row_bytes

    def uses(self, output: int) -> list[tuple[int, int, int]]:
        """(word, phase, number of the word in the window) that output `output`, counted from a word's start, reads."""
        first = self.origin + output * self.window.stride[1]
        count = (first % 4 + self.reach - 1) // 4 + 1
        return [(first // 4 + j, first % 4, j) for j in range(count)]

    @property
    def period(self) -> int:
        """Outputs after which the words repeat."""
        return 4 // gcd(4, self.window.stride[1])

    @property
    def variants(self) -> list[tuple[int, int]]:
        """(phase, number of the word) of each word of weights, in order."""
        return sorted({(phase, j) for o in range(self.period) for _, phase, j in self.uses(o)})


def write_borders(body: Body, ring: Ring) -> None:
    """Zero points left and right of every row of a ring, and in the row of borders."""
    f = body.f
    border = f.load(QUAD, body["border"], align=WORD)
    beside = [*range(ring.left), *range(ring.left + ring.filled, ring.words)]

    def row(index: Index, _: object) -> None:
        at = body.at(body.scratch, (index, ring.row_bytes))
        for word in beside:
            f.store(border, at, WORD * word, align=WORD)

    f.loop(0, ring.slots * ring.units, row)
    last = f.offset(body.scratch, ring.slots * ring.units * ring.row_bytes)
    f.loop(0, ring.words, lambda word, _: f.store(border, last, f.mul(word, WORD), align=WORD))


def slot_of(body: Body, ring: Ring, iy: Index) -> Value:
    """Column 0 of unit 0 of an input row in the ring."""
    f = body.f
    at = body.at(body.scratch, (f.rem(iy, ring.slots), ring.units * ring.row_bytes))
    return f.offset(at, ring.left * WORD)


def stage_row(body: Body, ring: Ring, x: Value, iy: Index, ld: int) -> None:
    """Bring one row of a block's channels into the ring.

    Args:
        x: to the block's first channel of pixel (0, 0).
        iy: the row.
        ld: bytes of a pixel.
    """
    f, width = body.f, ring.window.in_hw[1]
    source, to = body.at(x, (iy, width * ld)), slot_of(body, ring, iy)
    border = f.load(BYTES, body["border"], align=UNIT)

    def word(index: Index, pixels: int) -> None:
        at, there = body.at(source, (index, 4 * ld)), body.at(to, (index, WORD))
        for u in range(ring.units):
            loaded = [f.load(BYTES, at, p * ld + UNIT * u, align=UNIT) for p in range(pixels)]
            grouped = pick(f, join(f, [*loaded, *[border] * (4 - pixels)]), TO_GROUPS)
            f.store(grouped, there, u * ring.row_bytes, align=WORD)

    f.loop(0, width // 4, lambda index, _: word(index, 4))
    if width % 4:
        word(width // 4, width % 4)
