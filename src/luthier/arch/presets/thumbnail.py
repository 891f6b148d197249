"""`mbconv_thumbnail`: Luthier's own small baseline for images of 8 to 48 pixels."""

from __future__ import annotations

from dataclasses import replace
from typing import Final

from luthier.arch.block import Head
from luthier.arch.network import Network
from luthier.arch.presets.registry import register
from luthier.arch.presets.table import SE_INPUT, Row, stages

_STEM, _EARLY, *_REST = stages(
    Row("conv", 1, 3, 1, 1, 16),
    Row("fused_mbconv", 1, 3, 2, 2, 24),
    (Row("fused_mbconv", 1, 3, 2, 4, 48), Row("mbconv", 2, 3, 1, 3, 48, SE_INPUT)),
    Row("mbconv", 2, 3, 2, 4, 96, SE_INPUT),
)

THUMBNAIL: Final = Network(
    name="mbconv_thumbnail",
    # the only early block is never doubled: the ceiling of 1 * d would make phi = 0.1 twice as expensive as phi = 0
    stages=(_STEM, replace(_EARLY, scale_depth=False), *_REST),
    head=Head(num_classes=10, conv_channels=160, dropout=0.1),
    resolution=32,
    activation="silu",
    channel_divisor=4,
)

register(THUMBNAIL.name, lambda: THUMBNAIL)
