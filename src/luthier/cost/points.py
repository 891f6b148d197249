"""The parts of an analysis that a schedule's groups are: bytes, times, bounds and energies, as frozen data.

All figures are for one run of the graph, that is for its whole batch.  None = not known (the device's file does not
state what it would take), never zero.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from luthier.graph.shapes import Shape

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
        return None if None in self._parts else self.known_j

    @property
    def known_j(self) -> float | None:
        """The sum of the parts that are known, a lower bound of the total; None = none is."""
        known = [part for part in self._parts if part is not None]
        return sum(known) if known else None

    @property
    def _parts(self) -> tuple[float | None, ...]:
        return self.compute_j, self.weight_j, self.activation_j


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
        share: of the network's `attainable_s`, 0..1.
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
    share: float | None
    energy: EnergySplit
    attainable_s_kind: Kind = "modelled"
    energy_kind: Kind = "modelled"

    def level(self, name: str) -> LevelTraffic:
        """The traffic across the level of that name."""
        return next(traffic for traffic in self.traffic if traffic.level == name)
