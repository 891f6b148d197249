"""The recipe for people who name none, from the size of the data, the images and the time."""

from __future__ import annotations

from typing import Final

from luthier.train.hardware import Accelerator, fastest_precision
from luthier.train.recipe import Recipe

#: Epochs from which mixing images and smoothing labels gains more than it slows down.
_LONG: Final = 30


def default_recipe(
    num_train: int, resolution: int, epochs: int, pretrained: bool, *, accelerator: Accelerator = "auto"
) -> Recipe:
    """A recipe that is safe rather than the best.

    Args:
        num_train: training images.
        resolution: side of the network's input, in pixels.
        epochs: passes over them that there is time for.
        pretrained: whether the weights but for the classifier come from another task.
        accelerator: what trains; decides the precision.
    Example:
        >>> default_recipe(1_439, 32, epochs=20, pretrained=False).optimizer
        'sgd'
    """
    batch_size = 64 if num_train >= 1_000 else 32
    steps = epochs * max(num_train // batch_size, 1)
    # an average over a fifth of the training: shorter follows the noise, longer remembers the bad beginning
    ema_decay = min(0.999, 1 - 5 / steps) if steps > 50 else None
    precision = fastest_precision(accelerator, resolution)
    if pretrained:
        return Recipe(
            epochs=epochs, batch_size=batch_size, optimizer="adamw", learning_rate=1e-3, backbone_scale=0.5,
            weight_decay=0.01, warmup_epochs=min(1.0, epochs / 4), label_smoothing=0.1, ema_decay=ema_decay,
            precision=precision,
        )  # fmt: skip
    long = epochs >= _LONG
    return Recipe(
        epochs=epochs,
        batch_size=batch_size,
        learning_rate=0.2,
        weight_decay=5e-4,
        warmup_epochs=min(2.0, epochs / 5),
        label_smoothing=0.1 if long else 0.0,
        cutmix=1.0 if long and resolution >= 32 and epochs >= 4 * _LONG else 0.0,
        ema_decay=ema_decay,
        precision=precision,
    )
