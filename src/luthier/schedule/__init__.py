"""How a graph is tiled and fused, as data."""

from __future__ import annotations

from luthier.schedule.fast import fast_bytes
from luthier.schedule.legal import check
from luthier.schedule.make import fused, unfused
from luthier.schedule.schedule import AUTO, WHOLE, Choice, Group, Schedule, Tile
from luthier.schedule.scope import Scope, scope, scopes
from luthier.schedule.space import TileSpace, tile_space
from luthier.schedule.working_set import WorkingSet, working_set

__all__ = [
    "AUTO",
    "WHOLE",
    "Choice",
    "Group",
    "Schedule",
    "Scope",
    "Tile",
    "TileSpace",
    "WorkingSet",
    "check",
    "fast_bytes",
    "fused",
    "scope",
    "scopes",
    "tile_space",
    "unfused",
    "working_set",
]
