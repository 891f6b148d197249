"""One run time at work, seen from outside: a process that is asked, and stopped while others work."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

from luthier.deploy.peers.peer import Peer
from luthier.errors import InputError, PeerError


class Engine:
    """A worker process; a context manager.

    Args:
        peer: which run time.
        threads: for libraries that read the environment.
        python: interpreter; None = this one.
        folder: where its log is written.
    """

    def __init__(self, peer: Peer, threads: int, folder: Path, python: str | None = None) -> None:
        self._peer = peer
        folder.mkdir(parents=True, exist_ok=True)
        self._log = (folder / f"{peer.name}.log").open("w")
        try:
            self._process = subprocess.Popen(
                [python or sys.executable, "-m", "luthier.deploy.peers.worker", peer.name],
                stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self._log, text=True,
                env={**environment(threads, folder), **peer.environment}, start_new_session=True,
            )  # fmt: skip
        except OSError as error:
            raise InputError(f"--peer-python {peer.name}={python}: cannot be started ({error.strerror})") from None

    @property
    def process_id(self) -> int:
        """Of the worker."""
        return self._process.pid

    def __enter__(self) -> Engine:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()  # works on stopped processes too
        self._process.wait()
        for stream in (self._process.stdin, self._process.stdout, self._log):
            with contextlib.suppress(OSError):
                stream.close()  # type: ignore[union-attr]  # both are pipes

    def ask(self, do: str, **arguments: Any) -> dict[str, Any]:
        """Have a command done while this process alone works.

        Raises:
            PeerError: its library is not installed, it refused, or its process ended; one line.
        """
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.send_signal(signal.SIGCONT)
        line = ""
        with contextlib.suppress(BrokenPipeError):
            self._process.stdin.write(json.dumps({"do": do, **arguments}) + "\n")
            self._process.stdin.flush()
            line = self._process.stdout.readline()
        if not line:
            raise PeerError(f"{self._peer.title}: its process ended during {do!r}{self._last_line()}")
        found: dict[str, Any] = json.loads(line)
        if "missing" in found:
            raise PeerError(
                f"{self._peer.title}: not installed ({found['error']}); pip install {found['missing']}, "
                "or all peers: pip install 'luthier[peers]'"
            )
        if "error" in found:
            raise PeerError(f"{self._peer.title}: {found['error']}")
        return found

    def _last_line(self) -> str:
        lines = Path(self._log.name).read_text(errors="replace").strip().splitlines()
        return f" ({lines[-1][:200]})" if lines else ""

    def stop(self) -> None:
        """Stop all its threads, also those that would spin."""
        self._process.send_signal(signal.SIGSTOP)


def environment(threads: int, folder: Path) -> dict[str, str]:
    """Of a worker: this source, so many threads, caches in its own folder."""
    source = Path(__file__).parents[3]
    found = {**os.environ, "OMP_NUM_THREADS": str(threads), "OPENBLAS_NUM_THREADS": "1"}
    found["TORCHINDUCTOR_CACHE_DIR"] = str(folder / "inductor")
    if source.name != "site-packages":  # another interpreter has packages of its own
        found["PYTHONPATH"] = os.pathsep.join(filter(None, (str(source), os.environ.get("PYTHONPATH"))))
    return found
