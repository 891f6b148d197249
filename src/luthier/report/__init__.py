"""A finished run as people read it: one self-contained HTML file, and a short table for the terminal."""

from __future__ import annotations

from luthier.report.page import render, write
from luthier.report.summary import lines

__all__ = ["lines", "render", "write"]
