"""A lowered graph with its memory laid out and its code compiled: what a plan file holds and a plan runs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from luthier.device.jit import assemble
from luthier.engine.arena import ALIGNMENT, lifetimes, plan_arena
from luthier.engine.cache import cached_object, object_key
from luthier.engine.emit import Module
from luthier.engine.kernels.driver import emit_driver
from luthier.engine.kernels.kernel import Body, Kernel
from luthier.engine.layout import round_up
from luthier.engine.memory import Buffer
from luthier.engine.program import Lowered, Port, Space
from luthier.engine.target import Target


@dataclass(frozen=True, slots=True)
class Operand:
    """Where an operand begins: an offset in bytes into the arena or the constants, or the number of an input."""

    space: Space
    offset: int
    name: str


@dataclass(frozen=True, slots=True)
class Record:
    """One step: the name of its function, its tasks, its operands, and the graph's ops that it does."""

    function: str
    tasks: int
    operands: tuple[Operand, ...]
    ops: tuple[str, ...]


@dataclass(frozen=True)
class Image:
    """Everything that a plan needs but memory.

    Attributes:
        target: CPU that the code is for.
        threads: that the tasks were cut for.
        records: the steps.
        arena_bytes: of all activations, peak; `live_bytes` is the most that exists at one time.
        buffers: offset and bytes of every buffer in the arena.
        scratch_bytes: of one thread.
        inputs, outputs: of the plan.
        output_buffers: offsets into the arena.
        code: object file.
        constants: packed weights.
    """

    target: Target
    threads: int
    records: tuple[Record, ...]
    arena_bytes: int
    live_bytes: int
    buffers: dict[str, tuple[int, int]]
    scratch_bytes: int
    inputs: tuple[Port, ...]
    outputs: tuple[Port, ...]
    output_buffers: tuple[str, ...]
    code: bytes
    constants: NDArray[np.uint8]

    @property
    def peak_bytes(self) -> int:
        """Arena and the scratch of all threads."""
        return self.arena_bytes + self.threads * self.scratch_bytes


def emit_module(kernels: dict[Kernel, str], target: Target) -> str:
    """IR of some kernels and of the code that runs them."""
    module = Module(target.lanes, target.triple, str(target.machine.target_data))
    for kernel, name in kernels.items():
        kernel.emit(Body(module, target, name, kernel.operands))
    emit_driver(module, target)
    return module.text()


def function_name(kernel: Kernel, target: Target, index: int) -> str:
    """`<dtype>_<op>[_<activation>]_<tile>__<isa>`, and a number, since other shapes have the same title."""
    return f"{kernel.title}__{target.isa}_{index}"


def build_image(lowered: Lowered, target: Target, threads: int, *, keep: bool = True) -> Image:
    """Lay out memory and compile; equal kernels share their code.

    Args:
        lowered: the steps.
        target: the CPU.
        threads: that the tasks were cut for.
        keep: whether the code may come from the cache and goes there.
    """
    names = named_kernels(lowered, target)

    def make() -> bytes:
        return assemble(emit_module(names, target), target.machine)

    code = cached_object(object_key(tuple(names), target), make) if keep else make()
    return laid_out(lowered, target, threads, names, code)


def named_kernels(lowered: Lowered, target: Target) -> dict[Kernel, str]:
    """The kernels of a graph, each once, and what their functions are called."""
    names: dict[Kernel, str] = {}
    for step in lowered.steps:
        names.setdefault(step.kernel, function_name(step.kernel, target, len(names)))
    return names


def laid_out(lowered: Lowered, target: Target, threads: int, names: Mapping[Kernel, str], code: bytes) -> Image:
    """Lay out memory; the code is made already, or will be."""
    uses = [[ref.name for ref in step.operands if ref.space == "arena"] for step in lowered.steps]
    arena = plan_arena(lowered.buffers, lifetimes(uses, lowered.output_buffers))
    starts = _starts([values.nbytes for values in lowered.constants.values()])
    blob = Buffer(starts[-1], "the weights").array(np.uint8)
    places = dict(zip(lowered.constants, starts, strict=False))
    for name, values in lowered.constants.items():
        blob[places[name] : places[name] + values.nbytes] = np.ascontiguousarray(values).view(np.uint8)
    inputs = {port.name: index for index, port in enumerate(lowered.inputs)}
    offsets: dict[Space, Any] = {"arena": arena.offsets, "constant": places, "input": inputs}
    records = tuple(
        Record(
            names[step.kernel],
            step.kernel.tasks,
            tuple(Operand(ref.space, offsets[ref.space][ref.name], ref.name) for ref in step.operands),
            step.ops,
        )
        for step in lowered.steps
    )
    scratch = max((step.kernel.scratch_bytes for step in lowered.steps), default=0)
    return Image(
        target=target,
        threads=threads,
        records=records,
        arena_bytes=arena.bytes,
        live_bytes=arena.live_bytes,
        buffers={name: (offset, lowered.buffers[name]) for name, offset in arena.offsets.items()},
        scratch_bytes=round_up(scratch, ALIGNMENT),
        inputs=lowered.inputs,
        outputs=lowered.outputs,
        output_buffers=lowered.output_buffers,
        code=code,
        constants=blob,
    )


def _starts(sizes: list[int]) -> list[int]:
    """Where each part begins, and where the last one ends."""
    starts = [0]
    for size in sizes:
        starts.append(starts[-1] + round_up(size, ALIGNMENT))
    return starts
