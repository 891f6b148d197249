"""What a schedule may not do, one case per rule; and every tile of the space may."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from random_graphs import networks, row_groups

from luthier.arch import Network
from luthier.errors import SpecError
from luthier.graph import Graph, from_network
from luthier.graph import attrs as kinds
from luthier.graph.builder import Builder
from luthier.schedule import Group, Schedule, Tile, check, fused, scope, tile_space
from luthier.schedule.legal import row_problem


@pytest.fixture
def graph() -> Graph:
    """x -> expand -> depthwise -> project; pool of depthwise; classifier."""
    build = Builder()
    x = build.conv("expand", "e", build.input("x", (1, 4, 8, 8)), 16)
    x = build.activation("relu", x, "relu")
    x = build.conv("depthwise", "d", x, 16, kernel_size=3, groups=16)
    pooled = build.op("pool", kinds.GlobalPool(), x)
    y = build.conv("project", "p", build.mul("mul", x, build.activation("gate", pooled, "sigmoid")), 4)
    return build.graph(build.linear("classifier", "c", build.flatten("flat", y), 3))


REST = (Group(("gate",)), Group(("mul", "project")), Group(("flat",)), Group(("classifier",)))
FRONT = Group(("expand", "relu", "depthwise", "pool"))


def test_the_whole_is_legal_with_and_without_tiles(graph: Graph) -> None:
    for tile in (Tile(), Tile(rows=8), Tile(rows=3), Tile(channels=8), Tile(rows=1, channels=16)):
        check(graph, Schedule("mine", (Group(FRONT.ops, tile), *REST)))


@pytest.mark.parametrize(
    ("groups", "message"),
    [
        ((FRONT, *REST[:-1]), r"Schedule\(mine\): op 'classifier' is in no group"),
        ((FRONT, FRONT, *REST), r"group expand .. pool: op 'expand' runs twice"),
        ((REST[0], FRONT, *REST[1:]), r"group gate: op 'gate' runs before its input 'pool' exists"),
        ((Group(("relu", "expand")),), r"op 'relu' runs before its input 'expand' exists"),
        ((Group(("elu",)),), r"group elu: the graph has no op 'elu'"),
        ((Group(("expand", "relu", "depthwise", "pool", "gate")),), r"'depthwise' is read outside; only .* 'gate' may"),
        ((Group(FRONT.ops, Tile(rows=9)),), r"at most the 8 rows of its output, got 9"),
        ((Group(FRONT.ops, Tile(channels=17)),), r"at most the 16 channels of its output, got 17"),
        ((FRONT, REST[0], Group(("mul", "project"), Tile(channels=2))), r"op 'project' \(conv\) needs all channels"),
        (
            (FRONT, REST[0], Group(("mul", "project", "flat"), Tile(rows=1))),
            r"op 'flat' \(flatten\) has no rows to cut into tiles",
        ),
        (
            (Group((*FRONT.ops, "gate", "mul", "project"), Tile(rows=1)),),
            r"op 'pool' pools 'depthwise', but only the result 'project' is complete in a tile",
        ),
    ],
)
def test_each_rule(graph: Graph, groups: tuple[Group, ...], message: str) -> None:
    with pytest.raises(SpecError, match=message):
        check(graph, Schedule("mine", groups))


def test_a_side_branch_has_no_place_in_a_tile() -> None:
    build = Builder()
    x = build.conv("c", "c", build.input("x", (1, 4, 8, 8)), 4)
    side = build.op("side", kinds.GlobalPool(), build.conv("b", "b", x, 4))
    graph = build.graph(build.conv("d", "d", x, 4), side)
    with pytest.raises(SpecError, match="op 'side' pools 'b', but only the result 'd'"):
        check(graph, Schedule("mine", (Group(("c", "b", "side", "d"), Tile(rows=1)),)))
    assert row_problem(graph, scope(graph, Group(("c", "b", "d")))) == "op 'b' is not on the way to the result 'd'"
    assert tile_space(graph, Group(("c", "b", "d"))).rows == (None,)


@settings(max_examples=60)
@given(case=row_groups())
def test_every_tile_of_the_space_is_legal(case: tuple[Graph, Group]) -> None:
    graph, group = case
    space = tile_space(graph, group, multiple=2)
    assert len(space) == len(list(space)) > 0
    for tile in space:
        check(graph, Schedule("mine", (Group(group.ops, tile), Group(("end",)))))


@settings(max_examples=30)
@given(network=networks())
def test_the_space_holds_one_row_count_for_every_number_of_tiles(network: Network) -> None:
    graph = from_network(network)
    for group in fused(graph):
        view = scope(graph, group)
        height = graph.tensors[view.result].shape[-2]
        rows = tile_space(graph, group).rows
        if len(rows) > 1:
            counts = [-(-height // r) for r in rows[1:] if r is not None]
            assert counts == sorted(set(counts))
            every = {-(-height // r) for r in range(1, height)}
            assert set(counts) == every
            for r in rows[1:]:  # one row less would take one more tile
                assert r is not None
                assert r == 1 or -(-height // (r - 1)) > -(-height // r)
