"""Devices as data: peaks, memory levels, energies, each figure with its source."""

from __future__ import annotations

from luthier.device.device import Calibration, Device, EnergyTable, Figure, MemoryLevel, OpEfficiency
from luthier.device.registry import energy_table, get, names

__all__ = [
    "Calibration",
    "Device",
    "EnergyTable",
    "Figure",
    "MemoryLevel",
    "OpEfficiency",
    "energy_table",
    "get",
    "names",
]
