"""Which convolutions run in bands of rows with the next one: as a schedule says, or else by the sizes of tensors."""

from __future__ import annotations

from luthier.engine.patterns import Fused
from luthier.engine.target import Target
from luthier.graph.mbconv import is_depthwise
from luthier.graph.op import Graph
from luthier.schedule import Schedule


def separate(graph: Graph, schedule: Schedule | None) -> frozenset[str]:
    """Convolutions that a schedule keeps apart from the depthwise convolution behind them."""
    if schedule is None:
        return frozenset()
    groups = {name: index for index, group in enumerate(schedule) for name in group.ops}
    depthwise_groups = {groups.get(op.name) for op in graph.ops if is_depthwise(graph, op)}
    return frozenset(op.name for op in graph.ops if op.kind == "conv" and groups.get(op.name) not in depthwise_groups)


def joins(graph: Graph, target: Target, schedule: Schedule | None, first: Fused, group: Fused) -> bool:
    """Whether a depthwise group of fp32 tensors is projected band by band, see `projects`."""
    tensors = {name for op in (*first.ops, *group.ops) for name in (*op.inputs, *op.outputs)}
    return all(graph.tensors[name].dtype == "fp32" for name in tensors) and projects(
        graph, target, schedule, first, group
    )


def projects(graph: Graph, target: Target, schedule: Schedule | None, first: Fused, group: Fused) -> bool:
    """Whether a depthwise group is projected band by band, if it can be.

    A schedule joins them in one group whose choice is `projected`; where that is open, in one that has rows.  Without a
    schedule it is worth while where the tensor between them would take more than a quarter of the L2 cache, and the
    weights, which every band reads again, no more than an eighth.
    """
    if schedule is not None:
        known = next((g for g in schedule if group.head.name in g.ops), None)
        if known is None or first.head.name not in known.ops:
            return False
        return known.tile.rows is not None if known.choice.projected is None else known.choice.projected
    constants = {name for op in (*first.ops, *group.ops) for name in op.constants.values()}
    weight_bytes = sum(graph.constants[name].bytes for name in constants)
    return graph.tensors[first.output].bytes > target.l2_bytes // 4 and weight_bytes <= target.l2_bytes // 8
