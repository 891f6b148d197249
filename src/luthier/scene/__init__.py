"""Hyperspectral scenes: cubes read by windows, splits without leakage, maps with their accuracy."""
