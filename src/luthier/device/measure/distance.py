"""How far two cores are apart: the time of a cache line's way from one to the other.

Two threads wait for each other's number in one cache line:

    distance = time of a round / 2                                                                       (1)

Some 50 ns between cores that share a cache, several hundred between parts of a machine.  A virtual machine's cores may
move, and work on two threads goes slower when they are far.
"""

from __future__ import annotations

import ctypes
import statistics
import threading
import time
from typing import Final

from luthier.device.host import core_cpus
from luthier.device.jit import compile_ir
from luthier.device.measure.crew import pin

_ROUNDS: Final = 2000
#: for i < rounds: wait until the line holds 2 i + mine, then write 2 i + mine + 1
_IR: Final = """
define void @pass_on(i64* %line, i64 %mine, i64 %rounds) {
entry:
  br label %round
round:
  %i = phi i64 [ 0, %entry ], [ %next, %done ]
  %twice = shl i64 %i, 1
  %want = add i64 %twice, %mine
  br label %wait
wait:
  %seen = load atomic volatile i64, i64* %line acquire, align 8
  %here = icmp eq i64 %seen, %want
  br i1 %here, label %done, label %wait
done:
  %told = add i64 %want, 1
  store atomic volatile i64 %told, i64* %line release, align 8
  %next = add i64 %i, 1
  %more = icmp ult i64 %next, %rounds
  br i1 %more, label %round, label %out
out:
  ret void
}
"""


def core_distance_s(repeats: int = 9) -> float | None:
    """Equation (1) between the first two cores, the median of some bursts; None on a single core.

    Example:
        >>> distance_s = core_distance_s(3)
        >>> distance_s is None or 1e-9 < distance_s < 1e-2
        True
    """
    cpus = core_cpus()
    if len(cpus) < 2:
        return None
    pass_on = compile_ir(_IR).function("pass_on", None, ctypes.c_void_p, ctypes.c_int64, ctypes.c_int64)
    found = []
    for _ in range(repeats):
        room = (ctypes.c_int64 * 16)()
        line = (ctypes.addressof(room) + 63) & ~63
        ready = threading.Barrier(2)
        spans = [0.0, 0.0]

        def work(mine: int, line: int = line, ready: threading.Barrier = ready, spans: list[float] = spans) -> None:
            pin(cpus[mine])
            ready.wait()
            begin = time.perf_counter()
            pass_on(line, mine, _ROUNDS)
            spans[mine] = time.perf_counter() - begin

        threads = [threading.Thread(target=work, args=(mine,)) for mine in (0, 1)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        found.append(min(spans) / _ROUNDS / 2)
    return statistics.median(found)
