"""What most arms do: build a network, train it with the place's seed, judge it on the test images."""

from __future__ import annotations

from typing import TYPE_CHECKING

from luthier.lab.experiment import Numbers, Place

if TYPE_CHECKING:
    from torch import nn

    from luthier.arch.network import Network
    from luthier.train.recipe import Recipe
    from luthier.train.source import Splits
    from luthier.train.transforms import ImageTransform


def seeded(network: Network, seed: int) -> nn.Module:
    """A module whose initialisation the seed decides."""
    import torch

    from luthier.nn.build import build

    torch.manual_seed(seed)
    return build(network)


def transform_of(network: Network, splits: Splits) -> ImageTransform:
    """Images as the network takes them, without augmentation."""
    from luthier.train.transforms import make_transforms

    mean, std = network.input_mean, network.input_std
    return make_transforms(network.resolution, train=False, native_hw=splits.image_hw, mean=mean, std=std)  # type: ignore[arg-type]


def fit(module: nn.Module, network: Network, splits: Splits, recipe: Recipe, place: Place) -> Numbers:
    """Train a module on one thread, and judge the epoch that did best on validation on the test images.

    Args:
        module: changed in place; of any origin, such as `seeded`.
        network: for resolution, mean and deviation of the input.
        splits: of images that have the network's resolution already, or are resized to it in every batch.
        recipe: its seed is replaced by the place's.
    Returns:
        `accuracy` and `loss` on test, `val_accuracy`, `train_loss` of the last epoch, `images_per_s`; nothing where the
        training diverged.
    """
    from dataclasses import replace

    import torch

    from luthier.train.hardware import Hardware, open_fabric
    from luthier.train.loop import train
    from luthier.train.metrics import evaluate

    # one thread gives the same bits however many trainings run beside this one
    torch.set_num_threads(1)
    recipe = replace(recipe, seed=place.seed)
    hardware = Hardware(accelerator=place.accelerator)  # type: ignore[arg-type]  # Hardware checks the word
    mean, std = network.input_mean, network.input_std
    trained = train(
        module, splits, recipe, folder=place.folder, resolution=network.resolution, mean=mean, std=std,  # type: ignore[arg-type]
        hardware=hardware, show_progress=False,
    )  # fmt: skip
    if trained.best is None:
        return {}
    transform = transform_of(network, splits)
    fabric = open_fabric(hardware, recipe.precision)
    judged = evaluate(
        module, splits.test, transform=transform, num_classes=splits.num_classes, batch_size=recipe.batch_size,
        fabric=fabric, channels_last=recipe.channels_last,
    )  # fmt: skip
    last = trained.history[-1]
    return {
        "accuracy": judged.accuracy,
        "loss": judged.loss,
        "val_accuracy": trained.best.val_accuracy,
        "train_loss": last.train_loss,
        "images_per_s": last.images_per_s,
    }
