"""From a kernel to a loop that can be timed: compiled, looked through, and run once against its meaning in NumPy."""

from __future__ import annotations

import ctypes
import re
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from luthier.device.jit import Compiled, Cpu, compile_ir, host_cpu
from luthier.device.measure.kernels import Array, Kernel, ir
from luthier.errors import MeasurementError


@dataclass(frozen=True)
class Loop:
    """Something that can be repeated and timed.

    Attributes:
        run: with a number of rounds; what it needs lives as long as it does.
        work_per_round: in FLOP, bytes or cycles.
    """

    run: Callable[[int], object]
    work_per_round: float


def arithmetic(kernel: Kernel, cpu: Cpu | None = None) -> Callable[[], Loop]:
    """A maker of loops of this kernel, one per thread, each with operands of its own.

    Raises:
        MeasurementError: the machine code lacks instructions or computes something else.
    """
    compiled = compile_ir(ir(kernel), cpu or host_cpu())
    count_instructions(compiled, kernel.instruction, kernel.accumulators)
    check(kernel, compiled)

    def make() -> Loop:
        a, b, sums = _operands(kernel)
        call = compiled.function("run", None, ctypes.c_int64, *[ctypes.c_void_p] * 3)

        def run(rounds: int) -> None:
            call(rounds, a.ctypes.data, b.ctypes.data, sums.ctypes.data)

        return Loop(run, 2.0 * kernel.macs_per_round)

    return make


def count_instructions(compiled: Compiled, instruction: str, expected: int) -> None:
    """Refuse machine code that has another number of these instructions than the loop was written with.

    Raises:
        MeasurementError: some were merged, moved or dropped.
    """
    found = len(re.findall(rf"^\s+(?:\{{vex\}}\s+)?\w*{instruction}", compiled.assembly, re.MULTILINE))
    if found != expected:
        raise MeasurementError(
            f"device measure: {instruction}: {found} in the machine code instead of {expected}; nothing was measured"
        )


def check(kernel: Kernel, compiled: Compiled, rounds: int = 3) -> None:
    """Run a few rounds and compare every sum, exactly, with the same steps in NumPy.

    Raises:
        MeasurementError: they differ.
    """
    a, b, sums = _operands(kernel)
    compiled.function("run", None, ctypes.c_int64, *[ctypes.c_void_p] * 3)(
        rounds, a.ctypes.data, b.ctypes.data, sums.ctypes.data
    )
    one = np.zeros(sums.size // kernel.accumulators, sums.dtype)
    with np.errstate(over="ignore"):  # integers wrap around, here as there
        for _ in range(rounds):
            one = kernel.step(one, a, b).astype(sums.dtype)
    if not np.array_equal(sums, np.tile(one, kernel.accumulators)):
        raise MeasurementError(f"device measure: {kernel.instruction}: the loop computes {sums[:3]}, not {one[:3]}")


def _operands(kernel: Kernel) -> tuple[Array, Array, Array]:
    """Small whole numbers, different in neighbouring places, so that every sum is exact; and room for the sums."""
    lanes = kernel.width_bits // 8 // np.dtype(kernel.sums_dtype).itemsize
    size = np.dtype(kernel.operand_dtype).itemsize
    count = lanes * np.dtype(kernel.sums_dtype).itemsize // size
    values = [np.arange(count) % 5 + 1, np.arange(count) % 3 + 1]
    if kernel.label == "bf16":
        a, b = ((value.astype(np.float32).view(np.uint32) >> 16).astype(np.uint16) for value in values)
    else:
        a, b = (value.astype(kernel.operand_dtype) for value in values)
    return a, b, np.full(lanes * kernel.accumulators, -1, kernel.sums_dtype)
