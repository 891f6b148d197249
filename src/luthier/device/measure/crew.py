"""Threads that start together and are timed, and the rate that is reported from many short bursts.

Another process on the machine makes some bursts slow; nothing makes a burst faster than the machine.  So each probe is
repeated in short bursts, in turn with all others, and a high quantile of its bursts is kept.
"""

from __future__ import annotations

import contextlib
import os
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from queue import SimpleQueue
from types import TracebackType
from typing import Final

from luthier.device.measure.loops import Loop

#: of one burst; long against the start of threads, short against a turn of the scheduler
BURST_S: Final = 0.0015
#: of the longest thread's time, the part in which all must have run for their rates to be added
TOGETHER: Final = 0.9
#: of the bursts, the share that may be faster than the rate reported: a slip of the timer is not a rate
ABOVE: Final = 0.02

Say = Callable[[float, str], None]


@dataclass(frozen=True)
class Probe:
    """Something to be timed: one loop per thread, all started together.

    Attributes:
        key: of its result.
        loops: one per thread, with equal work per round.
    """

    key: tuple[str, int]
    loops: tuple[Loop, ...]


@dataclass(frozen=True)
class Rate:
    """What was measured.

    Attributes:
        per_s: work of all threads together per second.
        typical: median burst over it; near 1 on a quiet machine.
        bursts: how many were timed.
    """

    per_s: float
    typical: float
    bursts: int


@dataclass(frozen=True)
class Burst:
    """One run of all threads of a probe.

    Attributes:
        work: of one thread.
        spans: (begin, end) of each thread, in nanoseconds.
    """

    work: float
    spans: tuple[tuple[int, int], ...]

    @property
    def seconds(self) -> float:
        """Of the thread that took longest."""
        return max(max(end - begin for begin, end in self.spans), 1) / 1e9

    @property
    def per_s(self) -> float:
        """Work of all threads per second.

        The sum of their own rates if they ran together; else all work over the whole time, which is never more.

        Example:
            >>> Burst(3.0, ((0, 10**9), (0, 10**9))).per_s, Burst(3.0, ((0, 10**9), (10**9, 2 * 10**9))).per_s
            (6.0, 3.0)
        """
        begins, ends = [begin for begin, _ in self.spans], [end for _, end in self.spans]
        if min(ends) - max(begins) >= TOGETHER * 1e9 * self.seconds:
            return sum(self.work * 1e9 / max(end - begin, 1) for begin, end in self.spans)
        return len(self.spans) * self.work * 1e9 / (max(ends) - min(begins))


class Crew:
    """Threads, each on a core of its own where the system allows it; a context manager."""

    def __init__(self, cpus: Sequence[int]) -> None:
        self._cpus = tuple(cpus)
        self._jobs: list[SimpleQueue[Callable[[], None] | None]] = [SimpleQueue() for _ in cpus]
        self._threads = [
            threading.Thread(target=self._work, args=(cpu, jobs), daemon=True)
            for cpu, jobs in zip(self._cpus, self._jobs, strict=True)
        ]

    def __enter__(self) -> Crew:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for jobs in self._jobs:
            jobs.put(None)

    def run(self, loops: Sequence[Loop], rounds: int) -> Burst:
        """These loops, one per thread, started together."""
        start = threading.Barrier(len(loops))
        spans: SimpleQueue[tuple[int, int]] = SimpleQueue()

        def job(loop: Loop) -> Callable[[], None]:
            def run() -> None:
                start.wait()
                begin = time.perf_counter_ns()
                loop.run(rounds)
                spans.put((begin, time.perf_counter_ns()))

            return run

        for loop, jobs in zip(loops, self._jobs, strict=False):
            jobs.put(job(loop))
        return Burst(rounds * loops[0].work_per_round, tuple(spans.get() for _ in loops))

    @staticmethod
    def _work(cpu: int, jobs: SimpleQueue[Callable[[], None] | None]) -> None:
        pin(cpu)
        while (job := jobs.get()) is not None:
            job()


def pin(cpu: int) -> None:
    """Keep the calling thread on one logical CPU, where the system allows it."""
    if hasattr(os, "sched_setaffinity"):
        with contextlib.suppress(OSError):
            os.sched_setaffinity(0, {cpu})


def rates(
    probes: Sequence[Probe], cpus: Sequence[int], budget_s: float, say: Say = lambda share, what: None
) -> dict[tuple[str, int], Rate]:
    """Time every probe in turns until the budget is spent, three bursts of each at least.

    Args:
        probes: what to time.
        cpus: numbers of the logical CPUs to use, at least as many as a probe has loops.
        budget_s: for all probes together.
        say: told the share that is done, and what is going on.
    """
    found: dict[tuple[str, int], list[float]] = {probe.key: [] for probe in probes}
    begin = time.perf_counter()
    with Crew(cpus) as crew:
        rounds = {probe.key: _rounds(crew, probe) for probe in probes}
        while True:
            for probe in probes:
                burst = crew.run(probe.loops, rounds[probe.key])
                if burst.seconds < BURST_S / 2:
                    # the tries before were slowed down by others: so short a burst is not trusted
                    rounds[probe.key] *= 2
                else:
                    found[probe.key].append(burst.per_s)
                share = (time.perf_counter() - begin) / budget_s
                say(min(share, 1.0), f"{probe.key[0]}, {probe.key[1]} threads")
            if share >= 1 and min(map(len, found.values())) >= 3:
                return {key: summarise(bursts) for key, bursts in found.items()}


def summarise(bursts: Sequence[float]) -> Rate:
    """The rate that all but the fastest hundredths of the bursts do not exceed.

    Example:
        >>> summarise([90.0, 100.0, 50.0])
        Rate(per_s=100.0, typical=0.9, bursts=3)
    """
    falling = sorted(bursts, reverse=True)
    best = falling[int(ABOVE * len(falling))]
    return Rate(best, falling[len(falling) // 2] / best, len(falling))


def _rounds(crew: Crew, probe: Probe) -> int:
    """How many rounds fill a burst: doubled until they do, on one thread, by the fastest of three tries."""
    rounds = 1
    while True:
        seconds = min(crew.run(probe.loops[:1], rounds).seconds for _ in range(3))
        if seconds >= BURST_S / 2:
            return max(1, round(rounds * BURST_S / seconds))
        rounds *= 2
