"""Threads that help with every run: they spin for a while between two runs, and then sleep until they are called.

The waiting inside a run is machine code (`luthier.engine.kernels.driver`).  Between runs a thread waits there too, for
about a tenth of a millisecond, and then in a condition variable of Python, which exists on every system.  A run never
waits for a sleeper: until it is awake, the caller claims its tasks.
"""

from __future__ import annotations

import ctypes
import os
import sys
import threading
from dataclasses import dataclass, field
from typing import Any, Final

_WORD: Final = ctypes.c_int64
_POINTER: Final = ctypes.c_void_p
ALONE: Final = ctypes.CFUNCTYPE(None, _POINTER, _WORD, _WORD, _POINTER, _POINTER)
TOGETHER: Final = ctypes.CFUNCTYPE(None, _POINTER, _WORD, _WORD, _POINTER, _POINTER, _WORD, _POINTER)
ANNOUNCE: Final = ctypes.CFUNCTYPE(_WORD, _POINTER)
AWAIT: Final = ctypes.CFUNCTYPE(_WORD, _POINTER, _WORD, _WORD)
#: pauses of 40 to 140 cycles
_SPINS: Final = 4000


def give_way_address() -> int:
    """Of the system's call that lets other threads run."""
    if sys.platform == "win32":
        return ctypes.cast(ctypes.windll.kernel32.SwitchToThread, _POINTER).value or 0
    return ctypes.cast(ctypes.CDLL(None).sched_yield, _POINTER).value or 0


@dataclass
class Shared:
    """What the threads of one plan have in common.

    Attributes:
        addresses: of the driver's functions.
        head: the arguments table, record_bytes, steps, counters.
        runs: address of the number of runs.
        scratch: address of each thread's scratch; 0 is the caller's.
    """

    addresses: dict[str, int]
    head: tuple[int, int, int, int]
    runs: int
    scratch: tuple[int, ...]
    wake: threading.Condition = field(default_factory=threading.Condition)
    asleep: int = 0
    stopped: bool = False

    def __post_init__(self) -> None:
        self.alone = ALONE(self.addresses["run_alone"])
        self.together = TOGETHER(self.addresses["run_together"])
        self.announce = ANNOUNCE(self.addresses["announce"])
        self.await_run = AWAIT(self.addresses["await_run"])
        self.give_way = give_way_address()


class Workers:
    """The caller's thread and `len(scratch) - 1` others.

    Args:
        shared: functions and memory.
        keep: whatever must live as long as a thread may touch it.
    """

    def __init__(self, shared: Shared, keep: Any) -> None:
        self._shared = shared
        self._process = os.getpid()
        self._threads = [
            threading.Thread(target=_help, args=(shared, number, keep), daemon=True, name=f"luthier-{number}")
            for number in range(1, len(shared.scratch))
        ]
        for thread in self._threads:
            thread.start()

    def run(self) -> None:
        """One run; the caller holds the plan's lock."""
        shared = self._shared
        if not self._threads or self._process != os.getpid():  # a forked child has no threads but its own
            shared.alone(*shared.head, shared.scratch[0])
            return
        number = shared.announce(shared.runs)
        if shared.asleep:
            with shared.wake:
                shared.wake.notify_all()
        shared.together(*shared.head, shared.scratch[0], number, shared.give_way)

    def close(self) -> None:
        """Let the threads end."""
        with self._shared.wake:
            self._shared.stopped = True
            self._shared.wake.notify_all()
        for thread in self._threads:
            if thread is not threading.current_thread():
                thread.join()
        self._threads = []


def _help(shared: Shared, number: int, keep: Any) -> None:
    """The life of a thread."""
    seen = 0
    while not shared.stopped:
        runs = shared.await_run(shared.runs, seen, _SPINS)
        if runs != seen:
            seen = runs
            shared.together(*shared.head, shared.scratch[number], runs - 1, shared.give_way)
            continue
        with shared.wake:
            shared.asleep += 1
            # the caller announces first and looks for sleepers then; a sleeper counts itself first and looks then
            if shared.await_run(shared.runs, seen, 0) == seen and not shared.stopped:
                shared.wake.wait()
            shared.asleep -= 1
    del keep
