"""The engine's latency model: the work of its steps, and costs fitted to it; no test asserts a time."""

from __future__ import annotations

from dataclasses import replace

import pytest

from luthier.arch import presets
from luthier.cost.calibrated import seconds
from luthier.deploy import calibrate_engine as module
from luthier.deploy.calibrate_engine import calibrate_engine
from luthier.deploy.calibration_set import assortment, calibration_set, chain
from luthier.deploy.fit_costs import Sample, fit
from luthier.deploy.quiet import Reference
from luthier.device import Calibration, Device
from luthier.engine.latency import SHARED, engine_latency, lowered, step_works
from luthier.engine.profile import Profile, StepTime
from luthier.engine.target import host
from luthier.errors import InputError
from luthier.graph.builder import Builder
from luthier.graph.from_network import from_network
from luthier.graph.op import Graph

DEVICE = Device(name="d", title="D", kind="cpu")


def works(graph: Graph, cache_bytes: float = 2.0**25) -> list[tuple[str, dict[str, float]]]:
    return [(name, work) for _, name, work in step_works(lowered(graph, host()), host(), cache_bytes)]


def linear(inputs: int = 64, outputs: int = 32) -> Graph:
    build = Builder()
    return build.graph(build.linear("y", "y", build.input("x", (1, inputs)), outputs))


def test_weights_beyond_the_last_cache_are_cold_in_proportion() -> None:
    def weight(cache_bytes: float) -> tuple[float, float]:
        found = [work for name, work in works(linear(1024, 1024), cache_bytes) if name == "matmul"]
        return found[0]["weight_byte"], found[0]["cold_byte"]

    near, cold = weight(2.0**30)
    assert cold == 0
    assert near == pytest.approx(4 * 1024 * (1024 + 1))  # and the bias
    assert weight(0.0) == (0, near)
    half = weight(near / 2)
    assert half[0] == pytest.approx(near / 2)
    assert sum(half) == pytest.approx(near)


def test_every_kernel_of_the_presets_is_in_the_calibration() -> None:
    calibrated = {name for graph in calibration_set() for name, _ in works(graph)}
    for preset in ("efficientnet_b0", "mobilenetv3_small_100", "seresnet50", "vgg11_bn", "efficientnet_v2_s"):
        graph = from_network(presets.get(preset), resolution=64, fold_norm=True)
        assert {name for name, _ in works(graph)} <= calibrated, preset


def test_costs_that_are_known_come_back_and_long_steps_count_more() -> None:
    rows = [pair for seed in range(12) for pair in works(chain(seed))]
    costs = {name: dict.fromkeys(work, 2e-10) | {"call": 1e-6} for name, work in rows}
    exact = fit([Sample(name, work, seconds(work, costs[name])) for name, work in rows], shared=SHARED, stress=0.5)
    for name, work in rows:
        assert seconds(work, exact[name]) == pytest.approx(seconds(work, costs[name]), rel=1e-5)
    # one cost cannot be right for both: the long one decides
    unequal = [Sample("copy", {"byte": 1e4}, 1e-5), Sample("copy", {"byte": 1e8}, 2e-1)]
    costs_of = [fit(unequal, stress=stress)["copy"]["byte"] for stress in (0.0, 2.0)]
    assert costs_of[1] == pytest.approx(2e-9, rel=1e-3)
    assert abs(costs_of[0] - 2e-9) > abs(costs_of[1] - 2e-9)


def test_calibrate_measures_this_machine_and_models_other_graphs(monkeypatch: pytest.MonkeyPatch) -> None:
    graphs = [assortment(16, 6), chain(0), chain(10), linear()]
    monkeypatch.setattr(module, "calibration_set", lambda: iter(graphs))
    shares: list[float] = []
    reference = Reference(lambda: 1e-3)
    found = calibrate_engine(DEVICE, say=lambda share, what: shares.append(share), reference=reference)
    assert found.runtime.startswith("Luthier ")
    assert shares[-1] == 1.0
    model = engine_latency(graphs[0], found)
    assert model.latency_s > 0
    assert sum(model.by_op().values()) <= model.latency_s
    twice = replace(found, kernels={n: {k: 2 * c for k, c in known.items()} for n, known in found.kernels.items()})
    assert engine_latency(graphs[0], twice).latency_s == pytest.approx(2 * model.latency_s)


def test_a_machine_at_half_its_speed_gives_the_same_costs(monkeypatch: pytest.MonkeyPatch) -> None:

    monkeypatch.setattr(module, "calibration_set", lambda: iter([chain(0), chain(10), chain(20)]))
    slow = iter([False, True, False])
    speeds: list[float] = [1.0]

    def measured(plan: object, *inputs: object, graph: Graph, rounds: int) -> Profile:
        factor, rows = speeds[-1], works(graph)
        steps = tuple(StepTime("f", (), factor * (1e-6 + 1e-10 * sum(work.values())), 0.0) for _, work in rows)
        return Profile(steps, sum(step.latency_s for step in steps), rounds)

    def timer() -> float:
        return 1e-3 * speeds[-1]

    class Wandering(Reference):
        def beside(self, measure):  # type: ignore[no-untyped-def]
            speeds.append(2.0 if next(slow) else 1.0)
            return super().beside(measure)

    monkeypatch.setattr(module, "profile", measured)
    found = calibrate_engine(DEVICE, reference=Wandering(timer))
    expected = sum(1e-6 + 1e-10 * sum(work.values()) for _, work in works(chain(0)))
    assert engine_latency(chain(0), found).latency_s == pytest.approx(expected, rel=0.02)


def test_what_was_not_calibrated_is_named() -> None:
    less = Calibration("Luthier", 1, "a test", kernels={"add": {"call": 1.0}})
    with pytest.raises(InputError, match=r"has no kernel '.*' \(.*\); measure the device again"):
        engine_latency(linear(), less)
    graph = linear()
    other = replace(graph, tensors={n: replace(t, dtype="bf16") for n, t in graph.tensors.items()})
    with pytest.raises(InputError, match="is bf16, but fp32 was calibrated"):
        engine_latency(other, less)
