"""Ends of layers and sums, by structure; graphs without gates, and gates without factors."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from random_modules import ECA, SE, SPATIAL, ChannelGate, Coordinate, Spatial
from random_networks import image, lively
from torch import Tensor, nn

from luthier.arch.presets import get
from luthier.cost import graph_macs, graph_params
from luthier.graph import fold_constants, fold_norm_into_conv, from_network
from luthier.graph.from_torch import from_torch, with_calls
from luthier.graph.gates import find_gates
from luthier.graph.reference import run
from luthier.graph.sites import find_sites
from luthier.graph.ungate import fold_gate_factors, ungate

Array = np.ndarray[Any, Any]
SHAPE = (1, 3, 9, 7)
GATES: dict[str, Callable[[], nn.Module]] = {
    "se": lambda: SE(8, lambda x: x.mean((2, 3), keepdim=True), torch.sigmoid, False),
    "eca": lambda: ECA(False),
    "spatial": lambda: Spatial(3, *SPATIAL[0]),
    "cbam": lambda: nn.Sequential(ChannelGate(8), Spatial(3, *SPATIAL[0])),
    "coordinate": lambda: Coordinate(8, True),
}


def value(graph: Any, constants: dict[str, Array], x: Array) -> Array:
    return run(graph, constants, {graph.inputs[0]: x})[graph.outputs[0]]


def stem() -> nn.Module:
    return nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU())


@pytest.mark.parametrize("name", GATES)
def test_ungated_is_the_network_without(name: str) -> None:
    first, last = stem(), nn.Conv2d(8, 4, 1)
    module = lively(nn.Sequential(first, GATES[name](), last), (2, *SHAPE[1:]), 0)
    graph, values = from_torch(module, SHAPE)
    bare, bare_values = from_torch(nn.Sequential(first, last), SHAPE)
    made = ungate(graph, {gate.mul for gate in find_gates(graph)})
    assert [(op.kind, op.attrs) for op in made.ops] == [(op.kind, op.attrs) for op in bare.ops]
    assert (graph_params(made), graph_macs(made)) == (graph_params(bare), graph_macs(bare))
    x = image(SHAPE, 1).astype(np.float64)
    assert np.array_equal(value(made, values, x), value(bare, bare_values, x))
    assert ungate(graph, ()) == graph


@pytest.mark.parametrize("name", GATES)
def test_sites_with_a_gate_are_marked(name: str) -> None:
    module = nn.Sequential(stem(), GATES[name](), nn.Conv2d(8, 4, 1))
    first, last = find_sites(from_torch(module, SHAPE)[0])
    assert (first.gated, last.gated) == (True, False)
    assert first.shape == (1, 8, 7, 5)
    assert len(first.tensors) == 3


def test_sums_close_blocks_and_so_do_depthwise_layers() -> None:
    found = find_sites(from_network(get("resnet50")))
    ends = [site.tensors[-1] for site in found if site.closes_block]
    assert len(ends) == 16
    assert all(end.endswith("project.norm") for end in ends)
    assert sum(site.kind == "sum" for site in found) == 16
    gated = find_sites(from_network(get("efficientnet_b0")))
    assert [site.gated for site in gated if site.closes_block] == [True] * 16
    assert all(site.closes_block for site in find_sites(from_network(get("vgg11_bn"))))


class Twice(nn.Module):
    """One module called twice, one that hands on its input, one that returns two tensors."""

    class Pair(nn.Module):
        def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
            return x + 1, x * 2

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.act, self.same, self.pair = nn.Conv2d(3, 3, 1), nn.Tanh(), nn.Identity(), self.Pair()

    def forward(self, x: Tensor) -> Tensor:
        a, b = self.pair(self.act(self.same(self.act(self.conv(x)))))
        return a + b


def test_modules_that_return_a_tensor() -> None:
    calls = with_calls(nn.Sequential(Twice(), nn.Conv2d(3, 2, 1)), SHAPE)[2]
    assert sorted(calls.values()) == [("0",), ("0.conv",), ("1",)]


@pytest.mark.parametrize("behind, folds", [
    (nn.Sequential(nn.Conv2d(8, 4, 3)), True),
    (nn.Sequential(nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(8, 4, 1)), True),
    (nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 4)), True),
    (nn.Sequential(nn.SiLU(), nn.Conv2d(8, 4, 1)), False),
    (nn.Sequential(nn.BatchNorm2d(8), nn.Conv2d(8, 4, 1)), False),
])  # fmt: skip
@pytest.mark.parametrize("name", ["se", "eca", "spatial"])
def test_factors_move_into_the_next_layer_exactly(name: str, behind: nn.Module, folds: bool) -> None:
    class Doubled(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.gate, self.behind = stem(), GATES[name](), behind

        def forward(self, x: Tensor) -> Tensor:
            x = self.first(x)
            return self.behind(
                x * (2 * torch.sigmoid(self.gate(x).mean(1 if name == "spatial" else (2, 3), keepdim=True)))
            )

    module = lively(Doubled(), (2, *SHAPE[1:]), 2)
    traced, values = from_torch(module, SHAPE)
    graph, constants = fold_norm_into_conv(traced), fold_constants(traced, values)
    made, changed = fold_gate_factors(graph, constants)
    assert len(graph.ops) - len(made.ops) == int(folds)
    assert sum(op.kind == "affine" for op in made.ops) == 1 - int(folds)
    x = image(SHAPE, 3).astype(np.float64)
    assert np.array_equal(value(made, changed, x), value(graph, constants, x))


def test_a_factor_stays_where_another_reads_the_product() -> None:
    class Shared(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b, self.c = nn.Conv2d(3, 8, 1), nn.Conv2d(8, 8, 1), nn.Conv2d(8, 8, 1)

        def forward(self, x: Tensor) -> Tensor:
            x = self.a(x)
            y = x * (2 * torch.sigmoid(x.mean((2, 3), keepdim=True)))
            return self.b(y) + self.c(y)

    graph, values = from_torch(Shared(), SHAPE)
    assert fold_gate_factors(graph, values)[0] == graph
