"""What the page of a retrofit says and draws, from a made-up bill."""

from __future__ import annotations

from dataclasses import replace

import pytest

from luthier.job.results import Bill, GateBill, Retrofit, Trial
from luthier.report import retrofit


def bill(params: int, macs: int, latency_s: float) -> Bill:
    return Bill(
        params=params, macs=macs, weight_bytes=4 * params, peak_activation_bytes=1024, latency_s=latency_s,
        latency_spread_s=1e-5, target_latency_s=None, energy_j=None,
    )  # fmt: skip


def gate(place: str, params: int, macs: int, latency_s: float) -> GateBill:
    return GateBill(
        place=place, shape=(16, 8, 8), reduced=2, params=params, macs=macs, latency_s=latency_s,
        latency_spread_s=2e-6, energy_j=None,
    )  # fmt: skip


def made() -> Retrofit:
    def trial(place: str, gain_nats: float, chosen: bool) -> Trial:
        return Trial(
            place=place, reduction=8, gain_nats=gain_nats, params=82, macs=64, budget_share=0.25, chosen=chosen
        )  # fmt: skip

    return Retrofit(
        model="<b>net</b>", attention="se", weights="trained", resolution=32, device_title="this machine",
        runtime="Luthier", limits="--max-macs 1 M",
        before=bill(1000, 100_000, 1e-3), after=bill(1120, 101_000, 1.05e-3),
        latency_added_s=4.7e-5, latency_added_spread_s=3e-6,
        gates=(gate("<i>one</i>", 20, 400, 4e-5), gate("two", 100, 600, -1e-6)),
        trials=(trial("two", 0.02, True), trial("<i>one</i>", -0.001, False)), tuned=None, remarks=("a remark",),
    )  # fmt: skip


def test_bars_are_percents_of_the_network_without_gates() -> None:
    params, macs, time = retrofit.prices(made()).figure.data
    assert list(params.x) == [2.0, 10.0]
    assert list(macs.x) == pytest.approx([0.4, 0.6])
    assert list(time.x) == pytest.approx([4.0, -0.1])
    assert list(time.error_x.array) == pytest.approx([0.2, 0.2])
    assert retrofit.verdict(made()) == "2 gates: +12.00 % parameters, +1.00 % MACs, +4.7 ±0.3 % time (measured)"


def test_what_was_bought_stands_apart_from_what_was_tried() -> None:
    chart = retrofit.bargains(made())
    assert chart is not None
    tried, bought = chart.figure.data
    assert (list(tried.x), list(tried.y)) == ([25.0], [-0.001])
    assert (list(bought.x), list(bought.y)) == ([25.0], [0.02])
    assert retrofit.bargains(replace(made(), trials=())) is None


def test_the_page_escapes_names_and_shows_every_part() -> None:
    page = retrofit.render(made(), "1.2.3")
    assert "<b>net</b>" not in page
    assert "<i>one</i>" not in page
    for part in ("Before and after", "The bill, gate by gate", "Which gates, and how wide", "a remark"):
        assert part in page
    assert "Which gates, and how wide" not in retrofit.render(replace(made(), trials=()), "1.2.3")
