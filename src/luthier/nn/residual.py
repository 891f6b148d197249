"""What all blocks share: a branch, a gate at one of four places, a shortcut, a sum."""

from __future__ import annotations

from abc import ABC, abstractmethod

import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.ops import StochasticDepth

from luthier.arch.block import AttentionPlace
from luthier.arch.network import Network, Placed
from luthier.errors import SpecError
from luthier.nn.activation import ACTIVATIONS
from luthier.nn.attention import make_attention
from luthier.nn.conv import ConvNorm


class PadShortcut(nn.Module):
    """Option A of ResNet: every s-th pixel, new channels filled with zeros, half of them on each side.

    Source:
        He et al. 2016, arXiv:1512.03385, section 4.2.
    """

    def __init__(self, in_channels: int, out_channels: int, stride: int) -> None:
        super().__init__()
        missing = out_channels - in_channels
        self.stride, self.before, self.behind = stride, missing // 2, missing - missing // 2

    def forward(self, x: Tensor) -> Tensor:
        """(N, C_in, H, W) -> (N, C_out, ceil(H / s), ceil(W / s))."""
        return F.pad(x[:, :, :: self.stride, :: self.stride], (0, 0, 0, 0, self.before, self.behind))


class ResidualBlock(nn.Module, ABC):
    """branch -> [after_project] -> + shortcut -> activation (basic and bottleneck only) -> [after_sum].

    Children register as `attention` and `shortcut`; subclasses add the convolutions of `branch`.
    """

    def __init__(self, placed: Placed, network: Network, drop_path: float = 0.0) -> None:
        super().__init__()
        block = placed.block
        self.placed, self.network = placed, network
        self.activation = ACTIVATIONS[placed.activation]
        self.ends_active = block.kind in ("basic", "bottleneck")
        self.attention: nn.Module | None = None
        if block.attention is not None:
            self.attention = make_attention(
                block.attention, block.gated_channels(placed.in_channels, network.channel_divisor),
                in_channels=placed.in_channels, activation=placed.activation, norm_eps=network.norm_eps,
            )  # fmt: skip
        self.place = None if block.attention is None else block.attention.place
        carry = block.shortcut(placed.in_channels)
        self.adds = carry != "none"
        self.shortcut: nn.Module = nn.Identity()
        if carry == "projection":
            self.shortcut = self.conv_norm(placed.in_channels, block.out_channels, stride=block.stride)
        elif carry == "pad":
            if block.out_channels < placed.in_channels:
                raise SpecError(
                    f"{placed.name}: skip 'pad' cannot go from {placed.in_channels} channels down to "
                    f"{block.out_channels}; use 'projection'"
                )
            self.shortcut = PadShortcut(placed.in_channels, block.out_channels, block.stride)
        self.drop_path: nn.Module = StochasticDepth(drop_path, "row") if self.adds and drop_path > 0 else nn.Identity()

    def conv_norm(
        self, in_channels: int, out_channels: int, kernel_size: int = 1, *, stride: int = 1, groups: int = 1
    ) -> ConvNorm:
        """A convolution with the block's norm and bias and the network's padding and epsilon."""
        return ConvNorm(
            in_channels,
            out_channels,
            self.network.window(kernel_size),
            stride=stride,
            groups=groups,
            padding=self.network.padding,
            norm_eps=self.network.norm_eps,
            norm=self.placed.block.norm,
            bias=self.placed.block.bias,
        )

    def gate(self, place: AttentionPlace, y: Tensor) -> Tensor:
        """The attention, if this is its place."""
        if self.attention is not None and self.place == place:
            gated: Tensor = self.attention(y)
            return gated
        return y

    @abstractmethod
    def branch(self, x: Tensor) -> Tensor:
        """Everything up to and including the last norm."""

    def last_norm(self) -> nn.Module | None:
        """The branch's last norm where nothing but the sum follows it; None if an activation follows."""
        return None

    def forward(self, x: Tensor) -> Tensor:
        """(N, C_in, H, W) -> (N, C_out, H', W')."""
        y = self.gate("after_project", self.branch(x))
        if self.adds:
            y = self.shortcut(x) + self.drop_path(y)
        return self.gate("after_sum", self.activation(y) if self.ends_active else y)
