"""Random torch modules as people write them: any spelling, any names, any attention."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from hypothesis import strategies as st
from torch import Tensor, nn

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


SPELLINGS: dict[str, Step] = {
    "silu": F.silu, "x*sigmoid(x)": lambda x: x * torch.sigmoid(x), "sigmoid(x)*x": lambda x: x.sigmoid() * x,
    "hardswish": F.hardswish, "x*hardsigmoid": lambda x: x * F.hardsigmoid(x),
    "x*relu6(x+3)/6": lambda x: x * F.relu6(x + 3) / 6, "x/6*clamp": lambda x: x / 6 * torch.clamp(3 + x, 0, 6),
    "x*(relu6(x+3)/6)": lambda x: x * (F.relu6(x + 3) / 6), "x*clamp(x/6+.5)": lambda x: x * (x / 6 + 0.5).clamp(0, 1),
    "gelu": F.gelu, "gelu by erf": lambda x: 0.5 * x * (1 + torch.erf(x / math.sqrt(2))),
    "gelu by erf, other order": lambda x: x * ((torch.erf(x * math.sqrt(0.5)) + 1) * 0.5),
    "relu": F.relu, "clamp(min=0)": lambda x: x.clamp(min=0), "relu_": lambda x: (x + 0.0).relu_(),
    "relu6": F.relu6, "hardtanh": lambda x: F.hardtanh(x, 0, 6), "tanh": torch.tanh, "mish": F.mish,
    "leaky": lambda x: F.leaky_relu(x, 0.1), "elu": lambda x: F.elu(x, 0.7), "softplus": F.softplus,
    "x*tanh(softplus(x))": lambda x: x * F.softplus(x).tanh(), "idle": lambda x: F.dropout(x, 0.5, False),
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


class Spatial(nn.Module):
    """Attention over places: mean and maximum of the channels, a convolution, a gate for all channels (CBAM's half)."""

    def __init__(self, size: int, mean: Step, largest: Step) -> None:
        super().__init__()
        self.mean, self.largest = mean, largest
        self.blend = nn.Conv2d(2, 1, size, padding=size // 2, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return x * self.blend(torch.cat([self.mean(x), self.largest(x)], 1)).sigmoid()


class ChannelGate(nn.Module):
    """CBAM's other half: one small network for the mean and the maximum of each channel."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.shared = nn.Sequential(nn.Conv2d(channels, 2, 1, bias=False), nn.ReLU(), nn.Conv2d(2, channels, 1))

    def forward(self, x: Tensor) -> Tensor:
        return x * torch.sigmoid(self.shared(F.adaptive_avg_pool2d(x, 1)) + self.shared(F.adaptive_max_pool2d(x, 1)))


class Coordinate(nn.Module):
    """Coordinate attention (Hou et al. 2021, arXiv:2103.02907): a gate per row and one per column."""

    def __init__(self, channels: int, mean: bool) -> None:
        super().__init__()
        self.mean = mean
        self.joint = nn.Sequential(nn.Conv2d(channels, 3, 1), nn.BatchNorm2d(3), nn.Hardswish())
        self.rows, self.columns = nn.Conv2d(3, channels, 1), nn.Conv2d(3, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        h, w = x.shape[2:]
        rows = x.mean(3, keepdim=True) if self.mean else F.adaptive_avg_pool2d(x, (h, 1))
        columns = x.mean(2, keepdim=True) if self.mean else F.adaptive_avg_pool2d(x, (1, w))
        joint = self.joint(torch.cat([rows, columns.permute(0, 1, 3, 2)], 2))
        rows, columns = torch.split(joint, [h, w], 2)
        return x * self.columns(columns.permute(0, 1, 3, 2)).sigmoid() * self.rows(rows).sigmoid()


SPATIAL: list[tuple[Step, Step]] = [
    (lambda x: x.mean(1, keepdim=True), lambda x: x.max(1, keepdim=True)[0]),
    (lambda x: x.sum(1, keepdim=True) / x.shape[1], lambda x: x.amax(1).unsqueeze(1)),
]


def shuffled(x: Tensor) -> Tensor:
    n, c, h, w = x.shape
    return x.view(n, 2, c // 2, h, w).transpose(1, 2).contiguous().view(n, c, h, w)


def half_changed(x: Tensor) -> Tensor:
    left, right = x.chunk(2, 1)
    return torch.cat((right, F.relu(left)), 1)


@st.composite
def attentions(draw: st.DrawFn, channels: int) -> nn.Module:
    """A gate of any kind, in any spelling; more than half are squeeze-and-excitation."""
    pick = lambda *options: draw(st.sampled_from(options))  # noqa: E731
    kind = pick("se", "se", "se", "se", "se", "eca", "spatial", "cbam", "coordinate")
    if kind == "se":
        gate = pick(torch.sigmoid, F.hardsigmoid, lambda z: F.relu6(z + 3) / 6)
        return SE(channels, pick(*MEANS), gate, pick(True, False))
    if kind == "eca":
        return ECA(pick(True, False))
    if kind == "coordinate":
        return Coordinate(channels, pick(True, False))
    spatial = Spatial(pick(3, 7), *pick(*SPATIAL))
    return spatial if kind == "spatial" else nn.Sequential(ChannelGate(channels), spatial)


@st.composite
def convs(draw: st.DrawFn, inside: int, out: int, window: tuple[int, int], groups: int, stride: int) -> nn.Module:
    """A convolution with any padding that keeps the map (up to the stride), and perhaps a norm."""
    pick = lambda *options: draw(st.sampled_from(options))  # noqa: E731
    dilation = pick(1, 1, 1, 2) if stride == 1 else 1
    reach = [dilation * (size - 1) for size in window]
    before = [draw(st.integers(r // 2, (r + 1) // 2)) if stride == 1 else draw(st.integers(0, r)) for r in reach]
    pads = (before[1], reach[1] - before[1], before[0], reach[0] - before[0])
    how: dict[str, object] = {"groups": groups, "stride": stride, "dilation": dilation, "bias": pick(True, False)}
    if before[0] * 2 == reach[0] and before[1] * 2 == reach[1]:
        layers: list[nn.Module] = [nn.Conv2d(inside, out, window, padding=tuple(before), **how)]  # type: ignore[arg-type]
    else:
        layers = [nn.ZeroPad2d(pads), nn.Conv2d(inside, out, window, **how)]  # type: ignore[arg-type]
    return nn.Sequential(*layers, *([nn.BatchNorm2d(out)] if pick(True, True, False) else []))


@st.composite
def mbconvs(draw: st.DrawFn, inside: int, out: int) -> nn.Module:
    """An inverted bottleneck: any window, stride, expansion, activation; attention at any place; any names."""
    pick = lambda *options: draw(st.sampled_from(options))  # noqa: E731
    wide = max(2, int(inside * pick(1, 1.5, 2, 3, 4)))
    stride, window = pick(1, 1, 1, 2), (pick(1, 2, 3, 3, 5, 7), pick(1, 3, 3, 4, 5))
    act = lambda: Function(SPELLINGS[pick(*SPELLINGS)])  # noqa: E731
    layers = [draw(convs(inside, wide, (1, 1), 1, 1)), act(), draw(convs(wide, wide, window, wide, stride)), act()]
    layers.append(draw(convs(wide, out, (1, 1), 1, 1)))
    place = pick(4, 4, 4, 2, 5, None)
    if place is not None:
        layers.insert(place, draw(attentions(out if place == 5 else wide)))
    names = [f"{pick('a', 'block', 'layer', 'x9')}_{index}" for index in range(len(layers))]
    body = nn.Sequential()
    for name, layer in zip(names, layers, strict=True):
        body.add_module(name, layer)
    keeps = inside == out and stride == 1
    return Function(lambda x: body(x) + x, body=body) if keeps and pick(True, False) else body


@st.composite
def steps(draw: st.DrawFn, channels: int = 8) -> nn.Module:
    """One part of a network, of an even number of channels in and out."""
    pick = lambda *options: draw(st.sampled_from(options))  # noqa: E731
    kind = pick(
        "mbconv", "mbconv", "mbconv", "mbconv", "conv", "conv", "residual", "spelling", "attention", "attention",
        "cat", "shuffle", "pool", "pad", "odd",
    )  # fmt: skip
    if kind == "conv":
        window, groups = (pick(1, 2, 3, 5), pick(1, 3, 5)), pick(1, 2, channels // 2, channels)
        return draw(convs(channels, channels, window, groups, pick(1, 1, 2)))
    if kind == "mbconv":
        return draw(mbconvs(channels, channels))
    if kind == "residual":
        inner = draw(steps(channels))
        return pick(Function(lambda x: x + inner(x), inner=inner), Function(lambda x: inner(x).add_(x), inner=inner))
    if kind == "spelling":
        return Function(SPELLINGS[pick(*SPELLINGS)])
    if kind == "attention":
        return draw(attentions(channels))
    if kind == "cat":
        other = draw(st.one_of(st.just(nn.ReLU()), convs(channels, channels, (3, 3), 1, 1)))
        join = nn.Conv2d(2 * channels, channels, 1)
        return nn.Sequential(Function(lambda x: torch.cat([x, other(x)], 1), other=other), join)
    if kind == "shuffle":
        return Function(pick(shuffled, half_changed, nn.ChannelShuffle(2)))
    if kind == "pool":
        ceil, size = pick(True, False), pick(2, 3)
        average = nn.AvgPool2d(size, 2, padding=size // 2, count_include_pad=False, ceil_mode=ceil)
        counted = nn.AvgPool2d(size, 1, padding=size // 2, count_include_pad=True)
        return pick(
            nn.MaxPool2d(size, 2, padding=size // 2, ceil_mode=ceil), average, counted, nn.AdaptiveAvgPool2d((5, 3))
        )
    if kind == "pad":
        value = pick(0.0, -math.inf)
        after = nn.Conv2d(channels, channels, 3) if value == 0 else nn.MaxPool2d(3, 1)
        return nn.Sequential(Function(lambda x: F.pad(x, (1, 2, 0, 2), value=value)), after)
    return Function(
        pick(
            lambda x: F.pad(x[:, :, ::2, 1:], (0, 0, 1, 0, 1, 1))[:, 1 : x.shape[1] + 1],
            lambda x: F.interpolate(x, size=(9, 7)),
            lambda x: F.interpolate(x, size=(4, 11), mode="bilinear"),
            lambda x: torch.cat(torch.split(x, [3, x.shape[1] - 3], 1)[::-1], 1),
            lambda x: x[:, 2:3] * x,
            lambda x: x * x[:, :, :1, :1],
            lambda x: x * x[:, :, :1] + x[:, :, :, :1],
            lambda x: x[:, :, :1] * x[:, :, :, :1],
            lambda x: x.mean((2, 3), keepdim=True) + x.amax(1, keepdim=True),
            lambda x: torch.cat([x, x.mean(3, keepdim=True).expand(-1, -1, -1, 2)], 3),
            lambda x: x * (x.sum(1, keepdim=True) / x.shape[1]),
            lambda x: F.adaptive_max_pool2d(x, (x.shape[2], 1)) + x,
            lambda x: F.softmax(x, 1),
        )
    )


HEADS: list[Callable[[int], nn.Module]] = [
    lambda c: nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Dropout(0.2), nn.Linear(c, 3)),
    lambda c: nn.Sequential(Function(lambda x: x.mean((2, 3))), nn.Linear(c, 3, bias=False), nn.Softmax(1)),
    lambda c: nn.Sequential(
        nn.AdaptiveAvgPool2d(2), nn.ReLU(), Function(lambda x: x.view(x.size(0), -1)), nn.Linear(4 * c, 2)
    ),
    lambda c: nn.Sequential(nn.Conv2d(c, 4, 1), nn.AdaptiveMaxPool2d(1), nn.Flatten()),
]


@st.composite
def modules(draw: st.DrawFn, widths: tuple[int, ...] = (8,), least: int = 1) -> nn.Module:
    """A whole network of three input channels."""
    channels = draw(st.sampled_from(widths))
    parts = draw(st.lists(steps(channels), min_size=least, max_size=4))
    return nn.Sequential(nn.Conv2d(3, channels, 3, padding=1), *parts, draw(st.sampled_from(HEADS))(channels))
