"""How a network is trained, as one frozen value: with the network and the data it fixes the result."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal, get_args

from luthier import documents
from luthier.arch.block import Spec
from luthier.errors import InputError

SCHEMA: Final = "luthier.recipe/1"
Optimizer = Literal["sgd", "adamw", "rmsprop"]
TrainPrecision = Literal["32-true", "bf16-mixed", "16-mixed"]
Augment = Literal["auto", "none", "crop", "crop_flip", "crop_flip_jitter"]


@dataclass(frozen=True, kw_only=True)
class Recipe(Spec):
    """One training run.

    Attributes:
        epochs: passes over the training images.
        batch_size: images per optimizer step, over all processes and accumulated steps together.
        optimizer: `sgd` (Nesterov, momentum 0.9), `adamw`, or `rmsprop` (TensorFlow's, momentum 0.9).
        learning_rate: the peak, reached after the warm-up; not scaled by anything.
        backbone_scale: factor on the learning rate of all but the classifier; below 1 for pretrained weights.
        weight_decay: on weights of two axes or more; none on biases and norms.
        warmup_epochs: linear warm-up; a fraction of an epoch is allowed.
        label_smoothing: in [0, 1).
        mixup, cutmix: alpha of the Beta distribution, 0 = off; one of the two per batch where both are on.
        ema_decay: of the weights that are evaluated and kept; None = the raw weights.
        drop_path: of the last block, growing linearly from 0 at the first; None = as built.
        dropout: before the classifier; None = as built.
        gradient_clip: largest 2-norm of the whole gradient; None = no limit.
        accumulate_steps: forward and backward passes per optimizer step.
        augment: see `make_transforms`; `auto` asks the data.
        precision: of the arithmetic, in Lightning Fabric's words; weights stay fp32.
        channels_last: memory layout N H W C.
        seed: of order, augmentation, dropout and mixing, >= 0.
    Raises:
        InputError: the first field outside its range.
    Example:
        >>> Recipe(epochs=3, learning_rate=0.1).batch_size
        64
    """

    epochs: int
    batch_size: int = 64
    optimizer: Optimizer = "sgd"
    learning_rate: float = 0.05
    backbone_scale: float = 1.0
    weight_decay: float = 5e-4
    warmup_epochs: float = 0.5
    label_smoothing: float = 0.0
    mixup: float = 0.0
    cutmix: float = 0.0
    ema_decay: float | None = None
    drop_path: float | None = None
    dropout: float | None = None
    gradient_clip: float | None = None
    accumulate_steps: int = 1
    augment: Augment = "auto"
    precision: TrainPrecision = "32-true"
    channels_last: bool = True
    seed: int = 0

    def __post_init__(self) -> None:
        for name, value, least in (
            ("epochs", self.epochs, 1), ("batch_size", self.batch_size, 1),
            ("accumulate_steps", self.accumulate_steps, 1), ("seed", self.seed, 0),
            ("weight_decay", self.weight_decay, 0), ("warmup_epochs", self.warmup_epochs, 0),
            ("mixup", self.mixup, 0), ("cutmix", self.cutmix, 0),
        ):  # fmt: skip
            if not least <= value < float("inf"):
                raise InputError(f"Recipe: {name} must be at least {least} and finite, got {value!r}")
        for name, positive in (
            ("learning_rate", self.learning_rate),
            ("backbone_scale", self.backbone_scale),
            ("gradient_clip", 1.0 if self.gradient_clip is None else self.gradient_clip),
        ):
            if not 0 < positive < float("inf"):
                raise InputError(f"Recipe: {name} must be above 0 and finite, got {positive!r}")
        for name, share in (
            ("label_smoothing", self.label_smoothing), ("ema_decay", self.ema_decay or 0.0),
            ("drop_path", self.drop_path or 0.0), ("dropout", self.dropout or 0.0),
        ):  # fmt: skip
            if not 0 <= share < 1:
                raise InputError(f"Recipe: {name} must lie in [0, 1), got {share!r}")
        for name, choice, choices in (
            ("optimizer", self.optimizer, get_args(Optimizer)),
            ("precision", self.precision, get_args(TrainPrecision)),
            ("augment", self.augment, get_args(Augment)),
        ):
            if choice not in choices:
                raise InputError(f"Recipe: {name} must be one of {', '.join(choices)}, got {choice!r}")
        if self.warmup_epochs > self.epochs:
            raise InputError(f"Recipe: warmup_epochs must be at most epochs={self.epochs}, got {self.warmup_epochs!r}")
        if self.batch_size % self.accumulate_steps:
            raise InputError(
                f"Recipe: batch_size must be divisible by accumulate_steps={self.accumulate_steps}, "
                f"got {self.batch_size}"
            )


def to_json(recipe: Recipe) -> str:
    """Text of a recipe: an object with `schema` and the fields of `Recipe`.

    Example:
        >>> from_json(to_json(Recipe(epochs=2))) == Recipe(epochs=2)
        True
    """
    return documents.to_text(recipe, SCHEMA)


def from_json(text: str, origin: str = "recipe") -> Recipe:
    """Read what `to_json` wrote; unknown keys and wrong types are refused.

    Raises:
        SpecError: not JSON, another schema, or a field that is missing, unknown or out of range.
    """
    return documents.from_text(Recipe, text, SCHEMA, origin)
