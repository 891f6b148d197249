"""Kernels on integers: bytes in memory, 32-bit sums in registers, equal to `luthier.quant.integer` to the last bit."""
