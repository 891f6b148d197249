"""What training and evaluation return, as frozen values that need no torch to be read."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    import torch

Stop = Literal["finished", "paused", "deadline", "diverged"]


@dataclass(frozen=True)
class Evaluation:
    """How a classifier does on one part of the data.

    Attributes:
        accuracy: share of images whose most probable class is the right one, in [0, 1].
        loss: mean cross entropy, in nats; no label smoothing.
        confusion: (K, K) counts; row = true class, column = predicted class.
        per_class_accuracy: diagonal over row sum, K values; None for a class without images.
        n: images.
    """

    accuracy: float
    loss: float
    confusion: tuple[tuple[int, ...], ...]
    per_class_accuracy: tuple[float | None, ...]
    n: int


@dataclass(frozen=True)
class Epoch:
    """One pass over the training images and the validation behind it; one line of `metrics.jsonl`.

    Attributes:
        epoch: from 1.
        learning_rate: of the last step.
        train_loss: mean over the images, as optimised (smoothed, mixed); of the raw weights.
        val_loss, val_accuracy: of the evaluated weights, which are the moving averages where the recipe has any.
        wall_s: training and validation.
        images_per_s: training alone, over all processes.
        complete: False when the deadline cut the epoch short.
    """

    epoch: int
    learning_rate: float
    train_loss: float
    val_loss: float
    val_accuracy: float
    wall_s: float
    images_per_s: float
    complete: bool = True


@dataclass(frozen=True)
class Diverged:
    """The loss became infinite or undefined.

    Attributes:
        epoch: from 1.
        step: optimizer steps of that epoch before it was noticed.
        learning_rate: at that step.
    """

    epoch: int
    step: int
    learning_rate: float

    def __str__(self) -> str:
        return (
            f"training diverged in epoch {self.epoch}, step {self.step}, at learning rate {self.learning_rate:.3g}; "
            f"lower the learning rate or lengthen the warm-up"
        )


@dataclass(frozen=True, eq=False)
class Trained:
    """The end of a training.

    Attributes:
        history: epochs in order; the last may be incomplete.
        best: the epoch of highest validation accuracy (the later of equals); None when it diverged in the first.
        state: the evaluated weights of `best`, on the CPU, for `load_state_dict`; empty where `best` is None.
        stopped: `finished`; `paused` by `on_epoch`; `deadline`; or `diverged`.  All but the first and last can go on.
        diverged: where, if it did.
        hurried: whether the learning rate ever followed the time instead of the steps, on a machine too slow for the
            plan: such a training is not what its recipe says.
    """

    history: tuple[Epoch, ...]
    best: Epoch | None
    state: Mapping[str, torch.Tensor]
    stopped: Stop
    diverged: Diverged | None = None
    hurried: bool = False
