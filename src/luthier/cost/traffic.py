"""Bytes that a schedule moves across each level of a device's memory: the least that it allows.

Every group of a schedule reads its inputs and weights once and writes its outputs once.  A tensor that travels between
a group and its home, the level where it waits, crosses every level from the nearest to its home:

    bytes(level) = sum of the transfers whose home is `level` or farther                             (1)

The home of a transfer is the nearest level that holds everything touched since the bytes were last touched (their
reuse distance); what is farther away than every level can hold comes from the last one:

    transfer                          touched meanwhile
    group reads an activation         all tensors and weights of the groups from its last use to this one
    group writes an activation        as for the reader that finds it farthest away
    group reads its weights           a whole run, since runs follow each other: all weights, and the activations' peak
    the input arrives, the output     the outside world: the last level
      leaves
    inside a group: one op writes,    the group's working set, see `luthier.schedule`
      the next reads
    weights, for each further tile    the group's working set
    inputs, for each further block    all inputs and outputs of the group, and the block's weights
      of channels

Activations share buffers, so no more than their peak counts as touched.  Inside a group an elementwise op or a global
pooling takes each value as it is made: that moves nothing.  Views move nothing.  Where levels hold different things
(weights in flash, activations in SRAM), each transfer knows only the levels that hold its kind.

Without residency (`resident=False`) each transfer between groups goes to the last level: the textbook's roofline.

Mechanism and limitations: whole tensors and least recently used; no associativity, no prefetch, no line size, no write
allocation; a private cache counts once per thread; what a kernel reads again because its registers are few is not
traffic here but the efficiency of a calibration.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import ceil
from typing import Literal

from luthier.cost.scheduled_memory import scheduled_peak_bytes
from luthier.device import Device
from luthier.graph.mbconv import is_depthwise
from luthier.graph.op import Graph, Op
from luthier.schedule import Schedule, Scope, scopes, working_set
from luthier.schedule.scope import ELEMENTWISE, VIEWS

Content = Literal["weights", "activations"]
_CONTENTS: tuple[Content, Content] = ("weights", "activations")


@dataclass(frozen=True, slots=True)
class GroupTraffic:
    """Bytes that one group moves across the memory levels of a device, nearest first."""

    weights: tuple[int, ...]
    activations: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class _Touched:
    """What one group touches, in bytes.

    Attributes:
        reads, writes: activations from and for other groups.
        inner: written and read again inside.
        weights: of all its ops.
        tile_weights, tile_activations: the working set of one tile; 0 where all is streamed.
        weights_again, reads_again: by further tiles, and by further blocks of channels.
    """

    reads: Mapping[str, int]
    writes: Mapping[str, int]
    inner: int
    weights: int
    tile_weights: int
    tile_activations: int
    weights_again: int
    reads_again: int


def traffic(
    graph: Graph, schedule: Schedule, device: Device, *, threads: int = 1, resident: bool = True
) -> tuple[GroupTraffic, ...]:
    """What each group of a schedule moves, by equation (1).

    Args:
        graph: as deployed: norms folded, number types as run.
        schedule: whose groups hold every op of the graph once.
        device: whose memory levels are crossed; a level of unknown size holds nothing for long.
        threads: that share the work; each has its own copy of a level that is not shared.
        resident: False = nothing waits in a cache between two groups.
    Example:
        >>> from luthier.device import MemoryLevel
        >>> from luthier.graph.builder import Builder
        >>> from luthier.schedule import Group
        >>> build = Builder()
        >>> graph = build.graph(build.conv("c", "c", build.input("x", (1, 8, 4, 4)), 16))
        >>> dram = Device(name="d", title="D", kind="cpu", memory=(MemoryLevel("DRAM"),))
        >>> traffic(graph, Schedule("unfused", (Group(("c",)),)), dram)
        (GroupTraffic(weights=(512,), activations=(1536,)),)
    """
    names = _buffers(graph)
    homes = _Homes(device, threads)
    touched = _touched(graph, schedule, names)
    peak = scheduled_peak_bytes(graph, schedule)
    stored = sum(group.weights for group in touched)
    weights_home = homes.home("weights", stored, peak) if resident else homes.last("weights")
    read_homes, write_homes = _activation_homes(graph, touched, names, homes, peak, resident)
    moved = []
    for index, group in enumerate(touched):
        tile = {content: homes.home(content, group.tile_weights, group.tile_activations) for content in _CONTENTS}
        block = homes.home("activations", group.tile_weights, sum(group.reads.values()) + sum(group.writes.values()))
        weights = [(group.weights, weights_home), (group.weights_again, tile["weights"])]
        activations = [(group.inner, tile["activations"]), (group.reads_again, block)]
        activations += [(size, read_homes[index, name]) for name, size in group.reads.items()]
        activations += [(size, write_homes.get(name, homes.last("activations"))) for name, size in group.writes.items()]
        moved.append(GroupTraffic(homes.crossed("weights", weights), homes.crossed("activations", activations)))
    return tuple(moved)


class _Homes:
    """Which level holds what, for each kind of content."""

    def __init__(self, device: Device, threads: int) -> None:
        self.levels = device.memory
        self.chain = {
            content: [at for at, level in enumerate(self.levels) if level.holds in ("all", content)]
            for content in _CONTENTS
        }
        self.copies = [1 if level.shared else threads for level in self.levels]

    def last(self, content: Content) -> int:
        """The level where everything fits; -1 = the device has none for this content."""
        return self.chain[content][-1] if self.chain[content] else -1

    def home(self, content: Content, weights: int, activations: int) -> int:
        """The nearest level that holds what was touched."""
        for at in self.chain[content]:
            level = self.levels[at]
            wanted = weights + activations
            if level.holds != "all":
                wanted = weights if content == "weights" else activations
            if level.size_bytes is not None and wanted <= level.size_bytes.value * self.copies[at]:
                return at
        return self.last(content)

    def crossed(self, content: Content, transfers: list[tuple[int, int]]) -> tuple[int, ...]:
        """Equation (1)."""
        return tuple(
            sum(size for size, home in transfers if home >= at) if at in self.chain[content] else 0
            for at in range(len(self.levels))
        )


def _buffers(graph: Graph) -> dict[str, str]:
    """Every activation and the one whose bytes it shares; a view has none of its own."""
    names = {name: name for name in graph.tensors}
    for op in graph.ops:
        if op.kind in VIEWS:
            names[op.outputs[0]] = names[op.inputs[0]]
    return names


def _touched(graph: Graph, schedule: Schedule, names: Mapping[str, str]) -> list[_Touched]:
    readers: dict[str, list[Op]] = {}
    for op in graph.ops:
        if op.kind not in VIEWS:
            for name in {names[name] for name in op.inputs}:
                readers.setdefault(name, []).append(op)
    leaving = {names[name] for name in graph.outputs}
    return [_group_touched(graph, scope, names, readers, leaving) for scope in scopes(graph, schedule)]


def _group_touched(
    graph: Graph, scope: Scope, names: Mapping[str, str], readers: Mapping[str, list[Op]], leaving: set[str]
) -> _Touched:
    ops = [op for op in scope.ops if op.kind not in VIEWS]
    made = [op.outputs[0] for op in ops]
    sizes = {name: graph.tensors[name].bytes for name in (*made, *(names[name] for op in ops for name in op.inputs))}
    reads = {name: size for name, size in sizes.items() if name not in made}
    writes: dict[str, int] = {}
    inner = 0
    for name in made:
        inside = [op for op in readers.get(name, ()) if op.name in scope.group.ops]
        buffered = not _streamed(inside)
        if name in leaving or len(inside) < len(readers.get(name, ())) or not inside:
            writes[name] = sizes[name]
        elif buffered:
            inner += sizes[name]
        inner += sizes[name] * len(inside) if buffered else 0
    weights = sum(graph.constants[name].bytes for name in {name for op in ops for name in op.constants.values()})
    tiles, blocks = _passes(graph, scope)
    tile = working_set(graph, scope) if inner or tiles * blocks > 1 else None
    mixed = {names[op.inputs[0]] for op in ops if op.kind in ("conv", "linear") and not is_depthwise(graph, op)}
    return _Touched(
        reads=reads,
        writes=writes,
        inner=inner,
        weights=weights,
        tile_weights=tile.weight_bytes if tile else 0,
        tile_activations=tile.activation_bytes if tile else 0,
        weights_again=weights * (tiles - 1),
        reads_again=sum(reads[name] for name in mixed & reads.keys()) * (blocks - 1),
    )


def _passes(graph: Graph, scope: Scope) -> tuple[int, int]:
    """Bands of rows over all images, and blocks of channels, that a group runs one after another."""
    shape, tile = graph.tensors[scope.result].shape, scope.group.tile
    rows = 1 if tile.rows is None else shape[0] * ceil(shape[2] / tile.rows)
    return rows, 1 if tile.channels is None else ceil(shape[1] / tile.channels)


def _streamed(inside: list[Op]) -> bool:
    """Whether what these ops of a group read needs no buffer: each value is used as it is made."""
    return not inside or (len(inside) == 1 and inside[0].kind in ELEMENTWISE | {"global_pool"})


def _activation_homes(
    graph: Graph, touched: list[_Touched], names: Mapping[str, str], homes: _Homes, peak: int, resident: bool
) -> tuple[dict[tuple[int, str], int], dict[str, int]]:
    """Homes of what each group reads, and of what is written for others."""
    last = homes.last("activations")
    used: dict[str, int] = {}
    read_homes: dict[tuple[int, str], int] = {}
    write_homes = {names[name]: last for name in graph.outputs}
    for index, group in enumerate(touched):
        for name in group.reads:
            home = last
            if resident and name in used:
                between = touched[used[name] : index + 1]
                sizes = {tensor: size for one in between for tensor, size in {**one.reads, **one.writes}.items()}
                rings = max(one.tile_activations for one in between)
                home = homes.home(
                    "activations", sum(one.weights for one in between), min(sum(sizes.values()) + rings, peak)
                )
            read_homes[index, name] = home
            write_homes[name] = max(home, write_homes.get(name, -1))
        used.update(dict.fromkeys((*group.reads, *group.writes), index))
    return read_homes, write_homes
