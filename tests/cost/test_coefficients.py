"""The grid of coefficients: every point is what `scale` makes of it, at the work it promises."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest

from luthier.arch import Network
from luthier.arch.presets import get
from luthier.arch.scaling import PAPER, Coefficients, scale
from luthier.cost import graph_macs
from luthier.cost.coefficients import GridPoint, coefficient_grid, spread
from luthier.errors import InputError
from luthier.graph import from_network


def macs_of(network: Network) -> int:
    return graph_macs(from_network(network))


@pytest.fixture(scope="module")
def baseline() -> Network:
    return replace(get("mbconv_thumbnail"), resolution=20)


@pytest.fixture(scope="module")
def grid(baseline: Network) -> tuple[GridPoint, ...]:
    return coefficient_grid(baseline, tolerance=0.1, macs_tolerance=0.05, max_resolution=32)


def test_every_point_keeps_its_promises(baseline: Network, grid: tuple[GridPoint, ...]) -> None:
    twice = 2 * macs_of(baseline)
    assert len(grid) > 10
    for point in grid:
        c = point.coefficients
        assert scale(baseline, 1, c) == point.network
        assert point.macs == macs_of(point.network)
        assert point.deviation == point.macs / twice - 1
        assert abs(point.deviation) <= 0.05
        assert abs(c.alpha * c.beta**2 * c.gamma**2 - 2) <= 0.1 + 1e-9
        assert point.network.resolution <= 32
        # gamma is whole pixels, so nothing is left to rounding; the paper's own is taken as published
        assert c == PAPER or c.gamma * 20 == pytest.approx(point.network.resolution)
        assert sum(point.shares) == pytest.approx(1)
    assert len({replace(point.network, name="") for point in grid}) == len(grid)


def test_the_paper_is_on_its_own_grid(grid: tuple[GridPoint, ...]) -> None:
    assert PAPER in [point.coefficients for point in grid]
    assert spread(grid, 5)[0].coefficients == PAPER


def test_a_coarse_scan_finds_nothing_that_is_missing(baseline: Network, grid: tuple[GridPoint, ...]) -> None:
    best = {replace(point.network, name=""): point.coefficients for point in grid}
    kept = 0
    for alpha in (1.0, 1.4, 2.0):
        for beta in (1.0, 1.2, 1.38, 1.4):
            for side in (20, 24, 28):
                c = Coefficients(alpha=alpha, beta=beta, gamma=side / 20)
                network = replace(scale(baseline, 1, c, max_resolution=32), name="")
                within = abs(c.product - 2) <= 0.1 and abs(macs_of(network) / (2 * macs_of(baseline)) - 1) <= 0.05
                if within:
                    kept += 1
                    held = best[network]
                    assert held == PAPER or abs(held.product - 2) <= abs(c.product - 2) + 1e-9
    assert kept >= 2


def test_a_small_grid_reaches_into_the_corners(grid: tuple[GridPoint, ...]) -> None:
    few = spread(grid, 6)
    assert len(few) == len({point.coefficients for point in few}) == 6
    for axis in range(3):
        assert max(p.shares[axis] for p in few) == pytest.approx(max(p.shares[axis] for p in grid))
    assert min(math.dist(a.shares, b.shares) for a in few for b in few if a is not b) > 0.1
    assert len(spread(grid, 1000)) == len(grid)
    assert len(spread(grid, 1)) == 1


def test_images_without_room_keep_their_resolution(baseline: Network) -> None:
    narrow = coefficient_grid(baseline, tolerance=0.1, macs_tolerance=0.05, max_resolution=20)
    assert {point.network.resolution for point in narrow} == {20}


def test_nothing_within_the_tolerance(baseline: Network) -> None:
    with pytest.raises(InputError, match=r"--macs-tolerance 1e-07: no member .* the nearest is \d+ % off"):
        coefficient_grid(baseline, tolerance=0.01, macs_tolerance=1e-7)
    with pytest.raises(InputError, match=r"--tolerance: must lie in \(0, 1\), got nan"):
        coefficient_grid(baseline, tolerance=math.nan, macs_tolerance=0.05)
