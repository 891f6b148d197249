"""What was asked of `luthier scene`, and `luthier scene split`: who would train, who would judge, and what leaks."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from luthier import files
from luthier.cost.budget import Budget
from luthier.errors import DataError, InputError
from luthier.job.request import Stored
from luthier.job.resolve import resolve
from luthier.scene.cube import LabelMap, Scene
from luthier.scene.read import DEFAULT, read_labels, read_scene
from luthier.scene.results import SplitReport
from luthier.scene.split import Split, block_split, given_split, random_split
from luthier.scene.train import field_radius


@dataclass(frozen=True, kw_only=True)
class SceneRequest(Stored):
    """The arguments of `luthier scene train`, in base units; those of the split serve `scene split` too."""

    scene: str = DEFAULT
    labels: str | None = None
    class_names: str | None = None
    wavelengths: str | None = None
    model: str = "mbconv_scene"
    split: str = "blocks"
    train_mask: str | None = None
    test_mask: str | None = None
    guard: int | None = None
    block: int | None = None
    train_share: float = 0.1
    split_seed: int = 0
    splits: int = 1
    epochs: int | None = None
    seed: int = 0
    peers: str = ""
    format: str = "geotiff"
    threads: int = 1
    device: str = "host"
    max_latency_s: float | None = None
    max_memory_bytes: int | None = None
    max_size_bytes: int | None = None
    max_macs: int | None = None
    max_params: int | None = None
    max_energy_j: float | None = None

    @property
    def budget(self) -> Budget:
        """The limits, of one pass over the scene."""
        return Budget(
            max_macs=self.max_macs, max_params=self.max_params, max_memory_bytes=self.max_memory_bytes,
            max_size_bytes=self.max_size_bytes, max_latency_s=self.max_latency_s, max_energy_j=self.max_energy_j,
        )  # fmt: skip


def load(request: SceneRequest) -> Scene:
    """The scene with its labels.

    Raises:
        DataError: see `read_scene` and `read_labels`; or no labels anywhere.
    """
    scene = read_scene(request.scene, wavelengths=request.wavelengths)
    if request.labels is not None:
        names = None if request.class_names is None else [n.strip() for n in request.class_names.split(",")]
        scene = scene.with_labels(read_labels(request.labels, names))
    if scene.labels is None:
        raise DataError(f"{request.scene}: holds no labels; name a label map with --labels")
    return scene


def split_of(request: SceneRequest, labels: LabelMap, radius: int, seed: int) -> Split:
    """The split that was asked for, with a guard as wide as the network sees."""
    guard = radius if request.guard is None else request.guard
    if request.split == "blocks":
        return block_split(labels, guard, block=request.block, train_share=request.train_share, seed=seed)
    if request.split == "random":
        return random_split(labels, train_share=request.train_share, seed=seed)
    if request.split == "given":
        if request.train_mask is None or request.test_mask is None:
            raise InputError("--split given: needs --train-mask and --test-mask")
        masks = [read_labels(mask).classes > 0 for mask in (request.train_mask, request.test_mask)]
        return given_split(labels, masks[0], masks[1], guard)
    raise InputError(f"--split {request.split}: must be blocks, random or given")


def words_of(split: Split, radius: int) -> str:
    """A split in one sentence."""
    leak = split.leakage(radius)
    how = {
        "blocks": f"squares of {split.block} px, a guard band of {split.guard} px, seed {split.seed}",
        "random": f"pixels drawn one by one, seed {split.seed}",
        "given": "given masks",
    }[split.kind]
    return f"{how}; leakage index {leak:.3f} for windows of {2 * radius + 1} px"


def left_out(split: Split, labels: LabelMap) -> tuple[str, ...]:
    """Classes that do not count, in words."""
    return tuple(f"{labels.names[k - 1]} ({a} training, {b} test pixels)" for k, a, b in split.left_out)


def run_split(request: SceneRequest, out: Path | None) -> SplitReport:
    """Split a scene as `run_train` would, and say how.

    Args:
        out: .npz that gets the masks `train` and `test`, (H, W).
    Raises:
        DataError: see the readers and splits.
    """
    labels = load(request).labels
    assert labels is not None
    radius = field_radius(resolve(request.model))
    split = split_of(request, labels, radius, request.split_seed)
    if out is not None:
        with files.replacing(out) as temporary, temporary.open("wb") as stream:
            np.savez_compressed(stream, train=split.train, test=split.test)
    outside = {k: (a, b) for k, a, b in split.left_out}
    sides = [np.bincount(labels.classes[mask], minlength=len(labels.names) + 1) for mask in (split.train, split.test)]
    rows = [
        (name, labels.counts[k - 1], *outside.get(k, (int(sides[0][k]), int(sides[1][k]))), k in split.classes)
        for k, name in enumerate(labels.names, start=1)
    ]
    return SplitReport(
        words_of(split, radius), split.leakage(radius), 2 * radius + 1, tuple(rows),
        split.remarks + warned(split, radius),
    )  # fmt: skip


def warned(split: Split, radius: int) -> tuple[str, ...]:
    """What a split whose test pixels see training pixels must say."""
    if split.kind == "random" or not (leak := split.leakage(radius)):
        return ()
    return (f"{100 * leak:.1f} % of the test pixels see a training pixel: widen the guard to {radius} px",)
