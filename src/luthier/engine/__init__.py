"""Graphs compiled to machine code for the CPU at hand, tile by tile; no torch."""
