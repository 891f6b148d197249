"""Gates that rescale channels: squeeze-and-excitation, effective SE and ECA."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from torch import Tensor, nn

from luthier.arch.block import Activation, Attention, AttentionKind
from luthier.arch.network import Placed
from luthier.errors import SpecError
from luthier.graph.attention import eca_kernel_size
from luthier.nn.activation import ACTIVATIONS


class SqueezeExcite(nn.Module):
    """Squeeze-and-excitation.

        z = mean over H, W of x;   y = x * gate(expand(activation(reduce(z))))                        (1)

    Both layers are 1x1 convolutions with bias; x and y are (N, C, H, W), z is (N, C, 1, 1).

    Source:
        Hu et al. 2018, arXiv:1709.01507, equations 2 to 4.
    """

    def __init__(self, channels: int, reduced_channels: int, *, activation: Activation, gate: Activation) -> None:
        super().__init__()
        self.reduce = nn.Conv2d(channels, reduced_channels, 1)
        self.expand = nn.Conv2d(reduced_channels, channels, 1)
        self.activation, self.gate = ACTIVATIONS[activation], ACTIVATIONS[gate]

    def forward(self, x: Tensor) -> Tensor:
        """Rescale the channels of x: (N, C, H, W) -> (N, C, H, W)."""
        z = x.mean((2, 3), keepdim=True)
        return x * self.gate(self.expand(self.activation(self.reduce(z))))


class EffectiveSE(nn.Module):
    """One full-width layer instead of two narrow ones: y = x * gate(conv(mean over H, W of x)).

    Source:
        Lee & Park 2020, arXiv:1911.06667, section 3.2.
    """

    def __init__(self, channels: int, *, gate: Activation) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 1)
        self.gate = ACTIVATIONS[gate]

    def forward(self, x: Tensor) -> Tensor:
        """Rescale the channels of x: (N, C, H, W) -> (N, C, H, W)."""
        return x * self.gate(self.conv(x.mean((2, 3), keepdim=True)))


class EfficientChannelAttention(nn.Module):
    """A 1-D convolution over neighbouring channels' means: y = x * gate(conv(mean over H, W of x)).

    Source:
        Wang et al. 2020, arXiv:1910.03151, equations 9 to 12.
    """

    def __init__(self, kernel_size: int, *, gate: Activation) -> None:
        super().__init__()
        self.conv = nn.Conv1d(1, 1, kernel_size, padding=(kernel_size - 1) // 2, bias=False)
        self.gate = ACTIVATIONS[gate]

    def forward(self, x: Tensor) -> Tensor:
        """Rescale the channels of x: (N, C, H, W) -> (N, C, H, W)."""
        z: Tensor = self.conv(x.mean((2, 3))[:, None, :])
        return x * self.gate(z)[:, 0, :, None, None]


def _se(attention: Attention, placed: Placed, channels: int) -> nn.Module:
    return SqueezeExcite(
        channels,
        attention.reduced(placed.in_channels, channels),
        activation=attention.activation or placed.activation,
        gate=attention.gate,
    )


def _ese(attention: Attention, placed: Placed, channels: int) -> nn.Module:
    return EffectiveSE(channels, gate=attention.gate)


def _eca(attention: Attention, placed: Placed, channels: int) -> nn.Module:
    return EfficientChannelAttention(attention.kernel_size or eca_kernel_size(channels), gate=attention.gate)


_MAKERS: Final[dict[AttentionKind, Callable[[Attention, Placed, int], nn.Module]]] = {
    "se": _se,
    "ese": _ese,
    "eca": _eca,
}


def make_attention(placed: Placed, channel_divisor: int) -> nn.Module | None:
    """The module of a block's attention, None where it has none.

    Raises:
        SpecError: this kind of attention has no module.
    """
    attention = placed.block.attention
    if attention is None:
        return None
    if attention.kind not in _MAKERS:
        raise SpecError(
            f"{placed.name}: attention kind {attention.kind!r} cannot be built; available: {', '.join(_MAKERS)}"
        )
    channels = placed.block.gated_channels(placed.in_channels, channel_divisor)
    return _MAKERS[attention.kind](attention, placed, channels)
