"""MnasNet-A1 (with squeeze-and-excitation) and MnasNet-B1 (without), under timm's names.

Source:
    Tan et al. 2019, arXiv:1807.11626, figure 7 (A1), and the authors' published code (B1).
"""

from __future__ import annotations

from typing import Final

from luthier.arch.block import Head
from luthier.arch.network import Network
from luthier.arch.presets.registry import register
from luthier.arch.presets.table import SE_INPUT, Row, stages

A1: Final = Network(
    name="semnasnet_100",
    stages=stages(
        Row("conv", 1, 3, 2, 1, 32),
        Row("depthwise_separable", 1, 3, 1, 1, 16, skip="none"),
        Row("mbconv", 2, 3, 2, 6, 24),
        Row("mbconv", 3, 5, 2, 3, 40, SE_INPUT),
        Row("mbconv", 4, 3, 2, 6, 80),
        Row("mbconv", 2, 3, 1, 6, 112, SE_INPUT),
        Row("mbconv", 3, 5, 2, 6, 160, SE_INPUT),
        Row("mbconv", 1, 3, 1, 6, 320),
    ),
    head=Head(num_classes=1000, conv_channels=1280, dropout=0.2),
)
B1: Final = Network(
    name="mnasnet_100",
    stages=stages(
        Row("conv", 1, 3, 2, 1, 32),
        Row("depthwise_separable", 1, 3, 1, 1, 16, skip="none"),
        Row("mbconv", 3, 3, 2, 3, 24),
        Row("mbconv", 3, 5, 2, 3, 40),
        Row("mbconv", 3, 5, 2, 6, 80),
        Row("mbconv", 2, 3, 1, 6, 96),
        Row("mbconv", 4, 5, 2, 6, 192),
        Row("mbconv", 1, 3, 1, 6, 320, skip="none"),
    ),
    head=Head(num_classes=1000, conv_channels=1280, dropout=0.2),
)

register(A1.name, lambda: A1, aliases=("mnasnet_a1",))
register(B1.name, lambda: B1, aliases=("mnasnet_b1", "mnasnet1_0"))
