from __future__ import annotations

from collections import Counter

import pytest

from luthier.arch import presets
from luthier.cost.op_class import OP_CLASSES, op_class
from luthier.graph.builder import Builder
from luthier.graph.from_network import from_network


@pytest.mark.parametrize(
    ("channels", "out", "kernel", "groups", "side", "want"),
    [
        (3, 32, 3, 1, 32, "stem"),
        (4, 32, 1, 1, 32, "stem"),
        (5, 32, 3, 1, 32, "dense"),
        (16, 32, 1, 1, 32, "pointwise"),
        (16, 32, 1, 1, 1, "linear"),
        (16, 16, 5, 16, 32, "depthwise"),
        (16, 32, 3, 16, 32, "depthwise"),
        (16, 32, 3, 4, 32, "grouped"),
    ],
)
def test_convolutions(channels: int, out: int, kernel: int, groups: int, side: int, want: str) -> None:
    build = Builder()
    x = build.input("x", (1, channels, side, side))
    graph = build.graph(build.conv("c", "c", x, out, kernel_size=kernel, groups=groups))
    assert op_class(graph, graph.ops[0]) == want


def test_efficientnet_b0_by_its_published_table() -> None:
    # arXiv:1905.11946: 16 depthwise, 15 expansions + 16 projections + head, 16 x 2 squeeze layers + classifier
    graph = from_network(presets.get("efficientnet_b0"), fold_norm=True)
    found = Counter(op_class(graph, op) for op in graph.ops)
    assert found["depthwise"] == 16
    assert found["pointwise"] == 15 + 16 + 1
    assert found["linear"] == 16 * 2 + 1
    assert found["stem"] == 1
    assert found["reduction"] == 16 + 1
    assert found["elementwise"] == 16 + 9
    assert found["dense"] == found["grouped"] == found["norm"] == 0


def test_every_op_of_every_preset_has_a_class() -> None:
    for name in presets.names():
        graph = from_network(presets.get(name))
        assert {op_class(graph, op) for op in graph.ops} <= set(OP_CLASSES)
