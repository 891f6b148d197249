from __future__ import annotations

import contextlib
import hashlib
import io
import json
import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from luthier.cli.main import main

#: of the shared run: a limit that the largest members break, and enough time for two candidates
ARGUMENTS = ("--max-macs", "1M", "--max-memory", "64KiB", "--time-limit", "40s")


@dataclass(frozen=True)
class Ended:
    """How a command ended."""

    code: int
    out: str
    err: str

    @property
    def result(self) -> dict[str, Any]:
        document = json.loads(self.out)
        assert set(document) == {"command", "version", "result"}
        found: dict[str, Any] = document["result"]
        return found


def in_process(*arguments: object) -> Ended:
    """The command in this process: no second import of torch."""
    out, err = io.StringIO(), io.StringIO()
    code: object = None
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            main([str(a) for a in arguments])
        except SystemExit as end:
            code = end.code
    assert isinstance(code, int)
    return Ended(code, out.getvalue(), err.getvalue())


def start(arguments: Sequence[object], **options: Any) -> subprocess.Popen[str]:
    """The command in a process of its own."""
    source = Path(__file__).parents[2] / "src"
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    environment["PYTHONPATH"] = os.pathsep.join(filter(None, (str(source), os.environ.get("PYTHONPATH"))))
    command = [sys.executable, "-m", "luthier.cli.main", *map(str, arguments)]
    return subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment, **options
    )


def snapshot(folder: Path) -> dict[str, tuple[int, str]]:
    """Every file with its time of change and a hash of its content."""
    return {
        str(p.relative_to(folder)): (p.stat().st_mtime_ns, hashlib.sha256(p.read_bytes()).hexdigest())
        for p in sorted(folder.rglob("*"))
        if p.is_file()
    }


def gratings(count: int = 240, side: int = 16, classes: int = 3) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    """Coloured gratings with random phase and noise: the class is the direction, and a tint."""
    generator = np.random.default_rng(0)
    labels = np.arange(count) % classes
    rows, columns = np.mgrid[:side, :side].astype(float)
    images = np.empty((count, side, side, 3))
    for i, label in enumerate(labels):
        along = (rows, columns, rows + columns, rows - columns)[label]
        wave = 0.5 + 0.35 * np.sin(generator.uniform(0.8, 1.2) * along + generator.uniform(0, 6.28))
        images[i] = wave[..., None] * np.roll((1.0, 0.7, 0.4), label)
    images += generator.normal(0, 0.08, images.shape)
    return (np.clip(images, 0, 1) * 255).astype(np.uint8), labels


@pytest.fixture(scope="session")
def luthier() -> Callable[..., Ended]:
    """Run a command in this process: no second import of torch."""
    return in_process


@pytest.fixture(scope="session")
def begin() -> Callable[..., subprocess.Popen[str]]:
    """Start a command in a process of its own."""
    return start


@pytest.fixture(scope="session")
def look() -> Callable[[Path], dict[str, tuple[int, str]]]:
    """What a folder holds, to the byte and the nanosecond."""
    return snapshot


@pytest.fixture(scope="session")
def draw() -> Callable[..., tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]]:
    """Images and labels."""
    return gratings


@pytest.fixture(scope="session")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """240 images of three classes, 16 x 16 px."""
    path = tmp_path_factory.mktemp("data") / "gratings.npz"
    images, labels = gratings()
    np.savez(path, x=images, y=labels, class_names=np.array(["across", "down", "slanted"]))
    return path


@dataclass(frozen=True)
class Fitted:
    """A finished `luthier fit`.

    Attributes:
        arguments: repeat them for the same run.
    """

    folder: Path
    arguments: tuple[str, ...]
    ended: Ended


@pytest.fixture(scope="session")
def fitted(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Fitted:
    """One run in a process of its own, shared by all who only read it."""
    folder = tmp_path_factory.mktemp("runs") / "fit"
    arguments = ("fit", str(data), *ARGUMENTS, "--run-dir", str(folder), "--json")
    process = start(arguments)
    out, err = process.communicate(timeout=240)
    return Fitted(folder, arguments, Ended(process.returncode, out, err))
