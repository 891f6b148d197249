"""The price of the inverted bottleneck: formulae written out, published shapes, the twin as a network of its own."""

from __future__ import annotations

from dataclasses import replace

import pytest

from luthier.arch import Attention, Block, Head, Network, Precision, Stage
from luthier.arch.presets import get, names
from luthier.cost import cost, graph_macs, peak_activation_bytes
from luthier.cost.dense import BlockPrice, dense_twin, price_of_bottlenecks
from luthier.graph import Graph, find_mbconv, from_network
from luthier.graph.builder import Builder

INT8 = Precision.parse("int8")


def network(block: Block, *behind: Block, resolution: int = 32) -> Network:
    stem = Stage(name="stem", blocks=(Block(kind="conv", out_channels=8, stride=2),))
    stages = (stem, Stage(name="body", blocks=(block, *behind)))
    return Network(name="n", stages=stages, head=Head(num_classes=4), resolution=resolution)


MBCONV = Block(kind="mbconv", out_channels=8, kernel_size=5, expand_ratio=6)


def test_the_formulae_written_out() -> None:
    (block,) = price_of_bottlenecks(network(replace(MBCONV, out_channels=16, stride=2)), precision=INT8).blocks
    assert block.name == "body.0"
    # 16 x 16 in, 8 x 8 out; 8 -> 48 -> 16 channels, window 5 x 5
    assert (block.in_hw, block.out_hw, block.kernel_size) == ((16, 16), (8, 8), (5, 5))
    assert (block.in_channels, block.inner_channels, block.out_channels) == (8, 48, 16)
    assert block.price.macs == 8 * 48 * 16 * 16 + 48 * 25 * 8 * 8 + 48 * 16 * 8 * 8
    assert block.price.dense_macs == 8 * 16 * 25 * 8 * 8
    assert block.price.macs_saved == 8 * 16 * 25 * 64 - (8 * 48 * 256 + 48 * 25 * 64 + 48 * 16 * 64)
    assert block.inner_dense_macs == 8 * 48 * 16 * 16 + 48 * 48 * 25 * 8 * 8 + 48 * 16 * 8 * 8
    # both sides of the strided depthwise, against input and output of the dense convolution
    assert block.price.peak_bytes == 48 * 256 + 48 * 64
    assert block.price.dense_peak_bytes == 8 * 256 + 16 * 64
    assert block.price.peak_bytes_added == 48 * 320 - 8 * 256 - 16 * 64


def test_a_residual_stands_on_both_sides() -> None:
    (block,) = price_of_bottlenecks(network(MBCONV), precision=INT8).blocks
    assert block.price.peak_bytes == 256 * (8 + 48 + 48)
    assert block.price.dense_peak_bytes == 256 * (8 + 8)


def test_attention_is_on_neither_side() -> None:
    for place in ("before_depthwise", "after_depthwise", "after_project", "after_sum"):
        attention = Attention(kind="se", place=place, reduced_channels=2)
        (block,) = price_of_bottlenecks(network(replace(MBCONV, attention=attention)), precision=INT8).blocks
        (plain,) = price_of_bottlenecks(network(MBCONV), precision=INT8).blocks
        gated = 48 if place.endswith("depthwise") else 8
        assert block.attention_macs == 2 * gated * 2
        assert block.price.macs == plain.price.macs
        assert block.price.dense_peak_bytes == plain.price.dense_peak_bytes
        assert block.price.peak_bytes == plain.price.peak_bytes


def twin_by_hand(original: Network) -> Network:
    """The same shapes with plain convolutions; a residual stays where there was one."""
    stages = []
    for stage in original.stages:
        blocks = tuple(
            Block(
                kind="conv", out_channels=b.out_channels, kernel_size=b.kernel_size, stride=b.stride,
                activation="identity", skip="identity" if b.skip == "auto" else "none",
            )
            if b.kind in ("mbconv", "depthwise_separable")
            else b
            for b in stage.blocks
        )  # fmt: skip
        stages.append(replace(stage, blocks=blocks))
    return replace(original, stages=tuple(stages))


@pytest.mark.parametrize("name", ["mobilenetv2_100", "efficientnet_b0", "mobilenetv3_large_100", "tf_efficientnetv2_s"])
def test_the_whole_twin_costs_what_the_plain_network_costs(name: str) -> None:
    original = get(name)
    result, plain = price_of_bottlenecks(original, precision=INT8), cost(twin_by_hand(original), precision=INT8)
    assert (result.total.dense_macs, result.total.dense_peak_bytes) == (plain.macs, plain.peak_activation_bytes)
    now = cost(original, precision=INT8)
    assert (result.total.macs, result.total.peak_bytes) == (now.macs, now.peak_activation_bytes)
    saved = sum(block.price.macs_saved - block.attention_macs for block in result.blocks)
    assert result.total.macs_saved == saved
    by_name = {block.name: block.macs for block in now.per_block}
    assert all(by_name[b.name] == b.price.macs + b.attention_macs for b in result.blocks)


@pytest.mark.parametrize("name", [n for n in names() if n.startswith(("mobile", "mnas", "resnet18", "vgg11"))])
def test_a_graph_has_the_price_of_its_network(name: str) -> None:
    original = get(name)
    assert price_of_bottlenecks(from_network(original)) == price_of_bottlenecks(original)
    graph = from_network(original, fold_norm=True)
    twin = dense_twin(graph, find_mbconv(graph))
    assert find_mbconv(twin) == ()
    assert {op.kind for op in twin.ops} <= {op.kind for op in graph.ops}


def test_without_bottlenecks_there_is_no_price() -> None:
    result = price_of_bottlenecks(get("vgg11"))
    assert result.blocks == ()
    assert result.total.macs_saved == result.total.peak_bytes_added == 0


def branches() -> Graph:
    """A depthwise-separable layer with an activation behind it, beside another branch, without block names; batch 2."""
    build = Builder()
    x = build.conv("s", "s", build.input("x", (2, 3, 8, 8)), 4)
    d = build.conv("d", "d", x, 4, kernel_size=3, groups=4)
    p = build.activation("p.a", build.conv("p", "p", d, 6), "relu")
    return build.graph(build.add("end", p, build.conv("o", "o", x, 6)))


def test_any_graph() -> None:
    graph = branches()
    result = price_of_bottlenecks(graph)
    (block,) = result.blocks
    assert isinstance(block, BlockPrice)
    assert (block.name, block.inner_channels) == ("d", 4)
    assert block.price.macs == 2 * 64 * (4 * 9 + 4 * 6)
    assert block.price.dense_macs == 2 * 64 * 4 * 6 * 9
    twin = dense_twin(graph, find_mbconv(graph))
    assert [op.name for op in twin.ops] == ["s", "p", "p.a", "o", "end"]
    assert "d.weight" not in twin.constants
    assert twin.constants["p.weight.dense"].shape == (6, 4, 3, 3)
    assert result.total.dense_macs == graph_macs(twin)
    assert result.total.dense_peak_bytes == peak_activation_bytes(twin)
