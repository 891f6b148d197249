"""`mbconv_thumbnail`: Luthier's own small baseline for images of 8 to 48 pixels.

7.80 M MACs and 220,582 parameters at 32 px.  Dense (fused) blocks come first, depthwise ones only at 8 and 4 px: with
depthwise blocks at 16 px it trains at half the rate.  Measured while choosing: batch 128, forward, backward and SGD
step, one thread of a 2-core x86 server that others used too (images per second of processor time, fastest of 10 steps,
channels_last / channels_first; expect 20 % of spread):

    variant                                     MACs      relu         silu         hard_swish
    this one                                    7.80 M     886 / 621    807 / 572    692 / 508
    mbconv, expand_ratio 4, at 16 px            8.45 M     421 / 269    252 / 277    394 / 264
    mbconv from 8 px on, none fused there       6.88 M     759 / 608    672 / 477    732 / 533
    two fused blocks at 8 px, no mbconv there   9.88 M    1046 / 805    932 / 677    858 / 676

After as many steps as those rates allow in 60 s, one seed, 4,000 CIFAR-10 test images (standard error 0.8 points):
this one 55.4 % with relu and 54.3 % with silu; the third row 52.9 % and the fourth 55.1 %, both with silu.  ONNX
Runtime, one image, one thread: 0.35 ms with relu, 0.39 ms with hard_swish, 0.40 ms with silu.  So relu, for its
speed: the accuracies of the two activations are too near to rank.
"""

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
    activation="relu",
    channel_divisor=4,
)

register(THUMBNAIL.name, lambda: THUMBNAIL)
