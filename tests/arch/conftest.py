"""A second count of parameters, written from the block definitions alone: no graph, no tensor."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from luthier.arch import Network


def _conv(in_channels: int, out_channels: int, kernel_size: int, norm: bool = True, bias: bool = False) -> int:
    return in_channels * out_channels * kernel_size**2 + (2 * norm + bias) * out_channels


def _count(network: Network) -> int:
    total, channels = 0, network.in_channels
    for placed in network.walk():
        block, inner, out = placed.block, placed.inner_channels, placed.block.out_channels
        window = block.kernel_size
        if block.kind == "conv":
            total += _conv(channels, out, window, block.norm, block.bias)
        elif block.kind in ("mbconv", "depthwise_separable"):
            expansion = _conv(channels, inner, 1) if block.kind == "mbconv" and block.expand_ratio != 1 else 0
            total += expansion + _conv(1, inner, window) + _conv(inner, out, 1)
        elif block.kind == "fused_mbconv":
            total += _conv(channels, inner, window) + _conv(inner, out, 1)
        elif block.kind == "basic":
            total += _conv(channels, out, window) + _conv(out, out, window)
        elif block.kind == "bottleneck":
            total += _conv(channels, inner, 1) + _conv(inner, inner, window) + _conv(inner, out, 1)
        if block.shortcut(channels) == "projection":
            total += _conv(channels, out, 1)
        if block.attention is not None:
            gated = block.gated_channels(channels, network.channel_divisor)
            reduced = block.attention.reduced(channels, gated)
            total += 2 * gated * reduced + gated + reduced
        channels = out
    if network.head.conv_channels is not None:
        total += _conv(channels, network.head.conv_channels, 1)
        channels = network.head.conv_channels
    features = channels * network.head.pool_size**2
    for width in (*network.head.hidden, network.head.num_classes):
        total += (features + 1) * width
        features = width
    return total


@pytest.fixture(scope="session")
def count_params() -> Callable[[Network], int]:
    """Parameters of a network; the gates are squeeze-and-excitation."""
    return _count
