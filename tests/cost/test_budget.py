"""Limits: what breaks them, how it reads, which network is nearest."""

from __future__ import annotations

import dataclasses

import pytest
from hypothesis import given
from hypothesis import strategies as st

from luthier.cost import Budget, Cost, nearest
from luthier.errors import InputError

ONE = Cost(
    params=1_000_000,
    macs=385_800_000,
    elementwise_ops=0,
    peak_activation_bytes=1470 * 1024,
    peak_op="a",
    weight_bytes=2 * 1024**2,
    activations=0,
    per_block=(),
)


def test_a_value_at_its_limit_fits() -> None:
    budget = Budget(
        max_macs=385_800_000, max_params=1_000_000, max_memory_bytes=1470 * 1024, max_size_bytes=2 * 1024**2,
        max_latency_s=2e-3,
    )  # fmt: skip
    assert budget.violations(ONE, 2e-3) == ()
    assert Budget().violations(ONE, 9.0) == ()


@pytest.mark.parametrize(
    "limits, text",
    [
        ({"max_macs": 20_000_000}, "work 385.8 M MAC exceeds --max-macs 20M by 1829 %"),
        ({"max_params": 800_000}, "parameters 1 M exceeds --max-params 800k by 25 %"),
        ({"max_memory_bytes": 512 * 1024}, "peak activation memory 1.44 MiB exceeds --max-memory 512KiB by 187 %"),
        ({"max_size_bytes": 1024**2}, "weights 2 MiB exceeds --max-size 1MiB by 100 %"),
        ({"max_latency_s": 0.002}, "latency 2.01 ms exceeds --max-latency 2ms by less than 1 %"),
        ({"max_energy_j": 0.001}, "energy 3 mJ exceeds --max-energy 1mJ by 200 %"),
    ],
)
def test_text_has_units(limits: dict[str, float], text: str) -> None:
    (broken,) = Budget(**limits).violations(ONE, 0.00201, 0.003)  # type: ignore[arg-type]  # keys are its fields
    assert broken.text == text


def test_unknown_latency_and_energy_are_not_judged() -> None:
    assert Budget(max_latency_s=1e-9, max_energy_j=1e-9).violations(ONE) == ()
    (broken,) = Budget(max_latency_s=1e-9).violations(ONE, 1e-3)
    assert broken.excess_ratio == pytest.approx(1e6)


def test_worst_comes_first() -> None:
    broken = Budget(max_params=500_000, max_macs=38_580_000).violations(ONE)
    assert [(v.limit_name, v.excess_ratio) for v in broken] == [("max_macs", 10.0), ("max_params", 2.0)]


@pytest.mark.parametrize("value", [0, -1, float("nan"), float("inf")])
def test_senseless_limits(value: float) -> None:
    with pytest.raises(InputError, match="Budget: max_latency_s must be above 0 and finite, got"):
        Budget(max_latency_s=value)


def test_nearest_says_what_would_have_to_give() -> None:
    small = dataclasses.replace(ONE, macs=30_000_000, peak_activation_bytes=100 * 1024)
    budget = Budget(max_macs=20_000_000, max_latency_s=2e-3)
    found = nearest([("big", budget.violations(ONE, 5e-3)), ("small", budget.violations(small, 1e-3))])
    assert found.name == "small"
    assert found.excess_ratio == 1.5
    assert found.text == (
        "nearest that exists is small: work 30 M MAC exceeds --max-macs 20M by 50 %; it would fit with --max-macs 30M"
    )
    assert nearest([("big", Budget().violations(ONE))]).text == "big fits"
    with pytest.raises(InputError, match="nearest: there is no candidate"):
        nearest([])


@given(st.lists(st.tuples(st.integers(1, 1000), st.integers(1, 1000)), min_size=1, max_size=8))
def test_nearest_has_the_smallest_worst_excess(sizes: list[tuple[int, int]]) -> None:
    budget = Budget(max_macs=100, max_params=10)
    candidates = [
        (str(i), budget.violations(dataclasses.replace(ONE, macs=macs, params=params)))
        for i, (macs, params) in enumerate(sizes)
    ]
    worst = [max(1.0, macs / 100, params / 10) for macs, params in sizes]
    assert nearest(candidates).name == str(worst.index(min(worst)))
