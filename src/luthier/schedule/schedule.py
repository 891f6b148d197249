"""How a graph is run, as data, apart from what it computes: groups of ops, each tiled or not.

A group is run as one: what its ops hand to each other stays inside, in fast memory.  A tile is a band of output rows of
the group's leader, its last op that is not a global pool; with it the tensors inside the group never exist whole, but
as a ring of the rows that the next op still needs:

    rows_in = (rows_out - 1) * stride + kernel                                                       (1)

Rows stay in the ring until no later tile needs them, so nothing is computed twice.  The global average of squeeze and
excitation is a running sum beside the tiles, complete after the last one.

Below the tile stands the `Choice`: registers, loops and parts.  The number type of a tensor is a field of the graph.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final, Literal

from luthier.errors import SpecError


@dataclass(frozen=True, slots=True)
class Tile:
    """What one pass over a group produces.

    Attributes:
        rows: output rows of the group's leader; None = the whole map.
        channels: block of the tensors inside the group and of its result (the expanded ones).  All tiles of one block
            run before the next block.  None = all channels.
    """

    rows: int | None = None
    channels: int | None = None

    def __post_init__(self) -> None:
        for name, value in (("rows", self.rows), ("channels", self.channels)):
            if value is not None and value < 1:
                raise SpecError(f"Tile: {name} must be at least 1, got {value}")


WHOLE: Final = Tile()


@dataclass(frozen=True, slots=True)
class Choice:
    """How kernels walk over a tile.  None = as the kernel's own estimate has it; a kernel takes what concerns it.

    Nothing here changes what is computed, beyond the order in which a sum is rounded.

    Attributes:
        block: pixels and vectors of output channels whose sums a matrix product or dense convolution keeps in
            registers.  Where such a convolution is followed by a depthwise one band by band, the vectors are the block
            of channels that both go through.
        outputs: neighbouring outputs of a row that a depthwise convolution keeps in registers.
        order: the outer loop of a matrix product: over blocks of `rows`, each of which meets all channels, or over
            blocks of `channels`, each of which meets all rows.
        gate: what a gate is multiplied with before a product: its `rows`, or its `weights`.
        projected: whether a pointwise convolution behind a depthwise one of the group is computed band by band with it;
            None = where the tile has rows.
        row_parts, channel_parts: parts that threads may run beside each other.
    """

    block: tuple[int, int] | None = None
    outputs: int | None = None
    order: Literal["rows", "channels"] | None = None
    gate: Literal["rows", "weights"] | None = None
    projected: bool | None = None
    row_parts: int | None = None
    channel_parts: int | None = None

    def __post_init__(self) -> None:
        counts = (*(self.block or ()), self.outputs, self.row_parts, self.channel_parts)
        if any(count is not None and count < 1 for count in counts):
            raise SpecError(f"Choice: counts must be at least 1, got {self}")
        if self.order not in (None, "rows", "channels") or self.gate not in (None, "rows", "weights"):
            raise SpecError(f"Choice: order is rows or channels and gate is rows or weights, got {self}")


AUTO: Final = Choice()


@dataclass(frozen=True, slots=True)
class Group:
    """Ops that run as one.

    Attributes:
        ops: names, in the order of the graph.
        tile: how its output is cut.
        choice: how kernels walk over a tile.
    """

    ops: tuple[str, ...]
    tile: Tile = WHOLE
    choice: Choice = AUTO

    def __post_init__(self) -> None:
        if not self.ops:
            raise SpecError("Group: needs at least one op")

    @property
    def tiled(self) -> bool:
        """Whether it runs tile by tile, all its ops at once."""
        return self.tile != WHOLE

    @property
    def label(self) -> str:
        """First and last op, for messages."""
        return f"group {self.ops[0]}" + (f" .. {self.ops[-1]}" if len(self.ops) > 1 else "")


@dataclass(frozen=True, slots=True)
class Schedule:
    """A whole graph's schedule.

    Attributes:
        name: `unfused`, `fused`, `tuned`, or a user's own.
        groups: in the order in which they run; every op of the graph is in exactly one.
    """

    name: Literal["unfused", "fused", "tuned"] | str
    groups: tuple[Group, ...]

    def __iter__(self) -> Iterator[Group]:
        return iter(self.groups)
