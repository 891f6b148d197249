from __future__ import annotations

import dataclasses
import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from luthier.arch import presets
from luthier.arch.network import Network
from luthier.cost.budget import Budget
from luthier.errors import BudgetError
from luthier.job.candidates import (
    PHIS,
    Member,
    fixed_member,
    most_promising,
    resized_members,
    scaled_members,
    within_limits,
)

THUMBNAIL = presets.get("mbconv_thumbnail").with_head(10)
FAMILY = scaled_members(THUMBNAIL, 32)


def limit_near(values: list[float]) -> st.SearchStrategy[int | None]:
    """No limit, or one anywhere between below the least and above the most."""
    low, high = math.log(min(values) / 2), math.log(max(values) * 2)
    return st.one_of(st.none(), st.floats(low, high).map(lambda x: max(1, int(math.exp(x)))))


BUDGETS = st.builds(
    Budget,
    max_macs=limit_near([m.cost.macs for m in FAMILY]),
    max_params=limit_near([m.cost.params for m in FAMILY]),
    max_memory_bytes=limit_near([m.cost.peak_activation_bytes for m in FAMILY]),
    max_size_bytes=limit_near([m.cost.weight_bytes for m in FAMILY]),
    max_latency_s=st.one_of(st.none(), st.floats(1e-5, 1e-2)),
)


def latency_s(network: Network) -> float:
    """A fake machine of 1 GMAC/s with a pause of its own for each network, so that order is not by MACs alone."""
    macs = next(m.cost.macs for m in FAMILY if m.network == network)
    return macs * 1e-9 * (1 + ord(network.name[-1]) % 3 / 10)


def excess(member: Member, budget: Budget) -> float:
    """The worst value / limit, written out without `violations`."""
    latency = member.latency_s or 0.0
    values = {
        "max_macs": member.cost.macs, "max_params": member.cost.params, "max_latency_s": latency,
        "max_memory_bytes": member.cost.peak_activation_bytes, "max_size_bytes": member.cost.weight_bytes,
    }  # fmt: skip
    return max((values[name] / limit for name, limit in budget.limits()), default=0.0)


# -- families --------------------------------------------------------------------------------------------------------


def test_the_knob_goes_below_zero() -> None:
    assert min(PHIS) == -4
    assert max(PHIS) == 8
    assert 0 in PHIS
    assert [m for m in FAMILY if m.phi is not None and m.phi < 0 and m.cost.macs < FAMILY[16].cost.macs]


def test_members_are_numbered_distinct_and_grow() -> None:
    assert [m.number for m in FAMILY] == list(range(len(FAMILY)))
    assert len({dataclasses.replace(m.network, name="") for m in FAMILY}) == len(FAMILY)
    assert len({m.network.name for m in FAMILY}) == len(FAMILY)
    macs = [m.cost.macs for m in FAMILY]
    assert macs == sorted(macs)


def test_equal_members_are_kept_once() -> None:
    assert len(scaled_members(THUMBNAIL, 32, phis=(0, 0.0, 1e-9, -1e-9))) == 1


@pytest.mark.parametrize("native", [4, 8, 16, 17, 32, 60, 96, 500])
def test_the_input_is_never_larger_than_the_images_nor_smaller_than_two_pixels_at_the_end(native: int) -> None:
    least = 2 * THUMBNAIL.total_stride
    for member in scaled_members(THUMBNAIL, native):
        assert least <= member.network.resolution <= max(native, least)
        assert member.network.feature_size >= 2


def test_a_fixed_resolution_holds_for_every_member() -> None:
    members = scaled_members(THUMBNAIL, 32, resolution=24)
    assert {m.network.resolution for m in members} == {24}
    assert len({m.cost.params for m in members}) > 10


def test_large_families_survive_small_images() -> None:
    for name in ("efficientnet_b0", "vgg11_bn", "mobilenetv3_small_100", "resnet18"):
        assert min(m.network.feature_size for m in scaled_members(presets.get(name), 8, phis=(-4, 0, 1))) >= 1


@pytest.mark.parametrize(("native", "trained"), [(96, 224), (224, 224), (300, 224), (8, 224), (33, 240)])
def test_pretrained_networks_change_only_their_input(native: int, trained: int) -> None:
    network = dataclasses.replace(presets.get("efficientnet_lite0"), resolution=trained)
    members = resized_members(network, native)
    sides = [m.network.resolution for m in members]
    least = 2 * network.total_stride
    assert sides == sorted(set(sides))
    assert all(least <= side <= max(native, trained) for side in sides)
    assert max(trained, native) in sides
    assert native in sides or native < least
    assert all(
        dataclasses.replace(m.network, resolution=trained, name=network.name) == network and m.phi is None
        for m in members
    )
    assert len({m.network.name for m in members}) == len(members)


def test_a_fixed_network_is_its_own_family() -> None:
    (member,) = fixed_member(THUMBNAIL)
    assert (member.network, member.number, member.phi, member.reason) == (THUMBNAIL, 0, None, "")


# -- limits ----------------------------------------------------------------------------------------------------------


@settings(max_examples=150)
@given(BUDGETS)
def test_every_kept_member_satisfies_every_limit_and_every_other_breaks_one(budget: Budget) -> None:
    try:
        marked = within_limits(FAMILY, budget, latency_s)
    except BudgetError:
        measured = [dataclasses.replace(m, latency_s=latency_s(m.network)) for m in FAMILY]
        assert all(excess(m, budget) > 1 for m in measured)
        return
    assert [m.number for m in marked] == [m.number for m in FAMILY]
    for member in marked:
        assert (excess(member, budget) <= 1) is (member.reason == "")
        if budget.max_latency_s is not None and not member.reason:
            assert member.latency_s == latency_s(member.network)


def test_latency_is_measured_only_where_all_other_limits_hold() -> None:
    asked: list[str] = []

    def measure(network: Network) -> float:
        asked.append(network.name)
        return 1e-3

    half = FAMILY[len(FAMILY) // 2].cost.macs
    within_limits(FAMILY, Budget(max_macs=half, max_latency_s=1.0), measure)
    assert asked == [m.network.name for m in FAMILY if m.cost.macs <= half]


def test_without_limits_nothing_is_left_out() -> None:
    assert all(m.reason == "" for m in within_limits(FAMILY, Budget(), None))


@settings(max_examples=60)
@given(BUDGETS)
def test_the_error_names_the_nearest_and_the_limit_that_would_have_to_give(budget: Budget) -> None:
    tight = dataclasses.replace(budget, max_macs=max(1, FAMILY[0].cost.macs // 3))
    with pytest.raises(BudgetError, match=r"no network fits the limits; nearest that exists is") as caught:
        within_limits(FAMILY, dataclasses.replace(tight, max_latency_s=None), None)
    best = min(FAMILY, key=lambda m: excess(m, dataclasses.replace(tight, max_latency_s=None)))
    assert f"nearest that exists is {best.network.name}:" in str(caught.value)
    assert "it would fit with --max-macs " in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_network_whose_latency_nobody_measured_is_not_called_nearest() -> None:
    # the member just above the MAC limit breaks it by little, but may be anything in latency
    budget = Budget(max_macs=FAMILY[5].cost.macs, max_latency_s=1e-6)
    with pytest.raises(BudgetError, match="would fit with --max-latency ") as caught:
        within_limits(FAMILY, budget, latency_s)
    assert "--max-macs" not in str(caught.value)
    fastest = min(FAMILY[:6], key=lambda m: latency_s(m.network))
    assert f"nearest that exists is {fastest.network.name}:" in str(caught.value)


# -- who is trained --------------------------------------------------------------------------------------------------


def chosen(members: list[Member]) -> list[Member]:
    return [m for m in members if not m.reason]


@settings(max_examples=60)
@given(count=st.integers(1, 8), rate=st.floats(1e3, 1e9), least=st.sampled_from((3.0, 10.0)))
def test_the_largest_that_time_allows_is_among_the_chosen(count: int, rate: float, least: float) -> None:
    def epochs(member: Member) -> float:
        return rate / member.cost.macs

    marked = most_promising(FAMILY, count, epochs, least)
    assert [m.number for m in marked] == [m.number for m in FAMILY]
    picks = chosen(marked)
    assert 1 <= len(picks) <= count
    able = [m for m in FAMILY if epochs(m) >= least]
    if able:
        assert max(picks, key=lambda m: m.cost.macs).cost.macs == max(m.cost.macs for m in able)
        assert all(epochs(m) >= least for m in picks)
    else:
        assert [m.number for m in picks] == [0]
    assert all(m.reason.startswith("too slow to train") for m in marked if able and epochs(m) < least)


def test_members_that_break_a_limit_stay_out_with_their_own_reason() -> None:
    marked = within_limits(FAMILY, Budget(max_macs=FAMILY[10].cost.macs), None)
    after = most_promising(marked, 3, lambda m: 100.0, 10.0)
    assert {m.number for m in chosen(after)} <= set(range(11))
    assert [m.reason for m in after[11:]] == [m.reason for m in marked[11:]]
    assert {m.reason for m in after[:11] if m.reason} == {"fits, but close to a candidate that was trained"}
