"""Graphs compiled to machine code for the CPU at hand, tile by tile; no torch."""

from __future__ import annotations

from luthier.engine.plan import Plan, compile, load
from luthier.engine.target import Target, host, runnable

__all__ = ["Plan", "Target", "compile", "host", "load", "runnable"]
