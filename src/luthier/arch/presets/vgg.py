"""VGG-11 and VGG-16, plain and with batch normalisation.

Source:
    Simonyan & Zisserman 2015, arXiv:1409.1556, table 1, columns A and D; batch normalisation as in torchvision, behind
    convolutions that keep their bias.
"""

from __future__ import annotations

from functools import partial
from typing import Final

from luthier.arch.block import Block, Head, Stage
from luthier.arch.network import Network
from luthier.arch.presets.registry import register

#: depth -> convolutions per stage; each stage ends in a 2x2 max pool
REPEATS: Final[dict[int, tuple[int, ...]]] = {11: (1, 1, 2, 2, 2), 16: (2, 2, 3, 3, 3)}
CHANNELS: Final = (64, 128, 256, 512, 512)


def _vgg(depth: int, norm: bool) -> Network:
    stages = []
    for number, (repeats, channels) in enumerate(zip(REPEATS[depth], CHANNELS, strict=True), start=1):
        conv = Block(kind="conv", out_channels=channels, norm=norm, bias=True)
        pool = Block(kind="pool", out_channels=channels, kernel_size=2, stride=2)
        name = "stem" if number == 1 else f"stage{number - 1}"
        stages.append(Stage(name=name, blocks=(*(conv,) * repeats, pool)))
    return Network(
        name=f"vgg{depth}_bn" if norm else f"vgg{depth}",
        stages=tuple(stages),
        head=Head(num_classes=1000, pool_size=7, hidden=(4096, 4096), dropout=0.5),
    )


for _depth in REPEATS:
    register(f"vgg{_depth}", partial(_vgg, _depth, norm=False))
    register(f"vgg{_depth}_bn", partial(_vgg, _depth, norm=True))
