"""Runs one kernel on arrays: each operand ends where memory may not be touched, and outputs are NaN before."""

from __future__ import annotations

import ctypes
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from luthier.device.jit import Library, assemble
from luthier.engine.emit import Module
from luthier.engine.kernels.element import FP32, Element
from luthier.engine.kernels.kernel import Body, Kernel
from luthier.engine.layout import Layout
from luthier.engine.memory import Guarded
from luthier.engine.target import Target
from luthier.graph.halves import from_bf16

Array = NDArray[Any]
SIGNATURE = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int64, ctypes.c_int64)


def call(target: Target, kernel: Kernel, operands: Mapping[str, Array], shuffle: int = 0) -> dict[str, Array]:
    """Compile `kernel` and run all its tasks, in a random order; returns the operands afterwards."""
    module = Module(target.lanes, target.triple, str(target.machine.target_data))
    kernel.emit(Body(module, target, "kernel", kernel.operands))
    library = Library(assemble(module.text(), target.machine), ["kernel"])
    memory = {name: Guarded(operands[name].nbytes) for name in kernel.operands}
    views = {name: memory[name].array(operands[name].dtype) for name in kernel.operands}
    for name, view in views.items():
        view[:] = operands[name].ravel()
    scratch = Guarded(max(kernel.scratch_bytes, 64))
    pointers = (ctypes.c_void_p * len(views))(*(m.address for m in memory.values()))
    order = np.random.default_rng(shuffle).permutation(kernel.tasks)
    for index, task in enumerate(order):
        if index in (0, len(order) // 2):  # another thread begins: its scratch holds nothing
            scratch.array(np.uint8)[:] = 0xFF
        SIGNATURE(library.addresses["kernel"])(pointers, scratch.address, int(task), index in (0, len(order) // 2))
    return {name: view.copy() for name, view in views.items()}


def spread(values: Array, layout: Layout, element: Element = FP32) -> Array:
    """(N, C, H, W) values in memory order; NaN where the layout has gaps."""
    flat = np.full(layout.extent, np.nan, np.float32)
    view(flat, layout)[:] = values.reshape(layout.shape)
    return element.pack(flat)


def view(flat: Array, layout: Layout) -> Array:
    """Memory seen as (N, C, H, W), fp32."""
    flat = from_bf16(flat) if flat.dtype == np.uint16 else flat
    return np.lib.stride_tricks.as_strided(flat, layout.shape, [4 * s for s in layout.strides])


def integers(rng: np.random.Generator, *shape: int) -> Array:
    """Small integers other than zero: sums of products are exact in any order."""
    return (rng.integers(1, 4, shape) * rng.choice([-1, 1], shape)).astype(np.float32)
