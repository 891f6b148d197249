"""The loops that measure arithmetic, as LLVM IR: independent accumulators that live in registers.

Each is a function `run(i64 rounds, ptr a, ptr b, ptr sums)`.  It loads one operand each from `a` and `b`, multiplies
and accumulates into every accumulator in every round, and stores the accumulators to `sums`, so that what it computed
can be checked and nothing can be optimised away.  Where one instruction multiplies and adds, the accumulator is the
addend; where two are needed, it is a factor, because LLVM would compute one product of `a` and `b` for all.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from luthier.device.jit import Cpu

Array = np.ndarray[Any, np.dtype[Any]]


@dataclass(frozen=True)
class Kernel:
    """One way to multiply and accumulate.

    Attributes:
        label: number type, as in `Device.peak_flop_per_s`.
        instruction: that multiplies; machine code of the loop has one per accumulator.
        vector: IR type of the operands.
        sums: IR type of an accumulator.
        sums_dtype: NumPy's type of one sum.
        operand_dtype: NumPy's type of one operand; `uint16` holds the bits of a bf16.
        macs: multiply-accumulates of one instruction.
        accumulators: independent ones; enough to cover latency times issue width.
        body: IR of one step, from the names of its result and of its accumulator.
        step: the same in NumPy, on flat arrays: (accumulator, a, b) -> accumulator.
        declare: of the intrinsics.
    """

    label: str
    instruction: str
    vector: str
    sums: str
    sums_dtype: str
    operand_dtype: str
    macs: int
    accumulators: int
    body: Callable[[str, str], str]
    step: Callable[[Array, Array, Array], Array]
    declare: str = ""

    @property
    def macs_per_round(self) -> int:
        """Multiply-accumulates of one round of the loop."""
        return self.macs * self.accumulators

    @property
    def width_bits(self) -> int:
        """Of one accumulator."""
        return int(self.sums.strip("<").split(" x ")[0]) * np.dtype(self.sums_dtype).itemsize * 8


def kernels(cpu: Cpu) -> tuple[Kernel, ...]:
    """The fastest vector instruction of each number type that this CPU has.

    fp32 exists everywhere.  A number type without an instruction of its own is left out: its peak stays unknown.
    """
    candidates = (_arm if "neon" in cpu.features else _x86)(cpu)
    return (*candidates,) if any(kernel.label == "fp32" for kernel in candidates) else (_portable(), *candidates)


def ir(kernel: Kernel) -> str:
    """The module of a kernel."""
    numbers, size = range(kernel.accumulators), kernel.width_bits // 8
    return "\n".join([
        kernel.declare,
        "define void @run(i64 %rounds, ptr %pa, ptr %pb, ptr %sums) {",
        "entry:",
        f"  %a = load {kernel.vector}, ptr %pa, align 1",
        f"  %b = load {kernel.vector}, ptr %pb, align 1",
        "  br label %loop",
        "loop:",
        "  %n = phi i64 [ 0, %entry ], [ %next, %loop ]",
        # one step each: of two in a row LLVM would combine products that it can share
        *(f"  %s{i} = phi {kernel.sums} [ zeroinitializer, %entry ], [ %t{i}, %loop ]" for i in numbers),
        *(kernel.body(f"%t{i}", f"%s{i}") for i in numbers),
        "  %next = add i64 %n, 1",
        "  %more = icmp ult i64 %next, %rounds",
        "  br i1 %more, label %loop, label %exit",
        "exit:",
        *(f"  %p{i} = getelementptr i8, ptr %sums, i64 {i * size}\n"
          f"  store {kernel.sums} %t{i}, ptr %p{i}, align 1" for i in numbers),
        "  ret void",
        "}",
    ])  # fmt: skip


def _x86(cpu: Cpu) -> list[Kernel]:
    has, wide = cpu.features, "avx512f" in cpu.features
    bits, accumulators = (512, 24) if wide else (256, 12)
    found = []
    if "fma" in has:
        found.append(_fma("fp32", "vfmadd", bits, accumulators))
    if "avx512fp16" in has:
        found.append(_fma("fp16", "vfmadd", bits, accumulators))
    if "avx512bf16" in has and wide:
        found.append(_dot("bf16", "vdpbf16ps", "llvm.x86.avx512bf16.dpbf16ps", 512, 24))
    if "avx512vnni" in has or "avxvnni" in has:
        vnni = 512 if "avx512vnni" in has and wide else 256
        found.append(_dot("int8", "vpdpbusd", "llvm.x86.avx512.vpdpbusd", vnni, 24 if wide else 12))
        found.append(_dot("int16", "vpdpwssd", "llvm.x86.avx512.vpdpwssd", vnni, 24 if wide else 12))
    elif "avx512bw" in has:
        found += _pairs("avx512.pmaddubs.w.512", "avx512.pmaddw.d.512", 512, 24)
    elif "avx2" in has:
        found += _pairs("avx2.pmadd.ub.sw", "avx2.pmadd.wd", 256, 12)
    return found


def _arm(cpu: Cpu) -> list[Kernel]:
    found = [_fma("fp32", "fmla", 128, 24)]
    if "fullfp16" in cpu.features:
        found.append(_fma("fp16", "fmla", 128, 24))
    if "bf16" in cpu.features:
        found.append(_dot("bf16", "bfdot", "llvm.aarch64.neon.bfdot.v4f32.v8bf16", 128, 24))
    if "dotprod" in cpu.features:
        found.append(_dot("int8", "sdot", "llvm.aarch64.neon.sdot.v4i32.v16i8", 128, 24))
    return found


def _portable() -> Kernel:
    """fp32 without a fused instruction: LLVM's generic vectors, accumulator x b + a."""
    vector = "<4 x float>"
    return Kernel(
        "fp32", "mul", vector, vector, "float32", "float32", 4, 12,
        body=lambda out, acc: f"  {out}.m = fmul {vector} {acc}, %b\n  {out} = fadd {vector} {out}.m, %a",
        step=lambda acc, a, b: acc * b + a,
    )  # fmt: skip


def _fma(label: str, instruction: str, bits: int, accumulators: int) -> Kernel:
    element, each = {"fp32": ("float", 32), "fp16": ("half", 16)}[label]
    lanes = bits // each
    vector, name = f"<{lanes} x {element}>", f"@llvm.fma.v{lanes}f{each}"
    return Kernel(
        label, instruction, vector, vector, f"float{each}", f"float{each}", lanes, accumulators,
        body=lambda out, acc: f"  {out} = call {vector} {name}({vector} %a, {vector} %b, {vector} {acc})",
        step=lambda acc, a, b: acc + a * b,
        declare=f"declare {vector} {name}({vector}, {vector}, {vector})",
    )  # fmt: skip


#: (IR type of the sums, bits of an operand, NumPy's types of sums and operands)
_DOTS: Final = {
    "bf16": ("float", 16, "float32", "uint16"),
    "int8": ("i32", 8, "int32", "uint8"),
    "int16": ("i32", 16, "int32", "int16"),
}


def _dot(label: str, instruction: str, intrinsic: str, bits: int, accumulators: int) -> Kernel:
    """An instruction that sums the products of the operands within each 32 bits of its accumulator."""
    element, each, sums_dtype, operand_dtype = _DOTS[label]
    lanes, group = bits // 32, 32 // each
    sums = f"<{lanes} x {element}>"
    if "x86" in intrinsic:
        # LLVM takes integers of any width as 32-bit words here
        name = f"@{intrinsic}.{bits}"
        vector = f"<{lanes * group} x bfloat>" if label == "bf16" else sums
    else:
        name = f"@{intrinsic}"
        vector = f"<{lanes * group} x {'bfloat' if label == 'bf16' else f'i{each}'}>"

    def step(acc: Array, a: Array, b: Array) -> Array:
        left, right = (_as_floats(x) if label == "bf16" else x.astype(np.int32) for x in (a, b))
        total: Array = acc + (left * right).reshape(-1, group).sum(axis=1, dtype=acc.dtype)
        return total

    return Kernel(
        label, instruction, vector, sums, sums_dtype, operand_dtype, lanes * group, accumulators,
        body=lambda out, acc: f"  {out} = call {sums} {name}({sums} {acc}, {vector} %a, {vector} %b)",
        step=step,
        declare=f"declare {sums} {name}({sums}, {vector}, {vector})",
    )  # fmt: skip


def _pairs(bytes_: str, words: str, bits: int, accumulators: int) -> list[Kernel]:
    """int8 and int16 before the dot product instructions: multiply, add neighbours, add to the sums."""
    lanes = bits // 32
    sums, halves, quarters = f"<{lanes} x i32>", f"<{2 * lanes} x i16>", f"<{4 * lanes} x i8>"
    ones = "splat (i16 1)"
    declare_words = f"declare {sums} @llvm.x86.{words}({halves}, {halves})"

    def body16(out: str, acc: str) -> str:
        return (
            f"  {out}.v = bitcast {sums} {acc} to {halves}\n  {out}.b = bitcast {sums} %b to {halves}\n"
            f"  {out}.m = call {sums} @llvm.x86.{words}({halves} {out}.v, {halves} {out}.b)\n"
            f"  {out} = add {sums} {out}.m, %a"
        )

    def body8(out: str, acc: str) -> str:
        return (
            f"  {out}.v = bitcast {sums} {acc} to {quarters}\n  {out}.b = bitcast {sums} %b to {quarters}\n"
            f"  {out}.h = call {halves} @llvm.x86.{bytes_}({quarters} {out}.v, {quarters} {out}.b)\n"
            f"  {out}.m = call {sums} @llvm.x86.{words}({halves} {out}.h, {halves} {ones})\n"
            f"  {out} = add {sums} {out}.m, %a"
        )

    def step16(acc: Array, a: Array, b: Array) -> Array:
        products = acc.view(np.int16).astype(np.int32) * b
        total: Array = products.reshape(-1, 2).sum(axis=1, dtype=np.int32) + a.view(np.int32)
        return total

    def step8(acc: Array, a: Array, b: Array) -> Array:
        products = acc.view(np.uint8).astype(np.int32) * b.view(np.int8)
        halves_ = np.clip(products.reshape(-1, 2).sum(axis=1), -(2**15), 2**15 - 1)
        total: Array = halves_.reshape(-1, 2).sum(axis=1, dtype=np.int32) + a.view(np.int32)
        return total

    return [
        Kernel("int8", "vpmaddubsw", sums, sums, "int32", "uint8", 4 * lanes, accumulators, body8, step8,
               f"declare {halves} @llvm.x86.{bytes_}({quarters}, {quarters})\n{declare_words}"),
        Kernel("int16", "vpmaddwd", sums, sums, "int32", "int16", 2 * lanes, accumulators, body16, step16,
               declare_words),
    ]  # fmt: skip


def _as_floats(bits: Array) -> Array:
    return (bits.astype(np.uint32) << 16).view(np.float32)
