"""Which bytes a run finds in the cache and which it must fetch from beyond: reuse distance, buffer by buffer.

A buffer that is touched again after less than the cache's size of other bytes is still there; one that was not is cold.
Inference is repeated, so what matters is the second run over the same buffers.  Tensors that are dead hand their
buffer on, as the arenas of run times do.

Source: Mattson et al. 1970, doi 10.1147/sj.92.0078 (LRU stack distance), on whole buffers instead of lines.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Touch:
    """What one kernel touches.

    Attributes:
        reads: tensors and weights by name, with their bytes.
        writes: the tensor that it makes, with its bytes.
        weights: names among the reads that are never freed.
        fresh: names among the reads that the caller brings, in other memory every time.
    """

    reads: tuple[tuple[str, int], ...]
    writes: tuple[str, int]
    weights: frozenset[str] = frozenset()
    fresh: frozenset[str] = frozenset()


def cold_bytes(touches: Sequence[Touch], capacity_bytes: float) -> list[int]:
    """For every kernel the bytes of buffers that it touches and the cache does not hold.

    Example: two maps of 100 bytes take turns; with weights of 300 bytes nothing stays in 350.
        >>> steps = [
        ...     Touch((("x", 100), ("w", 300)), ("y", 100), frozenset({"w"})), Touch((("y", 100),), ("z", 100))
        ... ]
        >>> cold_bytes(steps, 1000), cold_bytes(steps, 350)
        ([0, 0], [400, 100])
    """
    plan = _buffers(touches)
    last: dict[str, int] = {}  # buffer -> time of the last touch, oldest first
    sizes: dict[str, int] = {}
    cold = [0] * len(plan)
    # the second run overwrites what the first, from an empty cache, counted
    fresh = {name for touch in touches for name in touch.fresh}
    for index, step in [*enumerate(plan), *enumerate(plan)]:
        cold[index] = 0
        if index == 0:
            last = {name: when for name, when in last.items() if name not in fresh}
        for name, size in step:
            since = 0
            if name in last:
                for other in reversed(last):
                    since += sizes[other]
                    if other == name or since > capacity_bytes:
                        break
                del last[name]
                if since > capacity_bytes:
                    cold[index] += size
            else:
                cold[index] += size
            last[name] = index
            sizes[name] = size
    return cold


def _buffers(touches: Sequence[Touch]) -> list[list[tuple[str, int]]]:
    """Touched buffers of each kernel: a new tensor takes the free buffer that fits it best, or a new one."""
    readers = Counter(name for touch in touches for name, _ in touch.reads)
    place: dict[str, str] = {}
    free: dict[str, int] = {}
    room: dict[str, int] = {}
    plan: list[list[tuple[str, int]]] = []
    for touch in touches:
        name, size = touch.writes
        step = []
        for read, read_bytes in touch.reads:
            buffer = place.setdefault(read, read)
            room.setdefault(buffer, read_bytes)
            step.append((buffer, read_bytes))
        fitting = [buffer for buffer, held in free.items() if held >= size]
        buffer = min(fitting, key=free.__getitem__, default=f"buffer {name}")
        room[buffer] = max(free.pop(buffer, size), size)
        place[name] = buffer
        step.append((buffer, size))
        for read, _ in touch.reads:
            readers[read] -= 1
            if readers[read] == 0 and read not in touch.weights:
                free[place[read]] = room[place[read]]
        plan.append(step)
    return plan
