"""Specs, shapes, costs and reports cost no torch import; checked in a fresh interpreter, by a check that can fail."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

SRC = Path(__file__).parents[2] / "src"
WITHOUT_TORCH = ("errors", "units", "files", "arch", "graph", "device", "schedule", "cost", "engine", "quant", "report")
HEAVY = ("torch", "torchvision", "timm", "lightning_fabric", "torchmetrics")


def modules_without_torch(src: Path) -> list[str]:
    """The front door, and every module that exists in the rooms named above."""
    names = ["luthier"]
    for room in WITHOUT_TORCH:
        single = src / "luthier" / f"{room}.py"
        for file in [single] if single.exists() else sorted((src / "luthier" / room).rglob("*.py")):
            dotted = ".".join(file.relative_to(src).with_suffix("").parts)
            names.append(dotted.removesuffix(".__init__"))
    return names


def heavy_imports(src: Path) -> list[str]:
    """`module brings in package` for the first module of each heavy package, seen from a fresh interpreter."""
    program = (
        "import importlib, sys\n"
        "seen = set()\n"
        "for name in sys.argv[1].split():\n"
        "    importlib.import_module(name)\n"
        "    for heavy in sys.argv[2].split():\n"
        "        if heavy in sys.modules and heavy not in seen:\n"
        "            seen.add(heavy)\n"
        "            print(name, 'brings in', heavy)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, " ".join(modules_without_torch(src)), " ".join(HEAVY)],
        env={**os.environ, "PYTHONPATH": str(src)},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


def test_light_rooms_bring_in_no_torch() -> None:
    assert {"luthier", "luthier.errors", "luthier.units"} <= set(modules_without_torch(SRC))
    assert heavy_imports(SRC) == []


def test_a_planted_torch_import_is_found(tmp_path: Path) -> None:
    arch = tmp_path / "luthier" / "arch"
    arch.mkdir(parents=True)
    (tmp_path / "torch.py").touch()  # stands in for the real one: it only has to appear in sys.modules
    (tmp_path / "luthier" / "__init__.py").touch()
    (arch / "__init__.py").touch()
    (arch / "bad.py").write_text("import torch\n")
    assert heavy_imports(tmp_path) == ["luthier.arch.bad brings in torch"]


@pytest.mark.parametrize(
    "arguments",
    [
        ("analyze", "efficientnet_b0", "--device", "stm32f746"),
        ("scale", "efficientnet_b0", "--phi", "-1..1", "--device", "raspberry_pi_4"),
        ("scale", "efficientnet_b0", "--max-macs", "300M", "--device", "raspberry_pi_4"),
        ("device", "list"),
    ],
)
def test_a_command_that_only_reckons_needs_no_torch(arguments: tuple[str, ...]) -> None:
    program = (
        "import sys; from luthier.cli.main import main\n"
        f"try: main({list(arguments)!r})\n"
        "except SystemExit as end: assert end.code == 0, end.code\n"
        f"print('HEAVY', *(name for name in {HEAVY!r} if name in sys.modules))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], env={**os.environ, "PYTHONPATH": str(SRC)}, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "HEAVY"
