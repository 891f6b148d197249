"""The MBConv networks of the applications: over the bands of one pixel, and along a time series."""

from __future__ import annotations

from luthier.arch import Block, Head, Network, Stage


def pixel_network(features: int, outputs: int, *, width: int = 64, blocks: int = 1, dropout: float = 0.2) -> Network:
    """A network for scenes of one pixel: every convolution is 1 x 1, so all it can do is mix bands.

    The first convolution is the spectral mixer; inverted bottlenecks combine what it made.

    Args:
        features: C, channels of the pixel: bands times views.
        outputs: K.
        width: channels of the mixer.
        blocks: inverted bottlenecks behind it.
        dropout: before the classifier.
    Example:
        >>> network = pixel_network(200, 16)
        >>> network.input_hw, [placed.name for placed in network.walk()]
        ((1, 1), ['mixer.0', 'body.0'])
    """
    mixer = Stage(name="mixer", blocks=(Block(kind="conv", out_channels=width, kernel_size=1),))
    body = tuple(Block(kind="mbconv", out_channels=width, kernel_size=1, expand_ratio=4) for _ in range(blocks))
    return _network("pixel", (mixer, Stage(name="body", blocks=body)), features, 1, outputs, dropout)


def series_network(
    channels: int, length: int, outputs: int, *, width: int = 16, kernel_size: int = 5, dropout: float = 0.3
) -> Network:
    """A network for lines: windows of 1 x k along time, 1 x 1 across the measured quantities.

    Args:
        channels: C, quantities measured at every date.
        length: dates.
        outputs: K.
        width: channels of the stem.
        kernel_size: k, in dates.
        dropout: before the classifier.
    Example:
        >>> series_network(2, 25, 4).input_hw
        (1, 25)
    """
    stem = Stage(name="stem", blocks=(Block(kind="conv", out_channels=width, kernel_size=kernel_size),))
    body = (
        Block(kind="mbconv", out_channels=width, kernel_size=kernel_size, expand_ratio=2),
        Block(kind="mbconv", out_channels=width, kernel_size=kernel_size, expand_ratio=2, stride=2),
    )
    stages = (stem, Stage(name="body", blocks=body))
    return _network("series", stages, channels, length, outputs, dropout, pool_size=max(1, length // 6))


def _network(
    name: str, stages: tuple[Stage, ...], channels: int, length: int, outputs: int, dropout: float, pool_size: int = 1
) -> Network:
    return Network(
        name=name, stages=stages, head=Head(num_classes=outputs, dropout=dropout, pool_size=pool_size),
        resolution=length, height=1, in_channels=channels, activation="silu",
        input_mean=(0.0,) * channels, input_std=(1.0,) * channels,
    )  # fmt: skip
