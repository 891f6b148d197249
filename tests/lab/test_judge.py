"""Intervals against scipy, power against the noncentral t distribution, and the rules of a verdict, both ways."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from luthier.errors import SpecError
from luthier.lab.experiment import Arm, Claim, Contrast, Experiment, Floor, Matched
from luthier.lab.judge import differ, half_width, judge, smallest_detectable, weigh
from luthier.lab.page import markdown
from luthier.lab.result import Record

NOISE = (0.001, -0.002, 0.0015, 0.0, -0.0005)

shares = st.lists(st.floats(0.1, 0.9), min_size=2, max_size=8)


def records(**accuracies: list[float]) -> dict[tuple[str, int], Record]:
    return {
        (arm, seed): Record(arm, seed, {"accuracy": value}, 1.0)
        for arm, values in accuracies.items()
        for seed, value in enumerate(values)
    }


def less(first: str, second: str) -> Contrast:
    return Contrast(f"{first} - {second}", ((1, first), (-1, second)))


@given(shares, st.randoms(use_true_random=False))
def test_the_interval_of_a_difference_is_scipys_paired_t(first: list[float], random: object) -> None:
    generator = np.random.default_rng(random.randint(0, 2**32))  # type: ignore[attr-defined]
    second = [float(x) for x in np.asarray(first) + generator.normal(0.01, 0.02, len(first))]
    found = differ(less("a", "b"), records(a=first, b=second), len(first))
    oracle = stats.ttest_rel(first, second).confidence_interval(0.95)
    assert found.low == pytest.approx(100 * oracle.low, rel=1e-9, abs=1e-9)
    assert found.high == pytest.approx(100 * oracle.high, rel=1e-9, abs=1e-9)
    assert found.mean == pytest.approx(100 * (np.mean(first) - np.mean(second)), abs=1e-9)
    # the same decision as the test's p value, away from a tie
    p = stats.ttest_rel(first, second).pvalue
    if abs(p - 0.05) > 1e-6:
        assert (found.sign == "not distinguishable") == (p > 0.05)


@pytest.mark.parametrize("n", [5, 8, 20])
def test_the_smallest_detectable_difference_is_found_in_four_of_five(n: int) -> None:
    values = np.random.default_rng(n).normal(size=n)
    share = smallest_detectable(list(values)) * np.sqrt(n) / values.std(ddof=1)
    critical = stats.t.ppf(0.975, n - 1)
    # (2) is an approximation of the noncentral t, good to a few percent of power
    assert 1 - stats.nct.cdf(critical, n - 1, share) == pytest.approx(0.8, abs=0.04)


def test_half_width_written_out() -> None:
    assert half_width([1.0, 3.0]) == pytest.approx(12.7062 * np.sqrt(2) / np.sqrt(2), rel=1e-5)


def shifted(by: float, start: float = 0.5) -> list[float]:
    return [start + by + noise for noise in NOISE]


FLAT = [0.5] * 5


@pytest.mark.parametrize(
    "together,verdict,reason",
    [
        (shifted(0.02), "supported", "together - wide: +2.00 points"),
        (shifted(-0.02), "contradicted", "together - deep: -2.00 points"),
        (shifted(0.0004), "not distinguishable", "smallest detectable"),
    ],
)
def test_a_claim_ends_three_ways(together: list[float], verdict: str, reason: str) -> None:
    seen = records(together=together, deep=FLAT, wide=FLAT)
    claim = Claim("t", "text", (less("together", "deep"), less("together", "wide")))
    found = weigh(claim, seen, 5)
    assert found.verdict == verdict
    if verdict == "supported":
        assert found.reason.startswith("the closest difference, ")
    else:
        assert reason in found.reason


def test_a_contradiction_must_stand_the_number_of_comparisons() -> None:
    """Alone, a difference of this size is below zero; as one of three it may be chance."""
    slightly = [0.5 - 0.002 + noise for noise in NOISE]
    seen = records(together=slightly, deep=FLAT, wide=shifted(-0.03), sharp=shifted(-0.03))
    p = stats.ttest_rel(slightly, FLAT).pvalue
    assert 0.05 / 3 < p < 0.05
    alone = Claim("t", "", (less("together", "deep"),))
    assert weigh(alone, seen, 5).verdict == "contradicted"
    three = Claim("t", "", (less("together", "deep"), less("together", "wide"), less("together", "sharp")))
    found = weigh(three, seen, 5)
    assert found.verdict == "not distinguishable"
    assert found.differences[0].sign == "below zero"


def test_one_contradiction_is_enough_and_all_must_support() -> None:
    seen = records(together=shifted(0.02), deep=FLAT, wide=shifted(0.05), sharp=shifted(0.02, 0.5))
    three = Claim("t", "", (less("together", "deep"), less("together", "wide"), less("together", "sharp")))
    assert weigh(three, seen, 5).verdict == "contradicted"
    two = Claim("t", "", (less("together", "deep"), less("together", "sharp")))
    assert weigh(two, seen, 5).verdict == "not distinguishable"


@pytest.mark.parametrize("gain,met", [(0.005, True), (0.012, False)])
def test_a_floor_decides_whether_there_is_a_verdict(gain: float, met: bool) -> None:
    seen = records(a=shifted(0.02), b=FLAT, long=[0.5 + gain] * 5)
    floor = Floor(less("long", "b"), 1.0)
    found = weigh(Claim("t", "", (less("a", "b"),), (floor,)), seen, 5)
    assert found.floors[0].met is met
    assert found.verdict == ("supported" if met else "no verdict")
    assert met or "not near its plateau (long - b)" in found.reason


def test_without_whole_pairs_or_in_a_smoke_run_there_is_no_verdict() -> None:
    seen = records(a=shifted(0.02), b=FLAT)
    claim = Claim("t", "", (less("a", "b"),))
    assert weigh(claim, seen, 5, "a smoke run").verdict == "no verdict"
    del seen["b", 3]
    found = weigh(claim, seen, 5)
    assert (found.verdict, found.reason) == ("no verdict", "4 whole pairs, 5 are needed")
    # a training that diverged has no accuracy and makes no pair
    seen["b", 3] = Record("b", 3, {}, 1.0)
    assert weigh(claim, seen, 5).differences[0].seeds == 4
    # one pair has a difference, and no interval
    alone = differ(less("a", "b"), records(a=[0.6], b=[0.5]), 1)
    assert alone.mean == pytest.approx(10)
    assert alone.low is None


def test_a_contrast_weighs_several_arms() -> None:
    terms = ((1.0, "a"), (-1.0, "b"), (-1.0, "c"), (1.0, "d"))
    values = {"a": [0.6, 0.7], "b": [0.5, 0.5], "c": [0.4, 0.45], "d": [0.3, 0.35]}
    found = differ(Contrast("gain", terms, scale=1.0, unit="share"), records(**values), 2)
    assert found.mean == pytest.approx(((0.6 - 0.5 - 0.4 + 0.3) + (0.7 - 0.5 - 0.45 + 0.35)) / 2)


def experiment(**changes: object) -> Experiment:
    arms = tuple(Arm(name, lambda place: {}, {"macs": 1e6}, "g") for name in ("a", "b"))
    claim = Claim("a beats b", "so it is said", (less("a", "b"),))
    values = {
        "name": "toy", "title": "t", "question": "q?", "size": "standard", "arms": arms, "claims": (claim,),
        "seeds": 5, "settings": {"recipe": "none"}, **changes,
    }  # fmt: skip
    return Experiment(**values)  # type: ignore[arg-type]


def test_pages_say_the_verdict_and_every_number() -> None:
    seen = records(a=shifted(0.02), b=FLAT)
    found = judge(experiment(), list(seen.values()), {})
    text = markdown(found)
    assert "**Supported**: the closest difference, a - b: +2.00 points" in text
    assert "| a | 1 M | 52.00 ± 0.17 % | 5 |" in text
    assert "10 of 10 trainings" in text
    order = [(r.arm, r.seed) for r in found.records]
    assert order == [(arm, seed) for seed, arm in itertools.product(range(5), "ab")]


def test_an_experiment_that_names_no_arm_is_refused() -> None:
    with pytest.raises(SpecError, match="no arm is called 'c'; there are a, b"):
        experiment(claims=(Claim("t", "", (less("a", "c"),)),))
    twice = (Arm("a", lambda place: {}),) * 2
    with pytest.raises(SpecError, match="arms must have names of their own, got a twice"):
        experiment(arms=twice, claims=())


def timed(**arms: tuple[float, float]) -> dict[tuple[str, int], Record]:
    """Five trainings of each arm: (time, accuracy), with noise in both."""
    return {
        (arm, seed): Record(arm, seed, {"time_ratio": time * (1 + noise), "accuracy": accuracy + noise}, 1.0)
        for arm, (time, accuracy) in arms.items()
        for seed, noise in enumerate(NOISE)
    }


def at_its_time(*curve: str) -> Matched:
    return Matched("light - heavy in its time", "light", curve, "time_ratio")


def test_at_equal_time_the_curve_is_read_between_its_arms() -> None:
    """Halfway between 1 and 4 on a logarithmic axis is 2: the heavy arms would reach 0.65 there."""
    found = differ(at_its_time("wide", "narrow"), timed(light=(2, 0.7), narrow=(1, 0.6), wide=(4, 0.7)), 5)
    assert found.mean == pytest.approx(100 * (0.7 - 0.65), abs=1e-9)
    assert found.seeds == 5
    # an arm on the curve itself differs from it by nothing
    same = differ(at_its_time("narrow", "light", "wide"), timed(light=(2, 0.7), narrow=(1, 0.6), wide=(4, 0.7)), 5)
    assert same.mean == pytest.approx(0, abs=1e-9)


def test_outside_of_the_curve_nothing_is_claimed() -> None:
    for time in (0.9, 4.2):
        seen = timed(light=(time, 0.9), narrow=(1, 0.6), wide=(4, 0.7))
        found = differ(at_its_time("narrow", "wide"), seen, 5)
        assert (found.mean, found.seeds) == (None, 0)
        claim = Claim("t", "words", (at_its_time("narrow", "wide"),))
        assert weigh(claim, seen, 5).verdict == "no verdict"
