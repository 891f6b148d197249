"""Peak activation memory of a schedule: what must exist together when groups run tile by tile.

    live_bytes(group) = tensors between groups + inside_bytes                                        (1)

    peak_bytes = max over groups of live_bytes                                                       (2)

A group with a tile runs all its ops at once: its inputs stay whole to its last tile, its outputs exist whole from its
first; the tensors inside exist as rings of rows (`luthier.schedule.rows`), beside the 32-bit sums of its global pools.
A group without a tile runs op by op, as `memory_timeline` says; with one op to a group, or none tiled, (1) is its
equation (1) exactly.  Weights are not in it; they stand beside it.

Source:
    Rows of a chain of layers kept instead of maps: Alwani et al. 2016, doi 10.1109/MICRO.2016.7783725 (fused-layer
    CNN accelerators).  Lin et al. 2021, arXiv:2110.15352 (MCUNetV2) cut the map in both directions and compute the
    overlap again; whole rows need no second computation and somewhat more memory.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from luthier.cost.memory import Liveness
from luthier.graph.op import Graph
from luthier.schedule.rows import bands
from luthier.schedule.schedule import Group, Schedule
from luthier.schedule.scope import Scope, scopes
from luthier.schedule.working_set import tensor_bytes, working_set


@dataclass(frozen=True, slots=True)
class Ring:
    """A tensor that exists inside a tiled group only.

    Attributes:
        tensor: its name.
        rows: that exist at once, of `height`.
        bytes: of these rows.
        whole_bytes: what the whole map would take.
    """

    tensor: str
    rows: int
    height: int
    bytes: int
    whole_bytes: int


@dataclass(frozen=True, slots=True)
class GroupMemory:
    """What is alive while one group runs.

    Attributes:
        group: its ops and tile.
        block: of its leader.
        live_bytes: equation (1); of a group without a tile the most over its ops.
        inside_bytes: rings and sums of a tiled group; tensors that share a buffer count once.
        weight_bytes: of its ops; not part of `live_bytes`.
        tensors: names of the tensors alive between groups while it runs; of those that share a buffer, the first.
        rings: the tensors inside a tiled group, in order.
    """

    group: Group
    block: str
    live_bytes: int
    inside_bytes: int
    weight_bytes: int
    tensors: tuple[str, ...]
    rings: tuple[Ring, ...]


def scheduled_timeline(
    graph: Graph, schedule: Schedule, bytes_per_element: float | None = None, *,
    in_place_depthwise: bool = False, overwrite_inputs: bool = False,
) -> Iterator[GroupMemory]:  # fmt: skip
    """The live bytes of every group, in the schedule's order.

    Args:
        graph: as deployed: folded, batch 1, with the deployed number types.
        schedule: legal for this graph (`luthier.schedule.check`).
        bytes_per_element: and the others as in `memory_timeline`, elementwise ops in place; `in_place_depthwise` is for
            groups without a tile, since the next tile still reads the rows of a ring.
    """
    state = Liveness(graph, bytes_per_element, in_place_depthwise=in_place_depthwise, overwrite_inputs=overwrite_inputs)
    for view in scopes(graph, schedule):
        inside = working_set(graph, view, bytes_per_element=bytes_per_element)
        rings: tuple[Ring, ...] = ()
        inside_bytes = 0
        if view.group.tiled:
            rings = tuple(_rings(graph, view, bytes_per_element))
            inside_bytes = inside.inside_bytes + inside.accumulator_bytes
            steps = [state.run_together(view, inside_bytes)]
        else:
            steps = [state.run(op) for op in view.ops]
        live_bytes = max(step.live_bytes for step in steps)
        names = {name for step in steps for name in step.tensors}
        tensors = tuple(name for name in graph.tensors if name in names)
        yield GroupMemory(view.group, view.leader.block, live_bytes, inside_bytes, inside.weight_bytes, tensors, rings)


def _rings(graph: Graph, view: Scope, bytes_per_element: float | None) -> Iterator[Ring]:
    rows = bands(graph, view, view.group.tile.rows)
    held = tensor_bytes(graph, view, view.group.tile, bytes_per_element)
    whole = tensor_bytes(graph, view, Group(view.group.ops).tile, bytes_per_element)
    for name in view.inside:
        yield Ring(name, rows[name], graph.tensors[name].shape[2], held[name], whole[name])


def scheduled_peak_bytes(
    graph: Graph, schedule: Schedule, bytes_per_element: float | None = None, *,
    in_place_depthwise: bool = False, overwrite_inputs: bool = False,
) -> int:  # fmt: skip
    """Equation (2); see `scheduled_timeline` for the arguments.

    Example:
        >>> from luthier.arch.presets import get
        >>> from luthier.graph import from_network
        >>> from luthier.schedule import fused, unfused
        >>> graph = from_network(get("mobilenetv2_100"), fold_norm=True)
        >>> [scheduled_peak_bytes(graph, s, 1) // 1024 for s in (unfused(graph), fused(graph, rows=1))]
        [1470, 357]
    """
    steps = scheduled_timeline(
        graph, schedule, bytes_per_element, in_place_depthwise=in_place_depthwise, overwrite_inputs=overwrite_inputs
    )
    return max(step.live_bytes for step in steps)
