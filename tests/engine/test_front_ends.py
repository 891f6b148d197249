"""However a network is written, and whichever way it comes in, the engine makes the same plan of it."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from random_modules import ECA, SPATIAL, ChannelGate, Coordinate, Function, Spatial
from random_networks import built, image, lively
from tests.engine.numbers import exact, relative_error
from torch import Tensor, nn

from luthier.arch import Attention, Block, Head, Network, Stage
from luthier.deploy.onnx_file import to_onnx
from luthier.engine import Plan, compile
from luthier.errors import InputError
from luthier.graph import Graph, fold_constants, fold_norm_into_conv, from_network, take_constants
from luthier.graph.from_onnx import from_onnx
from luthier.graph.from_torch import from_torch

Array = np.ndarray[Any, Any]
TOLERANCE = 1e-5


@pytest.fixture(autouse=True)
def own_cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LUTHIER_CACHE", str(tmp_path_factory.getbasetemp() / "cache"))


def planned(graph: Graph, values: dict[str, Array]) -> tuple[Plan, Graph, dict[str, Array]]:
    folded = fold_constants(graph, {name: np.asarray(value, np.float64) for name, value in values.items()})
    constants = {name: value.astype(np.float32) for name, value in folded.items()}
    graph = fold_norm_into_conv(graph)
    return compile(graph, constants), graph, constants


def kernels(plan: Plan) -> list[str]:
    """What runs, in order; kernels of one shape in two places are one function."""
    return [record.function for record in plan.image.records]


# -- three ways in -------------------------------------------------------------------------------------------------


def exported(module: nn.Module, shape: tuple[int, ...], path: Path) -> Path:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the exporter's own
        torch.onnx.export(module, (torch.zeros(shape),), str(path), dynamo=True, external_data=False, verbose=False)
    return path


def test_network_module_and_onnx_give_one_plan(tmp_path: Path) -> None:
    network = Network(
        name="small",
        stages=(
            Stage(name="stem", blocks=(Block(kind="conv", out_channels=8, stride=2),)),
            Stage(name="body", blocks=(
                Block(kind="mbconv", out_channels=8, expand_ratio=3, kernel_size=5, attention=Attention()),
                Block(kind="mbconv", out_channels=12, expand_ratio=3, stride=2, attention=Attention(kind="eca")),
            )),
        ),
        head=Head(num_classes=5, conv_channels=20), activation="hard_swish", channel_divisor=1,
    )  # fmt: skip
    shape = (1, 3, 20, 18)
    module, state = built(network, shape[2:], 1)
    graph = from_network(network, resolution=shape[2:])
    values = take_constants(graph, state)
    routes = {
        "network": (graph, values),
        "module": from_torch(module, shape),
        "our own file": from_onnx(to_onnx(graph, {name: np.float32(value) for name, value in values.items()})),
        "torch's file": from_onnx(exported(module.float(), shape, tmp_path / "m.onnx")),
    }
    x = image(shape, 2)
    plans = {route: planned(*made)[0] for route, made in routes.items()}
    assert sum(len(record.ops) >= 4 for record in plans["network"].image.records) >= 2  # bands of two convolutions
    first, wanted = kernels(plans["network"]), plans["network"](x)
    for route, plan in plans.items():
        assert kernels(plan) == first, route
        # torch's exporter folds norms in single precision
        assert relative_error(plan(x), wanted) <= (1e-6 if route == "torch's file" else 0), route


# -- one block, written in many ways -------------------------------------------------------------------------------


class Plain(nn.Module):
    """Inverted bottleneck with squeeze-and-excitation, as most people write it."""

    def __init__(self) -> None:
        super().__init__()
        self.expand = nn.Sequential(nn.Conv2d(8, 24, 1, bias=False), nn.BatchNorm2d(24), nn.SiLU())
        self.depthwise = nn.Sequential(
            nn.Conv2d(24, 24, 3, padding=1, groups=24, bias=False), nn.BatchNorm2d(24), nn.SiLU()
        )
        self.squeeze, self.excite = nn.Conv2d(24, 4, 1), nn.Conv2d(4, 24, 1)
        self.project = nn.Sequential(nn.Conv2d(24, 8, 1, bias=False), nn.BatchNorm2d(8))

    def gate(self, y: Tensor) -> Tensor:
        return torch.sigmoid(self.excite(F.silu(self.squeeze(F.adaptive_avg_pool2d(y, 1)))))

    def forward(self, x: Tensor) -> Tensor:
        y = self.depthwise(self.expand(x))
        return self.project(y * self.gate(y)) + x


class MeanOfAxes(Plain):
    def gate(self, y: Tensor) -> Tensor:
        return self.excite(F.silu(self.squeeze(y.mean((2, 3), keepdim=True)))).sigmoid().expand_as(y)


class LinearLayers(Plain):
    """Average, flatten, two linear layers, view."""

    def gate(self, y: Tensor) -> Tensor:
        z = nn.AdaptiveAvgPool2d(1)(y).flatten(1)
        z = F.silu(F.linear(z, self.squeeze.weight.flatten(1), self.squeeze.bias))
        return F.linear(z, self.excite.weight.flatten(1), self.excite.bias).sigmoid().view(y.shape[0], -1, 1, 1)


class LinearOnMean(LinearLayers):
    def gate(self, y: Tensor) -> Tensor:
        z = F.linear(y.mean([-1, -2]), self.squeeze.weight[:, :, 0, 0], self.squeeze.bias)
        z = F.linear(z * z.sigmoid(), self.excite.weight[:, :, 0, 0], self.excite.bias)
        return torch.sigmoid(z)[:, :, None, None]


class Functional(Plain):
    """No module is called; the sum is the other way round and so is the product."""

    def forward(self, x: Tensor) -> Tensor:
        y = x
        for part, padding, groups in ((self.expand, 0, 1), (self.depthwise, 1, 24)):
            conv, norm = part[0], part[1]
            y = F.conv2d(y, conv.weight, None, 1, padding, 1, groups)
            y = F.batch_norm(y, norm.running_mean, norm.running_var, norm.weight, norm.bias, False, 0.1, norm.eps)
            y = y * y.sigmoid()
        return x + self.project(self.gate(y) * y)


class Renamed(nn.Module):
    """Plain's parts under other names, in another order."""

    def __init__(self, plain: Plain) -> None:
        super().__init__()
        self.z = plain.project
        self.layers = nn.ModuleDict({"q": plain.excite, "b": plain.depthwise, "k": plain.squeeze, "a": plain.expand})

    def forward(self, x: Tensor) -> Tensor:
        y = self.layers["b"](self.layers["a"](x))
        scale = self.layers["q"](F.silu(self.layers["k"](F.avg_pool2d(y, y.shape[2:]))))
        return self.z(y.mul(scale.sigmoid())).add(x)


@pytest.mark.parametrize("kind", [MeanOfAxes, LinearLayers, LinearOnMean, Functional, Renamed])
def test_one_block_in_many_spellings_is_one_plan(kind: Callable[..., nn.Module]) -> None:
    shape = (2, 8, 9, 11)
    plain = lively(Plain(), shape, 0)
    assert isinstance(plain, Plain)
    other = Renamed(plain) if kind is Renamed else kind()
    if kind is not Renamed:
        other.load_state_dict(plain.state_dict())
    first, graph, constants = planned(*from_torch(plain, shape))
    second, *_ = planned(*from_torch(other.double().eval(), shape))
    x = image(shape, 1)
    assert kernels(second) == kernels(first)
    assert len(kernels(first)) == 6  # input, expansion with depthwise, mean, two layers of the gate, gated projection
    assert np.array_equal(first(x), second(x))
    assert relative_error(first(x), exact(graph, constants, x)) <= TOLERANCE


# -- attention that is not squeeze-and-excitation ------------------------------------------------------------------


@pytest.mark.parametrize("make", [
    lambda: ECA(True), lambda: ECA(False), lambda: Spatial(7, *SPATIAL[0]), lambda: Spatial(3, *SPATIAL[1]),
    lambda: nn.Sequential(ChannelGate(20), Spatial(7, *SPATIAL[0])), lambda: Coordinate(20, True),
    lambda: Coordinate(20, False),
], ids=["eca", "eca as a line", "spatial", "spatial by sums", "cbam", "coordinate", "coordinate by pools"])  # fmt: skip
def test_attention(make: Callable[[], nn.Module]) -> None:
    shape = (2, 20, 9, 6)
    module = lively(nn.Sequential(nn.Conv2d(20, 20, 3, padding=1), make(), nn.Conv2d(20, 5, 1)), shape, 3)
    plan, graph, constants = planned(*from_torch(module, shape))
    x = image(shape, 4)
    with torch.no_grad():
        truth = module(torch.from_numpy(x).double()).numpy()
    assert relative_error(exact(graph, constants, x), truth) <= 1e-6  # constants are rounded once
    assert relative_error(plan(x), truth) <= TOLERANCE


@pytest.mark.parametrize("change", [
    lambda x: x * x[:, :, :1, :1], lambda x: x + x[:, :1], lambda x: x * x[:, :, :, :1], lambda x: x + x[:, :, :1],
    lambda x: x[:, :, :1] * x[:, :, :, :1], lambda x: x[:, :, :1, :1] + x[:, :1],
    lambda x: F.interpolate(x, size=(13, 5)), lambda x: F.interpolate(x, scale_factor=2, mode="bilinear"),
    lambda x: torch.cat([x, x.mean(2, keepdim=True)], 2), lambda x: torch.cat([x.amax(3, keepdim=True), x], 3),
    lambda x: F.elu(x, 0.7) + F.leaky_relu(x, 0.2), lambda x: F.softmax(x, 1) + torch.tanh(x),
])  # fmt: skip
def test_broadcasts_and_odd_ops(change: Callable[[Tensor], Tensor]) -> None:
    shape = (2, 20, 9, 6)
    module = lively(nn.Sequential(nn.Conv2d(20, 20, 1), Function(change), nn.Conv2d(20, 5, 1)), shape, 3)
    plan, *_ = planned(*from_torch(module, shape))
    x = image(shape, 4)
    with torch.no_grad():
        assert relative_error(plan(x), module(torch.from_numpy(x).double()).numpy()) <= TOLERANCE


def test_an_op_that_the_engine_lacks_is_named_with_its_layer() -> None:
    class Odd(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return torch.fft.fft2(x).real

    class Whole(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.stem, self.spectrum = nn.Conv2d(3, 4, 1), Odd()

        def forward(self, x: Tensor) -> Tensor:
            return self.spectrum(self.stem(x))

    graph, values = from_torch(Whole(), (1, 3, 4, 4), lenient=True)
    with pytest.raises(InputError, match=r"^engine: spectrum\.fft_fft2: op unknown \(aten\.fft_fft2\) .*") as caught:
        compile(graph, values)
    assert "\n" not in str(caught.value)
