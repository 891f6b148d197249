"""The fit against costs that are known; no test here asserts how long anything takes."""

from __future__ import annotations

from dataclasses import replace
from random import Random

import pytest

from luthier.cost.calibrated import RUN, calibrated_latency, seconds, works
from luthier.deploy import calibrate as module
from luthier.deploy.calibrate import calibrate, layout_block, private_cache_bytes
from luthier.deploy.calibration_set import assortment, calibration_set, chain
from luthier.deploy.fit_costs import Sample, fastest, fit, loss
from luthier.device import Calibration, Device, Figure, MemoryLevel, energy_table, host
from luthier.device.read import device_from_text
from luthier.device.write import device_to_text

CACHES = (2.0**21, 2.0**24)


def samples(noise: float = 0.0, disturbed: float = 0.0) -> tuple[list[Sample], dict[str, dict[str, float]]]:
    """Kernels of the calibration set with times from drawn costs; noise is relative, disturbed ones take twice."""
    draw = Random(1)
    found = [pair for seed in range(40) for _, pair in works(chain(seed), CACHES)]
    costs: dict[str, dict[str, float]] = {}
    for name, work in found:
        for kind in work:
            drawn = draw.uniform(1, 3) * (1e-6 if kind == "call" else 1e-11)
            costs.setdefault(name, {}).setdefault(kind, 5e-11 if kind == "far_byte" else drawn)
    times = [seconds(work, costs[name]) * draw.uniform(1 - noise, 1 + noise) for name, work in found]
    times = [time_s * (2 if draw.random() < disturbed else 1) for time_s in times]
    return [Sample(name, work, time_s) for (name, work), time_s in zip(found, times, strict=True)], costs


def test_exact_times_give_back_the_costs_of_every_kernel() -> None:
    rows, _ = samples()
    found = fit(rows)
    for name, work, time_s in rows:
        assert seconds(work, found[name]) == pytest.approx(time_s, rel=1e-6)


def test_the_costs_themselves_where_the_kernels_tell_them_apart() -> None:
    rows, costs = samples()
    found = fit(rows)
    for name in ("pointwise", "dense", "activation_silu", "gate"):
        # seen in some kernels, and not hidden behind another kind of work
        seen = {kind for row in rows if row.name == name for kind, amount in row.work.items() if amount}
        for kind in seen - {"row"}:
            assert found[name][kind] == pytest.approx(costs[name][kind], rel=1e-3), (name, kind)


def test_a_tenth_of_disturbed_kernels_moves_the_whole_little() -> None:
    clean, _ = samples()
    rows, _ = samples(noise=0.05, disturbed=0.1)
    found = fit(rows)
    whole, model = (
        sum(times) for times in zip(*((s.time_s, seconds(s.work, found[s.name])) for s in clean), strict=True)
    )
    assert model == pytest.approx(whole, rel=0.05)


def test_costs_are_never_negative() -> None:
    # more bytes, less time: nothing but a constant can be learnt
    rows = [Sample("add", {"call": 1.0, "byte": n}, t) for n, t in ((1e3, 3e-5), (1e4, 2e-5), (1e5, 1e-5))]
    assert set(fit(rows)["add"]) == {"call"}


def test_loss_is_zero_for_the_truth_and_grows_away_from_it() -> None:
    rows, costs = samples()
    twice = {name: {kind: 2 * cost for kind, cost in known.items()} for name, known in costs.items()}
    assert loss(rows, costs) == pytest.approx(0, abs=1e-12)
    assert loss(rows, twice) > 0


def test_fastest_is_the_mean_of_the_fastest_fifth() -> None:
    assert fastest([9.0, 1.0, 8.0, 3.0, 7.0, 6.0, 5.0, 10.0, 4.0, 2.0]) == 1.5
    assert fastest([4.0]) == 4.0


def test_the_cores_own_cache_is_the_largest_that_is_not_shared() -> None:
    size = Figure(2.0**21, "an example")
    levels = (
        MemoryLevel("L1", Figure(32768.0, "an example")), MemoryLevel("L2", size),
        MemoryLevel("L3", Figure(2.0**25, "an example"), shared=True), MemoryLevel("DRAM", shared=True),
    )  # fmt: skip
    assert private_cache_bytes(Device(name="d", title="D", kind="cpu", memory=levels)) == 2.0**21
    assert private_cache_bytes(Device(name="d", title="D", kind="cpu")) == 2.0**20


def test_the_set_has_every_kernel_twice_at_least() -> None:
    names = [name for graph in calibration_set() for _, (name, _) in works(graph, CACHES)]
    assert min(names.count(name) for name in set(names)) >= 2


def test_chains_are_the_same_in_every_run_and_differ_by_seed() -> None:
    assert chain(3) == chain(3)
    assert chain(3) != chain(13)


def test_calibrate_measures_this_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    graphs = [assortment(16, 6), assortment(32, 5), chain(0)]
    monkeypatch.setattr(module, "calibration_set", lambda: iter(graphs))
    shares: list[float] = []
    found = calibrate(
        Device(name="d", title="D", kind="cpu"), budget_s=0.0, say=lambda share, what: shares.append(share)
    )
    assert found.block == layout_block()
    assert found.runtime.startswith("ONNX Runtime ")
    assert shares == sorted(shares)
    assert shares[-1] == 1.0
    assert all(cost > 0 for name, costs in found.kernels.items() if name != RUN for cost in costs.values())
    for graph in graphs:
        assert calibrated_latency(graph, found).latency_s > 0


def test_a_calibration_is_kept_with_its_device_to_the_last_digit() -> None:
    rows, costs = samples()
    known = Calibration("a run time", 1, f"{len(rows)} kernels", kernels=costs, block=8, cache_bytes=CACHES)
    device = replace(host.describe(energy_table), calibrations=(known,))
    stored = device_from_text(device_to_text(device, energy_table), energy_table)
    assert stored.calibrations == (known,)
    graph = chain(0)
    assert calibrated_latency(graph, stored.calibrations[0]) == calibrated_latency(graph, known)
