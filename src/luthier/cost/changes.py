"""What can change so that a network fits a device, as frozen results; `luthier.cost.advise` finds them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from luthier.arch.block import Precision
from luthier.arch.network import Network
from luthier.cost.budget import Budget, Violation
from luthier.cost.summary import Cost
from luthier.graph.op import Graph
from luthier.schedule.schedule import Schedule
from luthier.units import show

ChangeKind = Literal["schedule", "precision", "resolution", "expansion", "stride"]


@dataclass(frozen=True, slots=True)
class Change:
    """One way to run a network, applied, with what it costs then.

    Attributes:
        kinds: what differs from the network as asked; empty if nothing.
        steps: the same in words, one for each kind.
        network: changed or not.
        precision: of all weights and activations; None = as the network says.
        schedule: of the network's folded graph.
        cost: `cost(network, precision=precision, schedule=schedule)`.
        latency_s, energy_j: of one image; None = not asked for.
        violations: limits that it still breaks, the worst first.
        text: one line.
    """

    kinds: tuple[ChangeKind, ...]
    steps: tuple[str, ...]
    network: Network | Graph
    precision: Precision | None
    schedule: Schedule
    cost: Cost
    latency_s: float | None
    energy_j: float | None
    violations: tuple[Violation, ...]
    text: str

    @property
    def fits(self) -> bool:
        """Whether it keeps every limit."""
        return not self.violations


@dataclass(frozen=True, slots=True)
class Excess:
    """A block above the memory limit, as asked."""

    block: str
    peak_activation_bytes: int
    excess_bytes: int


@dataclass(frozen=True, slots=True)
class Advice:
    """What `advise` found.

    Attributes:
        budget: the limits.
        asked: the network as asked.
        blocks: those above the memory limit, the worst first.
        changes: that fit, cheapest first; empty if nothing has to change, or nothing fits.
        nearest: of all that were tried, the one that breaks the limits least, if none fits.
    """

    budget: Budget
    asked: Change
    blocks: tuple[Excess, ...]
    changes: tuple[Change, ...]
    nearest: Change | None

    @property
    def lines(self) -> tuple[str, ...]:
        """One line for each finding."""
        lines = [self.asked.text]
        if self.blocks:
            worst = self.blocks[0]
            more = len(self.blocks) - 1
            others = f"; {more} more block{' is' if more == 1 else 's are'} above it" if more else ""
            lines.append(
                f"{worst.block} needs {show(worst.peak_activation_bytes, 'bytes')}, "
                f"{show(worst.excess_bytes, 'bytes')} above the limit{others}"
            )
        lines += [change.text for change in self.changes]
        if self.nearest is not None:
            lines.append(f"nothing that was tried fits; nearest is {self.nearest.text}")
        return tuple(lines)
