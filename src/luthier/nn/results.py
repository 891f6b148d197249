"""What examining a module returns, as frozen values that need no torch to be read."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class BlockUse:
    """What one block makes of its field and its width.

    Attributes:
        name: of the block (`Network.walk`).
        channels: C of its map.
        effective_px: side of its effective receptive field, in pixels of the image.
        effective_rank, participation: see `luthier.nn.effective`; in [1, channels].
    """

    name: str
    channels: int
    effective_px: int
    effective_rank: float
    participation: float
