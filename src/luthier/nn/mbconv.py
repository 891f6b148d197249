"""The mobile family: depthwise-separable, inverted bottleneck (MBConv) and its fused form."""

from __future__ import annotations

from torch import Tensor, nn

from luthier.arch.network import Network, Placed
from luthier.nn.conv import ConvNorm
from luthier.nn.residual import ResidualBlock


class MBConv(ResidualBlock):
    """[expand] -> [before_depthwise] -> [depthwise] -> [after_depthwise] -> project -> + x.

    mbconv                1x1 expand (absent at expand_ratio 1), k x k depthwise, 1x1 project
    depthwise_separable   k x k depthwise, 1x1 project
    fused_mbconv          k x k expand (also at expand_ratio 1), 1x1 project

    Source:
        Sandler et al. 2018, arXiv:1801.04381; Tan & Le 2021, arXiv:2104.00298 (fused).
    """

    def __init__(self, placed: Placed, network: Network, drop_path: float = 0.0) -> None:
        super().__init__(placed, network, drop_path)
        block, inner = placed.block, placed.inner_channels
        fused = block.kind == "fused_mbconv"
        self.expand: ConvNorm | None = None
        self.depthwise: ConvNorm | None = None
        if fused:
            self.expand = self.conv_norm(placed.in_channels, inner, block.kernel_size, stride=block.stride)
        else:
            if block.expands:
                self.expand = self.conv_norm(placed.in_channels, inner)
            self.depthwise = self.conv_norm(inner, inner, block.kernel_size, stride=block.stride, groups=inner)
        self.project = self.conv_norm(inner, block.out_channels)

    def branch(self, x: Tensor) -> Tensor:
        """(N, C_in, H, W) -> (N, C_out, ceil(H / s), ceil(W / s)), without a closing activation."""
        if self.expand is not None:
            x = self.activation(self.expand(x))
        if self.depthwise is not None:
            x = self.activation(self.depthwise(self.gate("before_depthwise", x)))
        y: Tensor = self.project(self.gate("after_depthwise", x))
        return y

    def last_norm(self) -> nn.Module | None:
        """The projection's."""
        return self.project.norm
