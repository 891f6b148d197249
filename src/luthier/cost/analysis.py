"""What the analyser found out about one network on one device, as frozen data: tables, reports and JSON read it.

All figures are for one run of the graph, that is for its whole batch, unless they say "image".  None = not known (the
device's file does not state what it would take), never zero.  What is not known is named in `Analysis.remarks`.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import inf
from typing import Literal

from luthier.cost.budget import Violation
from luthier.cost.memory import MemoryStep
from luthier.errors import SpecError
from luthier.graph.shapes import Shape
from luthier.units import show

Kind = Literal["measured", "modelled", "predicted"]


@dataclass(frozen=True, slots=True)
class LevelTraffic:
    """What a group of ops moves across one level of the memory.

    Attributes:
        level: name in the device.
        weight_bytes, activation_bytes: see `luthier.cost.traffic`.
        time_s: bytes / bandwidth.
        intensity_flop_per_byte: (flop + elementwise_ops) / bytes; None = no byte crosses, no bandwidth can bind.
        ridge_flop_per_byte: intensity from which compute binds and no longer this level.
    """

    level: str
    weight_bytes: int
    activation_bytes: int
    time_s: float | None
    intensity_flop_per_byte: float | None
    ridge_flop_per_byte: float | None

    @property
    def bytes(self) -> int:
        """Weights and activations."""
        return self.weight_bytes + self.activation_bytes


@dataclass(frozen=True, slots=True)
class EnergySplit:
    """Where energy goes.

    Attributes:
        compute_j: arithmetic.
        weight_j, activation_j: moving weights and activations, all levels.
        on_chip_j, off_chip_j: the same movement by place; off the chip is DRAM.
    """

    compute_j: float | None
    weight_j: float | None
    activation_j: float | None
    on_chip_j: float | None
    off_chip_j: float | None

    @property
    def total_j(self) -> float | None:
        """Compute and movement; None = a part is not known."""
        parts = (self.compute_j, self.weight_j, self.activation_j)
        known = [part for part in parts if part is not None]
        return sum(known) if len(known) == len(parts) else None


@dataclass(frozen=True, slots=True)
class OpAnalysis:
    """One op, apart from any schedule.

    Attributes:
        name, block, kind: as in the graph.
        op_class: see `luthier.cost.op_class`, `pointwise`, `depthwise`, ...
        precision: label of the number types that meet in it, `fp32`, `W8A16`.
        out_shape: (N, C, H, W) or (N, K).
        macs, elementwise_ops: for the whole batch, see `luthier.cost.macs`.
        weight_bytes: of its constants as deployed.
        compute_s: (2 macs + elementwise_ops) at the arithmetic peak.
        compute_j: energy of its arithmetic.
    """

    name: str
    block: str
    kind: str
    op_class: str
    precision: str
    out_shape: Shape
    macs: int
    elementwise_ops: int
    weight_bytes: int
    compute_s: float | None
    compute_j: float | None


@dataclass(frozen=True, slots=True)
class GroupAnalysis:
    """A group of ops that run as one, under a schedule: a point in the roofline, a row in the table of layers.

    Attributes:
        name: of its op with the most work.
        block: of that op.
        ops, op_kinds: of all its ops, in order.
        op_class: of the op that names it.
        tile: `4 rows`, `4 rows x 32 channels`; empty = not tiled.
        flop: 2 macs; `elementwise_ops` are counted apart and timed as one FLOP each.
        traffic: nearest level first.
        compute_s: sum over its ops.
        bound: `compute`, the name of a level, or `unknown`: the known ceiling that takes longest.
        attainable_s: max(compute_s, time_s of every level): no implementation of this schedule is faster.
        latency_s: the same with the calibration's efficiencies and overhead; equal to `attainable_s` without one.
        share: of the network's `latency_s`, 0..1.
    """

    name: str
    block: str
    ops: tuple[str, ...]
    op_kinds: tuple[str, ...]
    op_class: str
    tile: str
    macs: int
    flop: int
    elementwise_ops: int
    weight_bytes: int
    traffic: tuple[LevelTraffic, ...]
    compute_s: float | None
    bound: str
    attainable_s: float | None
    latency_s: float | None
    share: float | None
    energy: EnergySplit
    attainable_s_kind: Kind = "modelled"
    latency_s_kind: Kind = "modelled"
    energy_kind: Kind = "modelled"

    def level(self, name: str) -> LevelTraffic:
        """The traffic across the level of that name."""
        return next(traffic for traffic in self.traffic if traffic.level == name)


@dataclass(frozen=True, slots=True)
class StageTotals:
    """Sums over the groups of one stage of the network (the first word of a block's name).

    Attributes:
        level_bytes: weights and activations across each memory level, nearest first.
        share: of the network's `latency_s`.
    """

    name: str
    groups: int
    macs: int
    elementwise_ops: int
    weight_bytes: int
    level_bytes: tuple[int, ...]
    attainable_s: float | None
    latency_s: float | None
    share: float | None
    energy_j: float | None
    latency_s_kind: Kind = "modelled"
    energy_j_kind: Kind = "modelled"


@dataclass(frozen=True, slots=True)
class ScheduleTotals:
    """Sums over all groups of one schedule; two of them stand side by side.

    Attributes:
        schedule: its name.
        peak_activation_bytes: weights excluded.
        level_bytes: across each memory level, nearest first.
        bound_share: of `attainable_s`, by bound (`compute`, `DRAM`, ...); empty if that is not known.
        energy: of the whole batch.
    """

    schedule: str
    groups: int
    peak_activation_bytes: int
    level_bytes: tuple[int, ...]
    attainable_s: float | None
    latency_s: float | None
    bound_share: tuple[tuple[str, float], ...]
    energy: EnergySplit
    peak_activation_bytes_kind: Kind = "modelled"
    latency_s_kind: Kind = "modelled"
    energy_kind: Kind = "modelled"


@dataclass(frozen=True, slots=True)
class Crossing:
    """An op that a schedule moves from the bandwidth's side of a ridge to the compute's.

        before < ridge <= after                                                                      (1)

    Attributes:
        op: its name.
        level: of the memory.
        before, after: intensity alone, and of the group it runs in now, in FLOP/byte; None = no byte crosses the level
            any more, above every ridge.
        ridge: the intensity at which the level's bandwidth and the arithmetic peak take as long.
    Raises:
        SpecError: (1) does not hold: nothing crosses anything.
    Example:
        >>> Crossing("stages.1.0.depthwise.conv", "DRAM", 0.9, 11, 21).text
        'stages.1.0.depthwise.conv moves from 0.9 to 21 FLOP/byte and crosses the DRAM ridge at 11'
    """

    op: str
    level: str
    before: float
    ridge: float
    after: float | None

    def __post_init__(self) -> None:
        after = inf if self.after is None else self.after
        if not self.before < self.ridge <= after:
            raise SpecError(
                f"Crossing: {self.op} crosses the {self.level} ridge only if before < ridge <= after, "
                f"got {self.before:.4g}, {self.ridge:.4g}, {after:.4g}"
            )

    @property
    def text(self) -> str:
        """One sentence."""
        before, ridge = _figures(self.before), _figures(self.ridge)
        if self.after is None:
            return f"{self.op} moves from {before} FLOP/byte past the {self.level} ridge at {ridge}: no byte goes there"
        return (
            f"{self.op} moves from {before} to {_figures(self.after)} FLOP/byte "
            f"and crosses the {self.level} ridge at {ridge}"
        )


def _figures(value: float) -> str:
    return f"{value:.2g}" if value < 100 else f"{value:.0f}"


@dataclass(frozen=True, slots=True)
class EnergySaving:
    """What a number type saves against another, and where.

    Attributes:
        precision, baseline: labels.
        energy_j, baseline_j: of one run.
        compute_j, weight_j, activation_j: saved in arithmetic and in moving weights and activations; they add up to
            baseline_j - energy_j; below zero = costs more.
        mixed_unit: whether the device declares a multiplier for this pair of number types.
        text: one or two sentences.
    """

    precision: str
    baseline: str
    energy_j: float
    baseline_j: float
    compute_j: float
    weight_j: float
    activation_j: float
    mixed_unit: bool
    text: str


@dataclass(frozen=True, slots=True)
class Totals:
    """A network on a device under the chosen schedule.

    Attributes:
        params: trained numbers, as `luthier.cost.graph_params` counts them on the graph that was given.
        macs, flop, elementwise_ops: of the whole batch; flop = 2 macs.
        weight_bytes: as deployed.
        peak_activation_bytes: under the schedule, of the whole batch, weights excluded.
        peak_op: the op, or the group, at which it is reached.
        attainable_s, latency_s: of the whole batch, see `GroupAnalysis`.
        image_latency_s, image_energy_j: divided by the batch.
        images_per_battery: battery_j / image_energy_j.
        compute_j_by_type: arithmetic by label of the number types; None in a pair = not known.
    """

    params: int
    macs: int
    flop: int
    elementwise_ops: int
    weight_bytes: int
    peak_activation_bytes: int
    peak_op: str
    attainable_s: float | None
    latency_s: float | None
    image_latency_s: float | None
    energy: EnergySplit
    image_energy_j: float | None
    images_per_battery: float | None
    compute_j_by_type: tuple[tuple[str, float | None], ...]
    peak_activation_bytes_kind: Kind = "modelled"
    attainable_s_kind: Kind = "modelled"
    latency_s_kind: Kind = "modelled"
    image_latency_s_kind: Kind = "modelled"
    energy_kind: Kind = "modelled"
    image_energy_j_kind: Kind = "modelled"


@dataclass(frozen=True, slots=True)
class Ceiling:
    """One line of the roofline diagram.

    Attributes:
        name: `compute fp32`, or a memory level.
        value: FLOP/s or bytes/s.
        unit: `FLOP/s` or `B/s`.
        source: of the figure.
        kind: of the figure: `measured`, `published` or `derived`.
    """

    name: str
    value: float
    unit: Literal["FLOP/s", "B/s"]
    source: str
    kind: str


@dataclass(frozen=True, slots=True)
class Analysis:
    """All of it.

    Attributes:
        model, device, device_title: names.
        precision: label; `as described` if the graph's own number types are not all alike.
        batch: images of one run.
        resolution: (H, W) in pixels; None = the input is no image.
        schedule: name.
        threads: that share the work.
        runtime: of the calibration; None = `latency_s` is the roofline itself.
        levels: names of the memory levels, nearest first.
        ceilings: of the roofline diagram, compute first.
        ops: in order, apart from any schedule.
        groups: in the order in which they run, under the schedule.
        unfused: the same network op by op; empty if the schedule is that.
        sides: totals under the schedule and, beside it, unfused.
        stages: sums by stage.
        memory: what is alive at every step of the schedule.
        crossings: what the schedule moved across a ridge, against `unfused`.
        violations: of the limits, the worst first; empty = it fits.
        fits: None = no limit was given.
        saving: against another number type; None = not known.
        unknown_ops: names of ops that are counted nowhere: all figures are without them.
        remarks: what is not known or left out, one sentence each.
    """

    model: str
    device: str
    device_title: str
    precision: str
    batch: int
    resolution: tuple[int, int] | None
    schedule: str
    threads: int
    runtime: str | None
    levels: tuple[str, ...]
    ceilings: tuple[Ceiling, ...]
    totals: Totals
    ops: tuple[OpAnalysis, ...]
    groups: tuple[GroupAnalysis, ...]
    unfused: tuple[GroupAnalysis, ...]
    sides: tuple[ScheduleTotals, ...]
    stages: tuple[StageTotals, ...]
    memory: tuple[MemoryStep, ...]
    crossings: tuple[Crossing, ...]
    violations: tuple[Violation, ...]
    fits: bool | None
    saving: EnergySaving | None
    unknown_ops: tuple[str, ...]
    remarks: tuple[str, ...]

    @property
    def verdict(self) -> str:
        """One line: whether the limits hold, and what breaks them."""
        if self.fits is None:
            return "no limit was given"
        if self.fits:
            return f"fits: peak activation memory {show(self.totals.peak_activation_bytes, 'bytes')}"
        return "does not fit: " + "; ".join(violation.text for violation in self.violations)
