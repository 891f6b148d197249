"""This machine's peaks and bandwidths, measured by loops whose machine code is known."""

from __future__ import annotations

from luthier.device.measure.run import measure

__all__ = ["measure"]
