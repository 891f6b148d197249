"""Which members of a family could be built at all: priced and filtered before any training."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

from luthier.arch.network import Network
from luthier.arch.scaling import scale
from luthier.cost.budget import Budget, Violation, nearest
from luthier.cost.summary import Cost, cost
from luthier.errors import BudgetError

#: the knob's grid; a quarter step is about 19 % of the work
PHIS: Final = tuple(step / 4 for step in range(-16, 33))


@dataclass(frozen=True)
class Member:
    """A priced member of a family.

    Attributes:
        latency_s: median measured untrained on this machine; None until asked for.
        target_latency_s: modelled on a device that is not this machine; None where it is.
        energy_j: modelled on the target; None until asked for.
        reason: why it was left out; empty = it was not.
    """

    number: int
    network: Network
    phi: float | None
    cost: Cost
    latency_s: float | None = None
    target_latency_s: float | None = None
    energy_j: float | None = None
    reason: str = ""

    def violations(self, budget: Budget) -> tuple[Violation, ...]:
        """The limits that it breaks, as far as its figures are known."""
        latency_s = self.latency_s if self.target_latency_s is None else self.target_latency_s
        return budget.violations(self.cost, latency_s, self.energy_j)

    def left_out(self, reason: str) -> Member:
        """The same member with a reason for not training it."""
        return dataclasses.replace(self, reason=reason)


def scaled_members(
    baseline: Network, native_side: int, phis: Sequence[float] = PHIS, *, resolution: int | None = None
) -> list[Member]:
    """Compound-scaled members of a family, smallest first.

    The input never grows beyond the images' own side (there is nothing to see between their pixels), except to keep two
    pixels of the last feature map per axis.

    Args:
        baseline: member at phi = 0, with the right number of classes.
        native_side: shorter side of the images, in pixels.
        phis: knob settings; members that rounding makes equal are kept once.
        resolution: side that all members keep, in pixels; None = it scales too.
    """
    least = 2 * baseline.total_stride
    seen: dict[Network, Member] = {}
    for phi in phis:
        network = scale(baseline, phi, max_resolution=max(native_side, least))
        network = dataclasses.replace(network, resolution=resolution or max(network.resolution, least))
        shape = dataclasses.replace(network, name=baseline.name)
        if shape not in seen:
            seen[shape] = Member(len(seen), network, phi, cost(network))
    return list(seen.values())


def resized_members(network: Network, native_side: int) -> list[Member]:
    """One pretrained network at several input sizes, smallest first: its weights fix depth and width, not resolution.

    From the images' own side up to the size the weights were trained at, in steps of about a quarter.
    """
    top = max(network.resolution, native_side)
    sides = {network.resolution, native_side}
    side = float(min(native_side, network.resolution))
    while side < top:
        sides.add(round(side / 32) * 32)
        side *= 1.25
    least = 2 * network.total_stride
    usable = sorted(side for side in sides if least <= side <= top) or [max(least, native_side)]
    resized = [dataclasses.replace(network, resolution=side, name=f"{network.name}@{side}px") for side in usable]
    return [Member(number, net, None, cost(net)) for number, net in enumerate(resized)]


def fixed_member(network: Network) -> list[Member]:
    """The network as it is."""
    return [Member(0, network, None, cost(network))]


def within_limits(
    members: Sequence[Member], budget: Budget, measure: Callable[[Network], float] | None
) -> list[Member]:
    """Mark every member that breaks a hard limit; latency is measured only for those that keep all others.

    Args:
        measure: median seconds of an untrained network on this machine; needed if the budget limits latency.
    Raises:
        BudgetError: no member is left; names the nearest and the limit that would have to give.
    """
    kept: list[Member] = []
    for member in members:
        broken = member.violations(budget)
        if not broken and budget.max_latency_s is not None and measure is not None:
            member = dataclasses.replace(member, latency_s=measure(member.network))
            broken = member.violations(budget)
        kept.append(member.left_out("; ".join(violation.text for violation in broken)) if broken else member)
    if all(member.reason for member in kept):
        # one whose latency was never measured may break that limit too: not to be called nearest
        known = [m for m in kept if m.latency_s is not None] or kept
        closest = nearest((m.network.name, m.violations(budget)) for m in known)
        raise BudgetError(f"fit: no network fits the limits; {closest.text}")
    return kept


def most_promising(
    members: Sequence[Member], count: int, epochs_possible: Callable[[Member], float], epochs_least: float
) -> list[Member]:
    """Choose who is trained: the largest that the time can train, and smaller ones spread evenly in log MACs below it.

    Args:
        members: all; those with a reason pass through.
        count: how many to train at most.
        epochs_possible: epochs of a final training in the time that is left.
        epochs_least: fewer than this teach a network too little to be worth it.
    Returns:
        All members, those not chosen marked with a reason; at least one is chosen.
    """
    fitting = [member for member in members if not member.reason]
    possible = {member.number: epochs_possible(member) for member in fitting}
    trainable = [m for m in fitting if possible[m.number] >= epochs_least]
    if not trainable:  # better a short training than none; the caller tells the user
        trainable = [max(fitting, key=lambda m: possible[m.number])]
    largest = max(member.cost.macs for member in trainable)
    chosen: set[int] = set()
    for step in range(count):
        wished = math.log(largest) - step * math.log(16) / max(1, count)
        near = min(trainable, key=lambda m: abs(math.log(m.cost.macs) - wished))
        chosen.add(near.number)
    return [
        member
        if member.reason or member.number in chosen
        else member.left_out(
            f"too slow to train: {possible[member.number]:.1f} epochs in the time limit, {epochs_least:g} needed"
            if possible[member.number] < epochs_least
            else "fits, but close to a candidate that was trained"
        )
        for member in members
    ]
