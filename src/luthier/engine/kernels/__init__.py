"""Kernels: each a frozen description that emits its own code, with a contract that a NumPy reference states."""
