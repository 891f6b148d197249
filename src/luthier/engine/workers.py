"""Threads that help with every run: they spin for a while between two runs, and then sleep until they are called.

All waiting is machine code (`luthier.engine.kernels.driver`), outside of Python's lock; where the system has no futex,
threads sleep in a condition variable of Python's, which exists everywhere.  A run never waits for a sleeper: until it
is awake, the caller claims its tasks.
"""

from __future__ import annotations

import ctypes
import os
import platform
import sys
import threading
import weakref
from collections.abc import Mapping, Sequence
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from luthier.engine.kernels.driver import COUNTER_BYTES, Word
from luthier.engine.memory import Buffer

_POINTER: Final = ctypes.c_void_p
_RUN: Final = ctypes.CFUNCTYPE(None, _POINTER, _POINTER)
_SERVE: Final = ctypes.CFUNCTYPE(ctypes.c_int64, _POINTER, _POINTER, ctypes.c_int64)
_STOP: Final = ctypes.CFUNCTYPE(None, _POINTER)
#: pauses before a helper sleeps: 20 to 100 microseconds, as long as a caller takes between two runs in a loop
_SPINS: Final = 1500
#: of a nap inside a run: of 20 to 100 microseconds, and of none, the one that lost least beside a busy process
_NAP_NS: Final = 50_000
#: number of Linux's system call `futex`
_FUTEX: Final = {"x86_64": 202, "aarch64": 98}


def system_words(*, portable: bool = False) -> dict[Word, int]:
    """Addresses of the system's functions, for the block that the threads of a plan share.

    Args:
        portable: leave out what only Linux has.
    """
    if sys.platform == "win32":
        return {Word.GIVE_WAY: _address(ctypes.windll.kernel32.SwitchToThread)}
    libc = ctypes.CDLL(None)
    words = {Word.GIVE_WAY: _address(libc.sched_yield)}
    if sys.platform == "linux" and platform.machine() in _FUTEX and not portable:
        words[Word.SYSCALL], words[Word.FUTEX] = _address(libc.syscall), _FUTEX[platform.machine()]
        words[Word.GET_CPU] = _address(libc.sched_getcpu)
        words[Word.GET_MASK], words[Word.SET_MASK] = map(_address, (libc.sched_getaffinity, libc.sched_setaffinity))
    return words


def _address(function: Any) -> int:
    return ctypes.cast(function, _POINTER).value or 0


class Workers:
    """The caller's thread and `len(scratch) - 1` others.

    Args:
        functions: addresses of `luthier.engine.kernels.driver.FUNCTIONS`.
        table: records of the steps, a row each; its operands may change between two runs.
        scratch: of each thread; the first is the caller's.
        keep: whatever else must live as long as a thread may touch it.
    """

    def __init__(
        self, functions: Mapping[str, int], table: NDArray[np.int64], scratch: Sequence[Buffer], keep: Any
    ) -> None:
        counters = Buffer(len(table) * COUNTER_BYTES, "counters")
        self._team = _Team(functions, Buffer(Word.BYTES, "counters"), (table, scratch, counters, keep))
        fixed = {
            Word.SPINS: _SPINS,
            Word.NAP_NS: _NAP_NS,
            Word.TABLE: table.ctypes.data,
            Word.RECORD_BYTES: table.strides[0],
            Word.STEPS: len(table),
            Word.COUNTERS: counters.address,
        }
        for word, value in (fixed | system_words()).items():
            self._team.words[word // 8] = value
        self._part = Buffer(Word.BYTES, "counters")  # a team of one, for parts of the table
        self._part.array(np.int64)[:] = self._team.words
        self._scratch = scratch[0].address
        self._process = os.getpid()
        self._threads = [
            threading.Thread(target=self._team.help, args=(one.address,), daemon=True, name=f"luthier-{number}")
            for number, one in enumerate(scratch[1:], 1)
        ]
        for thread in self._threads:
            thread.start()
        self.close = weakref.finalize(self, _end, self._team, self._threads, self._process)

    @property
    def asleep(self) -> int:
        """Threads that sleep."""
        return int(self._team.words[Word.ASLEEP // 8]) + self._team.waiting

    def run(self) -> None:
        """One run; not more than one at a time.  Without helpers (closed, a forked child) the caller does it alone."""
        if self._threads and self.close.alive and self._process == os.getpid():
            self._team.call()
            self._team.run_together(self._team.block.address, self._scratch)
        else:
            self._team.run_alone(self._team.block.address, self._scratch)

    def run_steps(self, first: int, count: int) -> None:
        """A part of a run on the caller's thread alone."""
        words, whole = self._part.array(np.int64), self._team.words
        words[Word.STEPS // 8] = count
        words[Word.TABLE // 8] = whole[Word.TABLE // 8] + first * whole[Word.RECORD_BYTES // 8]
        self._team.run_alone(self._part.address, self._scratch)


class _Team:
    """What the threads share.

    Attributes:
        words: see `Word`.
        waiting: threads in the condition variable.
    """

    def __init__(self, functions: Mapping[str, int], block: Buffer, keep: Any) -> None:
        self.run_alone, self.run_together = _RUN(functions["run_alone"]), _RUN(functions["run_together"])
        self._serve, self._stop = _SERVE(functions["serve"]), _STOP(functions["stop"])
        self.block, self._keep = block, keep
        self.words = block.array(np.int64)
        self._wake = threading.Condition()
        self.waiting = 0

    def call(self) -> None:
        """Wake those in the condition variable.  A thread on its way there is missed, and sleeps through one run."""
        if self.waiting:
            with self._wake:
                self._wake.notify_all()

    def help(self, scratch: int) -> None:
        """The life of a helper."""
        seen = 0
        while True:
            seen = self._serve(self.block.address, scratch, seen)
            with self._wake:
                if self.words[Word.STOPPED // 8]:
                    return
                self.waiting += 1
                if self.words[Word.RUNS // 8] == seen:
                    self._wake.wait()
                self.waiting -= 1

    def stop(self) -> None:
        """Let helpers return."""
        with self._wake:
            self._stop(self.block.address)
            self._wake.notify_all()


def _end(team: _Team, threads: Sequence[threading.Thread], process: int) -> None:
    """Threads end with their plan, or at the latest when Python does; a forked child has none to end."""
    if process == os.getpid():
        team.stop()
        for thread in threads:
            if thread is not threading.current_thread():
                thread.join()
