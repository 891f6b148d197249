"""Ops and groups of ops, analysed one by one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from luthier.cost.energy import add_splits, op_compute_j, split
from luthier.cost.macs import op_elementwise, op_macs
from luthier.cost.op_class import op_class
from luthier.cost.points import EnergySplit, GroupAnalysis, OpAnalysis
from luthier.cost.roofline import add_known, bound, level_traffic, op_compute_s
from luthier.cost.traffic import GroupTraffic, traffic
from luthier.device import Device
from luthier.graph.op import Graph, Op
from luthier.graph.precision import op_precision
from luthier.schedule import Group, Schedule


@dataclass(frozen=True, slots=True)
class Setting:
    """A graph on a device.

    Attributes:
        graph: as deployed: norms folded, number types as run.
        device: that runs it.
        threads: that share the work.
        resident: see `luthier.cost.traffic`.
    """

    graph: Graph
    device: Device
    threads: int = 1
    resident: bool = True

    def moved(self, schedule: Schedule) -> tuple[GroupTraffic, ...]:
        """Bytes by group and level."""
        return traffic(self.graph, schedule, self.device, threads=self.threads, resident=self.resident)


def analyse_ops(on: Setting) -> tuple[OpAnalysis, ...]:
    """Every op of the graph, in order."""
    return tuple(_op(on, op) for op in on.graph.ops)


def _op(on: Setting, op: Op) -> OpAnalysis:
    known = str(op.kind) != "unknown"  # a lenient front end lets ops through whose work nobody knows
    return OpAnalysis(
        name=op.name,
        block=op.block,
        kind=op.kind,
        op_class=op_class(on.graph, op),
        precision=op_precision(on.graph, op).label,
        out_shape=on.graph.output_shape(op),
        macs=op_macs(on.graph, op),
        elementwise_ops=op_elementwise(on.graph, op),
        weight_bytes=sum(on.graph.constants[name].bytes for name in op.constants.values()),
        compute_s=op_compute_s(on.graph, op, on.device, on.threads) if known else None,
        compute_j=op_compute_j(on.graph, op, on.device.energy) if known else None,
    )


def analyse_groups(on: Setting, schedule: Schedule, ops: Sequence[OpAnalysis]) -> tuple[GroupAnalysis, ...]:
    """Every group of a schedule, in order.

    Args:
        on: whose graph the schedule is for.
        schedule: a legal one.
        ops: of `analyse_ops`.
    """
    by_name = {op.name: op for op in ops}
    found = [
        _group(on, group, [by_name[name] for name in group.ops], moved)
        for group, moved in zip(schedule, on.moved(schedule), strict=True)
    ]
    whole = sum(group.attainable_s for group in found if group.attainable_s is not None)
    return tuple(
        replace(group, share=None if group.attainable_s is None or not whole else group.attainable_s / whole)
        for group in found
    )


def main_op(ops: Sequence[OpAnalysis]) -> OpAnalysis:
    """The op that stands for a group: the one with most MACs, then most elementwise work; the first of equals."""
    return max(ops, key=lambda op: (op.macs, op.elementwise_ops))


def _group(on: Setting, group: Group, ops: Sequence[OpAnalysis], moved: GroupTraffic) -> GroupAnalysis:
    macs, elementwise = sum(op.macs for op in ops), sum(op.elementwise_ops for op in ops)
    compute_s = add_known(op.compute_s for op in ops)
    levels = level_traffic(moved, 2 * macs + elementwise, compute_s, on.device, on.threads)
    bounded, attainable = bound(compute_s, levels)
    main = main_op(ops)
    return GroupAnalysis(
        name=main.name,
        block=main.block,
        ops=group.ops,
        op_kinds=tuple(op.kind for op in ops),
        op_class=main.op_class,
        tile=_tile(group),
        macs=macs,
        flop=2 * macs,
        elementwise_ops=elementwise,
        weight_bytes=sum(op.weight_bytes for op in ops),
        traffic=levels,
        compute_s=compute_s,
        bound=bounded,
        attainable_s=attainable,
        share=None,
        energy=split(add_known(op.compute_j for op in ops), moved, on.device),
    )


def _tile(group: Group) -> str:
    rows, channels = group.tile.rows, group.tile.channels
    parts = [f"{rows} row{'s' if rows > 1 else ''}"] if rows else []
    return " x ".join(parts + ([f"{channels} channels"] if channels else []))


def schedule_energy(on: Setting, schedule: Schedule) -> EnergySplit:
    """Energy of a whole schedule without the rest of its analysis."""
    compute = add_known(op_compute_j(on.graph, op, on.device.energy) for op in on.graph.ops)
    moved = add_splits(split(0.0, group, on.device) for group in on.moved(schedule))
    return replace(moved, compute_j=compute)
