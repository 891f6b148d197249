"""What tuning has found, kept per device: for every group of ops the choices that were measured to be quicker.

An entry is named by a hash of what decides whether its choices hold:

    signature of the group: kinds, attributes, shapes, number types and wiring of its ops, not their names
    threads, and the order of axes where the group reads a caller's array
    the CPU with its caches, LLVM's version, and this package's own source                            (1)

So a network that was never tuned takes what was found for equal groups of another; another CPU or another version finds
nothing.  An entry that was cut short or changed counts as missing, and the next tuning writes it again.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence, Set
from dataclasses import asdict, dataclass, replace
from functools import partial
from itertools import pairwise
from typing import Any

import llvmlite.binding as llvm
import numpy as np

from luthier.engine.bands import joins
from luthier.engine.cache import cache_dir, code_version, read_entry, write_entry
from luthier.engine.lower import least_tasks
from luthier.engine.lower_int8 import IntegerLowering, is_quantised, lower_any
from luthier.engine.patterns import Patterns
from luthier.engine.program import DataOrder
from luthier.engine.target import Target
from luthier.errors import SpecError
from luthier.graph.mbconv import is_depthwise
from luthier.graph.op import Graph, Op
from luthier.schedule import AUTO, WHOLE, Choice, Group, Schedule, Tile


@dataclass(frozen=True, slots=True)
class Part:
    """Some ops of a region that run as one group.

    Attributes:
        count: of its ops; they follow those of the part before.
        tile, choice: as in `luthier.schedule`.
    """

    count: int
    tile: Tile = WHOLE
    choice: Choice = AUTO


@dataclass(frozen=True, slots=True)
class Region:
    """Ops that the engine can run as one group.

    Attributes:
        ops: names, in order.
        key: equation (1); regions of one key are tuned together.
        cuts: where its convolutions could run each alone: numbers of ops before the second, the third.
        projected: whether the last one is computed band by band behind a depthwise one.
        apart: those of its cuts at which the engine by itself runs it in parts.
    """

    ops: tuple[str, ...]
    key: str
    cuts: tuple[int, ...] = ()
    projected: bool = False
    apart: tuple[int, ...] = ()

    @property
    def whole(self) -> tuple[Part, ...]:
        """All in one, otherwise as the kernels choose."""
        return (Part(len(self.ops), WHOLE, Choice(projected=True) if self.projected else AUTO),)

    @property
    def default(self) -> tuple[Part, ...]:
        """As the engine by itself runs it."""
        if not self.apart:
            return self.whole
        ends = (*self.apart, len(self.ops))
        joined = self.projected and self.cuts[-1] not in self.apart
        counts = [end - start for start, end in pairwise((0, *ends))]
        return (*map(Part, counts[:-1]), Part(counts[-1], WHOLE, Choice(projected=True) if joined else AUTO))

    def cut(self) -> Iterator[tuple[Part, ...]]:
        """In two, at each of its cuts, otherwise as the kernels choose; in one, where the engine by itself does not."""
        if self.apart:
            yield self.whole
        for number in self.cuts:
            behind = self.projected and number != self.cuts[-1]
            yield Part(number), Part(len(self.ops) - number, WHOLE, Choice(projected=True) if behind else AUTO)

    def groups(self, parts: Sequence[Part]) -> Iterator[Group]:
        """The region under these choices."""
        start = 0
        for part in parts:
            yield Group(self.ops[start : start + part.count], part.tile, part.choice)
            start += part.count


def regions(graph: Graph, target: Target, threads: int, order: DataOrder) -> tuple[Region, ...]:
    """All of a graph, in an order in which they can run."""
    context = (threads, repr(target), str(llvm.llvm_version_info), code_version())
    readers = graph.consumers()
    averaged = {name for name, ops in readers.items() if any(op.kind == "global_pool" for op in ops)}
    found = []
    widest, owner = _patterns(graph, target, threads, order)
    for group in widest.groups():
        said = json.dumps([_signature(graph, group.ops, order, averaged), *context])
        key = hashlib.sha256(said.encode()).hexdigest()
        inner, cuts = group.first, []
        while inner is not None:
            cuts.append(len(inner.ops))
            inner = inner.first
        behind = group.first is not None and is_depthwise(graph, group.first.head)
        names = tuple(op.name for op in group.ops)
        apart = tuple(cut for cut in reversed(cuts) if owner and owner[names[cut - 1]] != owner[names[cut]])
        found.append(Region(names, key, tuple(reversed(cuts)), behind, apart))
    return tuple(found)


def _patterns(graph: Graph, target: Target, threads: int, order: DataOrder) -> tuple[Patterns, dict[str, int]]:
    """All that can run as one; and which ops do, where the engine by itself keeps some apart."""
    if not is_quantised(graph):
        return Patterns(graph, joins=partial(joins, graph, target, None)), {}
    lowering = IntegerLowering(graph, zeros(graph), target, order, least_tasks(threads), None)
    return lowering.widest(), {
        op.name: index for index, group in enumerate(lowering.patterns.groups()) for op in group.ops
    }


def zeros(graph: Graph) -> dict[str, np.ndarray[Any, Any]]:
    """Constants that take no memory, for what does not depend on them."""
    kinds = {"int8": np.int8, "int32": np.int32}
    return {
        name: np.broadcast_to(np.zeros((), kinds.get(tensor.dtype, np.float32)), tensor.shape)
        for name, tensor in graph.constants.items()
    }


def _signature(graph: Graph, ops: tuple[Op, ...], order: DataOrder, averaged: Set[str]) -> list[Any]:
    numbers: dict[str, int] = {}
    inside = {op.outputs[0] for op in ops}
    lines: list[Any] = []
    for op in ops:
        for name in op.inputs:
            if name not in inside and name not in numbers:
                tensor = graph.tensors[name]
                lines.append([tensor.shape, tensor.dtype, tensor.scale is None, order if name in graph.inputs else ""])
            numbers.setdefault(name, len(numbers))
        out = graph.tensors[op.outputs[0]]
        constants = [(role, graph.constants[name]) for role, name in sorted(op.constants.items())]
        lines.append([
            op.kind, repr(op.attrs), [numbers[name] for name in op.inputs], out.shape, out.dtype, out.scale is None,
            out.name in averaged,
            [(role, tensor.shape, tensor.dtype) for role, tensor in constants],
        ])  # fmt: skip
        numbers[out.name] = len(numbers)
    return lines


def tuned_schedule(graph: Graph, target: Target, threads: int = 1, order: DataOrder = "nchw") -> Schedule | None:
    """The schedule `tuned`: for every region what tuning found, else left to the kernels; None = nothing was found."""
    folder = cache_dir("tuned")
    if folder is None or not any(folder.iterdir()):
        return None
    all_regions = regions(graph, target, threads, order)
    known = {region.key: parts for region in all_regions if (parts := stored(region)) is not None}
    return schedule_of(all_regions, known) if known else None


def schedule_of(all_regions: Sequence[Region], known: Mapping[str, tuple[Part, ...]]) -> Schedule:
    """The schedule `tuned`, from the parts of some keys."""
    return Schedule(
        "tuned",
        tuple(
            group
            for region in all_regions
            for group in region.groups(known.get(region.key, region.default))
        ),
    )  # fmt: skip


def schedule_as_run(graph: Graph, target: Target, threads: int = 1) -> Schedule | None:
    """The schedule `tuned` with the bands that the kernels choose where it leaves them open, for analysis.

    Raises:
        InputError: an op that the engine lacks.
    """
    schedule = tuned_schedule(graph, target, threads)
    if schedule is None:
        return None
    lowered = lower_any(graph, zeros(graph), target, least_tasks=least_tasks(threads), schedule=schedule)
    tiles = {name: step.kernel.tile for step in lowered.steps for name in step.ops if step.kernel.tile.rows}
    return replace(schedule, groups=tuple(replace(group, tile=tiles.get(group.ops[0], WHOLE)) for group in schedule))


def store(region: Region, parts: Sequence[Part]) -> None:
    """Keep what was found for a region."""
    folder = cache_dir("tuned")
    if folder is not None:
        write_entry(folder / f"{region.key}.json", json.dumps([asdict(part) for part in parts]).encode())


def stored(region: Region) -> tuple[Part, ...] | None:
    """What was kept for a region; None where there is nothing, or nothing whole."""
    folder = cache_dir("tuned")
    content = None if folder is None else read_entry(folder / f"{region.key}.json")
    if content is None:
        return None
    try:
        parts = tuple(_part(plain) for plain in json.loads(content))
    except (ValueError, TypeError, KeyError, AttributeError, SpecError):
        return None
    return parts if sum(part.count for part in parts) == len(region.ops) else None


def _part(plain: dict[str, Any]) -> Part:
    choice = plain["choice"]
    block = choice.pop("block")
    return Part(
        plain["count"], Tile(**plain["tile"]), Choice(block=None if block is None else (block[0], block[1]), **choice)
    )
