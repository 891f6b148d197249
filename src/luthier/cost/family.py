"""A family of networks, each member at its real cost beside what the law of compound scaling promises.

    law(phi) = macs(0) * (alpha * beta^2 * gamma^2)^phi,     deviation = macs(phi) / law(phi) - 1         (1)

Whole blocks, channels in multiples of eight and pixels in multiples of four make the real figures a staircase in phi.
`solve_phi` finds the last stair on which every limit holds, not the point where the law meets the limit.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Final

from luthier.arch.network import Network
from luthier.arch.scaling import PAPER, Coefficients, scale
from luthier.cost.budget import Budget, nearest
from luthier.cost.summary import Cost, cost
from luthier.errors import BudgetError, SpecError

#: where a phi is looked for: a sixteenth of the work to about two hundred times
PHI_RANGE: Final = (-4.0, 8.0)
#: stairs beyond the last fitting one that are tried, since latency and memory may fall where work rises
NEIGHBOURS: Final = 8
_FINEST: Final = 1e-7

#: latency in seconds and energy in joule of one image; None = not known
Judge = Callable[[Network], tuple[float | None, float | None]]


@dataclass(frozen=True, slots=True, kw_only=True)
class FamilyMember:
    """One network of a family.

    Attributes:
        phi: the knob; of all that give this network one with few decimals.
        network: as scaled.
        depth, width, resolution: the factors alpha^phi, beta^phi, gamma^phi, before rounding.
        law_macs: equation (1).
        cost: real.
        latency_s, energy_j: of one image, as the judge says; None = not judged or not known.
    """

    phi: float
    network: Network
    depth: float
    width: float
    resolution: float
    law_macs: float
    cost: Cost
    latency_s: float | None = None
    energy_j: float | None = None

    @property
    def deviation(self) -> float:
        """Real work over the law's, less 1."""
        return self.cost.macs / self.law_macs - 1


def growth(members: Iterable[FamilyMember]) -> Iterator[float | None]:
    """Factor on the real work from each member to the next per whole step of phi; None for the first.

    growth = (macs(b) / macs(a))^(1 / (phi_b - phi_a))        2 = each step doubles the work            (2)
    """
    before: FamilyMember | None = None
    for member in members:
        if before is None or member.phi == before.phi:
            yield None
        else:
            yield float((member.cost.macs / before.cost.macs) ** (1 / (member.phi - before.phi)))
        before = member


class Family:
    """All members of a network's family.

    Args:
        network: the member at phi = 0.
        coefficients: alpha, beta, gamma.
        max_resolution: side in pixels that no member exceeds; None = no bound.
        judge: latency and energy of a member on a device; None = they are not known.
    """

    def __init__(
        self, network: Network, coefficients: Coefficients = PAPER, *, max_resolution: int | None = None,
        judge: Judge | None = None,
    ) -> None:  # fmt: skip
        self.network, self.coefficients, self.max_resolution, self._judge = (
            network, coefficients, max_resolution, judge,
        )  # fmt: skip
        self._macs = cost(network).macs
        self._priced: dict[Network, tuple[Cost, float | None, float | None]] = {}

    def _shape(self, phi: float) -> tuple[Network, Network]:
        """The network at phi, and the same without its own name: equal shapes are one stair."""
        found = scale(self.network, phi, self.coefficients, max_resolution=self.max_resolution)
        return found, replace(found, name=self.network.name)

    def member(self, phi: float) -> FamilyMember:
        """The member at phi, priced once per distinct network.

        Raises:
            SpecError: phi outside [-8, 12].
        """
        network, shape = self._shape(phi)
        if shape not in self._priced:
            latency_s, energy_j = (None, None) if self._judge is None else self._judge(network)
            self._priced[shape] = cost(network), latency_s, energy_j
        priced, latency_s, energy_j = self._priced[shape]
        base = self.coefficients
        return FamilyMember(
            phi=phi, network=network, depth=base.alpha**phi, width=base.beta**phi, resolution=base.gamma**phi,
            law_macs=self._macs * base.product**phi, cost=priced, latency_s=latency_s, energy_j=energy_j,
        )  # fmt: skip

    def stair(self, phi: float, bounds: tuple[float, float] = PHI_RANGE) -> tuple[float, float]:
        """The range of phi around `phi` that gives the same network, to 1e-7."""
        return self._edge(phi, bounds[0]), self._edge(phi, bounds[1])

    def _edge(self, phi: float, bound: float) -> float:
        same = self._shape(phi)[1]
        if self._shape(bound)[1] == same:
            return bound
        inside, outside = phi, bound
        # away from phi in growing steps, so that an equal network beyond other stairs is not taken for this one
        step = math.copysign(1e-3, bound - phi)
        while abs(inside + step - phi) < abs(bound - phi):
            if self._shape(inside + step)[1] != same:
                outside = inside + step
                break
            inside, step = inside + step, 2 * step
        while abs(outside - inside) > _FINEST:
            middle = (inside + outside) / 2
            if self._shape(middle)[1] == same:
                inside = middle
            else:
                outside = middle
        return inside

    def simplest(self, phi: float, bounds: tuple[float, float] = PHI_RANGE) -> FamilyMember:
        """The member at `phi`, under the phi with the fewest decimals that gives the same network."""
        low, high = self.stair(phi, bounds)
        for digits in range(7):
            middle = round((low + high) / 2, digits)
            for short in (middle, round(math.ceil(low * 10**digits) / 10**digits, digits)):
                if low <= short <= high and self._shape(short)[1] == self._shape(phi)[1]:
                    return self.member(short)
        return self.member(phi)


def solve_phi(family: Family, budget: Budget, bounds: tuple[float, float] = PHI_RANGE) -> FamilyMember:
    """The largest member of a family that keeps every limit: bisection on real costs, then the stairs beyond.

    Work and parameters never fall where phi grows, so bisection finds their last stair exactly.  Peak memory, latency
    and energy may fall a little from one stair to the next; eight stairs beyond the one found are tried as well.

    Args:
        family: with a judge if the budget limits latency or energy.
        budget: one limit or several.
        bounds: smallest and largest phi.
    Raises:
        BudgetError: no phi within the bounds keeps the limits; names the nearest member and the limit that binds.
        SpecError: nothing is left of a map at any phi within the bounds.
    Example:
        >>> from luthier.arch.presets import get
        >>> found = solve_phi(Family(get("efficientnet_b0")), Budget(max_macs=100_000_000))
        >>> found.phi, found.network.resolution, found.cost.macs
        (-3.1, 144, 93786976)
    """

    def fits(phi: float) -> bool:
        member = family.member(phi)
        return not budget.violations(member.cost, member.latency_s, member.energy_j)

    bounds = _least(family, bounds), bounds[1]
    # a step at a time from the network as it is: members far beyond the limits take longest to measure
    low = high = min(max(0.0, bounds[0]), bounds[1])
    while fits(high):
        if high == bounds[1]:
            return family.simplest(high, bounds)
        low, high = high, min(high + 1, bounds[1])
    while not fits(low):
        if low == bounds[0]:
            closest = _nearest(family, budget, bounds)
            raise BudgetError(
                f"scale({family.network.name}): no phi in [{low:g}, {bounds[1]:g}] fits the limits; {closest}"
            )
        low, high = max(low - 1, bounds[0]), low
    while high - low > _FINEST:
        middle = (low + high) / 2
        low, high = (middle, high) if fits(middle) else (low, middle)
    for _ in range(NEIGHBOURS):
        if high >= bounds[1]:
            break
        if fits(high):
            low = high
        high = min(family.stair(high, bounds)[1] + 2 * _FINEST, bounds[1])
    return family.simplest(low, bounds)


def _least(family: Family, bounds: tuple[float, float]) -> float:
    """The smallest phi, in quarter steps, at which something is left of every map."""
    phi = bounds[0]
    while True:
        try:
            family.member(phi)
        except SpecError:
            if phi + 0.25 >= bounds[1]:
                raise
            phi += 0.25
        else:
            return phi


def _nearest(family: Family, budget: Budget, bounds: tuple[float, float]) -> str:
    phis = [bounds[0] + step / 4 for step in range(5)]
    members = [family.member(phi) for phi in phis]
    return nearest((m.network.name, budget.violations(m.cost, m.latency_s, m.energy_j)) for m in members).text
