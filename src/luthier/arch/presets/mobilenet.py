"""MobileNetV2 at any width, and MobileNetV3 large and small.

V3 comes three ways from one table: timm's `mobilenetv3_*` (symmetric padding, epsilon 1e-5), torchvision's
`mobilenet_v3_*` (symmetric, 1e-3) and `tf_mobilenetv3_*` for the original TensorFlow weights (`tf_same`, 1e-3, pixels
in [-1, 1]).

Source:
    Sandler et al. 2018, arXiv:1801.04381, table 2 (V2); Howard et al. 2019, arXiv:1905.02244, tables 1 and 2 (V3).
"""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import Final

from luthier.arch.block import Attention, Head
from luthier.arch.network import HALF, Network
from luthier.arch.presets.registry import register
from luthier.arch.presets.table import Row, stages
from luthier.arch.scaling import scale_by

V2_ROWS: Final = (
    Row("conv", 1, 3, 2, 1, 32),
    Row("depthwise_separable", 1, 3, 1, 1, 16),
    Row("mbconv", 2, 3, 2, 6, 24),
    Row("mbconv", 3, 3, 2, 6, 32),
    Row("mbconv", 4, 3, 2, 6, 64),
    Row("mbconv", 3, 3, 1, 6, 96),
    Row("mbconv", 3, 3, 2, 6, 160),
    Row("mbconv", 1, 3, 1, 6, 320),
)

#: MobileNetV3's gate: 1/4 of the gated channels, in multiples of 8
_SE: Final = Attention(ratio=0.25, reference="gated", divisor=8, activation="relu", gate="hard_sigmoid")

V3_LARGE_ROWS: Final[tuple[Row | tuple[Row, ...], ...]] = (
    Row("depthwise_separable", 1, 3, 1, 1, 16, None, "relu"),
    (Row("mbconv", 1, 3, 2, 4, 24, None, "relu"), Row("mbconv", 1, 3, 1, 3, 24, None, "relu")),
    Row("mbconv", 3, 5, 2, 3, 40, _SE, "relu"),
    (Row("mbconv", 1, 3, 2, 6, 80), Row("mbconv", 1, 3, 1, 2.5, 80), Row("mbconv", 2, 3, 1, 2.3, 80)),
    Row("mbconv", 2, 3, 1, 6, 112, _SE),
    Row("mbconv", 3, 5, 2, 6, 160, _SE),
    Row("conv", 1, 1, 1, 1, 960),
)
V3_SMALL_ROWS: Final[tuple[Row | tuple[Row, ...], ...]] = (
    Row("depthwise_separable", 1, 3, 2, 1, 16, _SE, "relu"),
    (Row("mbconv", 1, 3, 2, 4.5, 24, None, "relu"), Row("mbconv", 1, 3, 1, 3.67, 24, None, "relu")),
    (Row("mbconv", 1, 5, 2, 4, 40, _SE), Row("mbconv", 2, 5, 1, 6, 40, _SE)),
    Row("mbconv", 2, 5, 1, 3, 48, _SE),
    Row("mbconv", 3, 5, 2, 6, 96, _SE),
    Row("conv", 1, 1, 1, 1, 576),
)


def mobilenet_v2(
    width_mult: float = 1.0, depth_mult: float = 1.0, *, fixed_ends: bool = False, name: str | None = None
) -> Network:
    """MobileNetV2 of any width.

    Args:
        width_mult: factor on all channels; as in the paper, the last convolution's 1280 only grows, never shrinks.
        depth_mult: factor on the blocks of each stage.
        fixed_ends: keep the stem's and the last convolution's width, and the first and last stage's depth
            (timm's `d` variants).
        name: None = `mobilenetv2_<width in percent>`.
    Raises:
        SpecError: a factor that is not above zero.
    Example:
        >>> net = mobilenet_v2(0.5)
        >>> net.name, net.stages[-1].blocks[-1].out_channels, net.head.conv_channels
        ('mobilenetv2_050', 160, 1280)
    """
    keep_head = fixed_ends or width_mult < 1
    base = Network(
        name="mobilenetv2_100",
        stages=stages(*V2_ROWS, fixed_ends=fixed_ends),
        head=Head(num_classes=1000, conv_channels=1280, dropout=0.2, scale_width=not keep_head),
        activation="relu6",
    )
    name = name or f"mobilenetv2_{round(width_mult * 100):03d}"
    return scale_by(base, width_mult, depth_mult, base.resolution, name=name)


def _v3(name: str, width_mult: float, norm_eps: float, tf: bool) -> Network:
    large = "large" in name
    base = Network(
        name=name,
        stages=stages(Row("conv", 1, 3, 2, 1, 16), *(V3_LARGE_ROWS if large else V3_SMALL_ROWS)),
        head=Head(num_classes=1000, hidden=(1280 if large else 1024,), dropout=0.2),
        activation="hard_swish",
        norm_eps=norm_eps,
    )
    if tf:
        base = replace(base, padding="tf_same", input_mean=HALF, input_std=HALF)
    # the last 1x1 convolution computes the head's features: repeating it would not deepen a stage
    base = replace(base, stages=(*base.stages[:-1], replace(base.stages[-1], scale_depth=False)))
    return scale_by(base, width_mult, 1.0, base.resolution, name=name)


for _percent in (35, 50, 75, 100, 140):
    register(
        f"mobilenetv2_{_percent:03d}",
        partial(mobilenet_v2, _percent / 100),
        aliases=("mobilenet_v2",) if _percent == 100 else (),
    )
register("mobilenetv2_110d", partial(mobilenet_v2, 1.1, 1.2, fixed_ends=True, name="mobilenetv2_110d"))
register("mobilenetv2_120d", partial(mobilenet_v2, 1.2, 1.4, fixed_ends=True, name="mobilenetv2_120d"))

for _size in ("large", "small"):
    register(f"mobilenet_v3_{_size}", partial(_v3, f"mobilenet_v3_{_size}", 1.0, 1e-3, tf=False))
    for _percent in (75, 100):
        _name = f"mobilenetv3_{_size}_{_percent:03d}"
        register(_name, partial(_v3, _name, _percent / 100, 1e-5, tf=False))
        register(f"tf_{_name}", partial(_v3, f"tf_{_name}", _percent / 100, 1e-3, tf=True))
