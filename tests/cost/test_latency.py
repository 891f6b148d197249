"""Analytic latency: the roofline without a calibration, its shares and overheads with one."""

from __future__ import annotations

from dataclasses import replace

import pytest

from luthier.arch.presets import get
from luthier.cost import analyze
from luthier.cost.latency import group_latency_s
from luthier.cost.points import LevelTraffic
from luthier.device import Calibration, Device, OpEfficiency
from luthier.graph import attrs as kinds
from luthier.graph import from_network
from luthier.graph.builder import Builder

CALIBRATION = Calibration(
    runtime="made up 1.0",
    threads=1,
    source="a test",
    ops={
        "pointwise": OpEfficiency(compute_share=0.5, bandwidth_share=0.8, overhead_s=1e-6),
        "activation": OpEfficiency(compute_share=0.1, bandwidth_share=0.9, overhead_s=9e-6),
    },
)


def test_shares_and_overhead_by_hand(chip: Device) -> None:
    build = Builder()
    tensor = build.conv("pw", "pw", build.input("x", (1, 64, 8, 8)), 64)
    graph = build.graph(build.activation("act", tensor, "silu"))
    found = analyze(graph, chip, calibration=CALIBRATION, resident=False)
    (group,) = found.groups
    compute = 2 * 64 * 64 * 64 / 100e9 / 0.5 + 64 * 64 / 100e9 / 0.1
    assert group.latency_s == pytest.approx(max(compute, group.level("DRAM").bytes / 10e9 / 0.8) + 1e-6, rel=1e-12)
    assert group.latency_s > group.attainable_s
    assert found.runtime == "made up 1.0"
    # where the memory binds, its share counts
    ops, levels = found.ops, [replace(level, time_s=1.0) for level in group.traffic]
    assert group_latency_s(ops, levels, CALIBRATION) == pytest.approx(1.0 / 0.8 + 1e-6, rel=1e-12)
    assert group_latency_s(ops, levels) == 1.0
    assert group_latency_s([replace(ops[0], compute_s=None)], levels, CALIBRATION) is None


def test_without_a_calibration_it_is_the_roofline(chip: Device) -> None:
    found = analyze(from_network(get("efficientnet_b0")), chip)
    assert found.runtime is None
    assert [group.latency_s for group in found.groups] == [group.attainable_s for group in found.groups]


def test_views_start_no_kernel(chip: Device) -> None:
    build = Builder()
    graph = build.graph(build.op("flat", kinds.Flatten(), build.input("x", (1, 4, 2, 2))))
    costly = Calibration("made up", 1, "a test", {"movement": OpEfficiency(1.0, 1.0, 5e-6)})
    assert analyze(graph, chip, calibration=costly).groups[0].latency_s == 0.0


def test_classes_that_a_calibration_lacks_are_named(chip: Device) -> None:
    found = analyze(from_network(get("mobilenetv2_100")), chip, calibration=CALIBRATION)
    (remark,) = (text for text in found.remarks if "calibration" in text)
    assert (
        remark
        == "the calibration of made up 1.0 has no stem, depthwise, reduction, movement, linear: taken at the roofline"
    )
    assert found.totals.latency_s == pytest.approx(sum(group.latency_s for group in found.groups), rel=1e-12)


def test_levels_of_no_bandwidth_say_nothing() -> None:
    silent = LevelTraffic("L1", 8, 8, None, 1.0, None)
    build = Builder()
    graph = build.graph(build.conv("c", "c", build.input("x", (1, 8, 4, 4)), 8))
    device = Device(name="d", title="D", kind="cpu")
    (op,) = analyze(graph, device).ops
    assert group_latency_s([replace(op, compute_s=2e-6)], [silent]) == 2e-6
