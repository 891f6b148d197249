"""Ways for a network to grow to the same work: deeper, wider, sharper, or all three by the law.

    depth only        d = m,               w = r = 1
    width only        w = sqrt(m),         d = r = 1
    resolution only   r = sqrt(m),         d = w = 1
    compound          (d, w, r) = (alpha, beta, gamma)^phi,   phi = ln m / ln(alpha beta^2 gamma^2)       (1)

Blocks, channels and pixels are whole numbers, so every way is solved on real MACs, not on the law.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Final

from luthier.arch.network import Network
from luthier.arch.rounding import round_depth
from luthier.arch.scaling import PAPER, Coefficients, scale_by
from luthier.cost.macs import graph_macs
from luthier.errors import SpecError
from luthier.graph.from_network import from_network

#: real work of members of one size may differ by this share
TOLERANCE: Final = 0.05
_STEPS: Final = 8


@dataclass(frozen=True)
class Grown:
    """One member.

    Attributes:
        depth: blocks over the baseline's, the stem not counted; width: the asked factor; resolution: pixels over the
            baseline's.
        macs: real.
    """

    network: Network
    depth: float
    width: float
    resolution: float
    macs: int


@lru_cache(maxsize=4096)
def real_macs(network: Network) -> int:
    """Multiply-accumulates of one image, counted in the graph."""
    return graph_macs(from_network(network))


def grow(base: Network, width: float, depth: float, side: int) -> Grown:
    """A member by its factors; what it becomes after rounding is counted."""
    # one name, so that equal members are counted once
    network = scale_by(base, width=width, depth=depth, resolution=side, name=base.name)
    return Grown(network, _blocks(base, depth), width, side / base.resolution, real_macs(network))


def nearest(make: Callable[[float], Grown], low: float, high: float, target: float) -> Grown:
    """The member whose work is nearest to `target`, of a way whose work never falls between two factors."""
    for _ in range(_STEPS):
        middle = (low + high) / 2
        low, high = (middle, high) if make(middle).macs <= target else (low, middle)
    return min((make(low), make(high)), key=lambda member: abs(member.macs - target))


def resolution_only(base: Network, multiple: float, max_side: int) -> Grown:
    """The side whose work is nearest to `multiple` times the baseline's."""
    target = multiple * real_macs(base)
    sides = range(base.resolution, max_side + 1)
    # neighbours may be equally far: then more pixels
    return min((grow(base, 1, 1, side) for side in sides), key=lambda m: (abs(m.macs - target), -m.network.resolution))


def depth_only(base: Network, target: float, multiple: float) -> Grown:
    """As many blocks as the target pays for, of the baseline's width and resolution."""
    return nearest(lambda d: grow(base, 1, d, base.resolution), 1, 2 * multiple, target)


def width_only(base: Network, target: float, multiple: float) -> Grown:
    """As many channels as the target pays for, of the baseline's depth and resolution."""
    return nearest(lambda w: grow(base, w, 1, base.resolution), 1, multiple, target)


def compound(base: Network, target: float, multiple: float, max_side: int, coefficients: Coefficients = PAPER) -> Grown:
    """Of all members within half the tolerance of the target, the one nearest to the law's factors (1).

    A small network cannot have a fifth more of three blocks, so the law's own phi with its ceilings is mostly deeper.
    Here depths and sides around the law's are tried, and the width pays for what is left of the target; distance is
    the sum of squares of ln(d / d'), 2 ln(w / w'), 2 ln(r / r') and ln(macs / target), each in its share of the work.

    Raises:
        SpecError: no member is within the tolerance.
    """
    phi = math.log(multiple) / math.log(coefficients.product)
    d, w, r = (factor**phi for factor in (coefficients.alpha, coefficients.beta, coefficients.gamma))
    sides = range(base.resolution, max_side + 1)
    shapes = [
        (math.log(_blocks(base, depth) / d) ** 2 + (2 * math.log(side / base.resolution / r)) ** 2, depth, side)
        for depth in _stairs(base, d)
        for side in sides
    ]
    best: tuple[float, Grown] | None = None
    for apart, depth, side in sorted(shapes):
        if best is not None and apart >= best[0]:
            break  # no width can make up for these blocks and pixels
        member = nearest(lambda x, s=side, y=depth: grow(base, x, y, s), 0.75, 2 * w, target)  # type: ignore[misc]
        apart += (2 * math.log(member.width / w)) ** 2 + math.log(member.macs / target) ** 2
        # half the tolerance, so that the member stays equal when its gates are taken out
        if abs(member.macs / target - 1) <= TOLERANCE / 2 and (best is None or apart < best[0]):
            best = apart, member
    if best is None:
        raise SpecError(f"lab: no compound member of {base.name} is within {TOLERANCE / 2:.1%} of {target:,.0f} MACs")
    return best[1]


def _blocks(base: Network, depth: float) -> float:
    """Blocks at a depth factor over the baseline's, the stem not counted."""
    repeats = [len(stage.blocks) for stage in base.stages[1:]]
    return sum(round_depth(n * depth) for n in repeats) / sum(repeats)


def _stairs(base: Network, depth: float) -> tuple[float, ...]:
    """Depth factors just below and above the law's at which a stage gains a block."""
    repeats = {len(stage.blocks) for stage in base.stages[1:]}
    edges = sorted({k / n for n in repeats for k in range(n, 8 * n)})
    below = max(edge for edge in edges if edge <= depth)
    return below, min(edge for edge in edges if edge > depth)


def without_attention(network: Network) -> Network:
    """The same network, its gates taken out."""
    stages = tuple(
        replace(stage, blocks=tuple(replace(block, attention=None) for block in stage.blocks))
        for stage in network.stages
    )
    return replace(network, name=f"{network.name} without attention", stages=stages)


def check_equal(who: str, target: float, members: Iterable[tuple[str, int]], tolerance: float = TOLERANCE) -> None:
    """Refuse arms whose real work differs from the target's by more than the tolerance.

    Raises:
        SpecError: names the first such arm.
    Example:
        >>> check_equal("2x", 100.0, [("depth", 104)])
    """
    for name, macs in members:
        if abs(macs / target - 1) > tolerance:
            raise SpecError(
                f"{who}: {name} has {macs:,} MACs, {macs / target - 1:+.1%} of the {target:,.0f} asked; arms must lie "
                f"within {tolerance:.0%}; choose another baseline"
            )
