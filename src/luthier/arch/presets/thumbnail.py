"""`mbconv_thumbnail`: Luthier's own small baseline for images of 8 to 48 pixels."""

from __future__ import annotations

from typing import Final

from luthier.arch.block import Head
from luthier.arch.network import Network
from luthier.arch.presets.registry import register
from luthier.arch.presets.table import SE_INPUT, Row, stages

THUMBNAIL: Final = Network(
    name="mbconv_thumbnail",
    stages=stages(
        Row("conv", 1, 3, 1, 1, 16),
        Row("fused_mbconv", 1, 3, 2, 3, 24),
        Row("mbconv", 2, 3, 1, 4, 24, SE_INPUT),
        Row("mbconv", 2, 3, 2, 4, 40, SE_INPUT),
        Row("mbconv", 2, 3, 2, 4, 64, SE_INPUT),
    ),
    head=Head(num_classes=10, conv_channels=160, dropout=0.1),
    resolution=32,
    activation="silu",
    channel_divisor=4,
)

register(THUMBNAIL.name, lambda: THUMBNAIL)
