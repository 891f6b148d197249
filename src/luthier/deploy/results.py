"""What measuring a network returns, as frozen values that a report can read."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class KernelTime:
    """One node that the run time ran.

    Attributes:
        ops: the graph's ops that it computed; none = the run time's own work.
        kind: the run time's name of the kernel (`Conv`, `ReorderInput`).
        out_bytes: that it wrote.
        median_s: of all repeats, what the profiler adds to a node taken off.
    """

    ops: tuple[str, ...]
    kind: str
    out_bytes: int
    median_s: float


@dataclass(frozen=True, slots=True)
class Profile:
    """Measured times of one network.

    Attributes:
        kernels: in the order in which they ran.
        whole_s: median without the profiler.
        profiler_s: what the profiler adds to one node, see `profiler_overhead_s`; taken off every kernel.
        repeats: of the profiled run, those that another process disturbed left out.
        runtime: what ran it, with version and threads.
    """

    kernels: tuple[KernelTime, ...]
    whole_s: float
    profiler_s: float
    repeats: int
    runtime: str

    @property
    def parts_s(self) -> float:
        """Sum of all kernels."""
        return sum(kernel.median_s for kernel in self.kernels)

    @property
    def runtime_s(self) -> float:
        """Kernels that compute no op of the graph: changes of layout."""
        return sum(kernel.median_s for kernel in self.kernels if not kernel.ops)

    @property
    def unexplained_s(self) -> float:
        """The whole less its parts: calling, allocating; below 0 if the machine was slower under the profiler."""
        return self.whole_s - self.parts_s

    def by_op(self) -> dict[str, float]:
        """Seconds by op of the graph; a kernel that computes several ops counts for the first of them."""
        times: dict[str, float] = defaultdict(float)
        for kernel in self.kernels:
            if kernel.ops:
                times[kernel.ops[0]] += kernel.median_s
        return dict(times)
