"""A graph, a device and a schedule into everything the analyser knows: `analyze(graph, device) -> Analysis`."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Final

from luthier.arch.block import Precision
from luthier.cost.analysis import Analysis, Ceiling, EnergySaving, ScheduleTotals
from luthier.cost.budget import Budget
from luthier.cost.dense import price_of_bottlenecks
from luthier.cost.energy import baseline, saving
from luthier.cost.groups import Setting, analyse_groups, analyse_ops, schedule_energy
from luthier.cost.points import GroupAnalysis, OpAnalysis
from luthier.cost.roofline import crossings
from luthier.cost.scheduled_memory import GroupMemory, scheduled_timeline
from luthier.cost.totals import level_bytes, schedule_totals, stage_totals, totals
from luthier.device import Device
from luthier.errors import InputError
from luthier.graph.fold import fold_norm_into_conv
from luthier.graph.op import Graph
from luthier.graph.precision import op_precision, with_precision
from luthier.schedule import Schedule, check, unfused

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
    on = Setting(deployed(graph, precision), device, threads, resident)
    plain = unfused(on.graph)
    chosen = plain if schedule is None else schedule
    check(on.graph, chosen)
    ops = analyse_ops(on)
    groups, side, memory = _under(on, chosen, ops)
    alone = groups
    sides: tuple[ScheduleTotals, ...] = (side,)
    if chosen.groups != plain.groups:
        alone, other, _ = _under(on, plain, ops)
        sides = (side, other)
    peak = max(memory, key=lambda step: step.live_bytes)
    whole = totals(graph, on.graph, ops, side, peak.group.label, device.battery_j)
    batch, _, *pixels = on.graph.tensors[on.graph.inputs[0]].shape
    limits = (budget or Budget()).with_memories(device)
    image = replace(whole, macs=whole.macs // batch)
    violations = limits.violations(image, whole.image_latency_s, whole.image_energy_j)
    labels = {op.precision for op in ops if op.macs}
    unknown = tuple(op.name for op in ops if op.kind == "unknown")
    return Analysis(
        model=model,
        device=device.name,
        device_title=device.title,
        precision=labels.pop() if len(labels) == 1 else MIXED,
        batch=batch,
        resolution=(pixels[0], pixels[1]) if len(pixels) == 2 else None,
        schedule=chosen.name,
        threads=threads,
        levels=tuple(level.name for level in device.memory),
        ceilings=tuple(_ceilings(on)),
        totals=whole,
        ops=ops,
        groups=groups,
        unfused=() if alone is groups else alone,
        sides=sides,
        stages=tuple(stage_totals(groups)),
        memory=memory,
        crossings=() if alone is groups else crossings(alone, groups),
        violations=violations,
        fits=not violations if any(limits.limits()) else None,
        saving=None if precision is None or unknown else _saving(on, chosen, precision, side),
        bottlenecks=price_of_bottlenecks(on.graph),
        unknown_ops=unknown,
        remarks=tuple(_remarks(on, ops, groups)),
    )


def _under(
    on: Setting, schedule: Schedule, ops: tuple[OpAnalysis, ...]
) -> tuple[tuple[GroupAnalysis, ...], ScheduleTotals, tuple[GroupMemory, ...]]:
    """Groups, sums and memory of one schedule."""
    groups = analyse_groups(on, schedule, ops)
    memory = tuple(scheduled_timeline(on.graph, schedule))
    return groups, schedule_totals(schedule.name, groups, max(step.live_bytes for step in memory)), memory


def _saving(on: Setting, schedule: Schedule, precision: Precision, side: ScheduleTotals) -> EnergySaving | None:
    against = baseline(precision)
    if against is None:
        return None
    before = schedule_energy(replace(on, graph=with_precision(on.graph, against)), schedule)
    return saving(precision, against, side.energy, before, on.device.energy)


def _ceilings(on: Setting) -> Iterator[Ceiling]:
    layers = [op for op in on.graph.ops if op.kind in ("conv", "linear")]
    for precision in dict.fromkeys(op_precision(on.graph, op) for op in layers):
        peak = on.device.peak(precision, on.threads)
        if peak is not None:
            yield Ceiling(f"compute {precision.label}", peak.value, "FLOP/s", peak.source, peak.kind)
    for level in on.device.memory:
        bandwidth = level.bandwidth(on.threads)
        if bandwidth is not None:
            yield Ceiling(level.name, bandwidth.value, "B/s", bandwidth.source, bandwidth.kind)


def _remarks(on: Setting, ops: Sequence[OpAnalysis], groups: Sequence[GroupAnalysis]) -> Iterator[str]:
    device, known = on.device, [op for op in ops if op.kind != "unknown"]
    if len(known) < len(ops):
        names = [op.name for op in ops if op.kind == "unknown"]
        yield f"not known and in no sum of times and energies: {', '.join(names)}"
    peaks = dict.fromkeys(op.precision for op in known if op.compute_s is None)
    if peaks:
        yield f"{device.name} states no peak for {', '.join(peaks)}: times and bounds are not known"
    slow = [level.name for level in device.memory if level.bandwidth(on.threads) is None]
    if slow:
        yield f"{device.name} states no bandwidth of {', '.join(slow)}: times and bounds are without"
    if not device.memory:
        yield f"{device.name} states no memory level: bytes, bounds and energy of traffic are not known"
    yield from _energy_remarks(device, known, groups)
    yield from device.remarks


def _energy_remarks(device: Device, ops: Sequence[OpAnalysis], groups: Sequence[GroupAnalysis]) -> Iterator[str]:
    if device.energy is None:
        yield f"no energy table applies to {device.name}: energy is not known"
        return
    lacking = dict.fromkeys(op.precision for op in ops if op.compute_j is None)
    if lacking:
        yield f"energy table {device.energy.name} has no figure for arithmetic in {', '.join(lacking)}"
    crossed = zip(device.memory, level_bytes(groups), strict=True)
    silent = [level.name for level, size in crossed if size and device.energy_per_byte(level) is None]
    if silent:
        yield f"{device.name} states no energy per byte of {', '.join(silent)}: energy of traffic is not known"
    if device.energy.remark:
        yield f"energy table {device.energy.name}: {device.energy.remark}"
