"""A plan: a graph compiled for this CPU, with its memory, ready to be called."""

from __future__ import annotations

import os
import threading
import weakref
from collections.abc import Mapping
from itertools import pairwise
from pathlib import Path
from time import perf_counter_ns
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from luthier.device.jit import Library
from luthier.engine.arena import ALIGNMENT
from luthier.engine.image import Image, build_image
from luthier.engine.kernels.driver import FUNCTIONS, HEAD_WORDS
from luthier.engine.kernels.element import ELEMENTS
from luthier.engine.lower import least_tasks
from luthier.engine.lower_int8 import lower_any
from luthier.engine.memory import Buffer, Guarded
from luthier.engine.plan_file import load_image, save_image
from luthier.engine.program import DataOrder, Port
from luthier.engine.reduced import as_bf16
from luthier.engine.target import Target, host
from luthier.engine.tuned import tuned_schedule
from luthier.engine.workers import Workers
from luthier.errors import InputError, ShapeError
from luthier.graph.op import Graph
from luthier.schedule import Schedule

Array = NDArray[Any]
#: of no step, that `step_times` makes to learn what a call costs
_IDLE_CALLS = 5


class Plan:
    """Machine code, weights and one arena; a call is one run.

    Several Python threads may call one plan: calls take turns.  A forked child may call it too; its runs have one
    thread.  NaN in the input gives NaN wherever it reaches.

    Args:
        image: what to run.
        debug: every tensor lies between pages that nobody may touch and is NaN before each run: a wrong index stops
            the process instead of giving a wrong number.
    Raises:
        InputError: there is no memory for it.
    """

    def __init__(self, image: Image, *, debug: bool = False) -> None:
        self.image = image
        self._debug = debug
        self._lock = threading.Lock()
        _PLANS.add(self)
        functions = sorted({record.function for record in image.records})
        self._library = Library(image.code, (*functions, *FUNCTIONS))
        self._arena: dict[str, Buffer] = {}
        if debug:
            self._arena = {name: Guarded(size, name) for name, (_, size) in image.buffers.items()}
        else:
            whole = Buffer(image.arena_bytes, "the activations")
            self._arena = dict.fromkeys(image.buffers, whole)
        self._constants = image.constants
        assert not self._constants.ctypes.data % ALIGNMENT
        threads = max(1, image.threads)
        self._scratch = [Buffer(image.scratch_bytes + ALIGNMENT, "scratch") for _ in range(threads)]
        words = HEAD_WORDS + max((len(record.operands) for record in image.records), default=0)
        self._table = np.zeros((len(image.records), words), np.int64)
        self._patches: list[tuple[int, int, int]] = []  # row, word, number of the input
        for row, record in enumerate(image.records):
            self._table[row, :HEAD_WORDS] = self._library.addresses[record.function], record.tasks
            for word, operand in enumerate(record.operands, HEAD_WORDS):
                if operand.space == "input":
                    self._patches.append((row, word, operand.offset))
                elif operand.space == "constant":
                    self._table[row, word] = self._constants.ctypes.data + operand.offset
                else:
                    self._table[row, word] = self._address(operand.name)
        keep = (self._library, self._arena, self._constants)
        driver = {name: self._library.addresses[name] for name in FUNCTIONS}
        self._workers = Workers(driver, self._table, self._scratch, keep)
        self._outputs = [self._view(port, name) for port, name in zip(image.outputs, image.output_buffers, strict=True)]

    def _address(self, buffer: str) -> int:
        return self._arena[buffer].address + (0 if self._debug else self.image.buffers[buffer][0])

    def _view(self, port: Port, buffer: str) -> Array:
        """An output in the arena, in the graph's order of axes."""
        start = 0 if self._debug else self.image.buffers[buffer][0] // 4
        flat = self._arena[buffer].array(np.float32)[start:]
        strides = tuple(4 * stride for stride in port.layout.strides)
        full = np.lib.stride_tricks.as_strided(flat, port.layout.shape, strides, writeable=False)
        return full[:, :, 0, 0] if len(port.shape) == 2 else full

    @property
    def inputs(self) -> tuple[Port, ...]:
        """What a call takes."""
        return self.image.inputs

    @property
    def outputs(self) -> tuple[Port, ...]:
        """What a call returns."""
        return self.image.outputs

    @property
    def peak_bytes(self) -> int:
        """Activations, intermediate results and scratch of all threads; not the weights, nor the caller's arrays."""
        return self.image.peak_bytes

    def __call__(self, *inputs: Array) -> Any:
        """Run once.

        Args:
            inputs: float32, in the shapes and the order of axes for which the plan was compiled.
        Returns:
            One new float32 array, or a tuple of them; (N, K), or a map in the inputs' order of axes.
        Raises:
            ShapeError, InputError: another number, shape or type of inputs.
        """
        arrays = self._checked(inputs)
        with self._lock:
            self._bind(arrays)
            if self._debug:
                for buffer in {id(b): b for b in self._arena.values()}.values():
                    buffer.array(np.uint8)[:] = 0xFF  # NaN of every floating-point type
            self._workers.run()
            results = tuple(self._taken(output) for output in self._outputs)
        return results[0] if len(results) == 1 else results

    def step_times(self, *inputs: Array) -> list[int]:
        """Run once on the caller's thread, step by step; nanoseconds of each, less those of a call of no step.

        The results are in the arena, and are not returned: see `luthier.engine.profile`.

        Raises:
            ShapeError, InputError: as a call.
        """
        arrays = self._checked(inputs)
        with self._lock:
            self._bind(arrays)
            stamps = [perf_counter_ns()]
            for first, count in (*[(0, 0)] * _IDLE_CALLS, *((step, 1) for step in range(len(self._table)))):
                self._workers.run_steps(first, count)
                stamps.append(perf_counter_ns())
        spans = [after - before for before, after in pairwise(stamps)]
        call = min(spans[:_IDLE_CALLS])
        return [max(span - call, 1) for span in spans[_IDLE_CALLS:]]

    def _bind(self, arrays: list[Array]) -> None:
        for row, word, number in self._patches:
            self._table[row, word] = arrays[number].ctypes.data

    def _taken(self, output: Array) -> Array:
        last = any(port.layout.strides[1] == 1 and port.layout.shape[2:] != (1, 1) for port in self.image.inputs)
        if output.ndim == 4 and last:
            output = output.transpose(0, 2, 3, 1)
        return output.copy(order="C")

    def _checked(self, inputs: tuple[Array, ...]) -> list[Array]:
        if len(inputs) != len(self.image.inputs):
            raise InputError(f"Plan: takes {len(self.image.inputs)} inputs, got {len(inputs)}")
        arrays = []
        for port, given in zip(self.image.inputs, inputs, strict=True):
            array = np.asarray(given)
            want = port.shape
            if len(want) == 4 and port.layout.strides[1] == 1 and port.layout.strides[3] == want[1]:
                want = (want[0], want[2], want[3], want[1])
            if array.dtype != np.float32:
                raise InputError(f"Plan: input {port.name!r} must be float32, got {array.dtype}")
            if array.shape != want:
                raise ShapeError(f"Plan: input {port.name!r} must have shape {want}, got {array.shape}")
            arrays.append(np.ascontiguousarray(array))
        return arrays

    def save(self, path: Path | str) -> None:
        """Write code, weights and table to one file, for `load`."""
        save_image(self.image, Path(path))

    def close(self) -> None:
        """End the plan's threads, after the run in progress; later runs are done by their caller alone.

        They also end when the plan is forgotten, and when Python ends.
        """
        with self._lock:
            self._workers.close()


#: plans of this process: a lock that another thread holds while the process forks would stay locked in the child
_PLANS: weakref.WeakSet[Plan] = weakref.WeakSet()


def _renew_locks() -> None:
    for plan in _PLANS:
        plan._lock = threading.Lock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_renew_locks)


def load(path: Path | str, *, debug: bool = False) -> Plan:
    """A plan that was saved, ready to be called.

    Raises:
        PlanError: the file is missing, damaged, of another version or for another CPU.
        InputError: there is no memory for it.
    """
    return Plan(load_image(Path(path)), debug=debug)


def compile(
    graph: Graph,
    constants: Mapping[str, Array],
    *,
    target: Target | None = None,
    threads: int = 1,
    order: DataOrder = "nchw",
    schedule: Schedule | None = None,
    dtype: Literal["fp32", "bf16"] | None = None,
    tuned: bool = True,
    tune: str | float | None = None,
    debug: bool = False,
) -> Plan:
    """Compile a graph for this machine.

    Args:
        graph: fp32 and bf16, of any fixed batch; fold its norms first, see `luthier.graph.fold_norm_into_conv`.
        constants: values by name.
        target: None = the widest vectors that this CPU has.
        threads: that a run uses, the caller's included.
        order: of the axes of the arrays that calls pass and get: `nchw` or `nhwc`.
        schedule: see `luthier.engine.lower`; None = what tuning has found on this machine, else the engine's own.
        dtype: of an fp32 graph: `bf16` stores its large tensors so, see `luthier.engine.reduced`; calls pass and get
            float32 all the same.  None = as the graph's tensors say.
        tuned: whether to look for what tuning has found.
        tune: time to search for better schedules first, `30s` or seconds; see `luthier.engine.tune`.
        debug: see `Plan`.
    Raises:
        InputError, ShapeError: the graph or its constants cannot be compiled.
    Example:
        >>> from luthier.graph.builder import Builder
        >>> build = Builder()
        >>> graph = build.graph(build.activation("y", build.input("x", (1, 3, 2, 2)), "relu6"))
        >>> compile(graph, {})(np.full((1, 3, 2, 2), 9, np.float32)).max()
        np.float32(6.0)
    """
    if threads < 1:
        raise InputError(f"compile: threads must be at least 1, got {threads}")
    if dtype not in (None, *ELEMENTS):
        raise InputError(f"compile: dtype must be one of {', '.join(ELEMENTS)}, got {dtype!r}")
    others = sorted({tensor.dtype for tensor in graph.tensors.values()} - {"fp32"})
    if dtype is not None and others:
        raise InputError(f"compile: dtype={dtype!r} is for graphs of fp32 tensors, this one has {', '.join(others)}")
    graph = as_bf16(graph) if dtype == "bf16" else graph
    target = target or host()
    if tune is not None:
        from luthier.engine.tune import tune as search  # it times plans

        schedule = search(graph, constants, target=target, threads=threads, order=order, limit=tune).schedule
    elif schedule is None and tuned:
        schedule = tuned_schedule(graph, target, threads, order)
    lowered = lower_any(graph, constants, target, order=order, least_tasks=least_tasks(threads), schedule=schedule)
    return Plan(build_image(lowered, target, threads), debug=debug)
