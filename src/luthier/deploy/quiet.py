"""Quiet moments: a small reference network says whether the machine is as fast as it was seen to be.

A machine that is shared (hyperthreads, caches, memory, other virtual machines) runs at half the speed for minutes, and
no clock of the process sees it.  What is to be compared is measured between two references that are both fast.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from typing import Final, TypeVar

from luthier.deploy.latency import open_session, time_calls
from luthier.deploy.onnx_file import random_weights, to_onnx
from luthier.graph.builder import Builder

T = TypeVar("T")
#: a moment is quiet while the reference takes at most so many times its fastest
_QUIET: Final = 1.1
_CALLS: Final = 8


class Reference:
    """A convolution and a SiLU, some tenths of a millisecond, timed again and again.

    Attributes:
        fastest_s: the fastest that it was seen.
        seen_s: all its times.
    """

    def __init__(self, timer: Callable[[], float] | None = None) -> None:
        self._timer = timer or _reference()
        self.fastest_s = self._timer()
        self.seen_s = [self.fastest_s]

    def slowdown(self) -> float:
        """Time of the reference now over its fastest, at least 1."""
        now_s = self._timer()
        self.seen_s.append(now_s)
        self.fastest_s = min(self.fastest_s, now_s)
        return now_s / self.fastest_s

    @property
    def usual_s(self) -> float:
        """Its median time."""
        return statistics.median(self.seen_s)

    def beside(self, measure: Callable[[], T]) -> tuple[T, float]:
        """What `measure` returns, and the reference's mean time right before and after it.

        What is measured over that, times `usual_s`, is what it takes on the machine at its usual speed.

        Example:
            >>> times = iter([1.0, 2.0, 4.0])
            >>> Reference(lambda: next(times)).beside(lambda: "a")
            ('a', 3.0)
        """
        before = self.slowdown() * self.fastest_s
        result = measure()
        return result, (before + self.slowdown() * self.fastest_s) / 2

    def quietly(self, measure: Callable[[], T], patience_s: float) -> T:
        """What `measure` returns in a quiet moment: at once, or as soon as there is one.

        Args:
            measure: called at least once, and again while the machine was slow before or after it.
            patience_s: after so long the quietest of what was measured is taken.
        Example: the third measurement is the first between two fast references.
            >>> times, results = iter([1.0, 1.0, 1.6, 1.6, 1.0, 1.0, 1.0]), iter("abc")
            >>> Reference(lambda: next(times)).quietly(lambda: next(results), patience_s=60)
            'c'
        """
        end = time.perf_counter() + patience_s
        found: list[tuple[float, T]] = []
        while True:
            before = self.slowdown()
            result = measure()
            found.append((max(before, self.slowdown()), result))
            if found[-1][0] <= _QUIET:
                return result
            if time.perf_counter() > end:
                return min(found, key=lambda one: one[0])[1]


def _reference() -> Callable[[], float]:
    build = Builder()
    x = build.conv("c", "c", build.input("x", (1, 64, 28, 28)), 64, kernel_size=3)
    graph = build.graph(build.activation("a", x, "silu"))
    session = open_session(to_onnx(graph, random_weights(graph)))
    return lambda: statistics.median(time_calls(session, budget_s=0.0, min_repeats=_CALLS, clock=time.thread_time))
