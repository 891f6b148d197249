"""Gates that rescale channels and pixels: squeeze-and-excitation and its family.

    y = x * gate(z(x))                                                                              (1)

kind      the gate has a number for every   z is
se        channel                           two 1x1 convolutions of the channels' means
ese       channel                           one 1x1 convolution of the channels' means
eca       channel                           a 1-D convolution along the channels' means
spatial   pixel                             a k x k convolution of mean and maximum over the channels
cbam      channel, then pixel               se on means and on maxima, added; then spatial
coord     row and column of every channel   1x1 convolutions of the means of rows and of columns

A gate whose last layer is zero (`start_neutral`) multiplies by gate(0): by exactly 1 where the gate is 2 sigmoid(z) or
1 + tanh(z), so that a network is the same with it as without, and the gradient of that last layer is not zero.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Final, Literal, get_args

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from luthier.arch.block import Activation, Attention, AttentionKind
from luthier.errors import SpecError
from luthier.graph.attention import SPATIAL_WINDOW, eca_kernel_size
from luthier.nn.activation import ACTIVATIONS
from luthier.nn.conv import ConvNorm

GateFunction = Literal["sigmoid", "hard_sigmoid", "double_sigmoid", "one_plus_tanh"]


def _double_sigmoid(z: Tensor) -> Tensor:
    return 2 * z.sigmoid()


def _one_plus_tanh(z: Tensor) -> Tensor:
    return 1 + z.tanh()


#: name -> squashing function; the last two are 1 at 0
GATES: Final[dict[GateFunction, Callable[[Tensor], Tensor]]] = {
    "sigmoid": ACTIVATIONS["sigmoid"],
    "hard_sigmoid": ACTIVATIONS["hard_sigmoid"],
    "double_sigmoid": _double_sigmoid,
    "one_plus_tanh": _one_plus_tanh,
}


class Gate(nn.Module, ABC):
    """Equation (1): (N, C, H, W) -> (N, C, H, W)."""

    def __init__(self, gate: GateFunction) -> None:
        super().__init__()
        self.gate = GATES[gate]

    @abstractmethod
    def scale(self, x: Tensor) -> Tensor:
        """What x is multiplied by; its axes broadcast to (N, C, H, W)."""

    def forward(self, x: Tensor) -> Tensor:
        """Rescale x."""
        return x * self.scale(x)

    @abstractmethod
    def last_layer(self) -> tuple[nn.Parameter, ...]:
        """The parameters in which z is linear and without which it is zero."""

    def start_neutral(self) -> None:
        """Set the last layer to zero, and so z."""
        for parameter in self.last_layer():
            nn.init.zeros_(parameter)


def _present(*parameters: Tensor | None) -> tuple[nn.Parameter, ...]:
    return tuple(p for p in parameters if isinstance(p, nn.Parameter))


def _squeeze(x: Tensor, window: int | None) -> Tensor:
    """The channels' means: (N, C, 1, 1), or (N, C, H, W) over a window about each pixel."""
    if window is None:
        return x.mean((2, 3), keepdim=True)
    return F.avg_pool2d(x, window, 1, window // 2, count_include_pad=False)


class SqueezeExcite(Gate):
    """Squeeze-and-excitation.

        z = expand(activation(reduce(mean over H, W of x)))                                          (2)

    Both layers are 1x1 convolutions with bias.  With a `window` the means are those about each pixel.

    Source:
        Hu et al. 2018, arXiv:1709.01507, equations 2 to 4.
    """

    def __init__(
        self, channels: int, reduced_channels: int, *, activation: Activation, gate: GateFunction,
        window: int | None = None,
    ) -> None:  # fmt: skip
        super().__init__(gate)
        self.reduce = nn.Conv2d(channels, reduced_channels, 1)
        self.expand = nn.Conv2d(reduced_channels, channels, 1)
        self.activation = ACTIVATIONS[activation]
        self.window = window

    def scale(self, x: Tensor) -> Tensor:
        """(N, C, 1, 1), or (N, C, H, W) with a window."""
        return self.gate(self.expand(self.activation(self.reduce(_squeeze(x, self.window)))))

    def last_layer(self) -> tuple[nn.Parameter, ...]:
        """The expansion."""
        return _present(self.expand.weight, self.expand.bias)


class EffectiveSE(Gate):
    """One full-width layer instead of two narrow ones: z = conv(mean over H, W of x), or of a `window`.

    Source:
        Lee & Park 2020, arXiv:1911.06667, section 3.2.
    """

    def __init__(self, channels: int, *, gate: GateFunction, window: int | None = None) -> None:
        super().__init__(gate)
        self.conv = nn.Conv2d(channels, channels, 1)
        self.window = window

    def scale(self, x: Tensor) -> Tensor:
        """(N, C, 1, 1), or (N, C, H, W) with a window."""
        return self.gate(self.conv(_squeeze(x, self.window)))

    def last_layer(self) -> tuple[nn.Parameter, ...]:
        """The only layer."""
        return _present(self.conv.weight, self.conv.bias)


class EfficientChannelAttention(Gate):
    """A 1-D convolution over neighbouring channels' means: z = conv(mean over H, W of x).

    Source:
        Wang et al. 2020, arXiv:1910.03151, equations 9 to 12.
    """

    def __init__(self, kernel_size: int, *, gate: GateFunction) -> None:
        super().__init__(gate)
        self.conv = nn.Conv1d(1, 1, kernel_size, padding=(kernel_size - 1) // 2, bias=False)

    def scale(self, x: Tensor) -> Tensor:
        """(N, C, 1, 1)."""
        z: Tensor = self.conv(x.mean((2, 3))[:, None, :])
        return self.gate(z)[:, 0, :, None, None]

    def last_layer(self) -> tuple[nn.Parameter, ...]:
        """The only layer."""
        return _present(self.conv.weight)


class SpatialAttention(Gate):
    """One gate per pixel: z = norm(conv(mean and maximum over the channels of x)), k x k.

    Source:
        Woo et al. 2018, arXiv:1807.06521, equation 3.
    """

    def __init__(self, kernel_size: int = SPATIAL_WINDOW, *, gate: GateFunction, norm_eps: float = 1e-5) -> None:
        super().__init__(gate)
        self.blend = ConvNorm(2, 1, kernel_size, padding="symmetric", norm_eps=norm_eps)

    def scale(self, x: Tensor) -> Tensor:
        """(N, 1, H, W)."""
        return self.gate(self.blend(torch.cat((x.mean(1, keepdim=True), x.amax(1, keepdim=True)), 1)))

    def last_layer(self) -> tuple[nn.Parameter, ...]:
        """The norm: behind a norm, a convolution of zeros would have a gradient hundreds of times too large."""
        return _present(self.blend.norm.weight, self.blend.norm.bias)  # type: ignore[arg-type]  # a batch norm's


class ChannelAttention(Gate):
    """Squeeze-and-excitation without biases, on means and on maxima: z = f(mean of x) + f(maximum of x).

        f(s) = expand(activation(reduce(s)))                                                         (3)

    Source:
        Woo et al. 2018, arXiv:1807.06521, equation 2.
    """

    def __init__(self, channels: int, reduced_channels: int, *, activation: Activation, gate: GateFunction) -> None:
        super().__init__(gate)
        self.reduce = nn.Conv2d(channels, reduced_channels, 1, bias=False)
        self.expand = nn.Conv2d(reduced_channels, channels, 1, bias=False)
        self.activation = ACTIVATIONS[activation]

    def scale(self, x: Tensor) -> Tensor:
        """(N, C, 1, 1)."""
        mean = self.expand(self.activation(self.reduce(x.mean((2, 3), keepdim=True))))
        return self.gate(mean + self.expand(self.activation(self.reduce(x.amax((2, 3), keepdim=True)))))

    def last_layer(self) -> tuple[nn.Parameter, ...]:
        """The expansion."""
        return _present(self.expand.weight)


class CBAM(Gate):
    """Convolutional block attention module: a gate per channel, and one per pixel of the result.

    Source:
        Woo et al. 2018, arXiv:1807.06521, equation 1.
    """

    def __init__(
        self, channels: int, reduced_channels: int, kernel_size: int = SPATIAL_WINDOW, *, activation: Activation,
        gate: GateFunction, norm_eps: float = 1e-5,
    ) -> None:  # fmt: skip
        super().__init__(gate)
        self.channel = ChannelAttention(channels, reduced_channels, activation=activation, gate=gate)
        self.spatial = SpatialAttention(kernel_size, gate=gate, norm_eps=norm_eps)

    def scale(self, x: Tensor) -> Tensor:
        """(N, C, H, W)."""
        channel = self.channel.scale(x)
        return channel * self.spatial.scale(x * channel)

    def forward(self, x: Tensor) -> Tensor:
        """Both gates in turn."""
        y: Tensor = self.spatial(self.channel(x))
        return y

    def last_layer(self) -> tuple[nn.Parameter, ...]:
        """Those of both gates."""
        return (*self.channel.last_layer(), *self.spatial.last_layer())


class CoordinateAttention(Gate):
    """A gate per row and one per column of every channel: y = x * gate(columns(b)) * gate(rows(a)).

        (a, b) = activation(norm(reduce(means of the rows of x, means of its columns)))              (4)

    All three layers are 1x1 convolutions without bias.

    Source:
        Hou et al. 2021, arXiv:2103.02907, equations 4 to 8.
    """

    def __init__(
        self, channels: int, reduced_channels: int, *, activation: Activation, gate: GateFunction,
        norm_eps: float = 1e-5,
    ) -> None:  # fmt: skip
        super().__init__(gate)
        self.reduce = ConvNorm(channels, reduced_channels, padding="symmetric", norm_eps=norm_eps)
        self.rows = nn.Conv2d(reduced_channels, channels, 1, bias=False)
        self.columns = nn.Conv2d(reduced_channels, channels, 1, bias=False)
        self.activation = ACTIVATIONS[activation]

    def scales(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """(N, C, H, 1) and (N, C, 1, W)."""
        means = torch.cat((x.mean(3, keepdim=True), x.mean(2, keepdim=True).transpose(2, 3)), 2)
        rows, columns = torch.split(self.activation(self.reduce(means)), [x.shape[2], x.shape[3]], 2)
        columns = columns.transpose(2, 3)
        return self.gate(self.rows(rows)), self.gate(self.columns(columns))

    def scale(self, x: Tensor) -> Tensor:
        """(N, C, H, W)."""
        rows, columns = self.scales(x)
        return rows * columns

    def forward(self, x: Tensor) -> Tensor:
        """Rescale x by columns, then by rows."""
        rows, columns = self.scales(x)
        return x * columns * rows

    def last_layer(self) -> tuple[nn.Parameter, ...]:
        """Those of the rows and of the columns."""
        return _present(self.rows.weight, self.columns.weight)


def make_attention(
    attention: Attention,
    channels: int,
    *,
    in_channels: int,
    activation: Activation,
    norm_eps: float = 1e-5,
    gate: GateFunction | None = None,
) -> Gate:
    """The module of an attention.

    Args:
        attention: what it is; its place is the caller's business.
        channels: C of what it rescales.
        in_channels: of the block around it, which the reduced width may refer to.
        activation: of that block, where the attention names none.
        norm_eps: epsilon of a norm inside.
        gate: instead of the attention's own.
    Example:
        >>> gate = make_attention(Attention(kind="eca"), 64, in_channels=64, activation="relu")
        >>> gate(torch.zeros(2, 64, 7, 7)).shape, sum(p.numel() for p in gate.parameters())
        (torch.Size([2, 64, 7, 7]), 3)
    """
    reduced, window = attention.reduced(in_channels, channels), attention.kernel_size or SPATIAL_WINDOW
    inner, squash = attention.activation or activation, gate or attention.gate
    match attention.kind:
        case "se":
            return SqueezeExcite(channels, reduced, activation=inner, gate=squash, window=attention.window)
        case "ese":
            return EffectiveSE(channels, gate=squash, window=attention.window)
        case "eca":
            return EfficientChannelAttention(attention.kernel_size or eca_kernel_size(channels), gate=squash)
        case "spatial":
            return SpatialAttention(window, gate=squash, norm_eps=norm_eps)
        case "cbam":
            return CBAM(channels, reduced, window, activation=inner, gate=squash, norm_eps=norm_eps)
        case "coord":
            return CoordinateAttention(channels, reduced, activation=inner, gate=squash, norm_eps=norm_eps)
    raise SpecError(f"attention: kind must be one of {', '.join(get_args(AttentionKind))}, got {attention.kind!r}")
