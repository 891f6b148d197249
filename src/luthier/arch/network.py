"""A whole network as one frozen value: what modules, graphs, searches and run folders are made from."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal, get_args

from luthier.arch.block import Activation, Block, Head, Precision, Spec, Stage, check_at_least, check_choice
from luthier.errors import SpecError

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
HALF = (0.5, 0.5, 0.5)
FP32 = Precision()


@dataclass(frozen=True)
class Placed:
    """A block with what it inherits from its surroundings.

    Attributes:
        name: `<stage>.<index>`, unique in the network; operators, weights and reports use it.
        in_channels: C_in.
        inner_channels: see `Block.inner_channels`.
        input_size, output_size: sides of the block's input and output maps, in pixels.
        activation: resolved, never None.
        precision: resolved, never None.
    """

    name: str
    stage: Stage
    index: int
    block: Block
    in_channels: int
    inner_channels: int
    input_size: int
    output_size: int
    activation: Activation
    precision: Precision


@dataclass(frozen=True, kw_only=True)
class Network(Spec):
    """A classifier: stages of blocks (the first is the stem) and a head.

    Attributes:
        name: for people; two networks may share it.
        resolution: side of the square input, in pixels; of a line, its length.
        height: rows of the input: None = as many as columns; 1 = a line (a spectrum, a time series), over which every
            window is 1 x k, and the head's map 1 x `pool_size`.
        in_channels: C of the input (3 = RGB).
        activation: default of all blocks.
        padding: `symmetric` = floor((k - 1) / 2) on each side; `tf_same` = ceil(in / stride) outputs, the odd pixel
            at the end.
        norm_eps: batch normalisation's epsilon.
        channel_divisor: inner widths and scaled widths are multiples of this.
        precision: default of all blocks and of the head.
        input_mean, input_std: per channel, on pixels in [0, 1]; the normalisation the network expects.
    Example:
        >>> stem = Stage(name="stem", blocks=(Block(kind="conv", out_channels=16, stride=2),))
        >>> net = Network(name="tiny", stages=(stem,), head=Head(num_classes=10), resolution=32)
        >>> [(p.name, p.in_channels, p.block.out_channels) for p in net.walk()]
        [('stem.0', 3, 16)]
    """

    name: str
    stages: tuple[Stage, ...]
    head: Head
    resolution: int = 224
    height: Literal[1] | None = None
    in_channels: int = 3
    activation: Activation = "relu"
    padding: Literal["symmetric", "tf_same"] = "symmetric"
    norm_eps: float = 1e-5
    channel_divisor: int = 8
    precision: Precision = FP32
    input_mean: tuple[float, ...] = IMAGENET_MEAN
    input_std: tuple[float, ...] = IMAGENET_STD

    def __post_init__(self) -> None:
        who = f"Network({self.name})"
        if not self.stages:
            raise SpecError(f"{who}: stages must not be empty")
        names = [stage.name for stage in self.stages]
        twice = sorted({name for name in names if names.count(name) > 1} | ({"head"} & set(names)))
        if twice:
            raise SpecError(
                f"{who}: stage names must be unique and not 'head', got {', '.join(twice)} twice or reserved"
            )
        check_at_least(who, "resolution", self.resolution, 1)
        check_at_least(who, "in_channels", self.in_channels, 1)
        check_at_least(who, "channel_divisor", self.channel_divisor, 1)
        check_choice(who, "activation", self.activation, get_args(Activation))
        check_choice(who, "padding", self.padding, ("symmetric", "tf_same"))
        check_choice(who, "height", self.height, (None, 1))
        if not 0 < self.norm_eps < 1:
            raise SpecError(f"{who}: norm_eps must lie in (0, 1), got {self.norm_eps!r}")
        for field, values in (("input_mean", self.input_mean), ("input_std", self.input_std)):
            if len(values) != self.in_channels:
                raise SpecError(
                    f"{who}: {field} needs one value per input channel ({self.in_channels}), got {len(values)}"
                )
        if min(self.input_std) <= 0:
            raise SpecError(f"{who}: input_std must be above 0, got {self.input_std!r}")
        for placed in self.walk():
            # a pool may have an even window, whose symmetric padding cannot hold the last pixel
            if placed.output_size < 1:
                raise SpecError(
                    f"{who}: {placed.name}: nothing is left of a {self.resolution} px input; raise the resolution"
                )
            attention = placed.block.attention
            if self.height == 1 and attention is not None and attention.kind in ("spatial", "cbam", "coord"):
                raise SpecError(
                    f"{who}: {placed.name}: attention {attention.kind!r} needs rows and columns, a line has one row; "
                    "use se, ese or eca"
                )
            if placed.block.kind == "pool" and placed.block.out_channels != placed.in_channels:
                raise SpecError(
                    f"{who}: {placed.name}: a pool keeps its {placed.in_channels} channels, "
                    f"got out_channels={placed.block.out_channels}"
                )

    def window(self, size: int) -> tuple[int, int]:
        """(rows, columns) of a window or a pooled map of this size: 1 x size over a line, else square."""
        return (self.height or size, size)

    @property
    def input_hw(self) -> tuple[int, int]:
        """(H, W) of the input, in pixels."""
        return (self.height or self.resolution, self.resolution)

    def walk(self) -> Iterator[Placed]:
        """Every block in order, with its name, input width and resolved defaults."""
        channels, size = self.in_channels, self.resolution
        for stage in self.stages:
            for index, block in enumerate(stage.blocks):
                placed = self.place(stage, index, block, channels, size)
                yield placed
                channels, size = block.out_channels, placed.output_size

    def place(self, stage: Stage, index: int, block: Block, in_channels: int, input_size: int) -> Placed:
        """A block of this network or another, where a map of C_in channels and `input_size` pixels enters it."""
        if self.padding == "tf_same":
            output_size = -(-input_size // block.stride)
        else:
            padding = (block.kernel_size - 1) // 2
            output_size = max(0, (input_size + 2 * padding - block.kernel_size) // block.stride + 1)
        return Placed(
            name=f"{stage.name}.{index}",
            stage=stage,
            index=index,
            block=block,
            in_channels=in_channels,
            inner_channels=block.inner_channels(in_channels, self.channel_divisor),
            input_size=input_size,
            output_size=output_size,
            activation=block.activation or self.activation,
            precision=block.precision or self.precision,
        )

    @property
    def feature_channels(self) -> int:
        """Channels that reach the head's pool."""
        return self.head.conv_channels or self.stages[-1].blocks[-1].out_channels

    @property
    def feature_size(self) -> int:
        """Side of the last feature map, in pixels."""
        return [placed.output_size for placed in self.walk()][-1]

    @property
    def total_stride(self) -> int:
        """Input pixels per pixel of the last feature map, per axis."""
        stride = 1
        for placed in self.walk():
            stride *= placed.block.stride
        return stride

    def with_head(self, num_classes: int, dropout: float | None = None) -> Network:
        """The same network for another number of classes (and dropout)."""
        head = dataclasses.replace(
            self.head, num_classes=num_classes, dropout=self.head.dropout if dropout is None else dropout
        )
        return dataclasses.replace(self, head=head)
