"""Attention spelled out as ordinary ops."""

from __future__ import annotations

import math

from luthier.arch.network import Network, Placed
from luthier.errors import SpecError
from luthier.graph.attrs import Activation, Conv, GlobalPool, Reshape
from luthier.graph.builder import Builder
from luthier.graph.op import Tensor


def attend(builder: Builder, network: Network, placed: Placed, tensor: str) -> str:
    """Gate `tensor` as the block's attention says.

    se      global average; 1x1 conv, activation, 1x1 conv; gate; multiply
    ese     global average; 1x1 conv; gate; multiply
    eca     global average; convolution of kernel_size over the channels; gate; multiply

    Raises:
        SpecError: the kind of attention has no graph yet.
    """
    attention = placed.block.attention
    assert attention is not None
    part, key = f"{placed.name}.attention", f"stages.{placed.name}.attention"
    channels = builder.shape(tensor)[1]
    gate = builder.op(f"{part}.pool", GlobalPool(), tensor)
    if attention.kind == "se":
        reduced = attention.reduced(placed.in_channels, channels)
        gate = builder.conv(f"{part}.reduce", f"{key}.reduce", gate, reduced, bias=True)
        gate = builder.activation(f"{part}.activation", gate, attention.activation or placed.activation)
        gate = builder.conv(f"{part}.expand", f"{key}.expand", gate, channels, bias=True)
    elif attention.kind == "ese":
        gate = builder.conv(f"{part}.conv", f"{key}.conv", gate, channels, bias=True)
    elif attention.kind == "eca":
        gate = _over_channels(builder, part, key, gate, attention.kernel_size or eca_kernel_size(channels))
    else:
        raise SpecError(
            f"Network({network.name}): {placed.name}: attention kind {attention.kind!r} has no graph yet, "
            "known kinds are se, ese, eca"
        )
    gate = builder.op(f"{part}.gate", Activation(attention.gate), gate)
    return builder.mul(f"{part}.mul", tensor, gate)


def _over_channels(builder: Builder, part: str, key: str, tensor: str, kernel_size: int) -> str:
    """1-D convolution along C, as a k x 1 convolution of the reshaped (1, C, 1)."""
    channels = builder.shape(tensor)[1]
    side = kernel_size // 2
    weight = Tensor(f"{key}.conv.weight", (1, 1, kernel_size, 1), builder.precision.weight)
    tensor = builder.op(f"{part}.to_line", Reshape((1, channels, 1)), tensor)
    tensor = builder.op(f"{part}.conv", Conv(pads=(side, 0, side, 0)), tensor, constants={"weight": weight})
    return builder.op(f"{part}.to_channels", Reshape((channels, 1, 1)), tensor)


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
