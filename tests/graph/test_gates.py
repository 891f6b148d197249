"""Gates are found by structure: every kind, in every spelling, in presets and in graphs made by hand."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from random_modules import ECA, SPATIAL, ChannelGate, Coordinate, Spatial
from torch import nn

from luthier.arch.presets import get, names
from luthier.graph import from_network
from luthier.graph.attrs import Activation, Slice
from luthier.graph.builder import Builder
from luthier.graph.cut import cut
from luthier.graph.from_torch import from_torch
from luthier.graph.gates import find_gates
from luthier.graph.reference import run


@pytest.mark.parametrize("folded", [True, False])
@pytest.mark.parametrize("name", names())
def test_presets_have_the_gates_that_their_networks_name(name: str, folded: bool) -> None:
    network = get(name)
    found = find_gates(from_network(network, batch=2, fold_norm=folded))
    gated = [placed for placed in network.walk() if placed.block.attention is not None]
    assert [one.mul for one in found] == [f"{placed.name}.attention.mul" for placed in gated]
    windowed = [placed.block.attention is not None and placed.block.attention.window for placed in gated]
    assert [one.kind for one in found] == ["full" if own else "channel" for own in windowed]
    assert [one.block for one in found] == [placed.name for placed in gated]


@pytest.mark.parametrize(
    "module,kinds",
    [
        (ECA(True), ["channel"]),
        (ECA(False), ["channel"]),
        (ChannelGate(8), ["channel"]),
        (Spatial(7, *SPATIAL[0]), ["spatial"]),
        (Spatial(3, *SPATIAL[1]), ["spatial"]),
        (nn.Sequential(ChannelGate(8), Spatial(7, *SPATIAL[0])), ["channel", "spatial"]),
        (Coordinate(8, True), ["columns", "rows"]),
        (Coordinate(8, False), ["columns", "rows"]),
    ],
    ids=["eca", "eca line", "cbam channels", "spatial", "spatial by sums", "cbam", "coordinate", "coordinate by pools"],
)
def test_every_kind_in_torch_modules(module: nn.Module, kinds: list[str]) -> None:
    whole = nn.Sequential(nn.Conv2d(3, 8, 3), module, nn.Conv2d(8, 4, 1)).eval()
    graph, _ = from_torch(whole, (2, 3, 14, 11))
    found = find_gates(graph)
    assert [one.kind for one in found] == kinds
    for one in found:
        shape = graph.tensors[one.gate].shape
        assert np.broadcast_shapes(shape, graph.tensors[one.gated].shape) == graph.tensors[one.result].shape


class Full(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 3, 3, padding=1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x * torch.sigmoid(self.conv(x))


def test_a_gate_for_every_element() -> None:
    graph, _ = from_torch(Full(), (1, 3, 6, 6))
    (found,) = find_gates(graph)
    assert found.kind == "full"
    assert found.gated == graph.inputs[0]


def test_what_is_no_gate() -> None:
    build = Builder()
    x = build.conv("c", "c", build.input("x", (1, 8, 6, 6)), 8)
    swish = build.mul("swish", x, build.activation("s", x, "sigmoid"))
    left, right = (build.op(f"part{i}", Slice(1, 4 * i, 4 * i + 4), swish) for i in range(2))
    linear_unit = build.mul("glu", left, build.activation("g", right, "sigmoid"))
    other = build.mul("other", linear_unit, build.op("o", Activation("tanh"), build.conv("d", "d", left, 4)))
    assert find_gates(build.graph(build.mul("square", other, other))) == ()


def test_a_graph_cut_to_its_gates_computes_them() -> None:
    graph = from_network(
        get("mobilenetv3_small_050") if "mobilenetv3_small_050" in names() else get("mbconv_thumbnail")
    )
    wanted = [one.gate for one in find_gates(graph)]
    generator = np.random.default_rng(0)
    constants = {name: generator.uniform(0.1, 1, tensor.shape) / 8 for name, tensor in graph.constants.items()}
    image = {graph.inputs[0]: generator.normal(size=graph.tensors[graph.inputs[0]].shape)}
    part = cut(graph, wanted)
    assert len(part.ops) < len(graph.ops)
    assert part.outputs == tuple(wanted)
    assert set(part.constants) < set(graph.constants)
    from dataclasses import replace

    whole = run(replace(graph, outputs=tuple(wanted)), constants, image)
    for name, value in run(part, constants, image).items():
        assert np.array_equal(value, whole[name])
