"""What the analyser found out about one network on one device, as frozen data: tables, reports and JSON read it.

All figures are for one run of the graph, that is for its whole batch, unless they say "image".  None = not known (the
device's file does not state what it would take), never zero.  What is not known is named in `Analysis.remarks`.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import inf
from typing import Literal

from luthier.cost.budget import Violation
from luthier.cost.dense import BottleneckPrice
from luthier.cost.points import EnergySplit, GroupAnalysis, Kind, LevelTraffic, OpAnalysis
from luthier.cost.scheduled_memory import GroupMemory
from luthier.errors import SpecError
from luthier.units import show

__all__ = [
    "Analysis",
    "Ceiling",
    "Crossing",
    "EnergySaving",
    "EnergySplit",
    "GroupAnalysis",
    "Kind",
    "LevelTraffic",
    "OpAnalysis",
    "ScheduleTotals",
    "StageTotals",
    "Totals",
]


@dataclass(frozen=True, slots=True)
class StageTotals:
    """Sums over the groups of one stage of the network (the first word of a block's name).

    Attributes:
        level_bytes: weights and activations across each memory level, nearest first.
        share: of the network's `attainable_s`.
    """

    name: str
    groups: int
    macs: int
    elementwise_ops: int
    weight_bytes: int
    level_bytes: tuple[int, ...]
    attainable_s: float | None
    share: float | None
    energy_j: float | None
    attainable_s_kind: Kind = "modelled"
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
    bound_share: tuple[tuple[str, float], ...]
    energy: EnergySplit
    peak_activation_bytes_kind: Kind = "modelled"
    attainable_s_kind: Kind = "modelled"
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
        after = self.ridge if self.after is None else self.after
        for digits in range(2, 17):  # as few as keep the order visible
            before, ridge, to = (_rounded(value, digits) for value in (self.before, self.ridge, after))
            if before < ridge <= to:
                break
        if self.after is None:
            return (
                f"{self.op} moves from {before:g} FLOP/byte past the {self.level} ridge at {ridge:g}: no byte is left"
            )
        return f"{self.op} moves from {before:g} to {to:g} FLOP/byte and crosses the {self.level} ridge at {ridge:g}"


def _rounded(value: float, digits: int) -> float:
    return float(f"{value:.{digits}g}") if value < 10**digits else round(value)


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
        peak_group: the group at which it is reached, by its first and last op.
        attainable_s: of the whole batch, see `GroupAnalysis`.
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
    peak_group: str
    attainable_s: float | None
    image_latency_s: float | None
    energy: EnergySplit
    image_energy_j: float | None
    images_per_battery: float | None
    compute_j_by_type: tuple[tuple[str, float | None], ...]
    peak_activation_bytes_kind: Kind = "modelled"
    attainable_s_kind: Kind = "modelled"
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
        levels: names of the memory levels, nearest first.
        ceilings: of the roofline diagram, compute first.
        ops: in order, apart from any schedule.
        groups: in the order in which they run, under the schedule.
        unfused: the same network op by op; empty if the schedule is that.
        sides: totals under the schedule and, beside it, unfused.
        stages: sums by stage.
        memory: what is alive while each group runs.
        crossings: what the schedule moved across a ridge, against `unfused`.
        violations: of the limits, the worst first; empty = it fits.
        fits: None = no limit was given.
        saving: against another number type; None = not known.
        bottlenecks: every inverted bottleneck beside the dense convolution of its shape.
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
    levels: tuple[str, ...]
    ceilings: tuple[Ceiling, ...]
    totals: Totals
    ops: tuple[OpAnalysis, ...]
    groups: tuple[GroupAnalysis, ...]
    unfused: tuple[GroupAnalysis, ...]
    sides: tuple[ScheduleTotals, ...]
    stages: tuple[StageTotals, ...]
    memory: tuple[GroupMemory, ...]
    crossings: tuple[Crossing, ...]
    violations: tuple[Violation, ...]
    fits: bool | None
    saving: EnergySaving | None
    bottlenecks: BottleneckPrice
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
