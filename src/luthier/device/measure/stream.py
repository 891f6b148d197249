"""Reading memory as fast as a core can, and counting its clock: two loops in LLVM IR, checked before they are timed."""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from typing import Any, Final

import numpy as np

from luthier.device.jit import Compiled, Cpu, compile_ir
from luthier.device.measure.kernels import Array
from luthier.device.measure.loops import Loop
from luthier.errors import MeasurementError

#: vectors that one round of the inner loop reads, each added to a sum of its own
UNROLL: Final = 16
#: dependent additions and exclusive ors of one round of the clock, in pairs
CHAIN: Final = 64
LINE_BYTES: Final = 64
#: bytes of one round of the inner loop, with the widest vectors
GRAIN: Final = UNROLL * LINE_BYTES
#: of memory, read at a stretch
PIECE: Final = 4 * 2**20
_MASK: Final = 2**64 - 1


def vector_bytes(cpu: Cpu) -> int:
    """Of the widest vector load."""
    return 64 if "avx512f" in cpu.features else 32 if "avx2" in cpu.features else 16


def stream_ir(width: int) -> str:
    """`run(i64 passes, ptr data, i64 bytes, ptr sums)`: adds up all 32-bit words of `data`, `passes` times.

    `bytes` is a multiple of UNROLL * width.
    """
    vector, numbers = f"<{width // 4} x i32>", range(UNROLL)
    return "\n".join([
        "define void @run(i64 %passes, ptr %data, i64 %bytes, ptr %sums) {",
        "entry:",
        "  br label %pass",
        "pass:",
        "  %n = phi i64 [ 0, %entry ], [ %n.next, %done ]",
        *(f"  %o{i} = phi {vector} [ zeroinitializer, %entry ], [ %t{i}, %done ]" for i in numbers),
        "  br label %read",
        "read:",
        "  %at = phi i64 [ 0, %pass ], [ %at.next, %read ]",
        *(f"  %s{i} = phi {vector} [ %o{i}, %pass ], [ %t{i}, %read ]" for i in numbers),
        "  %here = getelementptr i8, ptr %data, i64 %at",
        *(f"  %p{i} = getelementptr i8, ptr %here, i64 {i * width}\n"
          f"  %v{i} = load {vector}, ptr %p{i}, align {width}\n"
          f"  %t{i} = add {vector} %s{i}, %v{i}" for i in numbers),
        f"  %at.next = add i64 %at, {UNROLL * width}",
        "  %inside = icmp ult i64 %at.next, %bytes",
        "  br i1 %inside, label %read, label %done",
        "done:",
        "  %n.next = add i64 %n, 1",
        "  %again = icmp ult i64 %n.next, %passes",
        "  br i1 %again, label %pass, label %exit",
        "exit:",
        *(f"  %q{i} = getelementptr i8, ptr %sums, i64 {i * width}\n"
          f"  store {vector} %t{i}, ptr %q{i}, align 1" for i in numbers),
        "  ret void",
        "}",
    ])  # fmt: skip


def clock_ir() -> str:
    """`i64 run(i64 rounds, i64 x, i64 y)`: CHAIN pairs of `x = (x + y) ^ y`, each one cycle after the other."""
    steps = [
        f"  %a{i} = add i64 %x{i}, %y\n  %x{i + 1} = xor i64 %a{i}, %y" for i in range(CHAIN)
    ]  # fmt: skip
    return "\n".join([
        "define i64 @run(i64 %rounds, i64 %x, i64 %y) {",
        "entry:",
        "  br label %loop",
        "loop:",
        "  %n = phi i64 [ 0, %entry ], [ %next, %loop ]",
        f"  %x0 = phi i64 [ %x, %entry ], [ %x{CHAIN}, %loop ]",
        *steps,
        "  %next = add i64 %n, 1",
        "  %more = icmp ult i64 %next, %rounds",
        "  br i1 %more, label %loop, label %exit",
        "exit:",
        f"  ret i64 %x{CHAIN}",
        "}",
    ])  # fmt: skip


def clock(cpu: Cpu) -> Loop:
    """A loop whose work is counted in cycles.

    Raises:
        MeasurementError: it computes something else.
    """
    compiled = compile_ir(clock_ir(), cpu)
    call = compiled.function("run", ctypes.c_uint64, *[ctypes.c_uint64] * 3)
    x, y, rounds = 12345, 0x9E3779B97F4A7C15, 3
    expected = x
    for _ in range(rounds * CHAIN):
        expected = ((expected + y) & _MASK) ^ y
    if call(rounds, x, y) != expected:
        raise MeasurementError("device measure: the clock's chain of additions computes something else")
    return Loop(lambda rounds: call(rounds, x, y), 2.0 * CHAIN)


def streams(cpu: Cpu) -> Callable[[Array], Loop]:
    """A maker of loops that read a buffer from `buffer` once per round.

    Raises:
        MeasurementError: a buffer's words add up to something else.
    """
    width = vector_bytes(cpu)
    compiled = compile_ir(stream_ir(width), cpu)
    _check(compiled, width)

    def make(data: Array) -> Loop:
        call, sums = _function(compiled), np.empty(UNROLL * width, np.uint8)

        def run(passes: int) -> None:
            call(passes, data.ctypes.data, data.nbytes, sums.ctypes.data)

        return Loop(run, float(data.nbytes))

    return make


def pieces(cpu: Cpu, data: Array) -> Loop:
    """Reads `data` piece after piece, one per round and each time the next, so that no cache holds it.

    Args:
        cpu: to compile for.
        data: larger than every cache; made by `buffer` or `split`.
    """
    call, sums = _function(compile_ir(stream_ir(vector_bytes(cpu)), cpu)), np.empty(GRAIN, np.uint8)
    grains = data.nbytes // GRAIN
    size = GRAIN * next(n for n in range(min(grains, PIECE // GRAIN), 0, -1) if grains % n == 0)
    at = 0

    def run(rounds: int) -> None:
        nonlocal at
        for _ in range(rounds):
            call(1, data.ctypes.data + at, size, sums.ctypes.data)
            at = (at + size) % data.nbytes

    return Loop(run, float(size))


def buffer(bytes_: int, generator: np.random.Generator | None = None) -> Array:
    """Words that were written, beginning at a cache line; rounded down to whole rounds of the loop."""
    bytes_ = max(bytes_ // GRAIN, 1) * GRAIN
    room = np.empty(bytes_ + LINE_BYTES, np.uint8)
    start = -room.ctypes.data % LINE_BYTES
    words = room[start : start + bytes_].view(np.uint32)
    if generator is None:
        words.fill(1)
    else:
        words[:] = generator.integers(0, 2**32, words.size, dtype=np.uint32)
    return words


def split(data: Array, count: int) -> tuple[Array, ...]:
    """Equal parts of a buffer, each a multiple of 64 KiB where it is that large; a rest at the end is left out."""
    whole = GRAIN if data.nbytes < count * PIECE // 64 else PIECE // 64
    words = data.nbytes // count // whole * whole // data.itemsize
    return tuple(data[index * words : (index + 1) * words] for index in range(count))


def _function(compiled: Compiled) -> Any:
    return compiled.function("run", None, ctypes.c_int64, ctypes.c_void_p, ctypes.c_int64, ctypes.c_void_p)


def _check(compiled: Compiled, width: int) -> None:
    data, sums = buffer(8192, np.random.default_rng(0)), np.zeros(UNROLL * width // 4, np.uint32)
    passes = 3
    _function(compiled)(passes, data.ctypes.data, data.nbytes, sums.ctypes.data)
    found, expected = int(sums.sum(dtype=np.uint64)), passes * int(data.sum(dtype=np.uint64))
    if found % 2**32 != expected % 2**32:
        raise MeasurementError(f"device measure: a read stream of {data.nbytes} B adds up to {found}, not {expected}")
