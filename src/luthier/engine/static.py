"""A lowered graph as one object file that stands alone: code, constant weights, and two functions to call.

    int  NAME_init(void *arena, size_t bytes)                       0, or what is wrong with the arena or the CPU
    void NAME_run(void *arena, x ..., y ...)                        one run on the caller's thread
    void NAME_run_parallel(void *arena, x ..., y ..., parallel, user)       likewise, tasks dealt by the caller

The arena, which the caller gives, holds all activations and the scratch of every worker; nothing else is written but
the outputs, and nothing is allocated.  Steps are calls known to the linker; their operands stand on the stack.  Where
a step has several tasks, `parallel(user, part, step, tasks)` must cover 0 .. tasks - 1 by calls of

    part(step, begin, end, worker)                                                                    (1)

in any order, at the same time if it likes, with as many workers as the code was made for (calls of one worker one after
the other), and return when all have returned.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final

import llvmlite.binding as llvm

from luthier.engine.arena import ALIGNMENT
from luthier.engine.cross import CrossTarget
from luthier.engine.emit import F32, I32, I64, PTR, Function, Index, Module, Value
from luthier.engine.hard_float import with_hard_float
from luthier.engine.image import Image, laid_out, named_kernels
from luthier.engine.kernels.driver import flushing
from luthier.engine.kernels.kernel import Body
from luthier.engine.program import Lowered, Port

#: what NAME_init returns
MISALIGNED: Final = 1
TOO_SMALL: Final = 2
NO_MATRIX_UNIT: Final = 3
#: words of a step in front of its operands, as `part` reads them: the kernel, and where the scratch begins
_STEP_WORDS: Final = 2
#: of Linux on x86-64: arch_prctl(ARCH_REQ_XCOMP_PERM, tile data)
_ARCH_PRCTL, _REQUEST, _TILE_DATA = 158, 0x1023, 18


@dataclass(frozen=True)
class StaticCode:
    """An object file and what its caller must know.

    Attributes:
        code: relocatable, for the target's linker.
        image: what it does, step by step.
    """

    code: bytes
    image: Image

    @property
    def arena_bytes(self) -> int:
        """Activations first, then the scratch of each worker."""
        return self.image.peak_bytes

    @property
    def alignment(self) -> int:
        """Of the arena, in bytes."""
        return ALIGNMENT

    @property
    def workers(self) -> int:
        """As many as the tasks were cut for."""
        return self.image.threads


def static_code(lowered: Lowered, cross: CrossTarget, name: str, threads: int = 1) -> StaticCode:
    """Compile a graph for a target, which this machine need not be.

    Args:
        lowered: for `cross.target`.
        cross: the target.
        name: prefix of the functions, a C identifier.
        threads: that the tasks were cut for; more than one add NAME_run_parallel.
    """
    names = named_kernels(lowered, cross.target)
    image = laid_out(lowered, cross.target, threads, names, b"")
    module = Module(cross.target.lanes, cross.target.triple, cross.data_layout, narrow=cross.narrow)
    for kernel, function in names.items():
        body = Body(module, cross.target, function, kernel.operands)
        body.f.internal = True
        kernel.emit(body)
    module.data(f"{name}_weights", image.constants.tobytes(), ALIGNMENT)
    _init(module, name, image)
    _run(module, name, image, cross, parallel=False)
    if threads > 1:
        _part(module, name, image, cross)
        _run(module, name, image, cross, parallel=True)
    code: bytes = cross.machine.emit_object(llvm.parse_assembly(module.text()))
    if cross.target.triple.endswith("eabihf"):
        code = with_hard_float(code)
    return StaticCode(code, replace(image, code=code))


def port_names(ports: Sequence[Port], role: str) -> list[str]:
    """Parameters of `run`: the role, numbered where there are several.

    Example:
        >>> from luthier.engine.layout import Layout
        >>> port = Port("x", (1, 3, 8, 8), Layout.nchw((1, 3, 8, 8)))
        >>> port_names([port], "input"), port_names([port, port], "output")
        (['input'], ['output_0', 'output_1'])
    """
    return [role] if len(ports) == 1 else [f"{role}_{index}" for index in range(len(ports))]


def _init(module: Module, name: str, image: Image) -> None:
    f = module.function(f"{name}_init", [("arena", PTR), ("bytes", I64)], returns=I32)
    address = f.assign(I64, f"ptrtoint {f['arena']} to i64")
    odd = f.assign(I64, f"and {address}, {ALIGNMENT - 1}")
    result = Value(I32, "0")
    if module.declares("llvm.x86.ldtilecfg"):
        llvm.initialize_native_asmparser()
        registers = '"={rax},{rax},{rdi},{rsi},~{rcx},~{r11},~{memory}"'
        wanted = f"i64 {_ARCH_PRCTL}, i64 {_REQUEST}, i64 {_TILE_DATA}"
        answer = f.assign(I64, f'call i64 asm sideeffect "syscall", {registers}({wanted})')
        result = f.select(f.compare("slt", answer, 0), Value(I32, str(NO_MATRIX_UNIT)), result)
    result = f.select(f.compare("ult", f["bytes"], image.peak_bytes), Value(I32, str(TOO_SMALL)), result)
    f.give(f.select(f.compare("ne", odd, 0), Value(I32, str(MISALIGNED)), result))


def _run(module: Module, name: str, image: Image, cross: CrossTarget, *, parallel: bool) -> None:
    inputs, outputs = port_names(image.inputs, "input"), port_names(image.outputs, "output")
    parameters = [("arena", PTR), *((port, PTR) for port in (*inputs, *outputs))]
    if parallel:
        parameters += [("parallel", PTR), ("user", PTR)]
    f = module.function(f"{name}_run{'_parallel' if parallel else ''}", parameters)
    most = max((len(record.operands) for record in image.records), default=0)
    step = f.assign(PTR, f"alloca [{_STEP_WORDS + most} x double], align 8")
    operands, scratch = f.offset(step, 8 * _STEP_WORDS), f.offset(f["arena"], image.arena_bytes)
    with flushing(f, cross.target):
        for record in image.records:
            for index, operand in enumerate(record.operands):
                if operand.space == "input":
                    pointer = f[inputs[operand.offset]]
                else:
                    base = f["arena"] if operand.space == "arena" else Value(PTR, f"@{name}_weights")
                    pointer = f.offset(base, operand.offset)
                f.store(pointer, operands, 8 * index, align=8)
            if parallel and record.tasks > 1:
                f.store(Value(PTR, f"@{record.function}"), step, align=8)
                f.store(scratch, step, 8, align=8)
                tasks = f.index(record.tasks)
                f.raw(f"call void {f['parallel'].text}({f['user']}, ptr @{name}_part, {step}, {tasks})")
            else:
                _tasks(f, f"@{record.function}", operands, scratch, 0, record.tasks)
    last = any(port.layout.strides[1] == 1 and port.layout.shape[2:] != (1, 1) for port in image.inputs)
    for port, buffer, to in zip(image.outputs, image.output_buffers, outputs, strict=True):
        _give(f, port, f.offset(f["arena"], image.buffers[buffer][0]), f[to], channels_last=last)


def _tasks(f: Function, kernel: str, operands: Value, scratch: Value, begin: Index, end: Index) -> None:
    def task(number: Index, _: object) -> None:
        first = f.assign(I64, f"zext {f.compare('eq', number, begin)} to i64")
        f.raw(f"call void {kernel}({operands}, {scratch}, {f.index(number)}, {first})")

    f.loop(begin, end, task)


def _part(module: Module, name: str, image: Image, cross: CrossTarget) -> None:
    """Equation (1)."""
    f = module.function(f"{name}_part", [("step", PTR), ("begin", I64), ("end", I64), ("worker", I64)])
    f.internal = True
    kernel, scratch = f.load(PTR, f["step"], align=8), f.load(PTR, f["step"], 8, align=8)
    mine = f.mul(f["worker"], image.scratch_bytes)
    with flushing(f, cross.target):
        _tasks(
            f, kernel.text, f.offset(f["step"], 8 * _STEP_WORDS), f.offset(scratch, mine), f["begin"], f["end"]
        )  # fmt: skip


def _give(f: Function, port: Port, x: Value, y: Value, *, channels_last: bool) -> None:
    """Copy an output to the caller, without gaps, in the order of axes of the inputs."""
    order = (0, 2, 3, 1) if channels_last else (0, 1, 2, 3)
    sizes = [port.layout.shape[axis] for axis in order]
    steps = [4 * port.layout.strides[axis] for axis in order]

    def copy(axis: int, x: Value, y: Value) -> None:
        if axis == 4:
            f.store(f.load(F32, x), y)
            return
        dense = 4
        for size in sizes[axis + 1 :]:
            dense *= size

        def one(index: Index, _: object) -> None:
            copy(axis + 1, f.offset(x, f.mul(index, steps[axis])), f.offset(y, f.mul(index, dense)))

        f.loop(0, sizes[axis], one)

    copy(0, x, y)
