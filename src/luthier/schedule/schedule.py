"""How a graph is run, as data, apart from what it computes: groups of ops, each tiled or not.

A group is run as one: what its ops hand to each other stays inside, in fast memory.  A tile is a band of output rows of
the group's last op; with it the tensors inside the group never exist whole, but as a ring of the rows that the next op
still needs:

    rows_in = (rows_out - 1) * stride + kernel                                                       (1)

Rows stay in the ring until no later tile needs them, so nothing is computed twice.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from luthier.errors import SpecError


@dataclass(frozen=True, slots=True)
class Tile:
    """What one pass over a group produces.

    Attributes:
        rows: output rows of the group's last spatial op; None = the whole map.
        channels: block of the tensors inside the group (the expanded ones), run one block after another; None = all.
    """

    rows: int | None = None
    channels: int | None = None

    def __post_init__(self) -> None:
        for name, value in (("rows", self.rows), ("channels", self.channels)):
            if value is not None and value < 1:
                raise SpecError(f"Tile: {name} must be at least 1, got {value}")


WHOLE = Tile()


@dataclass(frozen=True, slots=True)
class Group:
    """Ops that run as one.

    Attributes:
        ops: names, in the order of the graph.
        tile: how its output is cut.
    """

    ops: tuple[str, ...]
    tile: Tile = WHOLE

    def __post_init__(self) -> None:
        if not self.ops:
            raise SpecError("Group: needs at least one op")


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
