"""How long one image takes in ONNX Runtime on this machine: measured, with its spread."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from luthier.errors import DataError

FloatArray = np.ndarray[Any, np.dtype[np.float32]]


@dataclass(frozen=True)
class Latency:
    """A measured latency at batch 1.

    Attributes:
        median_s: of all repeats.
        spread_s: half the interquartile range.
        repeats: number of timed calls.
        runtime: what ran it, with version and threads.
    """

    median_s: float
    spread_s: float
    repeats: int
    runtime: str


def open_session(
    model: Path | bytes,
    threads: int = 1,
    profile_prefix: Path | None = None,
    *,
    spin: bool = False,
    flush: bool = False,
) -> Any:
    """An ONNX Runtime session on the CPU with all graph optimisations.

    Args:
        model: `.onnx` file or its bytes.
        threads: of its pool.
        profile_prefix: profile every node, and write that to a file whose name starts so; None = do not.
        spin: let idle threads of the pool spin, also between calls; some runs are faster then.
        flush: take subnormal numbers as zero.
    Raises:
        DataError: the file is missing or not an ONNX model.
    """
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    # a pool that spins between calls would slow the training that follows a measurement
    options.add_session_config_entry("session.intra_op.allow_spinning", str(int(spin)))
    options.add_session_config_entry("session.set_denormal_as_zero", str(int(flush)))
    if profile_prefix is not None:
        options.enable_profiling = True
        options.profile_file_prefix = str(profile_prefix)
    try:
        return onnxruntime.InferenceSession(
            str(model) if isinstance(model, Path) else model, options, providers=["CPUExecutionProvider"]
        )
    except Exception as error:  # the runtime raises many private classes for one cause: the file
        name = str(model) if isinstance(model, Path) else "onnx model"
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise DataError(f"{name}: ONNX Runtime cannot load it ({reason[:160]})") from None


def measure_latency(
    model: Path | bytes, *, threads: int = 1, budget_s: float = 1.0, max_repeats: int = 1000
) -> Latency:
    """Time a model with one float32 input at batch 1.

    Inputs change from call to call (a ring of 8 random images), warm-up calls are not counted, and every call is timed
    on its own, so that a busy moment of the machine shows in the spread and not in the median.

    Args:
        model: `.onnx` file or its bytes, fixed input shape.
        threads: of ONNX Runtime's pool.
        budget_s: seconds to spend, at least 10 repeats all the same.
        max_repeats: upper limit of repeats.
    Example:
        >>> measure_latency(Path("missing.onnx"))
        Traceback (most recent call last):
        ...
        luthier.errors.DataError: missing.onnx: no such file
    """
    if isinstance(model, Path) and not model.is_file():
        raise DataError(f"{model}: no such file")
    session = open_session(model, threads)
    times_s = time_calls(session, budget_s=budget_s, max_repeats=max_repeats)
    low, median, high = np.percentile(times_s, (25, 50, 75))
    return Latency(
        median_s=float(median),
        spread_s=float(high - low) / 2,
        repeats=len(times_s),
        runtime=runtime_name(threads),
    )


def time_calls(
    session: Any,
    *,
    budget_s: float,
    min_repeats: int = 10,
    max_repeats: int = 1000,
    clock: Callable[[], float] = time.perf_counter,
) -> list[float]:
    """Seconds of single calls of an open session with one float32 input; warm-up calls are not among them.

    Args:
        session: of `open_session`.
        budget_s: to spend, by the wall clock.
        min_repeats, max_repeats: calls, whatever the budget.
        clock: what times a call: the wall clock, or, for one thread, `time.thread_time`, which stands still while
            another process has the core.
    """
    (spec,) = session.get_inputs()
    generator = np.random.default_rng(0)
    images = [generator.standard_normal(spec.shape, dtype=np.float32) for _ in range(8)]
    for image in images[: min(3, min_repeats)]:
        session.run(None, {spec.name: image})
    times_s: list[float] = []
    start = time.perf_counter()
    while len(times_s) < min_repeats or (time.perf_counter() - start < budget_s and len(times_s) < max_repeats):
        before = clock()
        session.run(None, {spec.name: images[len(times_s) % len(images)]})
        times_s.append(clock() - before)
    return times_s


def runtime_name(threads: int) -> str:
    """What ran, with version and threads."""
    import onnxruntime

    return f"ONNX Runtime {onnxruntime.__version__}, CPU, {threads} thread{'' if threads == 1 else 's'}"
