"""One training for a whole space: the sandwich rule, and what its networks are worth without their own.

Every step trains the largest network on the labels, and the smallest and `others` drawn ones on the soft predictions
that the largest has just made (in-place distillation):

    loss = CE(labels, p_largest) + sum of CE(p_largest, p_i) over the smallest and the drawn networks     (1)

No gradient passes through the targets of (1).  It is a sum because most weights belong to few of a step's networks: a
mean divides their gradients by networks that do not use them, and they hardly learn.  What has no order of size
(attention, kind of block) is drawn anew for the largest and the smallest, too.

An accuracy is *inherited* when a network takes the shared weights and only its norms' statistics are made for it, from
a few hundred training images.

Source:
    Yu & Huang 2019, arXiv:1903.05134 (sandwich rule, in-place distillation, statistics made afterwards);
    Cai et al. 2020, arXiv:1908.09791 (elastic kernel, depth and width); Yu et al. 2020, arXiv:2003.11142.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final, TypeAlias

import numpy as np
import torch
import torch.nn.functional as F
from lightning_fabric import Fabric
from torch import nn
from torch.optim.swa_utils import update_bn

from luthier.cost.tables import Slots
from luthier.errors import InputError
from luthier.nn.build import Classifier
from luthier.nn.elastic import Elastic, Row, extreme
from luthier.train.cpu_bf16 import keep_strided_depthwise_fp32
from luthier.train.hardware import Hardware
from luthier.train.loader import loader
from luthier.train.loop import train
from luthier.train.metrics import evaluate
from luthier.train.recipe import Recipe
from luthier.train.results import Epoch, Evaluation, Trained
from luthier.train.source import Splits
from luthier.train.step import Batch, Stepper
from luthier.train.transforms import make_transforms

#: (generator, how many) -> genes (how many, slots + 1), such as a feasible set's
Draw: TypeAlias = Callable[[np.random.Generator, int], Any]

#: training images that a candidate's norms see
CALIBRATION_IMAGES: Final = 512
_CALIBRATION_BATCH: Final = 128


class Sandwich(Stepper):
    """A step on several networks of one space, equation (1).

    Attributes:
        module: an `Elastic`.
        others: networks drawn per step, besides the largest and the smallest.
    """

    fused = False

    def __init__(
        self, module: nn.Module, recipe: Recipe, fabric: Fabric, num_classes: int, *, draw: Draw, others: int = 2
    ) -> None:
        if not isinstance(module, Elastic):
            raise InputError(f"Sandwich: module must be Elastic, got {type(module).__name__}")
        super().__init__(module, recipe, fabric, num_classes)
        self.slots, self.draw, self.others = module.slots, draw, others
        self.identity = MappingProxyType({"sandwich": f"sum, {others} others"})
        self._rng = np.random.default_rng(0)
        if fabric.device.type == "cpu" and recipe.precision == "bf16-mixed":
            module.on_block = keep_strided_depthwise_fp32  # what computes is made later

    def step(self, batches: Sequence[Batch], learning_rate: float, seed: Iterable[int]) -> tuple[torch.Tensor, int]:
        """See `Stepper.step`; all processes draw the same networks."""
        numbers = tuple(seed)
        self._rng = np.random.default_rng(numbers[:3])  # without the process's rank
        return super().step(batches, learning_rate, numbers)

    def loss(self, images: torch.Tensor, targets: torch.Tensor, smoothing: float) -> torch.Tensor:
        """Equation (1)."""
        rows = sandwich(self.slots, self._rng, self.draw, self.others)
        teacher, *students = self._model(images, rows).float()
        soft = teacher.detach().softmax(1)
        total = F.cross_entropy(teacher, targets, label_smoothing=smoothing)
        for student in students:
            total = total + F.cross_entropy(student, soft)
        return total


def sandwich(slots: Slots, rng: np.random.Generator, draw: Draw, others: int) -> list[Row]:
    """The networks of one step: the largest, the smallest, and drawn ones."""

    def tie(count: int) -> int:
        return int(rng.integers(count))

    drawn = [tuple(int(gene) for gene in row) for row in draw(rng, others)] if others else []
    return [extreme(slots, largest=True, tie=tie), extreme(slots, largest=False, tie=tie), *drawn]


def anywhere(slots: Slots) -> Draw:
    """Draws every gene evenly, limits or not.

    Example:
        >>> from luthier.arch import Block, Head, Network, Stage
        >>> from luthier.cost.tables import Slot
        >>> stem = Stage(name="stem", blocks=(Block(kind="conv", out_channels=8),))
        >>> frame = Network(name="space", stages=(stem,), head=Head(num_classes=10), resolution=32)
        >>> slot = Slot(stage="body", choices=(None, Block(kind="mbconv", out_channels=8)))
        >>> space = Slots(frame=frame, slots=(slot,), resolutions=(32,))
        >>> sorted(set(anywhere(space)(np.random.default_rng(0), 20)[:, 0].tolist()))
        [0, 1]
    """
    return lambda rng, count: rng.integers(0, slots.sizes, (count, len(slots.sizes)))


def train_supernet(
    shared: Elastic,
    splits: Splits,
    recipe: Recipe,
    *,
    folder: Path,
    draw: Draw | None = None,
    others: int = 2,
    hardware: Hardware | None = None,
    on_epoch: Callable[[Epoch], bool | None] | None = None,
    show_progress: bool = True,
) -> Trained:
    """Train the shared weights; the same call goes on where the folder's checkpoint stands.

    Args:
        shared: trained in place.
        splits: validation accuracy is the largest network's, normalised by each batch's own statistics.
        draw: which networks besides the extremes; None = any.  Not part of the checkpoint's identity.
        others: how many of them per step.
        hardware: several processes train replicas, each on its share of every batch.
    Raises:
        see `luthier.train.loop.train`.
    """
    frame = shared.slots.frame
    chosen = draw or anywhere(shared.slots)

    def stepper(module: nn.Module, recipe: Recipe, fabric: Fabric, num_classes: int) -> Sandwich:
        return Sandwich(module, recipe, fabric, num_classes, draw=chosen, others=others)

    return train(
        shared, splits, recipe, folder=folder, resolution=max(shared.slots.resolutions), mean=frame.input_mean,  # type: ignore[arg-type]
        std=frame.input_std, hardware=hardware, on_epoch=on_epoch, label="supernet", show_progress=show_progress,  # type: ignore[arg-type]
        stepper=stepper,
    )  # fmt: skip


def inherit(shared: Elastic, row: Sequence[int], splits: Splits, *, images: int = CALIBRATION_IMAGES) -> Classifier:
    """A network with the shared weights, and norm statistics from the first `images` training images.

    The statistics are the mean over batches of each batch's mean and variance.
    """
    model = shared.export(row)
    network = model.network
    transform = make_transforms(
        network.resolution, train=False, native_hw=splits.image_hw, mean=network.input_mean, std=network.input_std  # type: ignore[arg-type]
    )  # fmt: skip
    rows = np.random.default_rng(0).permutation(len(splits.train))[:images]
    batches = loader(splits.train.take(rows), transform, _CALIBRATION_BATCH, shuffle=False, seed=0, epoch=0)
    update_bn(batches, model, device=next(model.parameters()).device)
    return model.eval()


def inherited(shared: Elastic, row: Sequence[int], splits: Splits, *, images: int = CALIBRATION_IMAGES) -> Evaluation:
    """How a network does on the validation images with inherited weights."""
    model = inherit(shared, row, splits, images=images)
    network = model.network
    transform = make_transforms(
        network.resolution, train=False, native_hw=splits.image_hw, mean=network.input_mean, std=network.input_std  # type: ignore[arg-type]
    )  # fmt: skip
    return evaluate(model, splits.val, transform=transform, num_classes=splits.num_classes, batch_size=256)
