"""A graph, a device and a schedule into everything the analyser knows: `analyze(graph, device) -> Analysis`."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import groupby
from typing import Final

from luthier.arch.block import Precision
from luthier.cost.analysis import (
    Analysis,
    Ceiling,
    EnergySplit,
    GroupAnalysis,
    OpAnalysis,
    ScheduleTotals,
    StageTotals,
    Totals,
)
from luthier.cost.budget import Budget
from luthier.cost.energy import add_splits, baseline, op_compute_j, saving, split
from luthier.cost.latency import group_latency_s, main_op
from luthier.cost.macs import graph_params, op_elementwise, op_macs
from luthier.cost.memory import memory_timeline
from luthier.cost.op_class import op_class
from luthier.cost.roofline import add_known, bound, crossings, level_traffic, op_compute_s
from luthier.cost.summary import weight_bytes
from luthier.cost.traffic import GroupTraffic, traffic
from luthier.device import Calibration, Device
from luthier.errors import InputError
from luthier.graph.fold import fold_norm_into_conv
from luthier.graph.op import Graph
from luthier.graph.precision import op_precision, with_precision
from luthier.schedule import Group, Schedule, unfused

MIXED: Final = "as described"


def deployed(graph: Graph, precision: Precision | None = None) -> Graph:
    """The graph as a device runs it, which schedules are made for: norms folded, number types as asked.

    Example:
        >>> from luthier.arch.presets import get
        >>> from luthier.graph import from_network
        >>> graph = deployed(from_network(get("mobilenetv2_100")), Precision.parse("int8"))
        >>> any(op.kind == "norm" for op in graph.ops), {tensor.dtype for tensor in graph.tensors.values()}
        (False, {'int8'})
    """
    folded = fold_norm_into_conv(graph)
    return folded if precision is None else with_precision(folded, precision)


def analyze(
    graph: Graph,
    device: Device,
    *,
    model: str = "network",
    precision: Precision | None = None,
    schedule: Schedule | None = None,
    threads: int = 1,
    budget: Budget | None = None,
    calibration: Calibration | None = None,
    resident: bool = True,
) -> Analysis:
    """Work, memory, roofline, energy and latency of a network on a device, all modelled.

    Args:
        graph: at the batch and resolution to analyse, folded or not; parameters are counted as it stands.
        device: measured or of the catalogue.
        model: the network's name.
        precision: of all weights and activations; None = the graph's own number types.
        schedule: of `deployed(graph, precision)`; None = `unfused`.
        threads: that share the work, at most the device's cores.
        budget: limits; what it leaves open the device's memories decide, if their sizes are known.
        calibration: of a run time on this device; None = `latency_s` is the roofline's bound.
        resident: False = every group goes through the last memory level, see `luthier.cost.traffic`.
    Raises:
        InputError: `threads` is not between 1 and the device's cores.
        SpecError: the schedule is not one of this graph.
    Example:
        >>> from luthier.arch.presets import get
        >>> from luthier.device import Figure, MemoryLevel
        >>> from luthier.graph import from_network
        >>> chip = Device(
        ...     name="chip", title="A chip", kind="npu", peak_flop_per_s={"int8": {1: Figure(1e12, "an example")}},
        ...     memory=(MemoryLevel("DRAM", bandwidth_bytes_per_s={1: Figure(10e9, "an example")}),),
        ... )
        >>> found = analyze(from_network(get("mobilenetv2_100")), chip, precision=Precision.parse("int8"))
        >>> found.totals.macs, found.groups[2].op_class, found.groups[2].bound, found.fits
        (300774272, 'pointwise', 'DRAM', None)
    """
    if not 1 <= threads <= device.cores:
        raise InputError(f"analyze: threads must be 1 to {device.cores}, the cores of {device.name}, got {threads}")
    run = _Run(deployed(graph, precision), device, threads, calibration, resident)
    batch, _, *pixels = run.graph.tensors[run.graph.inputs[0]].shape
    plain = unfused(run.graph)
    chosen = plain if schedule is None else schedule
    ops = run.ops()
    groups = run.groups(chosen, ops)
    alone = groups if chosen is plain or chosen.name == "unfused" else run.groups(plain, ops)
    side = run.side(chosen, groups)
    totals = run.totals(graph, chosen, groups, ops, side)
    against = baseline(precision) if precision is not None else None
    saved = None
    if precision is not None and against is not None:
        before = replace(run, graph=with_precision(run.graph, against))
        saved = saving(precision, against, side.energy, before.energy(chosen), device.energy)
    limits = _limits(budget, device)
    image = replace(totals, macs=totals.macs // batch)
    violations = () if limits is None else limits.violations(image, totals.image_latency_s)
    return Analysis(
        model=model,
        device=device.name,
        device_title=device.title,
        precision=_label(ops),
        batch=batch,
        resolution=(pixels[0], pixels[1]) if len(pixels) == 2 else None,
        schedule=chosen.name,
        threads=threads,
        runtime=None if calibration is None else calibration.runtime,
        levels=tuple(level.name for level in device.memory),
        ceilings=tuple(_ceilings(run.graph, device, threads)),
        totals=totals,
        ops=ops,
        groups=groups,
        unfused=() if alone is groups else alone,
        sides=(side,) if alone is groups else (side, run.side(plain, alone)),
        stages=tuple(_stages(groups)),
        memory=tuple(memory_timeline(run.graph)),
        crossings=() if alone is groups else crossings(alone, groups),
        violations=violations,
        fits=None if limits is None else not violations,
        saving=saved,
        unknown_ops=(),
        remarks=tuple(run.remarks(groups, ops, side)),
    )


@dataclass(frozen=True)
class _Run:
    """What every part of an analysis shares; `graph` is as deployed."""

    graph: Graph
    device: Device
    threads: int
    calibration: Calibration | None
    resident: bool

    def ops(self) -> tuple[OpAnalysis, ...]:
        return tuple(
            OpAnalysis(
                name=op.name,
                block=op.block,
                kind=op.kind,
                op_class=op_class(self.graph, op),
                precision=op_precision(self.graph, op).label,
                out_shape=self.graph.output_shape(op),
                macs=op_macs(self.graph, op),
                elementwise_ops=op_elementwise(self.graph, op),
                weight_bytes=sum(self.graph.constants[name].bytes for name in op.constants.values()),
                compute_s=op_compute_s(self.graph, op, self.device, self.threads),
                compute_j=op_compute_j(self.graph, op, self.device.energy),
            )
            for op in self.graph.ops
        )

    def moved(self, schedule: Schedule) -> tuple[GroupTraffic, ...]:
        return traffic(self.graph, schedule, self.device, threads=self.threads, resident=self.resident)

    def groups(self, schedule: Schedule, ops: Sequence[OpAnalysis]) -> tuple[GroupAnalysis, ...]:
        by_name = {op.name: op for op in ops}
        plain = [
            self.group(group, [by_name[name] for name in group.ops], moved)
            for group, moved in zip(schedule, self.moved(schedule), strict=True)
        ]
        whole = add_known(group.latency_s for group in plain)
        if not whole:
            return tuple(plain)
        return tuple(replace(group, share=(group.latency_s or 0.0) / whole) for group in plain)

    def group(self, group: Group, ops: Sequence[OpAnalysis], moved: GroupTraffic) -> GroupAnalysis:
        macs, elementwise = sum(op.macs for op in ops), sum(op.elementwise_ops for op in ops)
        compute_s = add_known(op.compute_s for op in ops)
        levels = level_traffic(moved, 2 * macs + elementwise, compute_s, self.device, self.threads)
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
            latency_s=group_latency_s(ops, levels, self.calibration),
            share=None,
            energy=split(add_known(op.compute_j for op in ops), moved, self.device),
        )

    def energy(self, schedule: Schedule) -> EnergySplit:
        """Of all groups, without the rest of their analysis."""
        compute = add_known(op_compute_j(self.graph, op, self.device.energy) for op in self.graph.ops)
        moved = add_splits(split(0.0, group, self.device) for group in self.moved(schedule))
        return replace(moved, compute_j=compute)

    def side(self, schedule: Schedule, groups: Sequence[GroupAnalysis]) -> ScheduleTotals:
        whole = add_known(group.attainable_s for group in groups)
        bounds = sorted({group.bound for group in groups})
        return ScheduleTotals(
            schedule=schedule.name,
            groups=len(groups),
            peak_activation_bytes=max(step.live_bytes for step in memory_timeline(self.graph)),
            level_bytes=_level_bytes(groups),
            attainable_s=whole,
            latency_s=add_known(group.latency_s for group in groups),
            bound_share=tuple(
                (name, sum(group.attainable_s or 0.0 for group in groups if group.bound == name) / whole)
                for name in bounds
            )
            if whole
            else (),
            energy=add_splits(group.energy for group in groups),
        )

    def totals(
        self, given: Graph, schedule: Schedule, groups: Sequence[GroupAnalysis], ops: Sequence[OpAnalysis],
        side: ScheduleTotals,
    ) -> Totals:  # fmt: skip
        batch = self.graph.tensors[self.graph.inputs[0]].shape[0]
        peak = max(memory_timeline(self.graph), key=lambda step: step.live_bytes)
        energy, battery = side.energy.total_j, self.device.battery_j
        labels = dict.fromkeys(op.precision for op in ops if op.macs or op.elementwise_ops)
        return Totals(
            params=graph_params(given),
            macs=sum(op.macs for op in ops),
            flop=sum(group.flop for group in groups),
            elementwise_ops=sum(op.elementwise_ops for op in ops),
            weight_bytes=weight_bytes(self.graph),
            peak_activation_bytes=side.peak_activation_bytes,
            peak_op=peak.op,
            attainable_s=side.attainable_s,
            latency_s=side.latency_s,
            image_latency_s=None if side.latency_s is None else side.latency_s / batch,
            energy=side.energy,
            image_energy_j=None if energy is None else energy / batch,
            images_per_battery=None if not energy or battery is None else battery.value * batch / energy,
            compute_j_by_type=tuple(
                (label, add_known(op.compute_j for op in ops if op.precision == label)) for label in labels
            ),
        )

    def remarks(
        self, groups: Sequence[GroupAnalysis], ops: Sequence[OpAnalysis], side: ScheduleTotals
    ) -> Iterable[str]:
        name = self.device.name
        peaks = dict.fromkeys(op.precision for op in ops if op.compute_s is None)
        if peaks:
            yield f"{name} states no peak for {', '.join(peaks)}: what is bound by compute is not known"
        slow = [level.name for level in self.device.memory if level.bandwidth(self.threads) is None]
        if slow:
            yield f"{name} states no bandwidth of {', '.join(slow)}: times and bounds are without"
        if not self.device.memory:
            yield f"{name} states no memory level: bytes, bounds and energy of traffic are not known"
        if self.device.energy is None:
            yield f"no energy table applies to {name}: energy is not known"
            return
        lacking = dict.fromkeys(op.precision for op in ops if op.compute_j is None)
        if lacking:
            yield f"energy table {self.device.energy.name} has no figure for arithmetic in {', '.join(lacking)}"
        silent = [
            level.name
            for level, size in zip(self.device.memory, side.level_bytes, strict=True)
            if size and self.device.energy_per_byte(level) is None
        ]
        if silent:
            yield f"{name} states no energy per byte of {', '.join(silent)}: energy of traffic is not known"
        if self.device.energy.remark:
            yield f"energy table {self.device.energy.name}: {self.device.energy.remark}"
        if self.calibration is not None:
            classes = dict.fromkeys(group.op_class for group in groups)
            free = [one for one in classes if one not in self.calibration.ops]
            if free:
                yield f"the calibration of {self.calibration.runtime} has no {', '.join(free)}: taken at the roofline"


def _tile(group: Group) -> str:
    rows, channels = group.tile.rows, group.tile.channels
    parts = [f"{rows} row{'s' if rows > 1 else ''}"] if rows else []
    return " x ".join(parts + ([f"{channels} channels"] if channels else []))


def _level_bytes(groups: Sequence[GroupAnalysis]) -> tuple[int, ...]:
    return tuple(
        sum(level.bytes for level in column) for column in zip(*(group.traffic for group in groups), strict=True)
    )


def _label(ops: Sequence[OpAnalysis]) -> str:
    labels = {op.precision for op in ops if op.macs}
    return labels.pop() if len(labels) == 1 else MIXED


def _stages(groups: Sequence[GroupAnalysis]) -> Iterable[StageTotals]:
    """Sums over neighbours of one stage: `stages.1.0` and `stages.1.1` belong to `stages.1`."""
    for name, members in groupby(groups, key=lambda group: _stage(group.block)):
        inside = tuple(members)
        yield StageTotals(
            name=name,
            groups=len(inside),
            macs=sum(group.macs for group in inside),
            elementwise_ops=sum(group.elementwise_ops for group in inside),
            weight_bytes=sum(group.weight_bytes for group in inside),
            level_bytes=_level_bytes(inside),
            attainable_s=add_known(group.attainable_s for group in inside),
            latency_s=add_known(group.latency_s for group in inside),
            share=add_known(group.share for group in inside),
            energy_j=add_splits(group.energy for group in inside).total_j,
        )


def _stage(block: str) -> str:
    head, _, last = block.rpartition(".")
    return head if last.isdigit() and head else block


def _ceilings(graph: Graph, device: Device, threads: int) -> Iterable[Ceiling]:
    precisions = dict.fromkeys(op_precision(graph, op) for op in graph.ops if op.kind in ("conv", "linear"))
    for precision in precisions:
        peak = device.peak(precision, threads)
        if peak is not None:
            yield Ceiling(f"compute {precision.label}", peak.value, "FLOP/s", peak.source, peak.kind)
    for level in device.memory:
        bandwidth = level.bandwidth(threads)
        if bandwidth is not None:
            yield Ceiling(level.name, bandwidth.value, "B/s", bandwidth.source, bandwidth.kind)


def _limits(budget: Budget | None, device: Device) -> Budget | None:
    """The limits that are given, and the device's memories where they are not; None = none at all."""
    ram, flash = device.ram_bytes, device.flash_bytes
    given = Budget() if budget is None else budget
    limits = replace(
        given,
        max_memory_bytes=given.max_memory_bytes or (None if ram is None else int(ram.value)),
        max_size_bytes=given.max_size_bytes or (None if flash is None else int(flash.value)),
    )
    return limits if any(True for _ in limits.limits()) else None
