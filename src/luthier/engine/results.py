"""What tuning returns, as frozen values that a report can read."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Final

from luthier.schedule import Group, Schedule

_AS_KERNELS: Final = "as the kernels choose"


def in_words(group: Group) -> str:
    """What a schedule says of one group.

    Example:
        >>> from luthier.schedule import Choice, Tile
        >>> in_words(Group(("a",), Tile(7, 48), Choice(block=(7, 3), row_parts=1)))
        'rows 7, channels 48, block 7x3, row parts 1'
    """
    choice = group.choice
    said: dict[str, object] = {"rows": group.tile.rows, "channels": group.tile.channels}
    said["block"] = None if choice.block is None else "x".join(map(str, choice.block))
    said |= {f.name.replace("_", " "): getattr(choice, f.name) for f in fields(choice) if f.name != "block"}
    return ", ".join(f"{name} {value}" for name, value in said.items() if value is not None) or _AS_KERNELS


@dataclass(frozen=True, slots=True)
class Tried:
    """One candidate for the regions of one key, measured inside the running network.

    Attributes:
        groups: of the first such region, under this candidate.
        ratio: median over rounds of its time to the incumbent's of the same round.
        modelled_ratio: the same by the estimate that ranked it; None = not ranked.
        better: whether it took the incumbent's place.
    """

    groups: tuple[Group, ...]
    ratio: float
    modelled_ratio: float | None
    better: bool


@dataclass(frozen=True, slots=True)
class Retimed:
    """The regions of one key: before, with the kernels' own choices, and after.

    Attributes:
        groups: of the first such region, as tuned.
        regions: that share the key.
        before_s, after_s: of all of them, medians of the last rounds.
        changed: whether tuning keeps another choice than the kernels' own.
        tried: candidates measured, in order.
    """

    groups: tuple[Group, ...]
    regions: int
    before_s: float
    after_s: float
    changed: bool
    tried: tuple[Tried, ...]

    @property
    def said(self) -> str:
        """What tuning keeps, in words."""
        if not self.changed:
            return _AS_KERNELS
        return ("each alone: " if len(self.groups) > 1 else "") + "; ".join(map(in_words, self.groups))


@dataclass(frozen=True, slots=True)
class Tuning:
    """What tuning a network has found.

    Attributes:
        schedule: `tuned`; compiling takes it from the cache by itself.
        isa, l1_bytes, l2_bytes, threads: of the machine that was measured.
        retimed: by key, the most saved first.
        before_s, after_s: of the whole network, medians of interleaved rounds; measured.
        ratio: median over the rounds of after to before.
        rounds: of the last comparison.
        spent_s: in all.
        ended: why: nothing left to try, the time was over, or somebody stopped it.
    """

    schedule: Schedule
    isa: str
    l1_bytes: int
    l2_bytes: int
    threads: int
    retimed: tuple[Retimed, ...]
    before_s: float
    after_s: float
    ratio: float
    rounds: int
    spent_s: float
    ended: str

    @property
    def candidates(self) -> int:
        """That were measured."""
        return sum(len(one.tried) for one in self.retimed)


@dataclass(frozen=True, slots=True)
class TileTime:
    """One tile of a group, measured and modelled.

    Attributes:
        rows: of a band; None = not in bands, op after op.
        channels: of a block.
        working_set_bytes: of one tile, see `luthier.schedule.working_set`.
        latency_s, spread_s: of the group inside the network; median over rounds, and from first to third quartile.
        modelled_s: by `luthier.engine.estimate`, times the one clock that makes it right on the median tile.
    """

    rows: int | None
    channels: int | None
    working_set_bytes: int
    latency_s: float
    spread_s: float
    modelled_s: float


@dataclass(frozen=True, slots=True)
class TileCurve:
    """Time against the size of the tile, of one group.

    Attributes:
        ops: of the group.
        block: of the network, that it belongs to.
        chosen_rows: without tuning.
        tiles: by rows.
    """

    ops: tuple[str, ...]
    block: str
    chosen_rows: int | None
    tiles: tuple[TileTime, ...]

    @property
    def gain(self) -> float:
        """Time of the slowest banded tile, divided by that of the quickest.

        Example:
            >>> tiles = tuple(TileTime(rows, 16, 0, time, 0.0, 1.0) for rows, time in ((1, 3.0), (2, 2.0), (None, 9.0)))
            >>> TileCurve(("a",), "", 2, tiles).gain
            1.5
        """
        times = [tile.latency_s for tile in self.tiles if tile.rows is not None]
        return max(times) / min(times)
