"""EfficientNetV2-S, -M and -L.

`tf_efficientnetv2_*` is what the original TensorFlow weights need (padding `tf_same`, pixels in [-1, 1]);
`efficientnet_v2_*` is torchvision's (symmetric padding, ImageNet statistics, except L).  Both have epsilon 1e-3.  The
resolution is the one that the published accuracies were measured at; training ran at less.

Source:
    Tan & Le 2021, arXiv:2104.00298, table 4 (S), and the authors' published code (M, L).
"""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import Final

from luthier.arch.block import Head
from luthier.arch.network import HALF, IMAGENET_MEAN, IMAGENET_STD, Network
from luthier.arch.presets.registry import register
from luthier.arch.presets.table import SE_INPUT, Row, stages

#: size -> rows; the first run has expand_ratio 1 and so is a plain convolution with a shortcut
ROWS: Final[dict[str, tuple[Row, ...]]] = {
    "s": (
        Row("conv", 1, 3, 2, 1, 24),
        Row("conv", 2, 3, 1, 1, 24, skip="identity"),
        Row("fused_mbconv", 4, 3, 2, 4, 48),
        Row("fused_mbconv", 4, 3, 2, 4, 64),
        Row("mbconv", 6, 3, 2, 4, 128, SE_INPUT),
        Row("mbconv", 9, 3, 1, 6, 160, SE_INPUT),
        Row("mbconv", 15, 3, 2, 6, 256, SE_INPUT),
    ),
    "m": (
        Row("conv", 1, 3, 2, 1, 24),
        Row("conv", 3, 3, 1, 1, 24, skip="identity"),
        Row("fused_mbconv", 5, 3, 2, 4, 48),
        Row("fused_mbconv", 5, 3, 2, 4, 80),
        Row("mbconv", 7, 3, 2, 4, 160, SE_INPUT),
        Row("mbconv", 14, 3, 1, 6, 176, SE_INPUT),
        Row("mbconv", 18, 3, 2, 6, 304, SE_INPUT),
        Row("mbconv", 5, 3, 1, 6, 512, SE_INPUT),
    ),
    "l": (
        Row("conv", 1, 3, 2, 1, 32),
        Row("conv", 4, 3, 1, 1, 32, skip="identity"),
        Row("fused_mbconv", 7, 3, 2, 4, 64),
        Row("fused_mbconv", 7, 3, 2, 4, 96),
        Row("mbconv", 10, 3, 2, 4, 192, SE_INPUT),
        Row("mbconv", 19, 3, 1, 6, 224, SE_INPUT),
        Row("mbconv", 25, 3, 2, 6, 384, SE_INPUT),
        Row("mbconv", 7, 3, 1, 6, 640, SE_INPUT),
    ),
}
#: size -> (test resolution in pixels, dropout)
SETTINGS: Final[dict[str, tuple[int, float]]] = {"s": (384, 0.2), "m": (480, 0.3), "l": (480, 0.4)}


def _torchvision(size: str) -> Network:
    resolution, dropout = SETTINGS[size]
    return Network(
        name=f"efficientnet_v2_{size}",
        stages=stages(*ROWS[size]),
        head=Head(num_classes=1000, conv_channels=1280, dropout=dropout),
        resolution=resolution,
        activation="silu",
        norm_eps=1e-3,
        input_mean=HALF if size == "l" else IMAGENET_MEAN,
        input_std=HALF if size == "l" else IMAGENET_STD,
    )


def _tf(size: str) -> Network:
    name = f"tf_efficientnetv2_{size}"
    return replace(_torchvision(size), name=name, padding="tf_same", input_mean=HALF, input_std=HALF)


for _size in ROWS:
    register(f"efficientnet_v2_{_size}", partial(_torchvision, _size))
    register(f"tf_efficientnetv2_{_size}", partial(_tf, _size))
