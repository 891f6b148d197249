"""Plain and residual convolution blocks: conv, basic, bottleneck; `make_block` chooses among all kinds."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, TypeAlias

from torch import Tensor, nn

from luthier.arch.block import BlockKind
from luthier.arch.network import Network, Placed
from luthier.nn.conv import Pool
from luthier.nn.mbconv import MBConv
from luthier.nn.residual import ResidualBlock


class ConvBlock(ResidualBlock):
    """k x k convolution, norm, activation; with `skip="identity"` the input is added behind the activation."""

    def __init__(self, placed: Placed, network: Network, drop_path: float = 0.0) -> None:
        super().__init__(placed, network, drop_path)
        block = placed.block
        self.conv = self.conv_norm(placed.in_channels, block.out_channels, block.kernel_size, stride=block.stride)

    def branch(self, x: Tensor) -> Tensor:
        """(N, C_in, H, W) -> (N, C_out, H', W')."""
        return self.activation(self.conv(x))


class BasicBlock(ResidualBlock):
    """Two k x k convolutions, the stride in the first.

    Source:
        He et al. 2016, arXiv:1512.03385, figure 5 left.
    """

    def __init__(self, placed: Placed, network: Network, drop_path: float = 0.0) -> None:
        super().__init__(placed, network, drop_path)
        block = placed.block
        self.first = self.conv_norm(placed.in_channels, block.out_channels, block.kernel_size, stride=block.stride)
        self.second = self.conv_norm(block.out_channels, block.out_channels, block.kernel_size)

    def branch(self, x: Tensor) -> Tensor:
        """(N, C_in, H, W) -> (N, C_out, H', W')."""
        y: Tensor = self.second(self.activation(self.first(x)))
        return y

    def last_norm(self) -> nn.Module | None:
        """The second convolution's."""
        return self.second.norm


class BottleneckBlock(ResidualBlock):
    """1x1 reduce, k x k with the stride, 1x1 project.

    The stride stands in the k x k convolution (version 1.5 of the network, as torchvision and timm have it).

    Source:
        He et al. 2016, arXiv:1512.03385, figure 5 right.
    """

    def __init__(self, placed: Placed, network: Network, drop_path: float = 0.0) -> None:
        super().__init__(placed, network, drop_path)
        block, inner = placed.block, placed.inner_channels
        self.reduce = self.conv_norm(placed.in_channels, inner)
        self.spatial = self.conv_norm(inner, inner, block.kernel_size, stride=block.stride)
        self.project = self.conv_norm(inner, block.out_channels)

    def branch(self, x: Tensor) -> Tensor:
        """(N, C_in, H, W) -> (N, C_out, H', W')."""
        y = self.gate("before_depthwise", self.activation(self.reduce(x)))
        y = self.gate("after_depthwise", self.activation(self.spatial(y)))
        projected: Tensor = self.project(y)
        return projected

    def last_norm(self) -> nn.Module | None:
        """The projection's."""
        return self.project.norm


def _pool(placed: Placed, network: Network, drop_path: float = 0.0) -> nn.Module:
    block = placed.block
    return Pool(network.window(block.kernel_size), block.stride, padding=network.padding, average=block.pool == "avg")


#: (placed block, its network, drop_path) -> its module
BlockMaker: TypeAlias = Callable[[Placed, Network, float], nn.Module]

_MAKERS: Final[dict[BlockKind, BlockMaker]] = {
    "conv": ConvBlock,
    "depthwise_separable": MBConv,
    "mbconv": MBConv,
    "fused_mbconv": MBConv,
    "basic": BasicBlock,
    "bottleneck": BottleneckBlock,
    "pool": _pool,
}


def make_block(placed: Placed, network: Network, drop_path: float = 0.0) -> nn.Module:
    """The module of one placed block.

    Args:
        placed: from `Network.walk`.
        network: for padding, norm epsilon and the channel divisor.
        drop_path: probability that a sample skips the block's branch while training.
    """
    return _MAKERS[placed.block.kind](placed, network, drop_path)
