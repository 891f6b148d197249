"""Torch modules as graphs: random ones against torch itself, spellings that mean the same, and what is refused."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import timm
import torch
import torch.nn.functional as F
import torchvision
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from luthier.arch.presets import get
from luthier.cost import cost, graph_elementwise, graph_macs, graph_params, unknown_ops
from luthier.errors import GraphError, ShapeError, SpecError
from luthier.graph import Graph, fold_constants, fold_norm_into_conv
from luthier.graph import attrs as kinds
from luthier.graph.from_torch import from_torch
from luthier.graph.reference import run
from luthier.nn import build

Step = Callable[[Tensor], Tensor]


class Function(nn.Module):
    """A plain function of one tensor as a module."""

    def __init__(self, function: Step, **parts: nn.Module) -> None:
        super().__init__()
        self.function = function
        for name, part in parts.items():
            self.add_module(name, part)

    def forward(self, x: Tensor) -> Tensor:
        return self.function(x)


def read(function: Step | nn.Module, *shape: int, **options: Any) -> Graph:
    module = function if isinstance(function, nn.Module) else Function(function)
    return from_torch(module, shape, **options)[0]


def listed(function: Step | nn.Module, *shape: int) -> list[Any]:
    """The ops without the names."""
    return [op.attrs for op in read(function, *shape).ops]


def alive(module: nn.Module, shape: tuple[int, ...]) -> nn.Module:
    """float64, random numbers in every norm, statistics of random images."""
    module = module.double().train()
    with torch.no_grad():
        for part in module.modules():
            if isinstance(part, nn.BatchNorm2d):
                part.momentum = 1.0
                nn.init.uniform_(part.weight, 0.5, 1.5)
                nn.init.uniform_(part.bias, -0.5, 0.5)
        module(torch.randn(4, *shape[1:], dtype=torch.float64))
    return module.eval()


def check(module: nn.Module, shape: tuple[int, ...]) -> Graph:
    """reference.run of the graph, folded or not, computes what torch computes."""
    module = alive(module, shape)
    graph, values = from_torch(module, shape)
    x = torch.randn(shape, dtype=torch.float64)
    with torch.no_grad():
        want = module(x.clone()).numpy()
    inputs = {graph.inputs[0]: x.numpy()}
    got = run(graph, values, inputs)[graph.outputs[0]]
    folded = fold_norm_into_conv(graph)
    also = run(folded, fold_constants(graph, values), inputs)[folded.outputs[0]]
    # float64 sums in another order; a wrong op or operand changes the leading digits
    scale = np.abs(want).max() + 1e-12
    assert np.abs(got - want).max() <= 1e-9 * scale
    assert np.abs(also - want).max() <= 1e-9 * scale
    return graph


# -- random modules ----------------------------------------------------------------------------------------------------

SPELLINGS: dict[str, Step] = {
    "silu": F.silu, "x*sigmoid(x)": lambda x: x * torch.sigmoid(x), "sigmoid(x)*x": lambda x: x.sigmoid() * x,
    "hardswish": F.hardswish, "x*hardsigmoid": lambda x: x * F.hardsigmoid(x),
    "x*relu6(x+3)/6": lambda x: x * F.relu6(x + 3) / 6, "x/6*clamp": lambda x: x / 6 * torch.clamp(3 + x, 0, 6),
    "x*(relu6(x+3)/6)": lambda x: x * (F.relu6(x + 3) / 6), "x*clamp(x/6+.5)": lambda x: x * (x / 6 + 0.5).clamp(0, 1),
    "gelu": F.gelu, "gelu by erf": lambda x: 0.5 * x * (1 + torch.erf(x / math.sqrt(2))),
    "gelu by erf, other order": lambda x: x * ((torch.erf(x * math.sqrt(0.5)) + 1) * 0.5),
    "relu": F.relu, "clamp(min=0)": lambda x: x.clamp(min=0), "relu_": lambda x: (x + 0.0).relu_(),
    "relu6": F.relu6, "hardtanh": lambda x: F.hardtanh(x, 0, 6), "tanh": torch.tanh, "mish": F.mish,
    "leaky": lambda x: F.leaky_relu(x, 0.1), "elu": lambda x: F.elu(x, 0.7), "dropout": lambda x: F.dropout(x, 0.5, False),
    "affine": lambda x: 1.5 - 0.5 * x, "sub": lambda x: x.neg() - 0.25,
}  # fmt: skip
MEANS: list[Step] = [
    lambda x: x.mean((2, 3), keepdim=True),
    lambda x: F.adaptive_avg_pool2d(x, 1),
    lambda x: x.flatten(2).mean(-1)[:, :, None, None],
    lambda x: x.mean([-1, -2]).view(x.shape[0], -1, 1, 1),
]


class SE(nn.Module):
    """Squeeze and excitation with convolutions or linear layers, however the mean and the gate are written."""

    def __init__(self, channels: int, mean: Step, gate: Step, linear: bool) -> None:
        super().__init__()
        self.mean, self.gate, self.linear = mean, gate, linear
        self.reduce = nn.Linear(channels, 3) if linear else nn.Conv2d(channels, 3, 1)
        self.expand = nn.Linear(3, channels) if linear else nn.Conv2d(3, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        z = self.mean(x)
        z = z.flatten(1) if self.linear else z
        z = self.gate(self.expand(F.relu(self.reduce(z))))
        z = z.reshape(*z.shape, 1, 1).expand_as(x) if self.linear else z
        return z * x


class ECA(nn.Module):
    """Convolution over the channels, in the two ways in which it is usually written."""

    def __init__(self, transposed: bool) -> None:
        super().__init__()
        self.transposed = transposed
        self.conv = nn.Conv1d(1, 1, 3, padding=1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        if self.transposed:
            y = self.conv(F.adaptive_avg_pool2d(x, 1).squeeze(-1).transpose(-1, -2)).transpose(-1, -2).unsqueeze(-1)
            return x * torch.sigmoid(y).expand_as(x)
        y = x.mean((2, 3)).view(x.shape[0], 1, -1)
        return x * self.conv(y).sigmoid().view(x.shape[0], -1, 1, 1)


def shuffled(x: Tensor) -> Tensor:
    n, c, h, w = x.shape
    return x.view(n, 2, c // 2, h, w).transpose(1, 2).contiguous().view(n, c, h, w)


def half_changed(x: Tensor) -> Tensor:
    left, right = x.chunk(2, 1)
    return torch.cat((right, F.relu(left)), 1)


@st.composite
def steps(draw: st.DrawFn) -> nn.Module:
    """One part of a network, of 8 channels in and out."""
    pick = lambda *options: draw(st.sampled_from(options))  # noqa: E731
    kind = pick("conv", "conv", "residual", "spelling", "spelling", "se", "eca", "cat", "shuffle", "pool", "pad", "odd")
    if kind == "conv":
        groups, size = pick(1, 2, 8), pick(1, 3, 5)
        padding = pick("same", size // 2)
        bias, dilation = pick(True, False), pick(1, 2)
        conv = nn.Conv2d(8, 8, size, padding=padding, groups=groups, bias=bias, dilation=dilation if padding == "same" else 1)
        return nn.Sequential(conv, nn.BatchNorm2d(8)) if pick(True, False) else conv
    if kind == "residual":
        inner = draw(steps())
        return pick(Function(lambda x: x + inner(x), inner=inner), Function(lambda x: inner(x).add_(x), inner=inner))
    if kind == "spelling":
        return Function(SPELLINGS[pick(*SPELLINGS)])
    if kind == "se":
        return SE(8, pick(*MEANS), pick(torch.sigmoid, F.hardsigmoid, lambda z: F.relu6(z + 3) / 6), pick(True, False))
    if kind == "eca":
        return ECA(pick(True, False))
    if kind == "cat":
        return nn.Sequential(Function(lambda x: torch.cat([x, F.relu(x)], 1)), nn.Conv2d(16, 8, 1))
    if kind == "shuffle":
        return Function(pick(shuffled, half_changed, nn.ChannelShuffle(4)))
    if kind == "pool":
        ceil, size = pick(True, False), pick(2, 3)
        average = nn.AvgPool2d(size, 2, padding=size // 2, count_include_pad=False, ceil_mode=ceil)
        counted = nn.AvgPool2d(size, 1, padding=size // 2, count_include_pad=True)
        return pick(nn.MaxPool2d(size, 2, padding=size // 2, ceil_mode=ceil), average, counted, nn.AdaptiveAvgPool2d((5, 3)))
    if kind == "pad":
        value = pick(0.0, -math.inf)
        after = nn.Conv2d(8, 8, 3) if value == 0 else nn.MaxPool2d(3, 1)
        return nn.Sequential(Function(lambda x: F.pad(x, (1, 2, 0, 2), value=value)), after)
    return Function(
        pick(
            lambda x: F.pad(x[:, :, ::2, 1:], (0, 0, 1, 0, 1, 1))[:, 1:9],
            lambda x: F.interpolate(x, size=(9, 7)),
            lambda x: F.interpolate(x, size=(4, 11), mode="bilinear"),
            lambda x: torch.cat(torch.split(x, [3, 5], 1)[::-1], 1),
            lambda x: x[:, 2:3] * x,
            lambda x: x[:, [0]] if False else x.narrow(1, 0, 4).repeat(1, 1, 1, 1) if False else x * x[:, :, :1, :1],
        )
    )


HEADS: list[Callable[[], nn.Module]] = [
    lambda: nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Dropout(0.2), nn.Linear(8, 3)),
    lambda: nn.Sequential(Function(lambda x: x.mean((2, 3))), nn.Linear(8, 3, bias=False), nn.Softmax(1)),
    lambda: nn.Sequential(nn.AdaptiveAvgPool2d(2), nn.ReLU(), Function(lambda x: x.view(x.size(0), -1)), nn.Linear(32, 2)),
    lambda: nn.Sequential(nn.Conv2d(8, 4, 1), nn.AdaptiveMaxPool2d(1), nn.Flatten()),
]


@settings(max_examples=60)
@given(
    parts=st.lists(steps(), min_size=1, max_size=4),
    head=st.sampled_from(HEADS),
    size=st.tuples(st.integers(9, 12), st.integers(9, 12)),
    batch=st.integers(1, 2),
    seed=st.integers(0, 99),
)
def test_random_modules_compute_what_torch_computes(
    parts: list[nn.Module], head: Callable[[], nn.Module], size: tuple[int, int], batch: int, seed: int
) -> None:
    torch.manual_seed(seed)
    module = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), *parts, head())
    try:
        alive(module, (batch, 3, *size))
    except RuntimeError:
        return  # torch itself refuses: nothing is left of the map, or two sizes do not fit
    check(module, (batch, 3, *size))
