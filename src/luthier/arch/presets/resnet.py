"""ResNet-18, -34, -50, SE-ResNet-50, and the CIFAR ResNet-20.

The stride of a bottleneck is in its 3x3 convolution ("v1.5", as torchvision and timm have it); the paper's own is in
the first 1x1.  `resnet20` expects ImageNet's input statistics, as the public CIFAR-10 weights of this network do.

Source:
    He et al. 2016, arXiv:1512.03385, table 1 and section 4.2 (CIFAR; shortcut option A subsamples and pads
    with zero channels);
    Hu et al. 2018, arXiv:1709.01507, table 1 (SE-ResNet-50, reduction 16).
"""

from __future__ import annotations

from functools import partial
from typing import Final

from luthier.arch.block import Attention, Block, Head, Stage
from luthier.arch.network import Network
from luthier.arch.presets.registry import register
from luthier.arch.presets.table import Row, stages

_SE: Final = Attention(kind="se", place="after_project", ratio=1 / 16, reference="gated", divisor=8)
_POOL: Final = Stage(
    name="pool", blocks=(Block(kind="pool", out_channels=64, kernel_size=3, stride=2),), scale_depth=False
)


def _imagenet(name: str, *rows: Row) -> Network:
    stem, *rest = stages(Row("conv", 1, 7, 2, 1, 64), *rows)
    return Network(name=name, stages=(stem, _POOL, *rest), head=Head(num_classes=1000))


RESNET18: Final = _imagenet(
    "resnet18",
    Row("basic", 2, 3, 1, 1, 64),
    Row("basic", 2, 3, 2, 1, 128),
    Row("basic", 2, 3, 2, 1, 256),
    Row("basic", 2, 3, 2, 1, 512),
)
RESNET34: Final = _imagenet(
    "resnet34",
    Row("basic", 3, 3, 1, 1, 64),
    Row("basic", 4, 3, 2, 1, 128),
    Row("basic", 6, 3, 2, 1, 256),
    Row("basic", 3, 3, 2, 1, 512),
)
RESNET50: Final = _imagenet(
    "resnet50",
    Row("bottleneck", 3, 3, 1, 0.25, 256),
    Row("bottleneck", 4, 3, 2, 0.25, 512),
    Row("bottleneck", 6, 3, 2, 0.25, 1024),
    Row("bottleneck", 3, 3, 2, 0.25, 2048),
)
SERESNET50: Final = _imagenet(
    "seresnet50",
    Row("bottleneck", 3, 3, 1, 0.25, 256, _SE),
    Row("bottleneck", 4, 3, 2, 0.25, 512, _SE),
    Row("bottleneck", 6, 3, 2, 0.25, 1024, _SE),
    Row("bottleneck", 3, 3, 2, 0.25, 2048, _SE),
)
RESNET20: Final = Network(
    name="resnet20",
    stages=stages(
        Row("conv", 1, 3, 1, 1, 16),
        Row("basic", 3, 3, 1, 1, 16, skip="pad"),
        Row("basic", 3, 3, 2, 1, 32, skip="pad"),
        Row("basic", 3, 3, 2, 1, 64, skip="pad"),
    ),
    head=Head(num_classes=10),
    resolution=32,
)

for _network in (RESNET18, RESNET34, RESNET50, SERESNET50):
    register(_network.name, partial(Network.with_head, _network, 1000))
register(RESNET20.name, lambda: RESNET20, aliases=("cifar_resnet20",))
