"""Inverted bottlenecks are found by structure: as the network says, in hand-made graphs, whatever the names."""

from __future__ import annotations

import dataclasses
from typing import get_args

import pytest

from luthier.arch import Attention, Block, Head, Network, Stage
from luthier.arch.block import AttentionPlace
from luthier.arch.network import Placed
from luthier.arch.presets import get, names
from luthier.graph import Graph, find_mbconv, from_network
from luthier.graph import attrs as kinds
from luthier.graph.builder import Builder


def said_by(network: Network) -> list[Placed]:
    return [p for p in network.walk() if p.block.kind in ("mbconv", "depthwise_separable")]


@pytest.mark.parametrize("folded", [True, False])
@pytest.mark.parametrize("name", names())
def test_presets_give_the_blocks_that_their_networks_name(name: str, folded: bool) -> None:
    network = get(name)
    graph = from_network(network, fold_norm=folded)
    found, said = find_mbconv(graph), said_by(network)
    assert [group.depthwise.conv for group in found] == [f"{p.name}.depthwise.conv" for p in said]
    for group, placed in zip(found, said, strict=True):
        assert list(group.ops) == [op.name for op in graph.ops if op.block == placed.name]
        assert (group.expand is not None) == placed.block.expands
        assert group.project.conv == f"{placed.name}.project.conv"
        assert (group.add is None) == (placed.block.shortcut(placed.in_channels) == "none")
        assert [gate.place for gate in group.gates] == (
            [placed.block.attention.place] if placed.block.attention else []
        )
        assert (group.depthwise.norm is None) == folded


def network(kind: str, place: AttentionPlace | None, attention: str = "se", expand_ratio: float = 4) -> Network:
    gate = None if place is None else Attention(kind=attention, place=place)  # type: ignore[arg-type]
    block = Block(kind=kind, out_channels=16, expand_ratio=expand_ratio, attention=gate)  # type: ignore[arg-type]
    stem = Stage(name="stem", blocks=(Block(kind="conv", out_channels=16, stride=2),))
    return Network(name="n", stages=(stem, Stage(name="s", blocks=(block,))), head=Head(num_classes=4), resolution=16)


@pytest.mark.parametrize("folded", [True, False])
@pytest.mark.parametrize("attention", ["se", "ese", "eca"])
@pytest.mark.parametrize("place", get_args(AttentionPlace))
@pytest.mark.parametrize("kind,expand_ratio", [("mbconv", 4), ("mbconv", 1), ("depthwise_separable", 1)])
def test_every_place_of_attention(
    kind: str, expand_ratio: float, place: AttentionPlace, attention: str, folded: bool
) -> None:
    graph = from_network(network(kind, place, attention, expand_ratio), fold_norm=folded)
    (group,) = find_mbconv(graph)
    assert list(group.ops) == [op.name for op in graph.ops if op.block == "s.0"]
    assert group.source == "stem.0.conv.activation"
    assert group.add == "s.0.add"
    assert [gate.place for gate in group.gates] == [place]
    assert list(group.attention) == [op.name for op in graph.ops if ".attention." in op.name]
    assert group.result == ("s.0.attention.mul" if place == "after_sum" else "s.0.add")
    assert len(group.activations) == (2 if expand_ratio > 1 else 1)


def anonymous(graph: Graph) -> Graph:
    """The same graph with meaningless names."""
    tensor = {name: f"t{i}" for i, name in enumerate(graph.tensors)}
    constant = {name: f"k{i}" for i, name in enumerate(graph.constants)}
    ops = tuple(
        dataclasses.replace(
            op, name=f"op{i}", inputs=tuple(tensor[t] for t in op.inputs), outputs=tuple(tensor[t] for t in op.outputs),
            constants={role: constant[c] for role, c in op.constants.items()}, block="",
        )
        for i, op in enumerate(graph.ops)
    )  # fmt: skip
    return Graph(
        tuple(tensor[t] for t in graph.inputs),
        tuple(tensor[t] for t in graph.outputs),
        ops,
        {tensor[n]: dataclasses.replace(t, name=tensor[n]) for n, t in graph.tensors.items()},
        {constant[n]: dataclasses.replace(t, name=constant[n]) for n, t in graph.constants.items()},
    )


@pytest.mark.parametrize("name", ["efficientnet_b0", "mobilenetv3_large_100", "mnasnet_a1", "resnet50"])
def test_no_name_is_read(name: str) -> None:
    graph = from_network(get(name), fold_norm=True)
    place = {op.name: i for i, op in enumerate(graph.ops)}
    want = [[place[n] for n in group.ops] for group in find_mbconv(graph)]
    assert [[int(n[2:]) for n in group.ops] for group in find_mbconv(anonymous(graph))] == want


def test_a_pointwise_between_two_depthwise_projects_the_first() -> None:
    build = Builder()
    x = build.input("x", (1, 8, 8, 8))
    for index in range(3):
        x = build.activation(f"d{index}.a", build.conv(f"d{index}", f"d{index}", x, 8, kernel_size=3, groups=8), "relu")
        x = build.activation(f"p{index}.a", build.conv(f"p{index}", f"p{index}", x, 8), "relu")
    found = find_mbconv(build.graph(x))
    assert [group.ops for group in found] == [(f"d{i}", f"d{i}.a", f"p{i}", f"p{i}.a") for i in range(3)]
    assert [group.expand for group in found] == [None] * 3
    assert [group.source for group in found] == ["x", "p0.a", "p1.a"]


def bottleneck(build: Builder, x: str, *, read_inside: bool = False, stride_in_project: int = 1) -> str:
    e = build.activation("e.a", build.conv("e", "e", x, 32), "relu")
    d = build.conv("d", "d", e, 32, kernel_size=3, groups=32)
    p = build.conv("p", "p", d, 8, stride=stride_in_project)
    return build.op("cat", kinds.Concat(), p, e) if read_inside else p


def test_what_is_read_from_outside_stays_outside() -> None:
    build = Builder()
    (group,) = find_mbconv(build.graph(bottleneck(build, build.input("x", (1, 8, 8, 8)), read_inside=True)))
    assert (group.expand, group.source, group.ops) == (None, "e.a", ("d", "p"))
    build = Builder()
    d = build.conv("d", "d", build.input("x", (1, 8, 8, 8)), 8, kernel_size=3, groups=8)
    assert find_mbconv(build.graph(build.conv("p", "p", d, 4), d)) == ()


def test_what_is_not_a_projection() -> None:
    build = Builder()
    assert find_mbconv(build.graph(bottleneck(build, build.input("x", (1, 8, 8, 8)), stride_in_project=2))) == ()
    build = Builder()
    d = build.conv("d", "d", build.input("x", (1, 8, 8, 8)), 8, kernel_size=3, groups=8)
    assert find_mbconv(build.graph(build.conv("g", "g", d, 8, groups=2))) == ()


def test_an_activation_in_two_ops_is_no_gate_and_an_outer_factor_neither() -> None:
    build = Builder()
    x, other = build.input("x", (1, 8, 8, 8)), build.input("other", (1, 8, 1, 1))
    e = build.conv("e", "e", x, 8)
    swish = build.mul("m", e, build.activation("s", e, "sigmoid"))
    d = build.conv("d", "d", swish, 8, kernel_size=3, groups=8)
    p = build.conv("p", "p", build.mul("o", d, other), 8)
    assert find_mbconv(build.graph(p)) == ()
    p = build.conv("q", "q", d, 8)
    build.ops = [op for op in build.ops if op.name not in ("o", "p")]
    build.tensors = {n: t for n, t in build.tensors.items() if n not in ("o", "p")}
    (group,) = find_mbconv(build.graph(build.mul("end", p, other)))
    assert (group.source, group.expand, group.gates, group.result) == ("m", None, (), "q")


def test_a_sum_with_another_tensor_is_not_the_residual() -> None:
    build = Builder()
    x, y = build.input("x", (1, 8, 8, 8)), build.input("y", (1, 8, 8, 8))
    (group,) = find_mbconv(build.graph(build.add("a", bottleneck(build, x), y)))
    assert (group.add, group.result) == (None, "p")
    build = Builder()
    x = build.input("x", (1, 8, 8, 8))
    (group,) = find_mbconv(build.graph(build.add("a", x, bottleneck(build, x))))
    assert (group.add, group.result) == ("a", "a")
