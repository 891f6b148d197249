"""The parts of a network as frozen data: `Precision`, `Attention`, `Block`, `Stage`, `Head`.

A block never stores its input width: `Network.walk` carries it along the chain, so that scaling or searching a width
cannot leave two neighbours in disagreement.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Final, Literal, get_args

from luthier.arch.rounding import round_channels
from luthier.errors import SpecError

NumberType = Literal["fp32", "bf16", "fp16", "int8", "int4"]
Activation = Literal["identity", "relu", "relu6", "silu", "hard_swish", "gelu", "sigmoid", "hard_sigmoid"]
BlockKind = Literal["conv", "depthwise_separable", "mbconv", "fused_mbconv", "basic", "bottleneck", "pool"]
Skip = Literal["auto", "none", "identity", "projection", "pad"]
AttentionKind = Literal["se", "ese", "eca", "spatial", "cbam", "coord"]
AttentionPlace = Literal["before_depthwise", "after_depthwise", "after_project", "after_sum"]

#: kinds of attention with a width between two layers
REDUCED: Final[tuple[AttentionKind, ...]] = ("se", "cbam", "coord")
#: kinds of attention whose means may be those of a window
WINDOWED: Final[tuple[AttentionKind, ...]] = ("se", "ese")
#: bits of one stored number
BITS: Final[dict[NumberType, int]] = {"fp32": 32, "bf16": 16, "fp16": 16, "int8": 8, "int4": 4}
_PLACES: Final[dict[BlockKind, tuple[AttentionPlace, ...]]] = {
    "conv": ("after_project", "after_sum"),
    "depthwise_separable": get_args(AttentionPlace),
    "mbconv": get_args(AttentionPlace),
    "fused_mbconv": ("after_depthwise", "after_project", "after_sum"),
    "basic": ("after_project", "after_sum"),
    "bottleneck": get_args(AttentionPlace),
    "pool": (),
}
_SKIPS: Final[dict[BlockKind, tuple[Skip, ...]]] = {
    "conv": ("auto", "none", "identity"),
    "depthwise_separable": ("auto", "none", "identity"),
    "mbconv": ("auto", "none", "identity"),
    "fused_mbconv": ("auto", "none", "identity"),
    "basic": ("auto", "none", "projection", "pad"),
    "bottleneck": ("auto", "none", "projection", "pad"),
    "pool": ("auto", "none"),
}


def check_choice(who: str, field: str, value: object, choices: Sequence[object]) -> None:
    """Refuse `value` unless it is one of `choices`; the message lists them.

    Raises:
        SpecError: `value` is not among `choices`.
    """
    if value not in choices:
        raise SpecError(f"{who}: {field} must be one of {', '.join(map(str, choices))}, got {value!r}")


def check_at_least(who: str, field: str, value: float, least: float) -> None:
    """Refuse `value` unless it is a number of at least `least`.

    Raises:
        SpecError: `value` is smaller, or not finite.
    """
    if not (least <= value < float("inf")):
        raise SpecError(f"{who}: {field} must be at least {least:g}, got {value!r}")


class Spec:
    """Base of all specs: a misspelt key in a file is refused, not dropped (pydantic reads this at the border)."""

    __pydantic_config__: ClassVar[dict[str, str]] = {"extra": "forbid"}


@dataclass(frozen=True, kw_only=True)
class Precision(Spec):
    """Number types of a block's weights and of the activations it writes.

    Example:
        >>> Precision.parse("W8A16")
        Precision(weight='int8', activation='fp16')
        >>> Precision(weight="int4", activation="int8").label
        'W4A8'
    """

    weight: NumberType = "fp32"
    activation: NumberType = "fp32"

    def __post_init__(self) -> None:
        check_choice("Precision", "weight", self.weight, get_args(NumberType))
        check_choice("Precision", "activation", self.activation, get_args(NumberType))

    @classmethod
    def parse(cls, text: str) -> Precision:
        """Read `fp32`, `int8` (both operands) or `W<bits>A<bits>`; 4 and 8 bits are integers, 16 is fp16, 32 is fp32.

        Raises:
            SpecError: the text is neither a number type nor of the form W8A16.
        """
        if text in get_args(NumberType):
            return cls(weight=text, activation=text)  # type: ignore[arg-type]  # membership was just checked
        by_bits: dict[str, NumberType] = {"4": "int4", "8": "int8", "16": "fp16", "32": "fp32"}
        match = re.fullmatch(r"[wW](4|8|16|32)[aA](4|8|16|32)", text)
        if match is None:
            raise SpecError(f"precision: expected one of {', '.join(get_args(NumberType))} or W8A16, got {text!r}")
        return cls(weight=by_bits[match[1]], activation=by_bits[match[2]])

    @property
    def label(self) -> str:
        """Short name: the number type if both agree, else W<bits>A<bits>."""
        if self.weight == self.activation:
            return self.weight
        return f"W{BITS[self.weight]}A{BITS[self.activation]}"


@dataclass(frozen=True, kw_only=True)
class Attention(Spec):
    """A gate that rescales channels or pixels, and where in its block it stands.

        reduced = round(ratio * C_reference) to a multiple of divisor                                (1)

    Attributes:
        kind: `se` squeeze-and-excitation, `ese` effective SE, `eca` 1-D convolution over channels, `spatial` one gate
            per pixel, `cbam` first channels, then pixels, `coord` one gate per row and one per column.
        place: relative to the block's spatial convolution (depthwise, or the dense k x k that stands for it), its
            projection, or the residual sum.
        ratio: reduced width over the reference width; the SE papers' 1/r.
        reference: `input` = the block's input channels (EfficientNet), `gated` = the channels being gated
            (MobileNetV3, SENet).
        divisor: the reduced width is rounded to a multiple of this, and at least this.
        rounding: `keep` never more than 10 % below, half to even at divisor 1 (MobileNetV3, EfficientNet); `half_up`
            to the nearest multiple (timm's SE, CBAM and coordinate modules).
        reduced_channels: absolute reduced width; overrides equation (1).
        activation: between the two layers; None = the block's own.
        gate: the squashing function at the end.
        kernel_size: ECA's window, or that of spatial attention and CBAM; None = the kind's own rule: ECA's by its
            channels, 7 pixels.
        window: se and ese only: the channels' means are those of a square of this side about each pixel, in pixels of
            the gated map, and so every pixel has gates of its own; None = means of the whole map.  Pixels outside the
            map do not count.
    Source:
        Hu et al. 2018, arXiv:1709.01507 (SE); Lee & Park 2020, arXiv:1911.06667 (effective SE); Wang et al. 2020,
        arXiv:1910.03151 (ECA); Woo et al. 2018, arXiv:1807.06521 (spatial, CBAM); Hou et al. 2021, arXiv:2103.02907.
    Example:
        >>> Attention(ratio=0.25).reduced(input_channels=24, gated_channels=144)
        6
        >>> Attention(ratio=0.25, reference="gated", divisor=8).reduced(input_channels=24, gated_channels=72)
        24
        >>> cbam = Attention(kind="cbam", ratio=1 / 16, reference="gated", rounding="half_up")
        >>> cbam.reduced(input_channels=24, gated_channels=40)
        3
    """

    kind: AttentionKind = "se"
    place: AttentionPlace = "after_depthwise"
    ratio: float = 0.25
    reference: Literal["input", "gated"] = "input"
    divisor: int = 1
    rounding: Literal["keep", "half_up"] = "keep"
    reduced_channels: int | None = None
    activation: Activation | None = None
    gate: Literal["sigmoid", "hard_sigmoid"] = "sigmoid"
    kernel_size: int | None = None
    window: int | None = None

    def __post_init__(self) -> None:
        check_choice("Attention", "kind", self.kind, get_args(AttentionKind))
        check_choice("Attention", "place", self.place, get_args(AttentionPlace))
        check_choice("Attention", "reference", self.reference, ("input", "gated"))
        check_choice("Attention", "rounding", self.rounding, ("keep", "half_up"))
        check_choice("Attention", "gate", self.gate, ("sigmoid", "hard_sigmoid"))
        if self.activation is not None:
            check_choice("Attention", "activation", self.activation, get_args(Activation))
        if not 0 < self.ratio <= 4:
            raise SpecError(f"Attention: ratio must lie in (0, 4], got {self.ratio!r}")
        check_at_least("Attention", "divisor", self.divisor, 1)
        if self.reduced_channels is not None:
            check_at_least("Attention", "reduced_channels", self.reduced_channels, 1)
        for field, side in (("kernel_size", self.kernel_size), ("window", self.window)):
            if side is not None and (side < 1 or side % 2 == 0):
                raise SpecError(f"Attention: {field} must be odd and at least 1, got {side!r}")
        if self.window is not None and self.kind not in WINDOWED:
            raise SpecError(f"Attention({self.kind}): window is for {' and '.join(WINDOWED)}, got {self.window!r}")

    def reduced(self, input_channels: int, gated_channels: int) -> int:
        """Width of the bottleneck between the two layers, equation (1); at least 1."""
        if self.reduced_channels is not None:
            return self.reduced_channels
        reference = input_channels if self.reference == "input" else gated_channels
        if self.rounding == "half_up":
            return max(self.divisor, int(reference * self.ratio / self.divisor + 0.5) * self.divisor)
        return round_channels(reference * self.ratio, self.divisor)


@dataclass(frozen=True, kw_only=True)
class Block(Spec):
    """One block: what it computes, not where it stands.

    kind                  what it does, in order
    conv                  k x k convolution, norm, activation
    depthwise_separable   k x k depthwise, norm, activation; 1x1 project, norm
    mbconv                1x1 expand, norm, activation (absent if expand_ratio is 1); then as depthwise_separable
    fused_mbconv          k x k expand, norm, activation; 1x1 project, norm
    basic                 k x k, norm, activation; k x k, norm; add; activation
    bottleneck            1x1, norm, activation; k x k, norm, activation; 1x1, norm; add; activation
    pool                  k x k max or average

    Attributes:
        out_channels: C_out; for `pool` it equals the input's.
        stride: of the spatial convolution; in `basic` of the first.
        expand_ratio: inner width over the input's (mbconv, fused_mbconv) or over the output's (bottleneck: 0.25).
        activation: None = the network's.
        skip: `auto` adds the input where its shape allows (mbconv kinds), projects it where not (basic, bottleneck),
            and does nothing for conv and pool; `pad` is option A of ResNet: subsample and fill with zero channels.
        norm: batch normalisation behind every convolution; if False, convolutions carry a bias.
        bias: a bias besides the norm (VGG).
        precision: None = the network's.
    Source:
        Sandler et al. 2018, arXiv:1801.04381 (mbconv); Tan & Le 2021, arXiv:2104.00298 (fused);
        He et al. 2016, arXiv:1512.03385 (basic, bottleneck).
    Example:
        >>> Block(kind="mbconv", out_channels=24, expand_ratio=6).inner_channels(16, divisor=8)
        96
    """

    kind: BlockKind
    out_channels: int
    kernel_size: int = 3
    stride: int = 1
    expand_ratio: float = 1.0
    activation: Activation | None = None
    attention: Attention | None = None
    skip: Skip = "auto"
    norm: bool = True
    bias: bool = False
    pool: Literal["max", "avg"] = "max"
    precision: Precision | None = None

    def __post_init__(self) -> None:
        check_choice("Block", "kind", self.kind, get_args(BlockKind))
        who = f"Block({self.kind})"
        check_at_least(who, "out_channels", self.out_channels, 1)
        check_at_least(who, "kernel_size", self.kernel_size, 1)
        check_choice(who, "stride", self.stride, (1, 2, 4))
        check_choice(who, "skip", self.skip, _SKIPS[self.kind])
        check_choice(who, "pool", self.pool, ("max", "avg"))
        if not 0 < self.expand_ratio <= 64:
            raise SpecError(f"{who}: expand_ratio must lie in (0, 64], got {self.expand_ratio!r}")
        if self.activation is not None:
            check_choice(who, "activation", self.activation, get_args(Activation))
        if self.kind != "pool" and self.kernel_size % 2 == 0:
            raise SpecError(f"{who}: kernel_size must be odd, got {self.kernel_size!r}")
        if self.attention is not None:
            check_choice(who, "attention.place", self.attention.place, _PLACES[self.kind])

    @property
    def expands(self) -> bool:
        """Whether a 1x1 (or fused k x k) expansion exists: mbconv with expand_ratio 1 has none."""
        return self.kind == "fused_mbconv" or (self.kind == "mbconv" and self.expand_ratio != 1)

    def inner_channels(self, in_channels: int, divisor: int) -> int:
        """Channels between the block's first and last convolution."""
        if self.kind in ("mbconv", "fused_mbconv"):
            return in_channels if self.expand_ratio == 1 else round_channels(in_channels * self.expand_ratio, divisor)
        if self.kind == "bottleneck":
            return round_channels(self.out_channels * self.expand_ratio, divisor)
        return in_channels if self.kind == "depthwise_separable" else self.out_channels

    def shortcut(self, in_channels: int) -> Literal["none", "identity", "projection", "pad"]:
        """How the input reaches the sum; `none` = there is no sum."""
        same = self.stride == 1 and in_channels == self.out_channels
        if self.skip == "none" or self.kind == "pool" or (self.kind == "conv" and self.skip == "auto"):
            return "none"
        if self.kind in ("basic", "bottleneck"):
            return "identity" if same else ("pad" if self.skip == "pad" else "projection")
        return "identity" if same else "none"

    def gated_channels(self, in_channels: int, divisor: int) -> int:
        """Channels that the block's attention rescales."""
        inner = self.attention is not None and self.attention.place in ("before_depthwise", "after_depthwise")
        return self.inner_channels(in_channels, divisor) if inner else self.out_channels


@dataclass(frozen=True, kw_only=True)
class Stage(Spec):
    """Blocks that a scaling law treats alike.

    Attributes:
        name: unique in its network; prefixes the names of operators and weights.
        blocks: in order; normally only the first has a stride.
        scale_width: whether width scaling applies (EfficientNet-Lite keeps its stem).
        scale_depth: whether depth scaling applies.
    """

    name: str
    blocks: tuple[Block, ...]
    scale_width: bool = True
    scale_depth: bool = True

    def __post_init__(self) -> None:
        if not re.fullmatch(r"[a-z][a-z0-9_]*", self.name):
            raise SpecError(f"Stage: name must match [a-z][a-z0-9_]*, got {self.name!r}")
        if not self.blocks:
            raise SpecError(f"Stage({self.name}): blocks must not be empty")


@dataclass(frozen=True, kw_only=True)
class Head(Spec):
    """From the last feature map to the class scores: [1x1 conv, norm, activation], average pool, hidden layers, linear.

    Attributes:
        num_classes: K, width of the last linear layer.
        conv_channels: width of the 1x1 convolution before the pool; None = none.
        pool_size: side of the pooled map, in pixels (1; VGG 7).
        hidden: widths of linear layers with bias and activation before the last one.
        dropout: probability behind each hidden layer's activation (VGG: 0.5); without hidden layers, before the last.
        scale_width: whether width scaling applies to `conv_channels` (`hidden` never scales).
        activation: None = the network's.
        dense: a class for every pixel of the last map instead of one for the image: no pool, no hidden layers, and the
            last linear layer is a 1x1 convolution.
    """

    num_classes: int
    conv_channels: int | None = None
    pool_size: int = 1
    hidden: tuple[int, ...] = ()
    dropout: float = 0.0
    scale_width: bool = True
    activation: Activation | None = None
    dense: bool = False

    def __post_init__(self) -> None:
        check_at_least("Head", "num_classes", self.num_classes, 1)
        check_at_least("Head", "pool_size", self.pool_size, 1)
        if self.conv_channels is not None:
            check_at_least("Head", "conv_channels", self.conv_channels, 1)
        for width in self.hidden:
            check_at_least("Head", "hidden", width, 1)
        if not 0 <= self.dropout < 1:
            raise SpecError(f"Head: dropout must lie in [0, 1), got {self.dropout!r}")
        if self.activation is not None:
            check_choice("Head", "activation", self.activation, get_args(Activation))
        if self.dense and (self.hidden or self.pool_size != 1):
            raise SpecError(f"Head: a dense head has no pool and no hidden layers, got {self.pool_size}, {self.hidden}")
