"""What an op does, as frozen data: one small class per kind.  Integers and names only; shapes live in the graph.

kind            meaning, per image
conv            cross-correlation over H and W in groups
norm            batch normalisation with stored statistics
activation      one function on every element
add, mul        elementwise; the second input may have 1 where the first has C, H or W
pool            maximum or average over windows
global_pool     maximum or average over H and W, kept as 1 x 1
adaptive_pool   average over H_out x W_out windows that cover the map, whatever its size
channel_pool    maximum or average over the channels, kept as one
linear          y = x W^T + b
affine          y = scale * weight * x + shift + bias; numbers, or one weight and bias per channel
softmax         exp(x) / sum of exp(x) over the channels
pad             zero channels before and after (ResNet's option A), and a border of zeros
subsample       every stride-th row and column
slice           a range of channels, rows or columns
shuffle         channels of several groups, dealt out in turn (ShuffleNet)
resize          another height and width, nearest pixel or bilinear
flatten         (C, H, W) -> (C * H * W,)
reshape         another shape with as many elements
concat          channels (or rows, or columns) of all inputs, one after another
unknown         an op of the source that has no meaning here; only its shape is known

kind      constants by role
conv      weight (C_out, C_in / groups, K_H, K_W), [bias (C_out,)]
norm      weight, bias, running_mean, running_var (C,)
linear    weight (K_out, K_in), [bias (K_out,)]
affine    [weight (C,) or (1,)], [bias (C,) or (1,)]
unknown   whatever the source gives it, by position
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

from luthier.arch.block import Activation as Function

#: functions that read networks may have besides those that a `Network` can ask for
GraphFunction = Function | Literal["tanh", "leaky_relu", "elu", "mish", "softplus"]
Pair = tuple[int, int]
#: top, left, bottom, right, in pixels
Pads = tuple[int, int, int, int]
OpKind = Literal[
    "conv", "norm", "activation", "add", "mul", "pool", "global_pool", "adaptive_pool", "channel_pool", "linear",
    "affine", "softmax", "pad", "subsample", "slice", "shuffle", "resize", "flatten", "reshape", "concat", "unknown",
]  # fmt: skip


@dataclass(frozen=True, slots=True)
class Conv:
    """Convolution; the window's size is the weight's."""

    kind: ClassVar[OpKind] = "conv"
    stride: Pair = (1, 1)
    pads: Pads = (0, 0, 0, 0)
    dilation: Pair = (1, 1)
    groups: int = 1


@dataclass(frozen=True, slots=True)
class Norm:
    """y = weight * (x - running_mean) / sqrt(running_var + eps) + bias."""

    kind: ClassVar[OpKind] = "norm"
    eps: float = 1e-5


@dataclass(frozen=True, slots=True)
class Activation:
    """y = function(x); GELU is the exact one, with erf; `alpha` is leaky_relu's slope below zero, elu's depth."""

    kind: ClassVar[OpKind] = "activation"
    function: GraphFunction
    alpha: float = 0.0


@dataclass(frozen=True, slots=True)
class Add:
    """y = a + b."""

    kind: ClassVar[OpKind] = "add"


@dataclass(frozen=True, slots=True)
class Mul:
    """y = a * b; a gate is b."""

    kind: ClassVar[OpKind] = "mul"


@dataclass(frozen=True, slots=True)
class Pool:
    """Windows of `kernel`; padding counts as minus infinity (max) or, in averages, as zeros if `count_pads`."""

    kind: ClassVar[OpKind] = "pool"
    reduce: Literal["max", "avg"]
    kernel: Pair
    stride: Pair
    pads: Pads = (0, 0, 0, 0)
    count_pads: bool = False


@dataclass(frozen=True, slots=True)
class GlobalPool:
    """(C, H, W) -> (C, 1, 1)."""

    kind: ClassVar[OpKind] = "global_pool"
    reduce: Literal["max", "avg"] = "avg"


@dataclass(frozen=True, slots=True)
class AdaptivePool:
    """Average over rows floor(i H / H_out) .. ceil((i + 1) H / H_out) - 1, columns likewise."""

    kind: ClassVar[OpKind] = "adaptive_pool"
    out_hw: Pair


@dataclass(frozen=True, slots=True)
class ChannelPool:
    """(C, H, W) -> (1, H, W)."""

    kind: ClassVar[OpKind] = "channel_pool"
    reduce: Literal["max", "avg"] = "avg"


@dataclass(frozen=True, slots=True)
class Linear:
    """y = x W^T + b."""

    kind: ClassVar[OpKind] = "linear"


@dataclass(frozen=True, slots=True)
class Affine:
    """y = scale * weight * x + shift + bias; `weight` and `bias` are constants per channel, absent ones 1 and 0."""

    kind: ClassVar[OpKind] = "affine"
    scale: float = 1.0
    shift: float = 0.0


@dataclass(frozen=True, slots=True)
class Softmax:
    """Over the channels, axis 1."""

    kind: ClassVar[OpKind] = "softmax"


@dataclass(frozen=True, slots=True)
class Pad:
    """Zero channels, and zero rows and columns around the map."""

    kind: ClassVar[OpKind] = "pad"
    before: int
    after: int
    pads: Pads = (0, 0, 0, 0)


@dataclass(frozen=True, slots=True)
class Subsample:
    """x[:, ::stride[0], ::stride[1]]."""

    kind: ClassVar[OpKind] = "subsample"
    stride: Pair


@dataclass(frozen=True, slots=True)
class Slice:
    """Indices start .. stop - 1 of one axis: 1 = channels, 2 = rows, 3 = columns."""

    kind: ClassVar[OpKind] = "slice"
    axis: int
    start: int
    stop: int


@dataclass(frozen=True, slots=True)
class Shuffle:
    """Channel i * C / groups + j goes to j * groups + i."""

    kind: ClassVar[OpKind] = "shuffle"
    groups: int


@dataclass(frozen=True, slots=True)
class Resize:
    """nearest: pixel floor(i * H / H_out); bilinear: at (i + 0.5) * H / H_out - 0.5, clamped to the map.

    torch rounds H / H_out first, and so takes the pixel before at the edge of some (2 -> 82, not 2 -> 80).
    """

    kind: ClassVar[OpKind] = "resize"
    out_hw: Pair
    mode: Literal["nearest", "bilinear"] = "nearest"


@dataclass(frozen=True, slots=True)
class Flatten:
    """(N, C, H, W) -> (N, C * H * W)."""

    kind: ClassVar[OpKind] = "flatten"


@dataclass(frozen=True, slots=True)
class Reshape:
    """(N, ...) -> (N, *shape)."""

    kind: ClassVar[OpKind] = "reshape"
    shape: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Concat:
    """Along one axis: 1 = channels, 2 = rows, 3 = columns."""

    kind: ClassVar[OpKind] = "concat"
    axis: int = 1


@dataclass(frozen=True, slots=True)
class Unknown:
    """What the source calls the op, and the shape that the source says it writes, batch included."""

    kind: ClassVar[OpKind] = "unknown"
    op: str
    shape: tuple[int, ...]


Attrs = (
    Conv | Norm | Activation | Add | Mul | Pool | GlobalPool | AdaptivePool | ChannelPool | Linear | Affine
    | Softmax | Pad | Subsample | Slice | Shuffle | Resize | Flatten | Reshape | Concat | Unknown
)  # fmt: skip
