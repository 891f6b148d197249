"""Limits turned into phi: exact against a scan of the whole range, and what is said where nothing fits."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from luthier.arch.network import Network
from luthier.arch.presets import get
from luthier.arch.scaling import Coefficients, scale
from luthier.cost.budget import Budget
from luthier.cost.family import Family, growth, solve_phi
from luthier.cost.summary import cost
from luthier.errors import BudgetError

SCAN = [step / 200 for step in range(-800, 1601)]


def stairs(name: str) -> list[tuple[float, Network, int, int]]:
    """Every distinct member that a scan finds: phi, network, MACs, peak bytes."""
    found: list[tuple[float, Network, int, int]] = []
    seen = None
    for phi in SCAN:
        network = scale(get(name), phi)
        shape = replace(network, name=name)
        if shape != seen:
            priced = cost(network)
            found.append((phi, shape, priced.macs, priced.peak_activation_bytes))
            seen = shape
    return found


@pytest.fixture(scope="module")
def thumbnail_stairs() -> list[tuple[float, Network, int, int]]:
    return stairs("mbconv_thumbnail")


@pytest.fixture(scope="module")
def thumbnails() -> Family:
    return Family(get("mbconv_thumbnail"))


def test_work_never_falls_where_phi_grows(thumbnail_stairs: list[tuple[float, Network, int, int]]) -> None:
    assert all(a[2] <= b[2] for a, b in pairwise(thumbnail_stairs))
    assert len(thumbnail_stairs) > 50


@settings(max_examples=40, deadline=None)
@given(share=st.floats(0.01, 0.99))
def test_the_largest_stair_within_a_limit_is_found(
    share: float, thumbnails: Family, thumbnail_stairs: list[tuple[float, Network, int, int]]
) -> None:
    # limits on a stair itself, where a bisection that stops early would miss it
    limit = thumbnail_stairs[int(share * len(thumbnail_stairs))][2]
    found = solve_phi(thumbnails, Budget(max_macs=limit))
    best = max(macs for _, _, macs, _ in thumbnail_stairs if macs <= limit)
    assert found.cost.macs >= best  # the scan may step over a stair
    assert found.cost.macs <= limit
    assert scale(get("mbconv_thumbnail"), found.phi) == found.network


@settings(max_examples=20, deadline=None)
@given(share=st.floats(0.01, 0.99), other=st.floats(0.01, 0.99))
def test_two_limits_at_once(
    share: float, other: float, thumbnails: Family, thumbnail_stairs: list[tuple[float, Network, int, int]]
) -> None:
    macs = thumbnail_stairs[int(share * len(thumbnail_stairs))][2]
    peak = thumbnail_stairs[int(other * len(thumbnail_stairs))][3]
    found = solve_phi(thumbnails, Budget(max_macs=macs, max_memory_bytes=peak))
    assert found.cost.macs <= macs
    assert found.cost.peak_activation_bytes <= peak
    fitting = [entry for entry in thumbnail_stairs if entry[2] <= macs and entry[3] <= peak]
    assert found.cost.macs >= max(entry[2] for entry in fitting)


def test_a_short_phi_names_the_member() -> None:
    found = solve_phi(Family(get("efficientnet_b0")), Budget(max_macs=100_000_000))
    assert (found.phi, found.cost.macs) == (-3.1, 93_786_976)
    assert cost(scale(get("efficientnet_b0"), -3.06)).macs > 100_000_000  # the next stair


def test_a_latency_that_falls_beyond_the_first_stair_that_breaks_it() -> None:
    base = get("mbconv_thumbnail")
    first = Family(base)
    bad = [first.member(0.0).network, first.member(0.5).network]

    def judge(network: Network) -> tuple[float | None, float | None]:
        slow = any(replace(network, name=b.name) == b for b in bad[:1]) or cost(network).macs > cost(bad[1]).macs
        return (2e-3 if slow else 1e-3), None

    found = solve_phi(Family(base, judge=judge), Budget(max_latency_s=1e-3))
    assert found.latency_s == 1e-3
    assert found.cost.macs > cost(base).macs


@pytest.mark.parametrize("limit_s", [2e-3, 4e-3, 40e-3])
def test_members_far_beyond_a_limit_are_never_run(limit_s: float) -> None:
    asked = list[int]()

    def judge(network: Network) -> tuple[float | None, float | None]:
        asked.append(cost(network).macs)
        return asked[-1] * 1e-9, None

    found = solve_phi(Family(get("mbconv_thumbnail"), judge=judge), Budget(max_latency_s=limit_s))
    assert found.cost.macs * 1e-9 <= limit_s
    beyond = cost(scale(get("mbconv_thumbnail"), max(0.0, found.phi + 1.01))).macs
    assert max(asked) <= beyond


def test_the_law_and_what_rounding_makes_of_it() -> None:
    c = Coefficients(alpha=1.2, beta=1.1, gamma=1.15)
    family = Family(get("efficientnet_b0"), c)
    member = family.member(2)
    assert member.law_macs == pytest.approx(385_814_752 * (1.2 * 1.1**2 * 1.15**2) ** 2)
    assert member.deviation == pytest.approx(member.cost.macs / member.law_macs - 1)
    assert family.member(0).deviation == 0
    assert (member.depth, member.width, member.resolution) == pytest.approx((1.44, 1.21, 1.3225))
    one, two, four = family.member(0), family.member(1), family.member(3)
    assert list(growth([one, two, four])) == [
        None,
        pytest.approx(two.cost.macs / one.cost.macs),
        pytest.approx((four.cost.macs / two.cost.macs) ** 0.5),
    ]


def test_nothing_fits() -> None:
    with pytest.raises(BudgetError, match=r"no phi in \[-4, 8\] fits the limits; nearest .*--max-macs 1k"):
        solve_phi(Family(get("mbconv_thumbnail")), Budget(max_macs=1000))


def test_everything_fits() -> None:
    assert solve_phi(Family(get("mbconv_thumbnail")), Budget(max_macs=10**15)).phi == 8
