"""`mbconv_scene` and its kin: networks that give every pixel of a hyperspectral scene a class.

Fully convolutional, no stride, no pool and no norm over the whole scene: a pixel's class depends on the pixels of its
receptive field alone, which is 9 px wide, and so training and test ground can be kept apart by a narrow guard band.
The 1x1 convolutions mix bands, the depthwise ones look at a pixel's neighbours.

    name                     first layers                                                        field
    mbconv_scene             1x1 mixes the bands; the depthwise filters see mixtures             9 px
    mbconv_scene_bandwise    3x3 filters every raw band apart, and only then the 1x1 mixes       9 px
    mbconv_scene_spectral    as the first, without any neighbours: what the spectrum alone says  1 px

Bands, classes and normalisation of the table are those of the AVIRIS scene Indian Pines; `for_scene` fits another.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Final

from luthier.arch.block import Attention, Block, Head, Stage
from luthier.arch.network import Network
from luthier.arch.presets.registry import register

_BANDS: Final = 200
_WIDTH: Final = 48
_EXPAND: Final = 2.0


def _gate(window: int) -> Attention:
    return Attention(kind="se", ratio=0.25, window=window)


def _network(name: str, *blocks: Block) -> Network:
    stages = tuple(Stage(name="stem" if not i else f"stage{i}", blocks=(block,)) for i, block in enumerate(blocks))
    return Network(
        name=name, stages=stages, head=Head(num_classes=16, dropout=0.2, dense=True), resolution=145,
        in_channels=_BANDS, activation="relu", input_mean=(0.0,) * _BANDS, input_std=(1.0,) * _BANDS,
    )  # fmt: skip


def _mbconv(kernel_size: int, attention: Attention | None = None) -> Block:
    return Block(kind="mbconv", out_channels=_WIDTH, kernel_size=kernel_size, expand_ratio=_EXPAND, attention=attention)


#: the spectral mixer: linear, as the filters before it in `BANDWISE`, so that nothing is cut off before blocks see it
_MIX: Final = Block(kind="conv", out_channels=_WIDTH, kernel_size=1, activation="identity")
SCENE: Final = _network("mbconv_scene", _MIX, _mbconv(3), _mbconv(3, _gate(5)))
BANDWISE: Final = _network(
    "mbconv_scene_bandwise",
    Block(kind="depthwise_separable", out_channels=_WIDTH, skip="none", activation="identity"),
    _mbconv(3), _mbconv(3, _gate(3)),
)  # fmt: skip
SPECTRAL: Final = _network("mbconv_scene_spectral", _MIX, _mbconv(1), _mbconv(1))

register(SCENE.name, lambda: SCENE)
register(BANDWISE.name, lambda: BANDWISE)
register(SPECTRAL.name, lambda: SPECTRAL)


def for_scene(
    network: Network, num_classes: int, mean: Sequence[float], std: Sequence[float], side: int | None = None
) -> Network:
    """A dense network for other bands, classes and normalisation.

    Args:
        network: with a dense head.
        num_classes: K.
        mean, std: of every band, in the cube's own unit; their number is the number of bands.
        side: the map's, in pixels, for costs; None = unchanged.
    Example:
        >>> for_scene(SCENE, 3, (0.1, 0.2), (1.0, 1.0)).in_channels
        2
    """
    return replace(
        network, in_channels=len(mean), input_mean=tuple(mean), input_std=tuple(std),
        head=replace(network.head, num_classes=num_classes), resolution=side or network.resolution,
    )  # fmt: skip
