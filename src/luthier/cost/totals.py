"""Sums over the groups of a schedule: by schedule, by stage, of the whole network.

A group with an op that nobody knows is in no sum of times and energies: such ops are listed beside the sums.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import groupby

from luthier.cost.analysis import ScheduleTotals, StageTotals, Totals
from luthier.cost.energy import add_splits
from luthier.cost.macs import graph_params
from luthier.cost.points import GroupAnalysis, OpAnalysis
from luthier.cost.roofline import add_known
from luthier.cost.summary import weight_bytes
from luthier.device import Figure
from luthier.graph.op import Graph


def level_bytes(groups: Iterable[GroupAnalysis]) -> tuple[int, ...]:
    """Bytes across each memory level, nearest first."""
    columns = zip(*(group.traffic for group in groups), strict=True)
    return tuple(sum(level.bytes for level in column) for column in columns)


def counted(groups: Iterable[GroupAnalysis]) -> tuple[GroupAnalysis, ...]:
    """The groups without an unknown op."""
    return tuple(group for group in groups if "unknown" not in group.op_kinds)


def schedule_totals(name: str, groups: Sequence[GroupAnalysis], peak_activation_bytes: int) -> ScheduleTotals:
    """Sums over one schedule.

    Args:
        name: of the schedule.
        groups: all of it.
        peak_activation_bytes: under this schedule.
    """
    known = counted(groups)
    whole = add_known(group.attainable_s for group in known)
    shares: dict[str, float] = {}
    for group in known if whole else ():
        shares[group.bound] = shares.get(group.bound, 0.0) + (group.attainable_s or 0.0) / (whole or 1.0)
    return ScheduleTotals(
        schedule=name,
        groups=len(groups),
        peak_activation_bytes=peak_activation_bytes,
        level_bytes=level_bytes(groups),
        attainable_s=whole,
        bound_share=tuple(sorted(shares.items(), key=lambda item: -item[1])),
        energy=add_splits(group.energy for group in known),
    )


def stage_totals(groups: Sequence[GroupAnalysis]) -> Iterator[StageTotals]:
    """Sums over neighbours of one stage: `stage1.0` and `stage1.1` belong to `stage1`."""
    for name, members in groupby(groups, key=lambda group: _stage(group.block)):
        inside = tuple(members)
        known = counted(inside) or inside  # where nothing is known the sums are not either
        yield StageTotals(
            name=name,
            groups=len(inside),
            macs=sum(group.macs for group in inside),
            elementwise_ops=sum(group.elementwise_ops for group in inside),
            weight_bytes=sum(group.weight_bytes for group in inside),
            level_bytes=level_bytes(inside),
            attainable_s=add_known(group.attainable_s for group in known),
            share=add_known(group.share for group in known),
            energy_j=add_splits(group.energy for group in known).total_j,
        )


def _stage(block: str) -> str:
    head, _, last = block.rpartition(".")
    return head if last.isdigit() and head else block


def totals(
    given: Graph,
    deployed: Graph,
    ops: Sequence[OpAnalysis],
    side: ScheduleTotals,
    peak_group: str,
    battery_j: Figure | None,
) -> Totals:
    """The network as a whole.

    Args:
        given: before folding: whose parameters are counted.
        deployed: as run.
        ops: of the deployed graph.
        side: sums over the chosen schedule.
        peak_group: where its peak of memory is.
        battery_j: of the device.
    """
    batch = deployed.tensors[deployed.inputs[0]].shape[0]
    energy = side.energy.total_j
    labels = dict.fromkeys(op.precision for op in ops if op.macs or op.elementwise_ops)
    macs = sum(op.macs for op in ops)
    return Totals(
        params=graph_params(given),
        macs=macs,
        flop=2 * macs,
        elementwise_ops=sum(op.elementwise_ops for op in ops),
        weight_bytes=weight_bytes(deployed),
        peak_activation_bytes=side.peak_activation_bytes,
        peak_group=peak_group,
        attainable_s=side.attainable_s,
        image_latency_s=None if side.attainable_s is None else side.attainable_s / batch,
        energy=side.energy,
        image_energy_j=None if energy is None else energy / batch,
        images_per_battery=None if not energy or battery_j is None else battery_j.value * batch / energy,
        compute_j_by_type=tuple(
            (label, add_known(op.compute_j for op in ops if op.precision == label)) for label in labels
        ),
    )
