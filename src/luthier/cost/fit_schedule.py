"""The schedule that changes least and keeps peak memory under a limit: only groups above it are fused and cut."""

from __future__ import annotations

from collections.abc import Iterator

from luthier.cost.scheduled_memory import scheduled_timeline
from luthier.graph.mbconv import find_mbconv
from luthier.graph.op import Graph
from luthier.schedule.make import fused
from luthier.schedule.schedule import Group, Schedule, Tile
from luthier.schedule.scope import Scope, scope, scopes
from luthier.schedule.space import tile_space
from luthier.schedule.working_set import working_set


def fit_schedule(graph: Graph, base: Schedule, limit_bytes: int, bytes_per_element: float | None = None) -> Schedule:
    """`base` with tiles where its live bytes exceed the limit.

    Groups of `base` that together are one group of `luthier.schedule.fused` are replaced by it where one of them needs
    more than the limit, with the largest tile that keeps it, else with the smallest if that needs less than before.

    Args:
        graph: as deployed.
        base: legal for it, groups in the order of their first ops (`unfused`, `fused`).
        limit_bytes: of activations.
        bytes_per_element: of every activation; None = each tensor's own number type.
    Returns:
        A legal schedule named `fitted`, or `base` itself where no tile helps; its peak may still exceed the limit.
    Example:
        >>> from luthier.arch.presets import get
        >>> from luthier.cost.scheduled_memory import scheduled_peak_bytes
        >>> from luthier.graph import from_network
        >>> from luthier.schedule import unfused
        >>> graph = from_network(get("mobilenetv2_100"), fold_norm=True)
        >>> schedule = fit_schedule(graph, unfused(graph), 1 << 20, 1)
        >>> [(group.label, group.tile.rows) for group in schedule if group.tiled]
        [('group stage2.0.expand.conv .. stage2.0.project.conv', 28)]
        >>> scheduled_peak_bytes(graph, schedule, 1) <= 1 << 20
        True
    """
    before = {name: step for step in scheduled_timeline(graph, base, bytes_per_element) for name in step.group.ops}
    chosen: list[Group] = []
    smallest = fused(graph, rows=1)
    steps = scheduled_timeline(graph, smallest, bytes_per_element)
    for view, step in zip(scopes(graph, smallest), steps, strict=True):
        worst = max(before[name].live_bytes for name in step.group.ops)
        parts = {before[name].group for name in step.group.ops}
        if not step.group.tiled or worst <= limit_bytes or sum(len(p.ops) for p in parts) != len(step.group.ops):
            continue
        rows = _largest_rows(graph, view, limit_bytes - step.live_bytes + step.inside_bytes, bytes_per_element)
        if rows is not None or step.live_bytes < worst:
            chosen.append(Group(step.group.ops, Tile(rows or 1)))
    if not chosen:
        return base
    replaced = {name for group in chosen for name in group.ops}
    position = {op.name: index for index, op in enumerate(graph.ops)}
    groups = [*chosen, *(group for group in base if group.ops[0] not in replaced)]
    return Schedule("fitted", tuple(sorted(groups, key=lambda group: position[group.ops[0]])))


def _largest_rows(graph: Graph, view: Scope, room: int, bytes_per_element: float | None) -> int | None:
    """Of the largest tile whose inside needs no more than `room` bytes."""
    for rows in tile_space(graph, view).rows:
        if rows is None:
            continue
        found = working_set(graph, view, Tile(rows), bytes_per_element)
        if found.inside_bytes + found.accumulator_bytes <= room:
            return rows
    return None


def describe(graph: Graph, base: Schedule, schedule: Schedule) -> str:
    """What `schedule` does that `base` does not, in words; empty if nothing."""
    new = [group for group in schedule if group not in base.groups]
    if len(new) > 3:
        rows = sorted(group.tile.rows or 0 for group in new)
        blocks = f"{_block(graph, new[0])} .. {_block(graph, new[-1])}"
        return f"fuse {len(new)} groups of {blocks} with tiles of {rows[0]} to {rows[-1]} rows"
    return ", ".join(_words(graph, group, any(group.ops == old.ops for old in base)) for group in new)


def _words(graph: Graph, group: Group, was_fused: bool) -> str:
    parts = "+".join(_roles(graph, group))
    verb = "cut" if was_fused else "fuse"
    return f"{verb} {parts} of {_block(graph, group)} with {group.tile.rows}-row tiles"


def _roles(graph: Graph, group: Group) -> Iterator[str]:
    role = {
        layer.conv: word
        for found in find_mbconv(graph)
        for word, layer in (("expand", found.expand), ("depthwise", found.depthwise), ("project", found.project))
        if layer is not None
    }
    for op in graph.ops:
        if op.name in group.ops and op.kind in ("conv", "mul"):
            yield role.get(op.name, "conv" if op.kind == "conv" else "gate")


def _block(graph: Graph, group: Group) -> str:
    leader = scope(graph, group).leader
    return leader.block or leader.name
