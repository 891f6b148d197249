"""MACs and parameters: formulas with their factors, other counters, published figures."""

from __future__ import annotations

import csv
from math import prod
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.utils.flop_counter import FlopCounterMode

from luthier.arch import Attention, Block, Head, Network, Stage
from luthier.arch.presets import get, names
from luthier.cost import conv2d_macs, cost, graph_elementwise, graph_macs, graph_params, linear_macs, unknown_ops
from luthier.cost.macs import op_elementwise
from luthier.errors import ShapeError
from luthier.graph import Graph, Op, fold_norm_into_conv, from_network
from luthier.graph.attrs import Affine, Conv, Pad, Resize, Shuffle, Slice, Softmax, Unknown
from luthier.graph.builder import Builder
from luthier.nn import build

#: large members and twins of other padding repeat the same blocks
FAMILIES = [name for name in names() if not name.startswith("tf_") and not name.endswith(("_l", "_m", "_b6", "_b7"))]
COUNTED = ["mbconv_thumbnail", "efficientnet_b0", "mobilenetv3_large_100", "seresnet50", "resnet20"]


def test_mbconv_written_out() -> None:
    block = Block(kind="mbconv", out_channels=24, kernel_size=5, stride=2, expand_ratio=6, attention=Attention())
    stem = Stage(name="stem", blocks=(Block(kind="conv", out_channels=16, stride=2),))
    body = Stage(name="body", blocks=(block,))
    network = Network(name="n", stages=(stem, body), head=Head(num_classes=10), resolution=32, activation="silu")
    graph = from_network(network)
    stem_macs = 16 * 3 * 3 * 3 * 16 * 16  # C_out C_in K K H W
    expand = 96 * 16 * 1 * 1 * 16 * 16
    depthwise = 96 * 1 * 5 * 5 * 8 * 8
    squeeze = 96 * 4 + 4 * 96  # a quarter of the block's 16 input channels
    project = 24 * 96 * 1 * 1 * 8 * 8
    assert graph_macs(graph) == stem_macs + expand + depthwise + squeeze + project + 24 * 10
    norms = 2 * (16 + 96 + 96 + 24)
    weights = 16 * 3 * 9 + 96 * 16 + 96 * 25 + (96 * 4 + 4) + (4 * 96 + 96) + 24 * 96 + (24 * 10 + 10)
    assert graph_params(graph) == weights + norms
    assert graph_params(fold_norm_into_conv(graph)) == weights + norms // 2
    deployed = (
        16 * 16 * 16 + 96 * 16 * 16 + 96 * 8 * 8  # SiLU
        + 96 * 8 * 8 + 4 + 96 + 96 * 8 * 8  # average, SiLU, sigmoid, multiply
        + 24 * 8 * 8  # the head's average
    )  # fmt: skip
    assert graph_elementwise(fold_norm_into_conv(graph)) == deployed
    assert graph_elementwise(graph) == deployed + (16 + 96) * 16 * 16 + (96 + 24) * 8 * 8


def test_formulas() -> None:
    # 112 x 112 depthwise of MobileNet, table 1 of arXiv:1704.04861, and its 1x1 companion
    assert conv2d_macs(32, 32, 3, (112, 112), groups=32) == 32 * 9 * 112 * 112
    assert conv2d_macs(32, 64, 1, (112, 112)) == 32 * 64 * 112 * 112
    assert conv2d_macs(8, 4, (3, 5), (2, 7)) == 8 * 4 * 3 * 5 * 2 * 7
    assert linear_macs(1024, 1000) == 1_024_000
    with pytest.raises(ShapeError, match="in_channels must be divisible by groups, got in_channels=10, groups=4"):
        conv2d_macs(10, 4, 3, (2, 2), groups=4)


def meta_module(network: Network) -> tuple[torch.nn.Module, torch.Tensor]:
    """A module and an image without numbers: counters only need shapes."""
    with torch.device("meta"):
        module = build(network).eval()
        return module, torch.zeros(1, network.in_channels, network.resolution, network.resolution)


@pytest.mark.parametrize("name", FAMILIES)
def test_flop_counter_of_torch_agrees_exactly(name: str) -> None:
    network = get(name)
    module, image = meta_module(network)
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        module(image)
    graph = from_network(network)
    assert counter.get_total_flops() == 2 * graph_macs(graph)
    assert graph_params(graph) == sum(p.numel() for p in module.parameters())


def by_formula(graph: Graph, op: Op) -> int:
    weight, out = graph.constants[op.constants["weight"]].shape, graph.output_shape(op)
    if not isinstance(op.attrs, Conv):
        return linear_macs(weight[1], weight[0])
    groups = op.attrs.groups
    return conv2d_macs(weight[1] * groups, weight[0], (weight[2], weight[3]), (out[2], out[3]), groups)


@pytest.mark.parametrize("name", COUNTED)
def test_hooks_on_the_module_count_the_same(name: str) -> None:
    network = get(name)
    module, image = meta_module(network)
    counted: dict[str, int] = {}

    def count(key: str) -> Any:
        def hook(layer: torch.nn.Module, _: object, out: torch.Tensor) -> None:
            weight = layer.weight
            assert isinstance(weight, torch.Tensor)
            counted[key] = out.numel() * prod(weight.shape[1:])

        return hook

    for key, layer in module.named_modules():
        if isinstance(layer, torch.nn.Conv2d | torch.nn.Linear):
            layer.register_forward_hook(count(key))
    with torch.no_grad():
        module(image)
    graph = from_network(network)
    layers = [op for op in graph.ops if op.kind in ("conv", "linear")]
    assert {op.constants["weight"].removesuffix(".weight"): by_formula(graph, op) for op in layers} == counted


def fvcore_macs(network: Network, resolution: int) -> int:
    """The count behind timm's tables: 2 per element of a batch norm and 1 per element averaged, besides the MACs."""
    graph = from_network(network, resolution=resolution)
    norms = sum(2 * prod(graph.output_shape(op)) for op in graph.ops if op.kind == "norm")
    pools = sum(prod(graph.input_shapes(op)[0]) for op in graph.ops if op.kind in ("global_pool", "adaptive_pool"))
    return graph_macs(graph) + norms + pools


def test_timm_table_agrees(data_dir: Path) -> None:
    path = data_dir / "latency" / "timm_benchmark-infer-fp32-nchw-pt240-cpu-i9_10940x-dynamo.csv"
    compared = 0
    with path.open(encoding="utf-8", newline="") as file:
        for row in csv.DictReader(file):
            if row["model"] not in names():
                continue
            compared += 1
            network, resolution = get(row["model"]), int(row["infer_img_size"])
            graph = from_network(network, resolution=resolution)
            written = sum(prod(graph.output_shape(op)) for op in graph.ops if op.kind in ("conv", "linear"))
            # printed with two decimals
            published, rounding = float(row["infer_gmacs"]), 0.0051
            assert abs(fvcore_macs(network, resolution) / 1e9 - published) <= max(0.01 * published, rounding), row
            macts = float(row["infer_macts"])
            assert abs(written / 1e6 - macts) <= max(0.01 * macts, rounding), row
    assert compared >= 20


@pytest.mark.parametrize(
    "name, published, tolerance",
    [
        ("efficientnet_b0", 0.39e9, 0.02),  # arXiv:1905.11946, table 2
        ("efficientnet_b1", 0.70e9, 0.02),
        ("efficientnet_b4", 4.2e9, 0.05),
        ("efficientnet_b7", 37e9, 0.03),
        ("mobilenetv2_100", 300e6, 0.02),  # arXiv:1801.04381, table 4
        ("mobilenetv3_large_100", 219e6, 0.02),  # arXiv:1905.02244, table 3
        ("mobilenetv3_small_100", 56e6, 0.02),
        ("semnasnet_100", 312e6, 0.02),  # MnasNet-A1, arXiv:1807.11626, table 1
        ("mnasnet_100", 315e6, 0.02),
        ("resnet18", 1.8e9, 0.02),  # arXiv:1512.03385, table 1
        ("resnet50", 3.8e9, 0.09),  # the paper has the stride in the 1x1 convolution, ours in the 3x3
    ],
)
def test_published_macs(name: str, published: float, tolerance: float) -> None:
    assert abs(graph_macs(from_network(get(name))) / published - 1) < tolerance


@given(st.sampled_from(["mbconv_thumbnail", "efficientnet_b0", "mobilenetv3_small_100", "resnet20"]), st.integers(1, 4))
def test_macs_grow_with_the_area(name: str, multiple: int) -> None:
    network = get(name)
    side = network.total_stride * multiple
    # what does not depend on the resolution: SE and the head
    fixed = sum(
        prod(graph.constants[op.constants["weight"]].shape)
        for graph in [from_network(network, resolution=side)]
        for op in graph.ops
        if op.kind == "linear" or (op.kind == "conv" and "attention" in op.name)
    )
    small = graph_macs(from_network(network, resolution=side)) - fixed
    large = graph_macs(from_network(network, resolution=2 * side)) - fixed
    assert large == 4 * small
    assert graph_macs(from_network(network, resolution=side, batch=3)) == 3 * (small + fixed)


def test_elementwise_work_of_the_other_kinds() -> None:
    builder = Builder()
    x = builder.input("x", (1, 4, 6, 5))
    work = {"affine": 120, "softmax": 3 * 120, "bilinear": 4 * 4 * 9 * 8}  # C H W, and four neighbours per pixel
    work |= dict.fromkeys(("nearest", "slice", "shuffle", "pad", "unknown"), 0)  # movement, and what nobody knows
    kinds_ = {
        "affine": Affine(2.0), "softmax": Softmax(), "bilinear": Resize((9, 8), "bilinear"), "nearest": Resize((9, 8)),
        "slice": Slice(1, 0, 2), "shuffle": Shuffle(2), "pad": Pad(0, 0, (1, 1, 1, 1)),
        "unknown": Unknown("a.b", (1, 2)),
    }  # fmt: skip
    graph = builder.graph(*(builder.op(name, attrs, x) for name, attrs in kinds_.items()))
    assert {op.name: op_elementwise(graph, op) for op in graph.ops} == work
    assert graph_macs(graph) == 0
    assert unknown_ops(graph) == cost(graph).unknown_ops == ("unknown",)
