"""What the analyser found, as people read it: one self-contained HTML file, and tables for the terminal."""

from __future__ import annotations

from luthier.report.analysis.page import render, write
from luthier.report.analysis.terminal import comparison, lines

__all__ = ["comparison", "lines", "render", "write"]
