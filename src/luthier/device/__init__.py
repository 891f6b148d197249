"""Devices as data: peaks, memory levels, energies, each figure with its source."""

from __future__ import annotations

from luthier.device.device import Calibration, Device, EnergyTable, Figure, MemoryLevel
from luthier.device.registry import energy_table, get, names

__all__ = [
    "Calibration",
    "Device",
    "EnergyTable",
    "Figure",
    "MemoryLevel",
    "energy_table",
    "get",
    "names",
]
