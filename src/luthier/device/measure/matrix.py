"""The matrix unit of x86 CPUs (AMX): sixteen rows of sixteen sums, in tiles that the loop keeps in registers.

sums[16, 16] += a[16, K] * b[K, 16]        K = 64 for int8, 32 for bf16: 64 bytes of each row
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import numpy as np

from luthier.device.jit import Cpu, compile_ir
from luthier.device.matrix_unit import permitted
from luthier.device.measure.kernels import Array
from luthier.device.measure.loops import Loop, count_instructions
from luthier.errors import MeasurementError

SIDE: Final = 16
ACCUMULATORS: Final = 4


@dataclass(frozen=True)
class MatrixKernel:
    """One instruction of the matrix unit.

    Attributes:
        label: number type, as in `Device.peak_flop_per_s`.
        instruction: of the machine; LLVM's intrinsic has its name.
        feature: that the CPU must have.
        depth: K, products that one sum takes up per instruction.
    """

    label: str
    instruction: str
    feature: str
    depth: int

    @property
    def macs(self) -> int:
        """Multiply-accumulates of one instruction."""
        return SIDE * SIDE * self.depth


_KERNELS: Final = (
    MatrixKernel("int8", "tdpbusd", "amx-int8", 64),
    MatrixKernel("bf16", "tdpbf16ps", "amx-bf16", 32),
)


def kernels(cpu: Cpu) -> tuple[MatrixKernel, ...]:
    """What this CPU has; nothing where the system does not let this process use it."""
    found = tuple(kernel for kernel in _KERNELS if kernel.feature in cpu.features)
    return found if found and permitted() else ()


def ir(kernel: MatrixKernel) -> str:
    """The module: `run(i64 rounds, ptr config, ptr a, ptr b, ptr sums)` with four tiles of sums."""
    tiles, size = range(ACCUMULATORS), SIDE * SIDE * 4
    intrinsics = {
        "ldtilecfg": "ptr", "tilezero": "i8", "tileloadd64": "i8, ptr, i64", "tilestored64": "i8, ptr, i64",
        "tilerelease": "", kernel.instruction: "i8, i8, i8",
    }  # fmt: skip
    return "\n".join([
        *(f"declare void @llvm.x86.{name}({arguments})" for name, arguments in intrinsics.items()),
        "define void @run(i64 %rounds, ptr %config, ptr %a, ptr %b, ptr %sums) {",
        "entry:",
        "  call void @llvm.x86.ldtilecfg(ptr %config)",
        *(f"  call void @llvm.x86.tilezero(i8 {tile})" for tile in tiles),
        f"  call void @llvm.x86.tileloadd64(i8 {ACCUMULATORS}, ptr %a, i64 64)",
        f"  call void @llvm.x86.tileloadd64(i8 {ACCUMULATORS + 1}, ptr %b, i64 64)",
        "  br label %loop",
        "loop:",
        "  %n = phi i64 [ 0, %entry ], [ %next, %loop ]",
        *(f"  call void @llvm.x86.{kernel.instruction}(i8 {tile}, i8 {ACCUMULATORS}, i8 {ACCUMULATORS + 1})"
          for tile in tiles),
        "  %next = add i64 %n, 1",
        "  %more = icmp ult i64 %next, %rounds",
        "  br i1 %more, label %loop, label %exit",
        "exit:",
        *(f"  %p{tile} = getelementptr i8, ptr %sums, i64 {tile * size}\n"
          f"  call void @llvm.x86.tilestored64(i8 {tile}, ptr %p{tile}, i64 64)" for tile in tiles),
        "  call void @llvm.x86.tilerelease()",
        "  ret void",
        "}",
    ])  # fmt: skip


def arithmetic(kernel: MatrixKernel, cpu: Cpu) -> Callable[[], Loop]:
    """A maker of loops, one per thread; the machine code was looked through and its sums checked.

    Raises:
        MeasurementError: the machine code lacks instructions or computes something else.
    """
    compiled = compile_ir(ir(kernel), cpu)
    count_instructions(compiled, kernel.instruction, ACCUMULATORS)
    call = compiled.function("run", None, ctypes.c_int64, *[ctypes.c_void_p] * 4)
    config, a, b = _config(), _tile(kernel, 5), _tile(kernel, 3)
    sums = np.full((ACCUMULATORS, SIDE, SIDE), -1, np.float32 if kernel.label == "bf16" else np.int32)
    rounds = 3
    call(rounds, config.ctypes.data, a.ctypes.data, b.ctypes.data, sums.ctypes.data)
    if not np.array_equal(sums, np.broadcast_to(rounds * product(kernel, a, b), sums.shape)):
        raise MeasurementError(f"device measure: {kernel.instruction}: the loop computes {sums[0, 0, :3]}")

    def make() -> Loop:
        out = sums.copy()

        def run(rounds: int) -> None:
            call(rounds, config.ctypes.data, a.ctypes.data, b.ctypes.data, out.ctypes.data)

        return Loop(run, 2.0 * kernel.macs * ACCUMULATORS)

    return make


def product(kernel: MatrixKernel, a: Array, b: Array) -> Array:
    """What one instruction adds, in NumPy: row i of `a` times column j of `b`.

    b holds groups of neighbours along K: b[k, j * group + g] is the element (k * group + g, j) of the matrix.
    """
    group = kernel.depth // SIDE
    columns = b.reshape(SIDE, SIDE, group).transpose(0, 2, 1).reshape(kernel.depth, SIDE)
    if kernel.label == "bf16":
        rows, columns = ((x.astype(np.uint32) << 16).view(np.float32) for x in (a, columns))
        return rows @ columns
    return a.astype(np.int32) @ columns.astype(np.int32)


def _tile(kernel: MatrixKernel, period: int) -> Array:
    values = np.arange(SIDE * kernel.depth).reshape(SIDE, kernel.depth) % period + 1
    if kernel.label == "bf16":
        return (values.astype(np.float32).view(np.uint32) >> 16).astype(np.uint16)
    return values.astype(np.uint8)


def _config() -> Array:
    """Palette 1: eight tiles of sixteen rows of 64 bytes."""
    config = np.zeros(64, np.uint8)
    config[0] = 1
    config[16:32].view(np.uint16)[:] = 64
    config[48:56] = SIDE
    return config
