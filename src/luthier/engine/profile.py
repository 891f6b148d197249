"""Where a plan's time goes: every step timed inside the running network, not alone in a warm cache.

    time of a step = median over the rounds of (call of that one step) - (call of no step)            (1)

The steps of a round run one after the other, as in an ordinary call, on the caller's thread.  Whole calls are timed
between the rounds: what the steps' sum lacks or has too much of it is the price of being looked at.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median, quantiles
from time import perf_counter_ns
from typing import Any

from numpy.typing import NDArray

from luthier.cost.macs import op_macs
from luthier.engine.plan import Plan
from luthier.errors import InputError
from luthier.graph.op import Graph

Array = NDArray[Any]


@dataclass(frozen=True, slots=True)
class StepTime:
    """One step, measured.

    Attributes:
        function: of the machine code.
        ops: of the graph, that it does.
        latency_s: median, equation (1).
        spread_s: from the first quartile to the third.
        macs: of its convolutions and linear layers; 0 where the graph was not given.
    """

    function: str
    ops: tuple[str, ...]
    latency_s: float
    spread_s: float
    macs: int = 0

    @property
    def flop_per_s(self) -> float:
        """2 * macs / latency_s."""
        return 2 * self.macs / self.latency_s


@dataclass(frozen=True, slots=True)
class Profile:
    """A plan's steps, in the order in which they run.

    Attributes:
        steps: all of them.
        whole_s: median of calls of the plan that nobody looked into, between the rounds, on the plan's own threads.
        rounds: that the medians are of.
    """

    steps: tuple[StepTime, ...]
    whole_s: float
    rounds: int

    @property
    def sum_s(self) -> float:
        """Of all steps."""
        return sum(step.latency_s for step in self.steps)

    def table(self, peak_flop_per_s: float | None = None) -> str:
        """A line per step: microseconds, GFLOP/s, share of the peak, microseconds above the floor, function, ops.

        Args:
            peak_flop_per_s: of one core; None = the last two columns but the names are left out.
        """
        lines = []
        for step in self.steps:
            line = f"{step.latency_s * 1e6:8.1f} us {step.flop_per_s / 1e9:7.1f} GFLOP/s"
            if peak_flop_per_s is not None:
                above = step.latency_s - 2 * step.macs / peak_flop_per_s
                line += f" {step.flop_per_s / peak_flop_per_s:4.0%} {above * 1e6:+8.1f} us"
            lines.append(f"{line}  {step.function}  {step.ops[0] if step.ops else 'copy of an input'}")
        lines.append(f"{self.sum_s * 1e6:8.1f} us in all steps, {self.whole_s * 1e6:.1f} us in a whole call")
        return "\n".join(lines)


def profile(plan: Plan, *inputs: Array, graph: Graph | None = None, rounds: int = 50) -> Profile:
    """Time every step of a plan, equation (1).

    Args:
        plan: any.
        inputs: as for a call of it.
        graph: that it was compiled from, to count the work of each step.
        rounds: of single steps, after a tenth as many that do not count.
    Raises:
        InputError: no rounds; inputs as in a call.
    Example:
        >>> import numpy as np
        >>> from luthier.engine import compile
        >>> from luthier.graph.builder import Builder
        >>> build = Builder()
        >>> y = build.conv("c", "c", build.input("x", (1, 16, 8, 8)), 32, bias=True)
        >>> graph = build.graph(y)
        >>> values = {name: np.ones(tensor.shape, np.float32) for name, tensor in graph.constants.items()}
        >>> found = profile(compile(graph, values), np.ones((1, 16, 8, 8), np.float32), graph=graph)
        >>> [step.macs for step in found.steps], found.sum_s > 0
        ([32768], True)
    """
    if rounds < 1:
        raise InputError(f"profile: rounds must be at least 1, got {rounds}")
    times: list[list[int]] = []
    whole: list[int] = []
    for number in range(-max(1, rounds // 10), rounds):
        begin = perf_counter_ns()
        plan(*inputs)
        end = perf_counter_ns()
        stamps = plan.step_times(*inputs)
        if number >= 0:
            whole.append(end - begin)
            times.append(stamps)
    steps = []
    for record, spans in zip(plan.image.records, zip(*times, strict=True), strict=True):
        macs = 0 if graph is None else sum(op_macs(graph, op) for op in graph.ops if op.name in record.ops)
        steps.append(StepTime(record.function, record.ops, median(spans) / 1e9, _spread(spans) / 1e9, macs))
    return Profile(tuple(steps), median(whole) / 1e9, rounds)


def _spread(values: Sequence[float]) -> float:
    if len(values) < 2:
        return 0.0
    low, _, high = quantiles(values, n=4, method="inclusive")
    return high - low
