"""Which convolutions run in bands of rows with the next one: as a schedule says, or else by the sizes of tensors."""

from __future__ import annotations

from luthier.engine.patterns import Fused
from luthier.engine.target import Target
from luthier.graph.mbconv import is_depthwise
from luthier.graph.op import Graph, Op
from luthier.schedule import Schedule


def band_rows(schedule: Schedule | None, op: Op) -> int | None:
    """The rows of a band, where the schedule says them."""
    groups = () if schedule is None else schedule.groups
    return next((group.tile.rows for group in groups if op.name in group.ops), None)


def separate(graph: Graph, schedule: Schedule | None) -> frozenset[str]:
    """Convolutions that a schedule keeps apart from the depthwise convolution behind them."""
    if schedule is None:
        return frozenset()
    groups = {name: index for index, group in enumerate(schedule) for name in group.ops}
    depthwise_groups = {groups[op.name] for op in graph.ops if is_depthwise(graph, op)}
    return frozenset(op.name for op in graph.ops if op.kind == "conv" and groups[op.name] not in depthwise_groups)


def joins(graph: Graph, target: Target, schedule: Schedule | None, first: Fused, group: Fused) -> bool:
    """Whether a depthwise group is projected band by band; fp32 only.

    A schedule joins them in one group with rows.  Without one it is worth while where the tensor between them would
    take more than a quarter of the L2 cache, and the weights, which every band reads again, no more than an eighth.
    """
    ops_of_both = (*first.ops, *group.ops)
    tensors = {name for op in ops_of_both for name in (*op.inputs, *op.outputs)}
    if any(graph.tensors[name].dtype != "fp32" for name in tensors):
        return False
    if schedule is not None:
        ops, tile = next((g.ops, g.tile) for g in schedule if group.head.name in g.ops)
        return first.head.name in ops and tile.rows is not None
    constants = {name for op in ops_of_both for name in op.constants.values()}
    weight_bytes = sum(graph.constants[name].bytes for name in constants)
    return graph.tensors[first.output].bytes > target.l2_bytes // 4 and weight_bytes <= target.l2_bytes // 8
