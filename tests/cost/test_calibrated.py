from __future__ import annotations

from dataclasses import replace

import pytest

from luthier.arch import presets
from luthier.arch.block import Precision
from luthier.cost.calibrated import RUN, calibrated_latency, works
from luthier.cost.macs import graph_macs
from luthier.cost.onnxruntime import kernels
from luthier.device import Calibration
from luthier.errors import InputError
from luthier.graph.builder import Builder
from luthier.graph.from_network import from_network
from luthier.graph.op import Graph

HUGE = (1e12, 1e12)


def one(build: Builder, out: str) -> dict[str, dict[str, float]]:
    return {name: work for _, (name, work) in works(build.graph(out), HUGE)}


def test_pointwise_work_written_out() -> None:
    build = Builder()
    found = one(build, build.conv("c", "c", build.input("x", (1, 24, 10, 12)), 88, kernel_size=1))["pointwise"]
    # 24 channels fill 2 blocks of 16, 88 fill 6: one set of 4 blocks and one of 2
    assert found["mac_4_blocks"] == 64 * 32 * 120
    assert found["mac_2_blocks"] == 32 * 32 * 120
    assert found["weight_byte"] == 4 * 32 * 96
    assert found["byte"] == 4 * (24 + 96) * 120
    assert found["row"] == 10 * 2
    assert found["lone_mac"] == 0


def test_depthwise_work_written_out() -> None:
    build = Builder()
    x = build.input("x", (1, 40, 14, 14))
    x = build.activation("a", build.conv("d", "d", x, 40, kernel_size=5, stride=2, groups=40), "relu6")
    found = one(build, x)["depthwise"]
    elements = 48 * 7 * 7
    assert found["mac_stride2"] == elements * 25
    assert found["relu6"] == found["element"] == elements
    # windows that start at -2, 0, 2, .. 10: the first and the last touch the padding, five are left, less than six
    assert found["lone_mac"] == elements * 25
    assert (found["row"], found["tap_row"]) == (3 * 7, 3 * 7 * 5)


def test_relu_is_free_and_silu_is_a_kernel() -> None:
    build = Builder()
    x = build.activation("r", build.conv("c", "c", build.input("x", (1, 16, 8, 8)), 16), "relu")
    x = build.activation("s", build.conv("d", "d", x, 16), "silu")
    graph = build.graph(build.conv("e", "e", x, 16))
    found = [(kernel.ops, name, set(work)) for kernel, (name, work) in works(graph, HUGE) if kernel.ops]
    assert [ops for ops, _, _ in found] == [("c", "r"), ("d",), ("s",), ("e",)]
    assert "relu" not in found[0][2]
    assert found[2][1] == "activation_silu"


@pytest.mark.parametrize("name", ["efficientnet_b0", "mobilenetv2_100", "resnet50", "vgg11"])
def test_blocks_hold_all_macs_and_little_more(name: str) -> None:
    # all these widths fill their blocks, but for EfficientNet's 24, 40, 80, 112 and its gates
    graph = from_network(presets.get(name))
    total = sum(
        amount
        for kernel, (_, work) in works(graph, HUGE)
        for kind, amount in work.items()
        if kind == "mac" or kind.startswith("mac_")
    )
    vectors = sum(
        work["byte"] / 4 for _, (kind, work) in works(graph, HUGE) if kind == "vector_conv"
    )  # one MAC per weight
    ratio = (total + vectors) / graph_macs(graph)
    assert 1 <= ratio < 1.25


def calibration(graph: Graph, cost_s: float = 1e-12) -> Calibration:
    costs: dict[str, dict[str, float]] = {}
    for _, (name, work) in works(graph, (2.0**20, 2.0**24)):
        costs.setdefault(name, {}).update(dict.fromkeys(work, cost_s))
    return Calibration("a run time", 1, "a test", kernels={**costs, RUN: {"call": 5e-6}})


def test_latency_is_the_sum_of_amounts_times_costs() -> None:
    graph = from_network(presets.get("mobilenetv2_035"), resolution=64)
    found = calibrated_latency(graph, calibration(graph))
    amounts = sum(amount for _, (_, work) in works(graph, (2.0**20, 2.0**24)) for amount in work.values())
    assert found.latency_s == pytest.approx(5e-6 + 1e-12 * amounts, rel=1e-12)
    assert len(found.kernels) == len(kernels(graph))
    runtime_s = sum(kernel.latency_s for kernel in found.kernels if not kernel.ops)
    assert sum(found.by_op().values()) + runtime_s + 5e-6 == pytest.approx(found.latency_s, rel=1e-12)


def test_a_kernel_that_was_not_calibrated_is_named() -> None:
    graph = from_network(presets.get("mobilenetv2_035"), resolution=64)
    known = calibration(graph)
    less = replace(known, kernels={name: costs for name, costs in known.kernels.items() if name != "depthwise"})
    with pytest.raises(InputError, match=r"has no kernel 'depthwise' \(stage1\.0\.depthwise\.conv"):
        calibrated_latency(graph, less)


def test_another_number_type_is_refused() -> None:
    graph = from_network(presets.get("mobilenetv2_035"), resolution=64)
    other = from_network(presets.get("mobilenetv2_035"), resolution=64, precision=Precision.parse("int8"))
    with pytest.raises(InputError, match="is int8, but a run time was calibrated for fp32"):
        calibrated_latency(other, calibration(graph))
