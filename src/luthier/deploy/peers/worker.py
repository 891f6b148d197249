"""The process of one run time: answers commands, one JSON document a line, until its input ends.

Started as `python -m luthier.deploy.peers.worker NAME`.  Whatever libraries print goes to stderr.  Between two commands
the process waits in `read`; the one who asks may stop it meanwhile (`luthier.deploy.peers.engine`).
"""

from __future__ import annotations

import contextlib
import gc
import json
import os
import signal
import sys
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import numpy as np

from luthier.deploy.peers.memory import peak_rss_bytes, reset_peak, rss_bytes
from luthier.deploy.peers.peer import Array, Opened, Peer
from luthier.deploy.peers.registry import get

#: calls before the clock starts: a process that was stopped finds its caches and its clock cold
WARM_CALLS: Final = 3
WARM_S: Final = 0.03


class Worker:
    """State between commands: the run time, its inputs, the opened network."""

    def __init__(self, peer: Peer) -> None:
        self._peer = peer
        self._inputs: Array | None = None
        self._base_bytes = 0
        self._opened: Opened | None = None
        self._forms: list[Any] = []
        self._calls = 0

    def load(self) -> dict[str, Any]:
        """Import the library."""
        self._peer.load_library()
        return {"version": self._peer.version}

    def convert(self, model: str, folder: str, dtype: Any, inputs: str, threads: int) -> dict[str, Any]:
        """See `Peer.convert`."""
        Path(folder).mkdir(parents=True, exist_ok=True)
        made = self._peer.convert(Path(model), Path(folder), dtype, np.load(inputs), threads)
        return {"path": str(made)}

    def open(self, path: str, dtype: Any, threads: int, inputs: str) -> dict[str, Any]:
        """Open the network and run it once, timed together; memory is counted from here on."""
        self._inputs = np.load(inputs)
        gc.collect()
        reset_peak()
        self._base_bytes = rss_bytes()
        begin = time.perf_counter()
        opened = self._peer.open(Path(path), dtype, threads)
        form = opened.form(self._inputs[0])
        opened.run(form)
        load_s = time.perf_counter() - begin
        self._opened, self._forms = opened, [form, *(opened.form(x) for x in self._inputs[1:])]
        return {"load_s": load_s}

    def outputs(self, path: str, count: int) -> dict[str, Any]:
        """Write what the first inputs give, as one float64 row each."""
        assert self._opened is not None
        rows = []
        for form in self._forms[:count]:
            found = self._opened.read(self._opened.run(form))
            rows.append(np.concatenate([np.ravel(np.asarray(one, np.float64)) for one in found]))
        np.save(path, np.stack(rows))
        return {"peak_rss_bytes": max(0, peak_rss_bytes() - self._base_bytes)}

    def time(self, slice_s: float, min_calls: int) -> dict[str, Any]:
        """Seconds of single calls, each with another input than the call before."""
        assert self._opened is not None
        run, forms, clock = self._opened.run, self._forms, time.perf_counter
        index = self._calls
        times_s: list[float] = []
        gc.disable()
        start = clock()
        while index < self._calls + WARM_CALLS or clock() - start < WARM_S:
            run(forms[index % len(forms)])
            index += 1
        start = clock()
        while len(times_s) < min_calls or clock() - start < slice_s:
            form = forms[index % len(forms)]
            before = clock()
            run(form)
            times_s.append(clock() - before)
            index += 1
        gc.enable()
        self._calls = index
        return {"times_s": times_s, "peak_rss_bytes": max(0, peak_rss_bytes() - self._base_bytes)}


def answer(commands: dict[str, Callable[..., dict[str, Any]]], line: str, who: Peer) -> dict[str, Any]:
    """What one command gives, or why it failed, in one line."""
    question = json.loads(line)
    try:
        return commands[question.pop("do")](**question)
    except ImportError as error:
        traceback.print_exc()
        return {"missing": " ".join(who.packages), "error": f"{error}".splitlines()[0]}
    except Exception as error:  # the library's own, of any kind
        traceback.print_exc()
        lines = str(error).strip().splitlines()
        return {"error": f"{type(error).__name__}: {lines[0][:200]}" if lines else type(error).__name__}


def main(name: str) -> None:
    """Answer until the input ends."""
    with contextlib.suppress(OSError, AttributeError):  # die with the parent, also while stopped; Linux only
        import ctypes

        ctypes.CDLL(None).prctl(1, signal.SIGKILL)
    replies = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    peer = get(name)
    worker = Worker(peer)
    commands = {verb: getattr(worker, verb) for verb in ("load", "convert", "open", "outputs", "time")}
    for line in sys.stdin:
        replies.write(json.dumps(answer(commands, line, peer)) + "\n")
        replies.flush()


if __name__ == "__main__":
    main(sys.argv[1])
