"""Attention spelled out as ordinary ops."""

from __future__ import annotations

import math
from typing import Final

from luthier.arch.block import Attention
from luthier.arch.network import Placed
from luthier.graph.attrs import (
    Activation,
    AdaptivePool,
    ChannelPool,
    Concat,
    Conv,
    GlobalPool,
    Pool,
    Reshape,
    Slice,
)
from luthier.graph.builder import Builder
from luthier.graph.op import Tensor

#: side of spatial attention's window, in pixels, where none is asked for
SPATIAL_WINDOW: Final = 7


def attend(builder: Builder, placed: Placed, tensor: str) -> str:
    """Gate `tensor` as the block's attention says.

    se        global average, or average over a window; 1x1 conv, activation, 1x1 conv; gate; multiply
    ese       likewise; 1x1 conv; gate; multiply
    eca       global average; convolution of kernel_size over the channels; gate; multiply
    spatial   mean and maximum of the channels; k x k conv, norm; gate; multiply
    cbam      global average and global maximum, each through the same 1x1 conv, activation, 1x1 conv; sum; gate;
              multiply; then spatial
    coord     averages of rows and of columns as one map of width 1; 1x1 conv, norm, activation; apart again, for each
              1x1 conv, gate; multiply by both
    """
    attention = placed.block.attention
    assert attention is not None
    part, key = f"{placed.name}.attention", f"stages.{placed.name}.attention"
    return _Attended(builder, placed, attention).of(part, key, tensor)


class _Attended:
    """Appends one attention; `part` names ops and `key` weights."""

    def __init__(self, builder: Builder, placed: Placed, attention: Attention) -> None:
        self.builder, self.attention = builder, attention
        self.in_channels, self.function = placed.in_channels, attention.activation or placed.activation

    def of(self, part: str, key: str, tensor: str) -> str:
        """The rescaled tensor."""
        build, kind = self.builder, self.attention.kind
        if kind == "spatial":
            return self.spatial(part, key, tensor)
        if kind == "cbam":
            return self.spatial(
                f"{part}.spatial", f"{key}.spatial", self.channel(f"{part}.channel", f"{key}.channel", tensor)
            )
        if kind == "coord":
            return self.coordinate(part, key, tensor)
        channels = build.shape(tensor)[1]
        gate = build.op(f"{part}.pool", self.means_over(), tensor)
        if kind == "se":
            gate = self.narrow(part, key, gate, channels, bias=True)
        elif kind == "ese":
            gate = build.conv(f"{part}.conv", f"{key}.conv", gate, channels, bias=True)
        else:
            gate = self.over_channels(part, key, gate, self.attention.kernel_size or eca_kernel_size(channels))
        return self.multiply(part, tensor, gate)

    def means_over(self) -> GlobalPool | Pool:
        """Of the whole map, or of a window about each pixel."""
        side = self.attention.window
        return GlobalPool() if side is None else Pool("avg", (side, side), (1, 1), (side // 2,) * 4)

    def multiply(self, part: str, tensor: str, z: str) -> str:
        """tensor * gate(z)."""
        return self.builder.mul(f"{part}.mul", tensor, self.gate(f"{part}.gate", z))

    def gate(self, name: str, z: str) -> str:
        return self.builder.op(name, Activation(self.attention.gate), z)

    def narrow(self, part: str, key: str, tensor: str, channels: int, *, bias: bool) -> str:
        """1x1 conv, activation, 1x1 conv."""
        reduced = self.attention.reduced(self.in_channels, channels)
        y = self.builder.conv(f"{part}.reduce", f"{key}.reduce", tensor, reduced, bias=bias)
        y = self.builder.activation(f"{part}.activation", y, self.function)
        return self.builder.conv(f"{part}.expand", f"{key}.expand", y, channels, bias=bias)

    def over_channels(self, part: str, key: str, tensor: str, kernel_size: int) -> str:
        """1-D convolution along C, as a k x 1 convolution of the reshaped (1, C, 1)."""
        build, side = self.builder, kernel_size // 2
        channels = build.shape(tensor)[1]
        weight = Tensor(f"{key}.conv.weight", (1, 1, kernel_size, 1), build.precision.weight)
        tensor = build.op(f"{part}.to_line", Reshape((1, channels, 1)), tensor)
        tensor = build.op(f"{part}.conv", Conv(pads=(side, 0, side, 0)), tensor, constants={"weight": weight})
        return build.op(f"{part}.to_channels", Reshape((channels, 1, 1)), tensor)

    def spatial(self, part: str, key: str, tensor: str) -> str:
        build, window = self.builder, self.attention.kernel_size or SPATIAL_WINDOW
        mean = build.op(f"{part}.mean", ChannelPool("avg"), tensor)
        largest = build.op(f"{part}.max", ChannelPool("max"), tensor)
        both = build.op(f"{part}.concat", Concat(1), mean, largest)
        z = build.conv_norm(f"{part}.blend", f"{key}.blend", both, 1, kernel_size=window)
        return self.multiply(part, tensor, z)

    def channel(self, part: str, key: str, tensor: str) -> str:
        build, channels = self.builder, self.builder.shape(tensor)[1]
        sides = list[str]()
        for pool in (GlobalPool("avg"), GlobalPool("max")):
            pooled = build.op(f"{part}.{pool.reduce}.pool", pool, tensor)
            sides.append(self.narrow(f"{part}.{pool.reduce}", key, pooled, channels, bias=False))
        return self.multiply(part, tensor, build.add(f"{part}.add", *sides))

    def coordinate(self, part: str, key: str, tensor: str) -> str:
        build = self.builder
        channels, height, width = build.shape(tensor)[1:]
        reduced = self.attention.reduced(self.in_channels, channels)
        rows = self.means(f"{part}.rows.pool", tensor, (height, 1))
        columns = self.turned(f"{part}.columns.down", self.means(f"{part}.columns.pool", tensor, (1, width)))
        both = build.op(f"{part}.concat", Concat(2), rows, columns)
        both = build.conv_norm(f"{part}.reduce", f"{key}.reduce", both, reduced)
        both = build.activation(f"{part}.activation", both, self.function)
        rows = build.op(f"{part}.rows.slice", Slice(2, 0, height), both)
        columns = build.op(f"{part}.columns.slice", Slice(2, height, height + width), both)
        columns = self.turned(f"{part}.columns.across", columns)
        rows = self.gate(f"{part}.rows.gate", build.conv(f"{part}.rows", f"{key}.rows", rows, channels))
        columns = self.gate(f"{part}.columns.gate", build.conv(f"{part}.columns", f"{key}.columns", columns, channels))
        return build.mul(f"{part}.mul", build.mul(f"{part}.columns.mul", tensor, columns), rows)

    def means(self, name: str, tensor: str, out_hw: tuple[int, int]) -> str:
        return self.builder.op(name, GlobalPool() if out_hw == (1, 1) else AdaptivePool(out_hw), tensor)

    def turned(self, name: str, tensor: str) -> str:
        """A row as a column, or back: one axis has one element, so nothing moves."""
        channels, height, width = self.builder.shape(tensor)[1:]
        if height == width == 1:
            return tensor
        return self.builder.op(name, Reshape((channels, width, height)), tensor)


def eca_kernel_size(channels: int) -> int:
    """Window of ECA for a number of channels: t, or the odd number above it, at least 3.

        t = floor((log2(C) + 1) / 2)                                                                 (1)

    Source:
        Wang et al. 2020, arXiv:1910.03151, equation 12, gamma = 2, b = 1.
    Example:
        >>> [eca_kernel_size(channels) for channels in (8, 64, 512, 2048)]
        [3, 3, 5, 7]
    """
    size = int((math.log2(channels) + 1) / 2)
    return max(3, size if size % 2 else size + 1)
