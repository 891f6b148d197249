"""torch and torchvision are built for each other, and the constraints file pins every direct dependency."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

ROOT = Path(__file__).parents[2]


def pins() -> dict[str, str]:
    """Normalised name -> version, from constraints.txt."""
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    pairs = (line.split("==") for line in lines if line and not line.startswith("#"))
    return {re.sub(r"[-_.]+", "-", name).lower(): version for name, version in pairs}


def test_torch_and_torchvision_load_together() -> None:
    import torch
    import torchvision

    assert torch.__version__.partition("+")[2] == torchvision.__version__.partition("+")[2]
    # Overlap of the first two: 9 * 10 / (100 + 100 - 90) = 0.818 > 0.5; the third touches neither.
    boxes = torch.tensor([[0.0, 0.0, 10.0, 10.0], [1.0, 0.0, 11.0, 10.0], [20.0, 20.0, 30.0, 30.0]])
    scores = torch.tensor([0.8, 0.9, 0.7])
    assert torchvision.ops.nms(boxes, scores, iou_threshold=0.5).tolist() == [1, 2]
    assert torchvision.ops.nms(boxes, scores, iou_threshold=0.9).tolist() == [1, 0, 2]


def test_every_direct_dependency_is_pinned() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    extras = project["optional-dependencies"]
    wanted = {re.split(r"[\s<>=!~\[;]", need)[0] for need in project["dependencies"] + extras["train"] + extras["dev"]}
    assert sorted(wanted - pins().keys()) == []


def test_pins_are_exact_and_come_from_any_index() -> None:
    versions = pins()
    assert len(versions) > 50
    assert [f"{name}=={version}" for name, version in versions.items() if not re.fullmatch(r"\d[\w.]*", version)] == []
