from __future__ import annotations

import random
from collections import Counter

import pytest

from luthier.arch import presets
from luthier.cost.macs import graph_elementwise, graph_macs
from luthier.cost.memory import VIEWS
from luthier.cost.predict import graph_features, graph_work
from luthier.cost.summary import weight_bytes
from luthier.graph.builder import Builder
from luthier.graph.from_network import from_network


@pytest.mark.parametrize("name", ["efficientnet_b0", "mobilenetv3_small_100", "resnet18", "vgg11", "mbconv_thumbnail"])
def test_sums_are_those_of_the_graph(name: str) -> None:
    """Formula: classes share out the totals that other modules count."""
    graph = from_network(presets.get(name), fold_norm=True)
    total: Counter[str] = Counter()
    for column, value in graph_work(graph).items():
        if column.count(".") == 1:
            total[column.partition(".")[2]] += value
    assert total["macs"] == graph_macs(graph)
    assert total["elementwise"] == graph_elementwise(graph)
    assert total["weight_bytes"] == weight_bytes(graph)
    assert total["count"] == sum(op.kind not in VIEWS for op in graph.ops)
    assert total["padded_macs"] >= total["macs"]


def test_details_share_out_their_class() -> None:
    """Counts and MACs twice, by window and by map; bytes once, by footprint."""
    work = graph_features(presets.get("mobilenetv2_100"))

    def details(name: str, key: str) -> float:
        return sum(value for column, value in work.items() if column.startswith(f"{name}.") and column.endswith(key))

    for name in ("pointwise", "depthwise", "dense"):
        assert details(name, ".count") == 3 * work[f"{name}.count"]
        assert details(name, ".macs") == 3 * work[f"{name}.macs"]
    for name in ("pointwise", "depthwise", "add", "activation_relu6"):
        assert details(name, ".bytes") == work[f"{name}.activation_bytes"] + work.get(f"{name}.weight_bytes", 0)


def test_two_halves_have_the_features_of_the_whole() -> None:
    rng = random.Random(0)
    widths = [rng.randrange(3, 40) for _ in range(5)]

    def chain(start: int, end: int) -> dict[str, float]:
        build = Builder()
        x = build.input("x", (1, widths[start], 12, 12))
        for index in range(start + 1, end + 1):
            x = build.activation(f"a{index}", build.conv(f"c{index}", f"c{index}", x, widths[index]), "silu")
        return graph_work(build.graph(x))

    assert Counter(chain(0, 2)) + Counter(chain(2, 4)) == Counter(chain(0, 4))


def test_classes_and_padding() -> None:
    """20 -> 40 channels work as 32 -> 48 in groups of 16; depthwise has one side only; a 1x1 map makes a linear."""
    build = Builder()
    x = build.input("x", (1, 20, 6, 6))
    x = build.conv("p", "p", x, 40)
    x = build.conv("d", "d", x, 40, kernel_size=5, groups=40)
    x = build.conv("g", "g", x, 40, groups=2)
    x = build.conv("k", "k", x, 8, kernel_size=3)
    pooled = build.input("pooled", (1, 8, 1, 1))
    work = graph_work(build.graph(x, build.conv("s", "s", pooled, 8)))
    assert work["pointwise.padded_macs"] == 36 * 32 * 48
    assert work["pointwise.to_49_pixels.macs"] == work["pointwise.1x1_stride_1.macs"] == 36 * 20 * 40
    assert work["depthwise.padded_macs"] == 36 * 25 * 48
    assert work["grouped.macs"] == 36 * 20 * 40
    assert work["dense.3x3_stride_1.count"] == 1
    assert work["linear.macs"] == 64
    assert work["dense.activation_bytes"] == 4 * 36 * (40 + 8)
    assert work["dense.to_64_KiB.bytes"] == 4 * (36 * (40 + 8) + 40 * 8 * 9)
