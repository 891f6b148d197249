"""Working sets: the terms written out for the textbook's block; shared buffers; bounds for any group."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from random_graphs import row_groups

from luthier.arch import Precision
from luthier.graph import Graph
from luthier.graph import attrs as kinds
from luthier.graph.builder import Builder
from luthier.schedule import Group, Tile, scope, tile_space, working_set


def block(precision: str = "fp32") -> Graph:
    """20 -> 120 -> 120 (5x5, stride 2) -> 32 at 28 x 28, batch 2, with the sums of squeeze and excitation."""
    build = Builder()
    build.precision = Precision.parse(precision)
    x = build.conv("expand", "e", build.input("x", (2, 20, 28, 28)), 120, bias=True)
    x = build.activation("silu", x, "silu")
    x = build.conv("depthwise", "d", x, 120, kernel_size=5, stride=2, groups=120, bias=True)
    build.op("pool", kinds.GlobalPool(), x)
    y = build.conv("project", "p", x, 32)
    return build.graph(y, "pool")


@pytest.mark.parametrize(
    ("precision", "size", "bias", "sums"), [("fp32", 4, 4, 0), ("int8", 1, 4, 4), ("W8A16", 2, 4, 4)]
)
def test_the_terms_of_expand_and_depthwise(precision: str, size: int, bias: int, sums: int) -> None:
    graph = block(precision)
    found = working_set(graph, Group(("expand", "silu", "depthwise", "pool"), Tile(rows=3)))
    ring = (3 - 1) * 2 + 5  # rows of the expanded tensor for 3 rows behind stride 2 and a 5x5 window
    assert ring == 9
    weight = {"fp32": 4, "int8": 1, "W8A16": 1}[precision]
    assert found.inside_bytes == ring * 28 * 120 * size
    assert found.output_bytes == (3 * 14 * 120 + 120) * size  # rows of the depthwise, and the pooled channels
    assert found.input_bytes == 7 * 28 * 20 * size  # the first tile makes rows 0..6, later ones six each
    assert found.weight_bytes == (20 * 120 + 25 * 120) * weight + 2 * 120 * bias
    assert found.accumulator_bytes == 120 * sums
    parts = (found.input_bytes, found.inside_bytes, found.output_bytes, found.accumulator_bytes)
    assert found.activation_bytes == sum(parts)
    assert found.total_bytes == found.activation_bytes + found.weight_bytes


def test_a_channel_block_takes_its_part() -> None:
    graph = block()
    found = working_set(graph, Group(("expand", "silu", "depthwise", "pool"), Tile(rows=3, channels=40)))
    assert found.inside_bytes == 9 * 28 * 40 * 4
    assert found.output_bytes == (3 * 14 * 40 + 40) * 4
    assert found.input_bytes == 7 * 28 * 20 * 4  # the expansion reads all input channels for every block
    assert found.weight_bytes == (20 * 40 + 25 * 40 + 2 * 40) * 4


def test_bytes_per_element_replaces_the_number_types() -> None:
    group = Group(("expand", "silu", "depthwise", "pool"), Tile(rows=3))
    assert (
        working_set(block(), group, bytes_per_element=1).inside_bytes == working_set(block("int8"), group).inside_bytes
    )
    assert working_set(block(), group, bytes_per_element=0.5).accumulator_bytes == 120 * 4


def test_elementwise_ops_share_a_buffer_only_where_nothing_else_reads_it() -> None:
    build = Builder()
    x = build.conv("c", "c", build.input("x", (1, 4, 8, 8)), 4)
    gate = build.activation("gate", x, "sigmoid")
    y = build.mul("mul", gate, x)  # SiLU in two ops: the gate may not write over x, the product over the gate
    graph = build.graph(build.conv("d", "d", y, 4))
    buffers = scope(graph, Group(("c", "gate", "mul"))).buffers
    assert buffers == {"x": "x", "c": "c", "gate": "gate", "mul": "gate"}
    # in a tiled group a row of x is read again by a later tile: the sum goes over the branch
    build = Builder()
    x = build.conv("c", "c", build.input("x", (1, 4, 8, 8)), 4)
    y = build.conv("d", "d", x, 4, kernel_size=3)
    graph = build.graph(build.conv("e", "e", build.add("sum", x, y), 4))
    assert scope(graph, Group(("d", "sum"))).buffers == {"c": "c", "d": "d", "sum": "d"}
    assert scope(graph, Group(("sum",))).buffers == {"c": "c", "d": "d", "sum": "c"}
    # read by a view, whose bytes are the same: not free
    build = Builder()
    x = build.conv("c", "c", build.input("x", (1, 4, 8, 8)), 4)
    flat, y = build.flatten("flat", x), build.activation("y", x, "relu")
    graph = build.graph(build.linear("l", "l", flat, 3), y)
    assert scope(graph, Group(("y",))).buffers["y"] == "y"


@settings(max_examples=100)
@given(case=row_groups())
def test_smaller_tiles_never_need_more_than_the_whole(case: tuple[Graph, Group]) -> None:
    graph, group = case
    whole = working_set(graph, group, Tile())
    for tile in tile_space(graph, group, multiple=2):
        found = working_set(graph, group, tile)
        for term in ("input_bytes", "inside_bytes", "output_bytes", "weight_bytes"):
            assert 0 <= getattr(found, term) <= getattr(whole, term)
