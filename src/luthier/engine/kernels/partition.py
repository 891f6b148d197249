"""A length cut into parts of nearly equal size, and loops over them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from luthier.engine.emit import Function, Index


@dataclass(frozen=True, slots=True)
class Partition:
    """`total` items in as few parts of at most `limit` as possible; sizes differ by at most one.

    Example:
        >>> Partition(23, 8).sizes, Partition(16, 8).sizes, Partition(3, 8).sizes
        ((8, 8, 7), (8, 8), (3,))
    """

    total: int
    limit: int

    @property
    def count(self) -> int:
        """Number of parts."""
        return -(-self.total // self.limit)

    @property
    def sizes(self) -> tuple[int, ...]:
        """Of each part, larger ones first."""
        small, larger = divmod(self.total, self.count)
        return (small + 1,) * larger + (small,) * (self.count - larger)

    def runs(self) -> Iterator[tuple[int, int, int, int]]:
        """Parts of one size: (size, first part, number of parts, first item)."""
        small, larger = divmod(self.total, self.count)
        if larger:
            yield small + 1, 0, larger, 0
        yield small, larger, self.count - larger, larger * (small + 1)

    def loop(
        self, f: Function, body: Callable[[Index, int], None], low: Index = 0, high: Index | None = None,
        before: Callable[[int], None] | None = None,
    ) -> None:  # fmt: skip
        """Emit the parts low .. high - 1: `body(first item, size)`, once for every size that occurs.

        Args:
            before: is told of each size ahead of its parts.
        """
        high = self.count if high is None else high
        for size, part, count, item in self.runs():

            def step(index: Index, _: object, size: int = size, part: int = part, item: int = item) -> None:
                body(f.add(f.mul(f.sub(index, part), size), item), size)

            if before is not None:
                before(size)
            f.loop(f.max(low, part), f.min(high, part + count), step)


def share(f: Function, index: Index, parts: int, total: int) -> tuple[Index, Index]:
    """The range of `total` items that part `index` of `parts` takes: floor(i total / parts), and that of i + 1."""
    if parts == 1:
        return 0, total
    return f.div(f.mul(index, total), parts), f.div(f.mul(f.add(index, 1), total), parts)
