"""Attribution of the run time's kernels to ops; no test here asserts how long anything takes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from luthier.arch import presets
from luthier.cost.onnxruntime import Kernel, kernels
from luthier.deploy.calibration_set import assortment, chain
from luthier.deploy.onnx_file import random_weights, to_onnx
from luthier.deploy.profile import Profile, owners, profile, profiler_overhead_s, run_nodes
from luthier.graph.attrs import Activation
from luthier.graph.builder import Builder
from luthier.graph.from_network import from_network
from luthier.graph.op import Graph

CONVOLUTIONS = ("pointwise", "dense", "depthwise", "image_conv", "plain_conv")
#: the run time's names
KINDS = {
    "gemm": "Gemm", "matmul": "MatMul", "add": "Add", "mul": "Mul", "gate": "Mul", "norm": "BatchNormalization",
    "to_blocks": "ReorderInput", "from_blocks": "ReorderOutput", "pool": "Pool", "plain_pool": "Pool",
    "global_pool": "GlobalPool", "plain_global_pool": "GlobalPool",
    "relu": "Relu", "relu6": "Clip", "silu": "QuickGelu", "gelu": "Gelu", "sigmoid": "Sigmoid",
    "hard_sigmoid": "HardSigmoid", "hard_swish": "HardSigmoid",
    "flatten": "Flatten", "pad": "Pad", "subsample": "Slice", "concat": "Concat", "reshape": "Reshape",
}  # fmt: skip


def expected(kernel: Kernel) -> str:
    if kernel.kind in CONVOLUTIONS:
        return "Conv"
    return KINDS[kernel.function if kernel.kind in ("activation", "copy") else kernel.kind]


def reported(kind: str) -> str:
    kind = kind.removeprefix("Fused")
    for pool in ("Average", "Max"):
        kind = kind.replace(f"{pool}Pool", "Pool")
    return kind


def agree(graph: Graph) -> None:
    """The run time ran the kernels that the model foresees, for the ops that it says."""
    nodes = run_nodes(to_onnx(graph, random_weights(graph)), threads=1, budget_s=0.0, min_repeats=1)
    ran = Counter((reported(node.kind), ops) for node, ops in zip(nodes, owners(graph, nodes), strict=True))
    foreseen = Counter((expected(kernel), kernel.ops) for kernel in kernels(graph))
    assert ran == foreseen


@pytest.mark.parametrize(
    "name",
    ["mobilenetv2_035", "mobilenetv3_small_075", "mbconv_thumbnail", "resnet20", "efficientnet_b0", "semnasnet_100"],
)
def test_kernels_are_those_of_the_run_time(name: str) -> None:
    agree(from_network(presets.get(name), resolution=64))


def test_residual_networks_with_gates() -> None:
    agree(from_network(presets.get("seresnet50"), resolution=32))


@pytest.mark.parametrize(("channels", "side"), [(16, 8), (32, 7), (40, 9)])
def test_rare_kernels_are_those_of_the_run_time(channels: int, side: int) -> None:
    agree(assortment(channels, side))


@settings(max_examples=12)
@given(st.integers(0, 10_000).map(lambda n: n - n % 10))  # seeds whose maps are small
def test_drawn_chains_run_as_foreseen(seed: int) -> None:
    agree(chain(seed))


@pytest.fixture(scope="module")
def graph() -> Graph:
    return from_network(presets.get("mobilenetv3_small_100"), resolution=64)


@pytest.fixture(scope="module")
def measured(graph: Graph) -> Profile:
    return profile(graph, random_weights(graph), budget_s=0.1)


def test_every_op_is_computed_by_one_kernel(graph: Graph, measured: Profile) -> None:
    # HardSwish behind a linear layer is two kernels, all else is one
    counts = Counter(op for kernel in measured.kernels for op in kernel.ops)
    assert set(counts) == {op.name for op in graph.ops}
    assert {op for op, count in counts.items() if count != 1} == {"head.hidden.0.activation"}


def test_parts_and_whole_add_up(measured: Profile) -> None:
    by_op = measured.by_op()
    assert sum(by_op.values()) + measured.runtime_s == pytest.approx(measured.parts_s, rel=1e-12)
    assert measured.parts_s + measured.unexplained_s == pytest.approx(measured.whole_s, rel=1e-12)
    assert all(kernel.median_s >= 0 for kernel in measured.kernels)


def test_only_changes_of_layout_are_the_run_times_own(measured: Profile) -> None:
    assert {kernel.kind for kernel in measured.kernels if not kernel.ops} == {"ReorderInput", "ReorderOutput"}


def test_a_convolution_stands_for_its_norm_and_activation(measured: Profile) -> None:
    first = next(kernel for kernel in measured.kernels if "stem.0.conv.conv" in kernel.ops)
    assert first.ops == ("stem.0.conv.conv", "stem.0.conv.norm", "stem.0.conv.activation")
    assert first.kind == "Conv"
    assert first.out_bytes == 4 * 16 * 32 * 32


def test_a_fused_sum_belongs_to_the_convolution() -> None:
    build = Builder()
    x = build.conv("a", "a", build.input("x", (1, 16, 8, 8)), 16)
    graph = build.graph(build.add("sum", build.conv("b", "b", x, 16), x))
    found = profile(graph, random_weights(graph), budget_s=0.01)
    assert ("b", "sum") in [kernel.ops for kernel in found.kernels]


def test_repeats_and_runtime_are_said(measured: Profile) -> None:
    assert measured.repeats >= 3  # on a busy machine only the calls that were disturbed least count
    assert measured.runtime.startswith("ONNX Runtime ")


def test_the_profilers_own_work_is_taken_off_once() -> None:
    assert profiler_overhead_s() == profiler_overhead_s()
    assert 0 <= profiler_overhead_s() < 1e-3


def test_lone_hard_swish_is_found_in_the_order_of_the_graph() -> None:
    build = Builder()
    x = build.op("one", Activation("hard_swish"), build.input("x", (1, 16, 4, 4)))
    graph = build.graph(build.op("two", Activation("hard_swish"), x))
    nodes = run_nodes(to_onnx(graph, {}), threads=1, budget_s=0.0, min_repeats=1)
    assert list(owners(graph, nodes)) == [("one",), ("one",), ("two",), ("two",)]


def test_silu_spelled_out_is_one_kernel() -> None:
    build = Builder()
    x = build.conv("a", "a", build.input("x", (1, 16, 8, 8)), 16)
    x = build.mul("product", x, build.activation("gate", x, "sigmoid"))
    graph = build.graph(build.conv("b", "b", x, 16))
    assert ("activation", ("gate", "product")) in [(kernel.kind, kernel.ops) for kernel in kernels(graph)]
    agree(graph)


def test_energy_is_measured_where_the_processor_counts_it(monkeypatch: pytest.MonkeyPatch) -> None:
    counted: list[int] = []

    def meter(run: Callable[[], int]) -> float:
        counted.append(run())
        return 2.0 / counted[0]

    monkeypatch.setattr("luthier.deploy.profile.measured_energy_j", meter)
    graph = chain(0)
    found = profile(graph, random_weights(graph), budget_s=0.0, min_repeats=5)
    assert counted == [5 + 3]  # the calls that warm up draw power too
    assert found.energy_j == 0.25
