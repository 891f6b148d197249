"""The grid on which alpha, beta and gamma are looked for: members at phi = 1 whose real work is twice the baseline's.

Tan & Le search a small grid under alpha * beta^2 * gamma^2 ~ 2.  On a small network the law says little: one block more
in a stage of one doubles it.  So a point of the grid is a network as `scale` makes it, and it counts only where its
real work keeps a tolerance; gamma is a whole multiple of pixels over the baseline's, so that it is what it says.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final

from luthier.arch.network import Network
from luthier.arch.scaling import PAPER, Coefficients, scale
from luthier.cost.macs import graph_macs
from luthier.errors import InputError
from luthier.graph.from_network import from_network

_ALPHA_STEP: Final = 0.05
_BETA_STEP: Final = 0.02
#: of the resolution: as `scale` rounds it, and coarser where that is a small part of it
_PIXELS: Final = 4
_FINE_PX: Final = 128
#: of two points' shares of the growth, for both to be worth training
_APART: Final = 0.15
#: the shares of the growth that depth, width and resolution take, which a small grid should hold
_CORNERS: Final = (
    (1 / 3, 1 / 3, 1 / 3), (1, 0, 0), (0, 1, 0), (0, 0, 1), (0.5, 0.5, 0), (0.5, 0, 0.5), (0, 0.5, 0.5),
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class GridPoint:
    """One choice of the coefficients.

    Attributes:
        coefficients: alpha, beta, gamma.
        network: the baseline's member at phi = 1 under them.
        macs: its real work.
        deviation: that over twice the baseline's, less 1.
    """

    coefficients: Coefficients
    network: Network
    macs: int
    deviation: float

    @property
    def shares(self) -> tuple[float, float, float]:
        """Of the growth by the law, in logarithms: depth's, width's, resolution's; their sum is 1."""
        c = self.coefficients
        whole = math.log(c.product)
        return math.log(c.alpha) / whole, 2 * math.log(c.beta) / whole, 2 * math.log(c.gamma) / whole


def coefficient_grid(
    baseline: Network, *, tolerance: float, macs_tolerance: float, max_resolution: int | None = None
) -> tuple[GridPoint, ...]:
    """Every distinct member at phi = 1 with alpha * beta^2 * gamma^2 near 2 and real work near twice the baseline's.

    Of coefficients that give the same network the ones nearest 2 are kept; the paper's own come first where they are
    within the tolerances.

    Args:
        baseline: the member at phi = 0.
        tolerance: of the product, above and below 2.
        macs_tolerance: of the real work, as a share.
        max_resolution: side in pixels that no member exceeds.
    Raises:
        InputError: a tolerance outside (0, 1), or no member within them.
    Example:
        >>> from luthier.arch.presets import get
        >>> grid = coefficient_grid(get("efficientnet_b0"), tolerance=0.1, macs_tolerance=0.05)
        >>> all(abs(point.deviation) <= 0.05 and abs(point.coefficients.product - 2) <= 0.1 for point in grid)
        True
    """
    for name, value in (("--tolerance", tolerance), ("--macs-tolerance", macs_tolerance)):
        if not 0 < value < 1:
            raise InputError(f"{name}: must lie in (0, 1), got {value!r}")
    target = 2 * graph_macs(from_network(baseline))
    chosen: dict[Network, tuple[Coefficients, Network]] = {}
    for c in (PAPER, *_steps(baseline.resolution, tolerance, max_resolution)):
        member = scale(baseline, 1, c, max_resolution=max_resolution)
        shape = replace(member, name=baseline.name)
        held = chosen.get(shape)
        if abs(c.product - 2) <= tolerance + 1e-9 and (
            held is None or (held[0] != PAPER and abs(c.product - 2) < abs(held[0].product - 2))
        ):
            chosen[shape] = c, member
    points = [GridPoint(c, n, macs := graph_macs(from_network(n)), macs / target - 1) for c, n in chosen.values()]
    kept = tuple(point for point in points if abs(point.deviation) <= macs_tolerance)
    if not kept:
        nearest = min((abs(point.deviation) for point in points), default=math.inf)
        raise InputError(
            f"--macs-tolerance {macs_tolerance:g}: no member of {baseline.name} at phi = 1 comes within it of twice "
            f"the work; the nearest is {100 * nearest:.0f} % off: raise it, or --tolerance {tolerance:g}"
        )
    return kept


def spread(points: Sequence[GridPoint], count: int) -> tuple[GridPoint, ...]:
    """A few points that lie apart: the paper's, the balanced one, one axis alone, two together; then the farthest.

    Args:
        points: of `coefficient_grid`.
        count: how many at most, >= 1.
    """
    kept = [point for point in points if point.coefficients == PAPER][:1]

    def apart(point: GridPoint) -> float:
        return min((math.dist(point.shares, other.shares) for other in kept), default=math.inf)

    for corner in _CORNERS:
        nearest = min(points, key=lambda point: math.dist(point.shares, corner))
        if len(kept) < count and apart(nearest) > _APART:
            kept.append(nearest)
    while len(kept) < min(count, len(points)):
        kept.append(max((point for point in points if point not in kept), key=apart))
    return tuple(kept)


def _steps(resolution: int, tolerance: float, max_resolution: int | None) -> list[Coefficients]:
    low, high = 2 - tolerance, 2 + tolerance
    top = min(resolution * math.sqrt(high), max(max_resolution or math.inf, resolution))
    pixels = _PIXELS * math.ceil(resolution / _FINE_PX)
    sides = [resolution, *range((resolution // pixels + 1) * pixels, math.floor(top + 1e-9) + 1, pixels)]
    found = []
    for side in sides:
        gamma = round(side / resolution, 6)
        for i in range(math.floor((high / gamma**2 - 1) / _ALPHA_STEP + 1e-9) + 1):
            alpha = round(1 + i * _ALPHA_STEP, 6)
            least, most = (math.sqrt(max(1.0, bound / (alpha * gamma**2))) for bound in (low, high))
            first = math.ceil(round((least - 1) / _BETA_STEP, 6))
            for j in range(first, math.floor(round((most - 1) / _BETA_STEP, 6)) + 1):
                found.append(Coefficients(alpha=alpha, beta=round(1 + j * _BETA_STEP, 6), gamma=gamma))
    return [c for c in found if low - 1e-9 <= c.product <= high + 1e-9]
