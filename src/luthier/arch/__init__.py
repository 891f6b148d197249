"""Network descriptions: frozen, validated, JSON-round-tripping data.  No tensor, no framework."""

from __future__ import annotations

from luthier.arch.block import Attention, Block, Head, Precision, Stage
from luthier.arch.encode import from_json, read, to_json
from luthier.arch.network import Network, Placed

__all__ = ["Attention", "Block", "Head", "Network", "Placed", "Precision", "Stage", "from_json", "read", "to_json"]
