"""The loops compute what their NumPy meaning says, and machine code that lost its work is refused."""

from __future__ import annotations

import ctypes
import re
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest

from luthier.device.jit import Cpu, assembly, compile_ir, host_cpu
from luthier.device.measure import loops, matrix, stream
from luthier.device.measure.kernels import Kernel, ir, kernels
from luthier.errors import MeasurementError

HOST = host_cpu()
_OLDER = {
    "this CPU": lambda feature: True,
    "without dot products": lambda feature: "vnni" not in feature and "bf16" not in feature and "fp16" not in feature,
    "without AVX-512": lambda feature: "avx512" not in feature,
    "AVX2": lambda feature: "avx512" not in feature and "vnni" not in feature,
    "without fused multiply-add": lambda feature: "avx" not in feature and feature not in ("fma", "f16c"),
}
#: this CPU, and older ones of its family, whose code it can run
CPUS = {
    what: Cpu(HOST.name if what == "this CPU" else "generic", frozenset(filter(keep, HOST.features)))
    for what, keep in _OLDER.items()
}
CASES = [
    pytest.param(cpu, kernel, id=f"{what}-{kernel.label}-{kernel.instruction}-{kernel.width_bits}")
    for what, cpu in CPUS.items()
    for kernel in kernels(cpu)
]  # fmt: skip


@pytest.mark.parametrize(("cpu", "kernel"), CASES)
def test_a_loop_has_its_instructions_and_computes_its_sums(cpu: Cpu, kernel: Kernel) -> None:
    compiled = compile_ir(ir(kernel), cpu)
    loops.count_instructions(compiled, kernel.instruction, kernel.accumulators)
    for rounds in (1, 2, 7):
        loops.check(kernel, compiled, rounds)
    loop = loops.arithmetic(kernel, cpu)()
    loop.run(1)
    assert loop.work_per_round == 2 * kernel.macs * kernel.accumulators


@pytest.mark.parametrize(("cpu", "kernel"), CASES)
def test_one_step_is_so_many_multiply_accumulates(cpu: Cpu, kernel: Kernel) -> None:
    """Of operands that are all one, a step from zero adds the products of one sum to each sum."""
    lanes = kernel.width_bits // 8 // np.dtype(kernel.sums_dtype).itemsize
    assert kernel.macs % lanes == 0
    if kernel.label in ("fp32", "fp16"):
        assert kernel.macs == lanes
    else:
        width = {"bf16": 2, "int16": 2, "int8": 1}[kernel.label]
        assert kernel.macs == lanes * 4 // width


def test_fp32_is_measured_everywhere_and_first() -> None:
    for cpu in (*CPUS.values(), Cpu("generic", frozenset()), Cpu("cortex-a76", frozenset({"neon"}))):
        labels = [kernel.label for kernel in kernels(cpu)]
        assert labels[0] == "fp32"
        assert len(set(labels)) == len(labels)


def test_arm_has_the_number_types_that_its_features_name() -> None:
    arm = Cpu("cortex-a76", frozenset({"neon", "fullfp16", "dotprod"}))
    assert [(kernel.label, kernel.instruction) for kernel in kernels(arm)] == [
        ("fp32", "fmla"), ("fp16", "fmla"), ("int8", "sdot")]  # fmt: skip


def test_arm_code_has_its_instructions() -> None:
    """Not run here, but emitted: LLVM ends the process where a CPU lacks an intrinsic."""
    arm = Cpu("neoverse-n2", frozenset({"neon", "fullfp16", "dotprod", "bf16"}))
    for kernel in kernels(arm):
        text = assembly(ir(kernel), arm, "aarch64-unknown-linux-gnu")
        assert len(re.findall(rf"^\s+{kernel.instruction}\s", text, re.MULTILINE)) == kernel.accumulators, kernel.label
    assert "add\tv" in assembly(stream.stream_ir(stream.vector_bytes(arm)), arm, "aarch64-unknown-linux-gnu")


@pytest.fixture
def fp32() -> Kernel:
    return kernels(HOST)[0]


def test_a_loop_whose_work_was_dropped_is_refused(fp32: Kernel) -> None:
    lazy = replace(fp32, body=lambda out, acc: f"  {out} = fadd {fp32.sums} {acc}, zeroinitializer")
    with pytest.raises(MeasurementError, match=f"{fp32.instruction}: 0 in the machine code instead of"):
        loops.arithmetic(lazy)


def test_a_loop_that_computes_something_else_is_refused(fp32: Kernel) -> None:
    wrong = replace(fp32, step=lambda acc, a, b: acc + a * b + 1)
    with pytest.raises(MeasurementError, match="the loop computes"):
        loops.arithmetic(wrong)


def test_merged_instructions_are_counted(fp32: Kernel) -> None:
    compiled = compile_ir(ir(fp32))
    with pytest.raises(MeasurementError, match="in the machine code instead of"):
        loops.count_instructions(compiled, fp32.instruction, fp32.accumulators + 1)


@pytest.mark.skipif(not matrix.kernels(HOST), reason="no matrix unit")
def test_the_matrix_unit_computes_products_of_matrices() -> None:
    for kernel in matrix.kernels(HOST):
        loop = matrix.arithmetic(kernel, HOST)()
        loop.run(2)
        assert loop.work_per_round == 2 * 16 * 16 * kernel.depth * matrix.ACCUMULATORS


def test_the_meaning_of_a_tile_is_a_matrix_product() -> None:
    kernel = matrix.MatrixKernel("int8", "tdpbusd", "amx-int8", 64)
    rng = np.random.default_rng(3)
    a, b = (rng.integers(0, 255, (16, 64), dtype=np.uint8) for _ in range(2))
    expected = np.zeros((16, 16), np.int64)
    for i in range(16):
        for j in range(16):
            for k in range(64):
                expected[i, j] += int(a[i, k]) * int(b[k // 4, 4 * j + k % 4])
    assert np.array_equal(matrix.product(kernel, a, b), expected)


@pytest.mark.parametrize("what", CPUS)
@pytest.mark.parametrize(("size", "passes"), [(1, 1), (16 * 64, 2), (3 * 16 * 64, 5), (100_000, 3)])
def test_a_stream_reads_every_word(what: str, size: int, passes: int) -> None:
    width = stream.vector_bytes(CPUS[what])
    compiled = compile_ir(stream.stream_ir(width), CPUS[what])
    run = compiled.function("run", None, ctypes.c_int64, ctypes.c_void_p, ctypes.c_int64, ctypes.c_void_p)
    data, sums = stream.buffer(size, np.random.default_rng(1)), np.zeros(stream.UNROLL * width // 4, np.uint32)
    assert data.ctypes.data % stream.LINE_BYTES == 0
    assert data.nbytes > 0
    assert data.nbytes <= max(size, stream.UNROLL * stream.LINE_BYTES)
    run(passes, data.ctypes.data, data.nbytes, sums.ctypes.data)
    # each vector of the inner loop has a sum of its own, lane by lane
    rows = data.reshape(-1, stream.UNROLL * width // 4)
    assert np.array_equal(sums, (passes * rows.sum(axis=0, dtype=np.uint64)).astype(np.uint32))


def test_the_chain_of_the_clock_has_its_length() -> None:
    text = compile_ir(stream.clock_ir(), HOST).assembly
    assert text.count("add") >= stream.CHAIN
    assert text.count("xor") + text.count("eor") >= stream.CHAIN
    loop = stream.clock(HOST)
    loop.run(1)
    assert loop.work_per_round == 2 * stream.CHAIN


@pytest.mark.parametrize(("size", "count"), [(8 * 1024, 1), (640 * 1024, 2), (640 * 1024, 3), (11 * 2**20, 2)])
def test_memory_is_divided_and_read_piece_after_piece(size: int, count: int) -> None:
    data = stream.buffer(size)
    parts = stream.split(data, count)
    assert len({part.nbytes for part in parts}) == 1
    assert sum(part.nbytes for part in parts) > data.nbytes - count * 64 * 1024
    ends = [(part.ctypes.data, part.ctypes.data + part.nbytes) for part in parts]
    assert all(end <= begin for (_, end), (begin, _) in pairwise(ends))
    for part in parts:
        loop = stream.pieces(HOST, part)
        assert part.nbytes % int(loop.work_per_round) == 0
        assert 0 < loop.work_per_round <= stream.PIECE
        loop.run(int(part.nbytes // loop.work_per_round) + 1)  # goes on at the beginning


def test_functions_outlive_the_module_they_came_from() -> None:
    import gc

    function = compile_ir("define i32 @f(i32 %x) {\n  %y = mul i32 %x, 3\n  ret i32 %y\n}").function(
        "f", ctypes.c_int32, ctypes.c_int32
    )
    gc.collect()
    assert function(14) == 42
