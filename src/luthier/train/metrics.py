"""Accuracy, loss and confusion of a classifier, and the file that keeps one line per epoch."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path

import torch
import torch.nn.functional as F
from lightning_fabric import Fabric
from torch import nn
from torchmetrics.classification import MulticlassConfusionMatrix

from luthier import files
from luthier.errors import RunFolderError
from luthier.train.hardware import all_sum, single_process
from luthier.train.loader import loader
from luthier.train.results import Epoch, Evaluation
from luthier.train.source import Source
from luthier.train.transforms import ImageTransform


def evaluate(
    module: nn.Module,
    source: Source,
    *,
    transform: ImageTransform,
    num_classes: int,
    batch_size: int = 64,
    fabric: Fabric | None = None,
    channels_last: bool = True,
    num_workers: int | None = None,
) -> Evaluation:
    """Run `module` in evaluation mode over all images; several processes share the work and agree on the result.

    Args:
        module: images (B, 3, H, W) to scores (B, K).
        source: at least one image.
        transform: as deployed, without augmentation.
        num_classes: K.
        batch_size: images per forward pass; does not change the result.
        fabric: hardware and precision; None = this process, in fp32, on the device where `module` is.
        channels_last: memory layout of the images.
        num_workers: see `loader`.
    """
    fabric = fabric or single_process(module)
    device = fabric.device
    confusion = MulticlassConfusionMatrix(num_classes, validate_args=False, sync_on_compute=False).to(device)
    total_loss = torch.zeros((), dtype=torch.float64, device=device)
    batches = loader(
        source, transform, batch_size, shuffle=False, seed=0, epoch=0, num_workers=num_workers,
        rank=fabric.global_rank, world_size=fabric.world_size,
    )  # fmt: skip
    was_training = module.training
    module.eval()
    try:
        with torch.inference_mode():
            for images, labels in batches:
                labels = labels.to(device)
                with fabric.autocast():
                    scores = module(place(images, device, channels_last)).float()
                total_loss += F.cross_entropy(scores, labels, reduction="sum")
                confusion.update(scores, labels)
    finally:
        module.train(was_training)
    counts: list[list[int]] = all_sum(fabric, confusion.confmat).tolist()
    return summarise(counts, float(all_sum(fabric, total_loss)))


def summarise(counts: list[list[int]], total_loss: float) -> Evaluation:
    """An `Evaluation` from (K, K) counts and the summed loss.

    Example:
        >>> summarise([[3, 1], [0, 0]], 2.0)
        Evaluation(accuracy=0.75, loss=0.5, confusion=((3, 1), (0, 0)), per_class_accuracy=(0.75, None), n=4)
    """
    n = sum(map(sum, counts))
    right = [row[index] for index, row in enumerate(counts)]
    per_class = tuple(hit / sum(row) if sum(row) else None for hit, row in zip(right, counts, strict=True))
    return Evaluation(sum(right) / n, total_loss / n, tuple(map(tuple, counts)), per_class, n)


def place(images: torch.Tensor, device: torch.device, channels_last: bool) -> torch.Tensor:
    """Images on the device, in the memory layout that its convolutions are fastest in."""
    layout = torch.channels_last if channels_last else torch.contiguous_format
    return images.to(device, non_blocking=True, memory_format=layout)


def append_epoch(path: Path, epoch: Epoch) -> None:
    """Add one line of JSON and wait until it is on the disk."""
    files.append_line(path, json.dumps(asdict(epoch)))


def write_epochs(path: Path, epochs: Iterable[Epoch]) -> None:
    """Replace the file: a torn last line, and epochs after the checkpoint, are gone."""
    files.write_text(path, "".join(json.dumps(asdict(epoch)) + "\n" for epoch in epochs))


def read_epochs(path: Path) -> tuple[Epoch, ...]:
    """The epochs of a `metrics.jsonl`; a torn last line is left out.

    Raises:
        RunFolderError: the file cannot be read, or a line before the last is not an epoch.
    """
    try:
        lines = path.read_text("utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise RunFolderError(f"{path}: cannot be read as epochs ({error})") from None
    epochs: list[Epoch] = []
    for number, line in enumerate(lines, start=1):
        try:
            epochs.append(Epoch(**json.loads(line)))
        except (ValueError, TypeError):
            if number < len(lines):
                raise RunFolderError(f"{path}: line {number} is not an epoch; remove the file") from None
    return tuple(epochs)
