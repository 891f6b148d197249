"""A run folder: created, locked, resumed; never shared by two processes and never written over."""

from __future__ import annotations

import contextlib
import json
import os
import platform
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from importlib import metadata
from pathlib import Path

from luthier import __version__, files
from luthier.job.hold import hold
from luthier.job.request import Request, Stored
from luthier.job.result import Result, read

_OURS = ("numpy", "torch", "torchvision", "timm", "lightning-fabric", "optuna", "onnx", "onnxruntime")


def environment() -> dict[str, str]:
    """Versions and machine, for `run.toml` and the report."""
    found = {"luthier": __version__, "python": platform.python_version(), "system": platform.platform()}
    found["processors"] = str(os.cpu_count())
    for name in _OURS:
        with contextlib.suppress(metadata.PackageNotFoundError):
            found[name] = metadata.version(name)
    return found


@dataclass(frozen=True)
class RunFolder:
    """Paths inside one run folder."""

    path: Path

    @property
    def run_toml(self) -> Path:
        return self.path / "run.toml"

    @property
    def network(self) -> Path:
        return self.path / "network.json"

    @property
    def weights(self) -> Path:
        return self.path / "model.safetensors"

    @property
    def onnx(self) -> Path:
        return self.path / "model.onnx"

    @property
    def preprocess(self) -> Path:
        return self.path / "preprocess.json"

    @property
    def study(self) -> Path:
        return self.path / "study.journal"

    @property
    def metrics(self) -> Path:
        return self.path / "metrics.jsonl"

    @property
    def retrofit(self) -> Path:
        return self.path / "retrofit.json"

    @property
    def bill(self) -> Path:
        return self.path / "bill.json"

    @property
    def result(self) -> Path:
        return self.path / "result.json"

    @property
    def report(self) -> Path:
        return self.path / "report.html"

    @property
    def clock(self) -> Path:
        return self.path / "clock.json"

    def final(self, attempt: int) -> Path:
        """Checkpoint and `metrics.jsonl` of the training to the end; `attempt` counts changes of its length."""
        return self.path / f"final{attempt or ''}"

    def trial(self, number: int, rung: int) -> Path:
        """Checkpoint and metrics of one candidate in one round of halving."""
        return self.path / "trials" / f"{number:03d}" / f"rung{rung}"


def finished(path: Path, request: Request) -> Result | None:
    """The result of this request if the folder holds it already; nothing is locked, loaded or written.

    Raises:
        RunFolderError: the folder holds another request, or a run of another version.
    """
    folder = RunFolder(path)
    if not folder.run_toml.exists():
        return None
    request.refuse_other(type(request).read(folder.run_toml), folder.run_toml)
    return read(folder.result) if folder.result.exists() else None


@contextlib.contextmanager
def open_run(path: Path, request: Stored) -> Iterator[RunFolder]:
    """Create the folder or resume the run in it, and hold it until the block ends.

    Raises:
        RunFolderError: it holds something else, another request, another version, another process, or it cannot be
            written.
    """
    folder = RunFolder(path)
    with hold(path, folder.run_toml.name):
        if folder.run_toml.exists():
            request.refuse_other(type(request).read(folder.run_toml), folder.run_toml)
        else:
            request.write(folder.run_toml, environment())
        yield folder


@dataclass
class Clock:
    """Wall time spent on a run, over all its resumptions.

    Time between a kill and the resumption is not counted; at most one save interval is lost.
    """

    path: Path
    limit_s: float
    _before_s: float = 0.0
    _start_s: float = field(default_factory=time.monotonic)

    @classmethod
    def resume(cls, path: Path, limit_s: float) -> Clock:
        """Continue the stored clock, or start one."""
        before_s = 0.0
        with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
            before_s = float(json.loads(path.read_text("utf-8"))["elapsed_s"])
        return cls(path, limit_s, _before_s=before_s)

    @property
    def elapsed_s(self) -> float:
        return self._before_s + time.monotonic() - self._start_s

    @property
    def left_s(self) -> float:
        return self.limit_s - self.elapsed_s

    def save(self) -> None:
        """Store the elapsed time."""
        files.write_text(self.path, json.dumps({"elapsed_s": round(self.elapsed_s, 3)}) + "\n")
