"""Small graphs to calibrate with: short chains of the layers that CNNs are made of, at drawn sizes.

No published network is among them, so that published networks can judge the calibration.  Chains, not single layers: a
layer finds its input where the layer before it left it, as it does in a network.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from itertools import count, islice
from random import Random
from typing import Final

from luthier.arch.block import Activation as Function
from luthier.cost.macs import graph_macs
from luthier.graph.attrs import Activation, AdaptivePool, Concat, GlobalPool, Pad, Pool, Subsample
from luthier.graph.builder import Builder
from luthier.graph.op import Graph

#: sides of the maps in turn: from the last stage of a network to the first of a large one
SIDES: Final = (7, 14, 28, 56, 112, 14, 28, 56, 10, 200)
_FUNCTIONS: Final[tuple[Function, ...]] = ("relu", "relu6", "silu", "silu", "hard_swish")
_BLOCKS: Final = ("mbconv", "mbconv", "mbconv", "mbconv", "dense", "basic", "fused", "bottleneck", "pool")
#: channels times side, as published networks have it: from MobileNets at half width to VGG
_CHANNELS_TIMES_SIDE: Final = (300, 4500)
_MAX_MACS: Final = 300_000_000


def chain(seed: int) -> Graph:
    """Three blocks, a global pool and a classifier, drawn by the seed.

    Example:
        >>> chain(0) == chain(0), chain(0).tensors["input"].shape[2]
        (True, 7)
    """
    draw = Random(seed)
    side = SIDES[seed % len(SIDES)]
    build = Builder()
    if draw.random() < 0.25:
        x = build.input("input", (1, 3, 2 * side, 2 * side))
        width, kernel = draw.choice((16, 24, 32, 40, 48, 64)), draw.choice((3, 3, 7))
        x = _conv(build, "stem", x, width, draw.choice(_FUNCTIONS), kernel_size=kernel, stride=2)
    else:
        x = build.input("input", (1, _width(draw, side), side, side))
    for index in range(3):
        if build.shape(x)[2] >= 4:
            x = _block(build, draw, f"block{index}", x)
    x = build.flatten("flatten", build.op("pool", GlobalPool(), x))
    return build.graph(build.linear("classifier", "classifier", x, draw.choice((10, 100, 1000, 1000, 4096))))


def assortment(channels: int, side: int) -> Graph:
    """The kernels that chains leave out: lone activations, grouped convolution, concat, padding, matrix products."""
    build = Builder()
    first = x = build.conv("first", "first", build.input("input", (1, channels, side, side)), channels, kernel_size=3)
    functions: tuple[Function, ...] = ("relu", "sigmoid", "hard_sigmoid", "gelu", "silu", "hard_swish", "relu6")
    for function in functions:  # read twice, so that the convolution cannot swallow it
        x = build.add(f"{function}.sum", build.op(function, Activation(function), x), x)
    x = build.mul("product", x, build.activation("gate", first, "sigmoid"))
    x = build.norm("norm", "norm", x)
    x = build.conv("grouped", "grouped", x, channels, kernel_size=3, groups=channels // 4, bias=True)
    x = build.op("concat", Concat(), x, build.op("grouped.act", Activation("sigmoid"), x))
    x = build.op("subsample", Subsample((2, 2)), build.op("pad", Pad(4, 4), x))
    x = build.op("average", Pool("avg", (3, 3), (1, 1), (1, 1, 1, 1)), x)
    x = build.flatten("flatten", build.op("adaptive", AdaptivePool((3, 3)), x))
    x = build.activation("hidden.act", build.linear("hidden", "hidden", x, 256), "hard_swish")
    return build.graph(build.linear("classifier", "classifier", x, 100))


def wide_layers() -> Graph:
    """Linear layers whose weights no second-level cache holds."""
    build = Builder()
    x = build.linear("first", "first", build.input("input", (1, 4096)), 4096)
    return build.graph(build.linear("second", "second", build.activation("act", x, "relu"), 2048))


def calibration_set(chains: int = 60) -> Iterator[Graph]:
    """All graphs of a calibration, the rare kernels first."""
    yield from (assortment(32, 28), assortment(72, 14), assortment(16, 80), wide_layers())
    drawn = (chain(seed) for seed in count())
    yield from islice((graph for graph in drawn if graph_macs(graph) <= _MAX_MACS), chains)


def _width(draw: Random, side: int) -> int:
    low, high = map(math.log, _CHANNELS_TIMES_SIDE)
    channels = math.exp(draw.uniform(low, high)) / side
    step = 8 if draw.random() < 0.7 else 4
    return int(min(max(8, step * round(channels / step)), 1536))


def _conv(
    build: Builder, name: str, x: str, width: int, function: Function | None = None, *, kernel_size: int = 1,
    stride: int = 1, groups: int = 1,
) -> str:  # fmt: skip
    x = build.conv(name, name, x, width, kernel_size=kernel_size, stride=stride, groups=groups, bias=True)
    return build.activation(f"{name}.act", x, function) if function else x


def _squeeze(build: Builder, name: str, x: str, reduced: int, function: Function) -> str:
    gate = build.op(f"{name}.pool", GlobalPool(), x)
    gate = _conv(build, f"{name}.reduce", gate, reduced, function)
    last: Function = "hard_sigmoid" if function == "hard_swish" else "sigmoid"
    return build.mul(f"{name}.gate", x, _conv(build, f"{name}.expand", gate, build.shape(x)[1], last))


def _block(build: Builder, draw: Random, name: str, x: str) -> str:
    _, channels, side, _ = build.shape(x)
    kind, function = draw.choice(_BLOCKS), draw.choice(_FUNCTIONS)
    stride = 2 if draw.random() < 0.25 else 1
    width = channels if stride == 1 and draw.random() < 0.5 else _width(draw, side // stride)
    expand, kernel = draw.choice((1, 3, 4, 6)), draw.choice((3, 5, 3, 5, 7))
    if kind == "pool":
        pools = Pool("max", (3, 3), (2, 2), (1, 1, 1, 1)), Pool("max", (2, 2), (2, 2)), Pool("avg", (2, 2), (2, 2))
        return build.op(name, draw.choice(pools), x)
    if kind == "dense":
        return _conv(build, name, x, width, function, kernel_size=3, stride=stride)
    y = x
    if kind == "mbconv":
        inner = channels * expand
        y = _conv(build, f"{name}.expand", y, inner, function) if expand > 1 else y
        y = _conv(build, f"{name}.depthwise", y, inner, function, kernel_size=kernel, stride=stride, groups=inner)
        if draw.random() < 0.5:
            y = _squeeze(build, f"{name}.se", y, max(4, draw.choice((channels, inner)) // 4), function)
    elif kind == "fused":
        y = _conv(build, f"{name}.expand", y, channels * max(3, expand), function, kernel_size=3, stride=stride)
    elif kind == "basic":
        y = _conv(build, f"{name}.first", y, width, function, kernel_size=3, stride=stride)
    else:
        y = _conv(build, f"{name}.reduce", y, max(8, width // 16 * 4), function)
        y = _conv(build, f"{name}.spatial", y, build.shape(y)[1], function, kernel_size=3, stride=stride)
    y = _conv(build, f"{name}.project", y, width, kernel_size=3 if kind == "basic" else 1)
    if kind == "bottleneck" and draw.random() < 0.4:
        y = _squeeze(build, f"{name}.se", y, max(4, width // 16), "relu")
    if width == channels and stride == 1:
        y = build.add(f"{name}.sum", y, x)
    return build.activation(f"{name}.act", y, "relu") if kind in ("basic", "bottleneck") else y
