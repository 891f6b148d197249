"""The two schedules: their groups written out for every place of a gate, legal for any network, tiles that fit."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from random_graphs import networks

from luthier.arch import Attention, Block, Head, Network, Stage
from luthier.arch.presets import get, names
from luthier.errors import SpecError
from luthier.graph import Graph, from_network
from luthier.graph import attrs as kinds
from luthier.graph.builder import Builder
from luthier.schedule import Group, Tile, check, fused, scope, scopes, tile_space, unfused, working_set


def one_block(place: str | None, *, expand_ratio: float = 4, kind: str = "mbconv") -> Graph:
    """A block behind a stem that a pool keeps apart."""
    attention = None if place is None else Attention(place=place)  # type: ignore[arg-type]
    stem = Block(kind="conv", out_channels=8)
    block = Block(kind=kind, out_channels=8, expand_ratio=expand_ratio, attention=attention)  # type: ignore[arg-type]
    pool = Block(kind="pool", kernel_size=2, stride=2, out_channels=8)
    network = Network(
        name="n", stages=(Stage(name="stem", blocks=(stem, pool)), Stage(name="b", blocks=(block,))),
        head=Head(num_classes=2), resolution=32,
    )  # fmt: skip
    return from_network(network, fold_norm=True)


GROUPS = {
    None: ["expand.conv expand.activation depthwise.conv depthwise.activation project.conv add"],
    "after_depthwise": [
        "expand.conv expand.activation depthwise.conv depthwise.activation attention.pool",
        "attention.reduce attention.activation attention.expand attention.gate",
        "attention.mul project.conv add",
    ],
    "before_depthwise": [
        "expand.conv expand.activation attention.pool",
        "attention.reduce attention.activation attention.expand attention.gate",
        "attention.mul depthwise.conv depthwise.activation project.conv add",
    ],
    "after_project": [
        "expand.conv expand.activation depthwise.conv depthwise.activation project.conv attention.pool",
        "attention.reduce attention.activation attention.expand attention.gate",
        "attention.mul add",
    ],
    "after_sum": [
        "expand.conv expand.activation depthwise.conv depthwise.activation project.conv add attention.pool",
        "attention.reduce attention.activation attention.expand attention.gate",
        "attention.mul",
    ],
}


@pytest.mark.parametrize("place", GROUPS)
def test_fused_groups_of_every_gate(place: str | None) -> None:
    schedule = fused(one_block(place), rows=2)
    inner = [g for g in schedule if g.ops[0].startswith("b.0.")]
    assert [" ".join(name.removeprefix("b.0.") for name in g.ops) for g in inner] == GROUPS[place]
    # what hands a map from one op to the next is cut; one pixel, and elementwise ops alone, are not
    tiled = [g.tile == Tile(rows=2) for g in inner]
    assert tiled == {None: [True], "after_depthwise": [True, False, True], "before_depthwise": [True, False, True]}.get(
        place, [True, False, False]
    )


def test_other_blocks_and_the_stem() -> None:
    separable = fused(one_block(None, kind="depthwise_separable"), rows=2)
    assert [g.ops[-1] for g in separable][2:4] == ["b.0.add", "head.pool"]
    widened = fused(one_block(None, kind="fused_mbconv"), rows=2)
    assert [g.ops for g in widened][2] == ("b.0.expand.conv", "b.0.expand.activation", "b.0.project.conv", "b.0.add")
    # a block that does not widen keeps its convolutions apart
    basic = fused(one_block(None, kind="basic"), rows=2)
    assert basic.groups == unfused(one_block(None, kind="basic")).groups
    stem = fused(from_network(get("mobilenetv2_100"), fold_norm=True)).groups[0]
    assert stem.ops[0] == "stem.0.conv.conv"
    assert stem.ops[-1] == "stage1.0.project.conv"


def test_unfused_takes_the_epilogue_along_and_nothing_else() -> None:
    graph = one_block("after_depthwise")
    inner = [" ".join(n.removeprefix("b.0.") for n in g.ops) for g in unfused(graph) if g.ops[0].startswith("b.0.")]
    assert inner == [
        "expand.conv expand.activation", "depthwise.conv depthwise.activation", "attention.pool",
        "attention.reduce attention.activation", "attention.expand attention.gate", "attention.mul",
        "project.conv add",
    ]  # fmt: skip
    assert not any(group.tiled for group in unfused(graph))
    plain = from_network(get("resnet18"))
    first = next(g for g in unfused(plain) if len(g.ops) > 3)
    assert [name.rsplit(".", 1)[-1] for name in first.ops] == ["conv", "norm", "add", "activation"]


def test_a_sum_of_two_branches_goes_with_the_later_one() -> None:
    build = Builder()
    x = build.input("x", (1, 4, 8, 8))
    left, right = build.conv("left", "l", x, 4), build.conv("right", "r", x, 4)
    graph = build.graph(build.activation("y", build.add("sum", left, right), "relu"))
    schedule = unfused(graph)
    check(graph, schedule)
    assert [g.ops for g in schedule] == [("left",), ("right", "sum", "y")]


def test_a_gate_that_sees_more_than_means_runs_op_by_op() -> None:
    build = Builder()
    x = build.conv("head", "h", build.input("x", (1, 4, 8, 8)), 4, kernel_size=3)
    x = build.conv("depthwise", "d", build.conv("expand", "e", x, 16), 16, kernel_size=3, groups=16)
    gate = build.activation("gate", build.conv("look", "l", x, 1, kernel_size=3), "sigmoid")
    graph = build.graph(build.conv("project", "p", build.mul("mul", x, gate), 4))
    schedule = fused(graph, rows=2)
    check(graph, schedule)
    assert [g.ops for g in schedule] == [("head",), ("expand", "depthwise"), ("look", "gate"), ("mul", "project")]


@settings(max_examples=60)
@given(
    network=networks(),
    fold=st.booleans(),
    fast_kib=st.sampled_from([1, 4, 16, 1024]),
    rows=st.sampled_from([None, 1, 3]),
)
def test_any_network_has_legal_schedules_that_fit(
    network: Network, fold: bool, fast_kib: int, rows: int | None
) -> None:
    graph = from_network(network, fold_norm=fold)
    check(graph, unfused(graph))
    schedule = fused(graph, fast_bytes=fast_kib * 1024, rows=rows)
    check(graph, schedule)
    assert len(schedule.groups) <= len(unfused(graph).groups) <= len(graph.ops)
    for view in scopes(graph, schedule):
        if rows is not None:
            assert view.group.tile.rows in (None, min(rows, graph.tensors[view.result].shape[-2]))
            continue
        space = [tile.rows for tile in tile_space(graph, view) if tile.channels is None]
        total = {r: working_set(graph, view, Tile(r)).total_bytes for r in space}
        if view.group.tiled and total[1] <= fast_kib * 1024:
            larger = space[: space.index(view.group.tile.rows)]
            assert total[view.group.tile.rows] <= fast_kib * 1024
            assert all(total[r] > fast_kib * 1024 for r in larger)


@pytest.mark.parametrize("name", names())
def test_every_preset_has_legal_schedules(name: str) -> None:
    graph = from_network(get(name), fold_norm=True)
    for schedule in (unfused(graph), fused(graph, rows=4)):
        check(graph, schedule)


def test_where_weights_do_not_fit_the_activations_decide() -> None:
    build = Builder()
    x = build.conv(
        "expand", "e", build.op("x", kinds.Pool("max", (1, 1), (1, 1)), build.input("in", (1, 64, 8, 8))), 384
    )
    graph = build.graph(build.conv("project", "p", build.conv("depthwise", "d", x, 384, kernel_size=3, groups=384), 64))
    view = scope(graph, Group(("expand", "depthwise", "project")))
    sets = {rows: working_set(graph, view, Tile(rows)) for rows in (1, 2)}
    # room for the activations of 2 rows, not for the weights beside the smallest tile
    fast = sets[2].activation_bytes
    assert fast < sets[1].total_bytes
    chosen = {weights: fused(graph, fast_bytes=fast, weights_in_fast=weights) for weights in (True, False)}
    assert [g.tile for s in chosen.values() for g in s if g.ops == view.group.ops] == [Tile(2), Tile(2)]
    # not even one row fits: the smallest tile
    assert Tile(1) in [g.tile for g in fused(graph, fast_bytes=1)]


def test_rows_are_at_least_one() -> None:
    with pytest.raises(SpecError, match="rows must be at least 1, got 0"):
        fused(one_block(None), rows=0)


def test_concat_graphs_are_scheduled_too() -> None:
    build = Builder()
    x = build.conv("a", "a", build.input("x", (1, 4, 8, 8)), 8, kernel_size=3)
    y = build.conv("b", "b", x, 8, kernel_size=3)
    graph = build.graph(build.op("c", kinds.Concat(), x, y))
    for schedule in (unfused(graph), fused(graph, rows=1)):
        check(graph, schedule)
        assert [g.ops for g in schedule] == [("a",), ("b",), ("c",)]
