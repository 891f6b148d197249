"""The small MBConv network that several labs train: a stem and two stages, for images of 16 pixels."""

from __future__ import annotations

from dataclasses import replace
from typing import Final

from luthier.arch.block import Activation, Attention, Block, Head, Stage
from luthier.arch.network import Network

SIDE: Final = 16
RATE: Final = 0.1


def small_network(name: str, width: int, gate: Attention | None, *, activation: Activation = "relu") -> Network:
    """Two blocks at 8 pixels, three at 4; 0.1 to 0.5 M MACs for widths of 6 to 16.

    Args:
        width: channels of the stem and of the first stage; the second has twice as many.
        gate: of every block.
    Example:
        >>> net = small_network("n", 12, Attention(kind="se", place="before_depthwise"))
        >>> [placed.block.out_channels for placed in net.walk() if placed.block.attention]
        [12, 12, 24, 24, 24]
    """

    def stage(title: str, channels: int, repeats: int, stride: int) -> Stage:
        block = Block(kind="mbconv", out_channels=channels, expand_ratio=3, stride=stride, attention=gate)
        return Stage(name=title, blocks=(block, *(replace(block, stride=1),) * (repeats - 1)))

    return Network(
        name=name,
        stages=(
            Stage(name="stem", blocks=(Block(kind="conv", out_channels=width, stride=2),)),
            stage("fine", width, 2, 1),
            stage("coarse", 2 * width, 3, 2),
        ),
        head=Head(num_classes=10),
        resolution=SIDE,
        activation=activation,
        channel_divisor=2,
    )
