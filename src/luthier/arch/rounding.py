"""How channel counts and depths become whole numbers after scaling."""

from __future__ import annotations

import math

from luthier.errors import SpecError


def round_channels(channels: float, divisor: int = 8, round_limit: float = 0.9) -> int:
    """Nearest multiple of `divisor`, never more than 10 % below.

        rounded = max(divisor, floor((channels + divisor / 2) / divisor) * divisor)                  (1)
        rounded += divisor   if rounded < round_limit * channels                                     (2)

    Args:
        channels: wished width, above zero.
        divisor: every width becomes a multiple of this; 8 suits vector units.
        round_limit: share of the wished width that must be kept.
    Raises:
        SpecError: `channels` or `divisor` is not above zero.
    Source:
        the rounding rule of MobileNetV2 and EfficientNet, as published with arXiv:1905.11946.
    Example:
        >>> round_channels(32 * 1.1), round_channels(16 * 0.35), round_channels(6.0, divisor=1)
        (32, 8, 6)
    """
    if not channels > 0 or divisor < 1:
        raise SpecError(f"round_channels: channels and divisor must be above 0, got {channels!r} and {divisor!r}")
    if divisor == 1:
        return max(1, round(channels))
    rounded = max(divisor, int(channels + divisor / 2) // divisor * divisor)
    return rounded + divisor if rounded < round_limit * channels else rounded


def round_depth(num_blocks: float) -> int:
    """Blocks in a scaled stage: the ceiling, at least 1, so that no stage vanishes.

    Floating noise must not add a block: 3 * 1.0000000001 stays 3.

    Example:
        >>> round_depth(2 * 1.1), round_depth(4 * 0.5), round_depth(1 * 0.2)
        (3, 2, 1)
    """
    return max(1, math.ceil(num_blocks - 1e-9))
