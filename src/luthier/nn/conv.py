"""Convolution and pooling with the two paddings of `Network.padding`; a convolution with its norm."""

from __future__ import annotations

from typing import Literal

import torch.nn.functional as F
from torch import Tensor, nn

Padding = Literal["symmetric", "tf_same"]


def same_padding(size: int, kernel_size: int, stride: int) -> tuple[int, int]:
    """Pixels that TensorFlow's SAME adds before and behind one axis.

        total = max((ceil(size / stride) - 1) * stride + kernel_size - size, 0)                      (1)
        before, behind = floor(total / 2), ceil(total / 2)                                           (2)

    Args:
        size: pixels of the axis.
        kernel_size: of the window.
        stride: of the window.
    Source:
        The padding section of TensorFlow's `tf.nn` documentation.
    Example:
        >>> same_padding(224, kernel_size=3, stride=2), same_padding(225, kernel_size=3, stride=2)
        ((0, 1), (1, 1))
    """
    total = max((-(-size // stride) - 1) * stride + kernel_size - size, 0)
    return total // 2, total - total // 2


class SameConv2d(nn.Conv2d):
    """Convolution that pads as TensorFlow's SAME, anew for every input size.

    (N, C, H, W) -> (N, C_out, ceil(H / stride), ceil(W / stride)).
    """

    def forward(self, x: Tensor) -> Tensor:
        """Pad with zeros, then convolve."""
        top, bottom = same_padding(x.shape[2], self.kernel_size[0], self.stride[0])
        left, right = same_padding(x.shape[3], self.kernel_size[1], self.stride[1])
        return super().forward(F.pad(x, (left, right, top, bottom)))


def conv2d(
    in_channels: int,
    out_channels: int,
    kernel_size: int | tuple[int, int],
    *,
    stride: int = 1,
    groups: int = 1,
    padding: Padding = "symmetric",
    bias: bool = False,
) -> nn.Conv2d:
    """A convolution with an odd kernel, square or (rows, columns).

    Both paddings agree at stride 1, where the plain module is the faster one.
    """
    same = padding == "tf_same" and stride > 1
    rows, columns = (kernel_size, kernel_size) if isinstance(kernel_size, int) else kernel_size
    kind = SameConv2d if same else nn.Conv2d
    return kind(
        in_channels,
        out_channels,
        (rows, columns),
        stride=stride,
        padding=0 if same else ((rows - 1) // 2, (columns - 1) // 2),
        groups=groups,
        bias=bias,
    )


class ConvNorm(nn.Module):
    """`conv` and, unless the block has none, batch normalisation `norm`; the activation is the caller's."""

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int | tuple[int, int] = 1,
        *,
        stride: int = 1,
        groups: int = 1,
        padding: Padding,
        norm_eps: float,
        norm: bool = True,
        bias: bool = False,
    ) -> None:
        super().__init__()
        self.conv = conv2d(
            in_channels, out_channels, kernel_size, stride=stride, groups=groups, padding=padding, bias=bias or not norm
        )
        self.norm: nn.Module = nn.BatchNorm2d(out_channels, eps=norm_eps) if norm else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        """(N, C_in, H, W) -> (N, C_out, H', W')."""
        y: Tensor = self.norm(self.conv(x))
        return y


class Pool(nn.Module):
    """Maximum or average over windows of (rows, columns); padded pixels count neither as a maximum nor in the mean."""

    def __init__(self, kernel_size: tuple[int, int], stride: int, *, padding: Padding, average: bool) -> None:
        super().__init__()
        self.kernel_size, self.stride, self.padding, self.average = kernel_size, stride, padding, average

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) -> (N, C, H', W')."""
        rows, columns = self.kernel_size
        before = (rows - 1) // 2, (columns - 1) // 2
        same = self.padding == "tf_same"
        if same:
            # rounding the output up adds exactly the odd pixel at the end that SAME asks for
            before = (
                same_padding(x.shape[2], rows, self.stride)[0],
                same_padding(x.shape[3], columns, self.stride)[0],
            )
        if self.average:
            return F.avg_pool2d(x, self.kernel_size, self.stride, before, ceil_mode=same, count_include_pad=False)
        return F.max_pool2d(x, self.kernel_size, self.stride, before, ceil_mode=same)
