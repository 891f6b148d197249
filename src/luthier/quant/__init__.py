"""Numbers of few bits: number types, calibration, and what a quantised graph computes."""

from __future__ import annotations

from luthier.quant.quantize import quantize

__all__ = ["quantize"]
