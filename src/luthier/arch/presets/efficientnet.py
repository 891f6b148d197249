"""EfficientNet-B0 to B7 and EfficientNet-Lite0 to Lite4.

`efficientnet_*` pads symmetrically, batch normalisation has epsilon 1e-5 (torchvision trains its B5 to B7 with 1e-3);
`tf_efficientnet_*` is the same table as the original TensorFlow weights need it: padding `tf_same`, epsilon 1e-3.

Source:
    Tan & Le 2019, arXiv:1905.11946, table 1 (B0) and the factors published with its code (B1 to B7);
    Liu 2020, "Higher accuracy on vision models with EfficientNet-Lite", TensorFlow blog (Lite).
"""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import Final

from luthier.arch.block import Head
from luthier.arch.network import HALF, Network
from luthier.arch.presets.registry import register
from luthier.arch.presets.table import SE_INPUT, Row, stages
from luthier.arch.scaling import scale_by

B0: Final = Network(
    name="efficientnet_b0",
    stages=stages(
        Row("conv", 1, 3, 2, 1, 32),
        Row("depthwise_separable", 1, 3, 1, 1, 16, SE_INPUT),
        Row("mbconv", 2, 3, 2, 6, 24, SE_INPUT),
        Row("mbconv", 2, 5, 2, 6, 40, SE_INPUT),
        Row("mbconv", 3, 3, 2, 6, 80, SE_INPUT),
        Row("mbconv", 3, 5, 1, 6, 112, SE_INPUT),
        Row("mbconv", 4, 5, 2, 6, 192, SE_INPUT),
        Row("mbconv", 1, 3, 1, 6, 320, SE_INPUT),
    ),
    head=Head(num_classes=1000, conv_channels=1280, dropout=0.2),
    resolution=224,
    activation="silu",
)

LITE0: Final = Network(
    name="efficientnet_lite0",
    stages=stages(
        Row("conv", 1, 3, 2, 1, 32),
        Row("depthwise_separable", 1, 3, 1, 1, 16),
        Row("mbconv", 2, 3, 2, 6, 24),
        Row("mbconv", 2, 5, 2, 6, 40),
        Row("mbconv", 3, 3, 2, 6, 80),
        Row("mbconv", 3, 5, 1, 6, 112),
        Row("mbconv", 4, 5, 2, 6, 192),
        Row("mbconv", 1, 3, 1, 6, 320),
        fixed_ends=True,
    ),
    head=Head(num_classes=1000, conv_channels=1280, dropout=0.2, scale_width=False),
    resolution=224,
    activation="relu6",
)

#: name -> (width w, depth d, resolution in pixels, dropout)
B_FACTORS: Final[dict[str, tuple[float, float, int, float]]] = {
    "efficientnet_b0": (1.0, 1.0, 224, 0.2),
    "efficientnet_b1": (1.0, 1.1, 240, 0.2),
    "efficientnet_b2": (1.1, 1.2, 260, 0.3),
    "efficientnet_b3": (1.2, 1.4, 300, 0.3),
    "efficientnet_b4": (1.4, 1.8, 380, 0.4),
    "efficientnet_b5": (1.6, 2.2, 456, 0.4),
    "efficientnet_b6": (1.8, 2.6, 528, 0.5),
    "efficientnet_b7": (2.0, 3.1, 600, 0.5),
}
LITE_FACTORS: Final[dict[str, tuple[float, float, int, float]]] = {
    "efficientnet_lite0": (1.0, 1.0, 224, 0.2),
    "efficientnet_lite1": (1.0, 1.1, 240, 0.2),
    "efficientnet_lite2": (1.1, 1.2, 260, 0.3),
    "efficientnet_lite3": (1.2, 1.4, 280, 0.3),
    "efficientnet_lite4": (1.4, 1.8, 300, 0.3),
}


def _member(base: Network, name: str, factors: tuple[float, float, int, float]) -> Network:
    width, depth, resolution, dropout = factors
    scaled = scale_by(base, width, depth, resolution, name=name)
    return scaled.with_head(scaled.head.num_classes, dropout)


_B0_TF: Final = replace(B0, padding="tf_same", norm_eps=1e-3)
# the TensorFlow Lite weights were trained on pixels in [-1, 1]
_LITE0_TF: Final = replace(LITE0, padding="tf_same", norm_eps=1e-3, input_mean=HALF, input_std=HALF)

for _base, _base_tf, _table in ((B0, _B0_TF, B_FACTORS), (LITE0, _LITE0_TF, LITE_FACTORS)):
    for _name, _factors in _table.items():
        register(_name, partial(_member, _base, _name, _factors))
        register(f"tf_{_name}", partial(_member, _base_tf, f"tf_{_name}", _factors))
