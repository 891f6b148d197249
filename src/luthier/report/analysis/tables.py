"""Tables of an analysis, as data: stages, groups, ops, schedules side by side."""

from __future__ import annotations

from luthier import units
from luthier.cost.analysis import Analysis
from luthier.cost.dense import DensePrice
from luthier.cost.points import EnergySplit
from luthier.job.results import Examination
from luthier.report import words
from luthier.report.analysis.roofline import busiest_level
from luthier.report.tables import Column, Table


def stages(analysis: Analysis) -> Table:
    """Sums by stage, with the whole network as the last row."""
    totals = analysis.totals
    return Table(
        columns=(
            Column("stage"), Column("groups", numeric=True), *_work(), *_levels(analysis),
            Column("time", totals.attainable_s_kind, numeric=True), Column("share", numeric=True),
            Column("energy", "modelled", numeric=True),
        ),
        rows=tuple(
            (
                stage.name, str(stage.groups), units.show(stage.macs, "count"),
                units.show(stage.elementwise_ops, "count"), units.show(stage.weight_bytes, "bytes"),
                *(units.show(value, "bytes") for value in stage.level_bytes),
                words.quantity(stage.attainable_s, "latency"), words.percent(stage.share),
                words.quantity(stage.energy_j, "energy"),
            )
            for stage in analysis.stages
        ),
        foot=(
            "all", str(len(analysis.groups)), units.show(totals.macs, "count"),
            units.show(totals.elementwise_ops, "count"), units.show(totals.weight_bytes, "bytes"),
            *(units.show(value, "bytes") for value in _side(analysis)),
            words.quantity(totals.attainable_s, "latency"), "", words.quantity(totals.energy.total_j, "energy"),
        ),
    )  # fmt: skip


def groups(analysis: Analysis) -> Table:
    """Every group of ops that runs as one: work, traffic, intensity, bound, time, share, energy."""
    outer = busiest_level(analysis.groups, analysis.levels) or (analysis.levels[-1] if analysis.levels else None)
    return Table(
        columns=(
            Column("group"), Column("ops"), Column("tile"), *_work(), *_levels(analysis),
            *((Column(f"FLOP/byte at {outer}", "modelled", numeric=True),) if outer else ()),
            Column("bound"), Column("time", analysis.totals.attainable_s_kind, numeric=True),
            Column("share", numeric=True), Column("energy", "modelled", numeric=True),
        ),
        rows=tuple(
            (
                group.name, " + ".join(group.op_kinds), group.tile, units.show(group.macs, "count"),
                units.show(group.elementwise_ops, "count"), units.show(group.weight_bytes, "bytes"),
                *(units.show(traffic.bytes, "bytes") for traffic in group.traffic),
                *((figure(group.level(outer).intensity_flop_per_byte),) if outer else ()),
                group.bound, words.quantity(group.attainable_s, "latency"), words.percent(group.share),
                words.quantity(group.energy.total_j, "energy"),
            )
            for group in analysis.groups
        ),
    )  # fmt: skip


def ops(analysis: Analysis) -> Table:
    """Every op, apart from any schedule."""
    return Table(
        columns=(Column("op"), Column("kind"), Column("class"), Column("number type"), Column("output"), *_work()),
        rows=tuple(
            (
                op.name, op.kind, op.op_class, op.precision, "×".join(map(str, op.out_shape)),
                units.show(op.macs, "count"), units.show(op.elementwise_ops, "count"),
                units.show(op.weight_bytes, "bytes"),
            )
            for op in analysis.ops
        ),
    )  # fmt: skip


def sides(analysis: Analysis) -> Table:
    """The schedule beside op by op."""
    return Table(
        columns=(
            Column("schedule"), Column("groups", numeric=True), Column("peak activations", "modelled", numeric=True),
            *_levels(analysis), Column("time", analysis.totals.attainable_s_kind, numeric=True),
            Column("bound by", wide=True),
            Column("energy", "modelled", numeric=True), Column("of it memory", "modelled", numeric=True),
        ),
        rows=tuple(
            (
                side.schedule, str(side.groups), units.show(side.peak_activation_bytes, "bytes"),
                *(units.show(value, "bytes") for value in side.level_bytes),
                words.quantity(side.attainable_s, "latency"),
                ", ".join(f"{bound} {words.percent(share)}" for bound, share in side.bound_share) or words.NONE,
                words.quantity(side.energy.total_j, "energy"), words.percent(_memory_share(side.energy)),
            )
            for side in analysis.sides
        ),
    )  # fmt: skip


def kernels(found: Examination) -> Table | None:
    """Time by op in a run time, as modelled and as measured; None where neither is known.

    A run time computes several ops in one kernel: its time stands at the first of them.  What it does for itself, such
    as changes of layout, stands last.
    """
    if not found.calibrated and found.profile is None:
        return None
    # beside a measurement stands the model of what was measured
    known = [one for one in found.calibrated if found.profile is None or one.runtime == found.profile.runtime]
    calibrated = known[0] if known else None
    modelled = {} if calibrated is None else calibrated.by_op()
    measured = {} if found.profile is None else found.profile.by_op()
    kinds = {op.name: op.op_class for op in found.analysis.ops}
    names = [op.name for op in found.analysis.ops if op.name in modelled or op.name in measured]
    own_modelled = None if calibrated is None else calibrated.latency_s - sum(modelled.values())
    own_measured = None if found.profile is None else found.profile.whole_s - sum(measured.values())
    return Table(
        columns=(
            Column("op"), Column("class"), Column("time, modelled", "modelled", numeric=True),
            Column("time, measured", "measured", numeric=True),
        ),
        rows=(
            *(
                (name, kinds[name], words.quantity(modelled.get(name), "latency"),
                 words.quantity(measured.get(name), "latency"))
                for name in names
            ),
            ("the run time itself", "", words.quantity(own_modelled, "latency"), _signed_time(own_measured)),
        ),
        foot=(
            "all", "", words.quantity(None if calibrated is None else calibrated.latency_s, "latency"),
            words.quantity(None if found.profile is None else found.profile.whole_s, "latency"),
        ),
    )  # fmt: skip


def _signed_time(value: float | None) -> str:
    # below zero where the machine was slower under the profiler than without it
    return words.NONE if value is None else signed(value, "latency")


def ceilings(analysis: Analysis) -> Table:
    """The device's lines of the roofline, with their sources."""
    return Table(
        columns=(Column("ceiling"), Column("value", numeric=True), Column("kind"), Column("source", wide=True)),
        rows=tuple(
            (c.name, units.show(c.value, "rate" if c.unit == "FLOP/s" else "bandwidth"), c.kind, c.source)
            for c in analysis.ceilings
        ),
    )


def bottlenecks(analysis: Analysis) -> Table:
    """Every inverted bottleneck beside the dense convolution of its shape."""
    rows = [
        (
            block.name, f"{block.in_channels} → {block.inner_channels} → {block.out_channels}",
            f"{block.kernel_size[0]}×{block.kernel_size[1]}", f"{block.out_hw[0]}×{block.out_hw[1]}",
            *_price(block.price), units.show(block.inner_dense_macs, "count"),
        )
        for block in analysis.bottlenecks.blocks
    ]  # fmt: skip
    return Table(
        columns=(
            Column("block"), Column("channels"), Column("window"), Column("output, px"),
            Column("MACs", "modelled", numeric=True), Column("dense MACs", "modelled", numeric=True),
            Column("MACs saved", "modelled", numeric=True), Column("peak", "modelled", numeric=True),
            Column("peak added", "modelled", numeric=True),
            Column("MACs if its depthwise were dense", "modelled", numeric=True),
        ),
        rows=tuple(rows),
        foot=("whole network", "", "", "", *_price(analysis.bottlenecks.total), ""),
    )  # fmt: skip


def _price(price: DensePrice) -> tuple[str, ...]:
    return (
        units.show(price.macs, "count"), units.show(price.dense_macs, "count"), signed(price.macs_saved, "count"),
        units.show(price.peak_bytes, "bytes"), signed(price.peak_bytes_added, "bytes"),
    )  # fmt: skip


def signed(value: float, dimension: str) -> str:
    """A difference, with a real minus sign.

    Example:
        >>> signed(-18_364_416, "count"), signed(2048, "bytes")
        ('−18.4 M', '2 KiB')
    """
    return ("−" if value < 0 else "") + units.show(abs(value), dimension)


def figure(value: float | None) -> str:
    """A plain number to three digits.

    Example:
        >>> figure(0.9), figure(21.25), figure(None)
        ('0.9', '21.2', '–')
    """
    return words.NONE if value is None else f"{value:.3g}"


def _work() -> tuple[Column, ...]:
    return (
        Column("MACs", "modelled", numeric=True),
        Column("elementwise", "modelled", numeric=True),
        Column("weights", "modelled", numeric=True),
    )


def _levels(analysis: Analysis) -> tuple[Column, ...]:
    return tuple(Column(f"across {level}", "modelled", numeric=True) for level in analysis.levels)


def _side(analysis: Analysis) -> tuple[int, ...]:
    return next(side.level_bytes for side in analysis.sides if side.schedule == analysis.schedule)


def _memory_share(energy: EnergySplit) -> float | None:
    total = energy.total_j
    return None if total is None or energy.compute_j is None or total <= 0 else 1.0 - energy.compute_j / total
