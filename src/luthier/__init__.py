"""Luthier: vision networks built to measure."""

from __future__ import annotations

__version__ = "0.1.0"
