"""One block of memory for all activations: each lives from the step that first names it to the last that does."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from luthier.engine.layout import round_up

#: a buffer begins on a pair of cache lines, which is also a whole vector of every target
ALIGNMENT: Final = 128


@dataclass(frozen=True, slots=True)
class Arena:
    """Where every buffer begins.

    Attributes:
        offsets: by name, in bytes, multiples of 128.
        bytes: of the whole block.
        live_bytes: the most that exists at one time: no layout can be smaller.
    """

    offsets: Mapping[str, int]
    bytes: int
    live_bytes: int


def lifetimes(uses: Sequence[Sequence[str]], outputs: Sequence[str]) -> dict[str, tuple[int, int]]:
    """First and last step of every buffer that a step names; outputs live until after the last."""
    found: dict[str, tuple[int, int]] = {}
    for index, names in enumerate(uses):
        for name in names:
            found[name] = (found.get(name, (index, index))[0], index)
    for name in outputs:
        found[name] = (found.get(name, (0, 0))[0], len(uses))
    return found


def plan_arena(buffers: Mapping[str, int], lives: Mapping[str, tuple[int, int]]) -> Arena:
    """Largest first, each at the lowest place that nothing alive at the same time occupies.

    Args:
        buffers: bytes by name.
        lives: first and last step by name; a buffer without a life is left out.
    Example:
        >>> arena = plan_arena({"a": 256, "b": 128, "c": 256}, {"a": (0, 1), "b": (1, 2), "c": (2, 3)})
        >>> dict(arena.offsets), arena.bytes, arena.live_bytes
        ({'a': 0, 'c': 0, 'b': 256}, 384, 384)
    """
    sizes = {name: round_up(buffers[name], ALIGNMENT) for name in lives}
    placed: dict[str, int] = {}
    for name in sorted(lives, key=lambda name: (-sizes[name], lives[name])):
        first, last = lives[name]
        taken = sorted(
            (placed[other], placed[other] + sizes[other])
            for other in placed
            if lives[other][0] <= last and first <= lives[other][1]
        )
        offset = 0
        for low, high in taken:
            if offset + sizes[name] <= low:
                break
            offset = max(offset, high)
        placed[name] = offset
    steps = {step for life in lives.values() for step in life}
    live = [sum(sizes[n] for n, (a, b) in lives.items() if a <= step <= b) for step in steps]
    total = max((placed[name] + sizes[name] for name in placed), default=0)
    return Arena(placed, total, max(live, default=0))
