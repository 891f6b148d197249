"""How a graph is tiled and fused, as data."""

from __future__ import annotations

from luthier.schedule.schedule import Group, Schedule, Tile

__all__ = ["Group", "Schedule", "Tile"]
