"""Other run times on the same network: each in a process of its own, at its best setting."""

from __future__ import annotations

from luthier.deploy.peers.registry import NAMES, get

__all__ = ["NAMES", "get"]
