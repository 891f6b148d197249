from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from luthier.job.plan import MARGIN, Pace, Plan, candidates_for, probes, whole_epochs
from luthier.job.study import rounds


@given(st.floats(10, 1e6), st.floats(0, 1e6), st.integers(1, 6))
def test_the_parts_never_exceed_the_limit(limit_s: float, spent_s: float, candidates: int) -> None:
    plan = Plan.of(limit_s, spent_s, candidates)
    assert min(plan.search_s, plan.final_s, plan.reserve_s) >= 0
    assert plan.search_s + plan.final_s + plan.reserve_s <= limit_s * (1 + 1e-12)
    assert (plan.search_s == 0) is (candidates < 2)
    if spent_s < 0.4 * limit_s:
        assert plan.search_s + plan.final_s + plan.reserve_s == pytest.approx(limit_s - spent_s)


@given(st.floats(10, 1e6), st.integers(2, 6))
def test_all_rounds_together_take_the_search_time(limit_s: float, candidates: int) -> None:
    plan = Plan.of(limit_s, 0, candidates)
    players = rounds(candidates)
    assert sum(count * plan.rung_s(count, len(players)) for count in players) == pytest.approx(plan.search_s)


def test_a_later_round_is_longer_for_each_player() -> None:
    plan = Plan.of(3600, 0, 6)
    first, second = (plan.rung_s(count, 2) for count in rounds(6))
    assert second == pytest.approx(2 * first)


def test_candidates_grow_with_time_within_bounds() -> None:
    counts = [candidates_for(seconds) for seconds in (1, 10, 60, 120, 600, 3600, 1e6)]
    assert counts == sorted(counts)
    assert (min(counts), max(counts)) == (2, 6)


@given(st.floats(-100, 1e5), st.floats(1e-4, 1e4), st.integers(1, 120))
def test_whole_epochs_fit_with_the_margin(seconds: float, epoch_s: float, most: int) -> None:
    epochs = whole_epochs(seconds, epoch_s, most)
    assert 1 <= epochs <= most
    if 1 < epochs < most:
        assert epochs * epoch_s <= MARGIN * seconds * (1 + 1e-9) < (epochs + 1) * epoch_s * (1 + 1e-9)


def test_pace_meets_its_points_and_stays_flat_outside() -> None:
    pace = Pace((1e6, 4e6, 16e6), (1000.0, 500.0, 50.0))
    assert [pace.rate(m) for m in pace.macs] == pytest.approx(list(pace.images_per_s))
    assert pace.rate(1e5) == pytest.approx(1000)
    assert pace.rate(1e9) == pytest.approx(50)
    # halfway in the logarithms: the geometric mean
    assert pace.rate(2e6) == pytest.approx((1000 * 500) ** 0.5)
    assert pace.epoch_s(4e6, 1500) == pytest.approx(3.0)


@given(st.lists(st.integers(1, 10**9), min_size=1, max_size=60), st.integers(1, 6))
def test_probes_hold_both_ends_in_rising_order(macs: list[int], count: int) -> None:
    picks = probes(macs, count)
    assert len(set(picks)) == len(picks) <= count
    values = [macs[i] for i in picks]
    assert values == sorted(values)
    assert values[0] == min(macs)
    if count > 1:
        assert values[-1] == max(macs)
