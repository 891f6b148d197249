"""A removed gate leaves the network that has its constant in the gate's place: equal to the plain way of saying so."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, get_args

import numpy as np
import pytest

from luthier.arch import Attention, Block, Head, Network, Stage
from luthier.arch.block import AttentionPlace
from luthier.cost.macs import op_macs
from luthier.graph import Graph, from_network
from luthier.graph.attrs import Affine, Conv, GlobalPool
from luthier.graph.builder import Builder
from luthier.graph.gates import find_gates
from luthier.graph.op import Tensor
from luthier.graph.reference import run
from luthier.probe.remove import judge_removal, network_macs, network_params, remove_gates

Values = dict[str, np.ndarray[Any, Any]]


def weights(graph: Graph) -> Values:
    generator = np.random.default_rng(3)
    return {name: generator.normal(size=t.shape) / 4 for name, t in graph.constants.items()}


def plainly(graph: Graph, values: Values, means: Values) -> tuple[Graph, Values]:
    """Every gated product as one scale per channel; nothing folded."""
    ops, constants, filled = [], dict(graph.constants), dict(values)
    gates = {one.mul: one for one in find_gates(graph)}
    for op in graph.ops:
        if op.name in means:
            name, channels = f"{op.name}.k", graph.tensors[gates[op.name].gated].shape[1]
            constants[name], filled[name] = Tensor(name, (channels,)), np.broadcast_to(means[op.name], channels)
            op = replace(op, attrs=Affine(), inputs=(gates[op.name].gated,), constants={"weight": name})
        ops.append(op)
    return replace(graph, ops=tuple(ops), constants=constants), filled


def check(graph: Graph, means: Values) -> Graph:
    values = weights(graph)
    without, folded = remove_gates(graph, values, means)
    plain, filled = plainly(graph, values, means)
    image = {graph.inputs[0]: np.random.default_rng(4).normal(size=graph.tensors[graph.inputs[0]].shape)}
    (got,), (wanted,) = (tuple(run(g, v, image).values()) for g, v in ((without, folded), (plain, filled)))
    np.testing.assert_allclose(got, wanted, rtol=1e-10, atol=1e-12)  # float64 in another order
    assert set(folded) == set(without.constants)
    return without


@pytest.mark.parametrize("attention", ["se", "ese", "eca"])
@pytest.mark.parametrize("place", get_args(AttentionPlace))
@pytest.mark.parametrize("kind", ["mbconv", "depthwise_separable"])
def test_every_place_in_a_block(kind: str, place: AttentionPlace, attention: str) -> None:
    gate = Attention(kind=attention, place=place)  # type: ignore[arg-type]
    block = Block(kind=kind, out_channels=8, expand_ratio=3 if kind == "mbconv" else 1, attention=gate)  # type: ignore[arg-type]
    stem = Stage(name="stem", blocks=(Block(kind="conv", out_channels=8, stride=2),))
    stages = (stem, Stage(name="s", blocks=(block, block)))
    network = Network(name="n", stages=stages, head=Head(num_classes=4), resolution=16, activation="silu")
    graph = from_network(network, fold_norm=True, batch=2)
    first, second = find_gates(graph)
    channels = graph.tensors[first.gated].shape[1]
    means = {first.mul: np.linspace(-1, 2, channels), second.mul: np.full(1, 0.3)}
    without = check(graph, means)
    assert find_gates(without) == ()
    saved = sum(op_macs(graph, op) for op in graph.ops if op.name in first.ops + second.ops) // 2
    assert network_macs(graph) - network_macs(without) == saved > 0
    if place in ("after_depthwise", "after_project"):  # folded into a convolution: nothing of the gate is left
        assert not any(op.kind == "affine" for op in without.ops)
    assert find_gates(check(graph, {first.mul: means[first.mul]}))[0].mul == second.mul


def attend(build: Builder, name: str, x: str) -> str:
    pooled = build.op(f"{name}.pool", GlobalPool(), x)
    gate = build.activation(f"{name}.gate", build.conv(f"{name}.e", f"{name}.e", pooled, 8), "sigmoid")
    return build.mul(f"{name}.mul", x, gate)


def test_grouped_and_depthwise_readers_and_a_weight_that_two_share() -> None:
    build = Builder()
    x = build.activation("a", build.conv("c", "c", build.input("x", (1, 8, 7, 7)), 8), "relu")
    y = attend(build, "g", x)
    shared = Tensor("w", (8, 4, 3, 3))
    readers = [build.op(f"r{i}", Conv(pads=(1, 1, 1, 1), groups=2), y, constants={"weight": shared}) for i in range(2)]
    depthwise = build.conv("d", "d", y, 8, kernel_size=3, groups=8)
    again = build.op("r2", Conv(pads=(1, 1, 1, 1), groups=2), x, constants={"weight": shared})  # reads no gate
    out = build.add("s2", build.add("s1", build.add("s0", *readers), depthwise), again)
    without = check(build.graph(out), {"g.mul": np.linspace(0.1, 0.9, 8)})
    assert [op.kind for op in without.ops].count("affine") == 0


def test_what_cannot_be_folded_becomes_one_scale() -> None:
    build = Builder()
    x = build.conv("c", "c", build.input("x", (1, 8, 7, 7)), 8)
    graph = build.graph(build.add("sum", attend(build, "g", x), x))  # x is read elsewhere, the product by a sum
    without = check(graph, {"g.mul": np.linspace(0.1, 0.9, 8)})
    assert [op.kind for op in without.ops] == ["conv", "affine", "add"]


def test_into_the_convolution_before_with_its_bias() -> None:
    build = Builder()
    x = build.conv("c", "c", build.input("x", (1, 8, 7, 7)), 8, bias=True)
    without = check(build.graph(attend(build, "g", x)), {"g.mul": np.linspace(0.1, 0.9, 8)})
    assert [op.kind for op in without.ops] == ["conv"]


def test_the_verdict_counts_pairs() -> None:
    build = Builder()
    graph = build.graph(attend(build, "g", build.conv("c", "c", build.input("x", (1, 8, 7, 7)), 8)))
    without, _ = remove_gates(graph, weights(graph), {"g.mul": np.ones(1)})
    truth = np.zeros(1000, int)

    def judged(lost: int, won: int, labels: Any = truth, n: int = 1000) -> Any:
        before = np.r_[np.zeros(n - won, int), np.ones(won, int)]
        after = np.r_[np.ones(lost, int), np.zeros(n - lost, int)]
        given = None if labels is None else labels[:n]
        return judge_removal(graph, without, ("g.mul",), "g", (before, after), given, 0.01)

    one = judged(5, 2)
    assert (one.right_before, one.right_after, one.lost, one.won) == (998, 995, 5, 2)
    assert one.loss == pytest.approx(0.003)
    assert one.verdict == "removable"
    assert judged(40, 0).verdict == "needed"
    assert judged(15, 10).verdict == "undecided"
    assert judged(0, 0, n=50).verdict == "undecided"  # too few images, though nothing changed
    plain = judged(4, 3, labels=None)
    assert (plain.lost, plain.won, plain.right_before) == (7, 0, None)
    assert (one.macs, one.params) == (64, 64)
    assert one.macs_share == pytest.approx(64 / (64 + 49 * 64))
    assert network_params(graph) == 128
