"""How a network for scenes is trained, as one frozen value."""

from __future__ import annotations

from dataclasses import dataclass

from luthier.arch.block import Spec
from luthier.errors import InputError


@dataclass(frozen=True, kw_only=True)
class SceneRecipe(Spec):
    """One training on one scene.

    A map is judged on ground that was never seen, whose soil, light and moisture differ: `noise`, `gain` and `offset`
    keep a network from learning one field by heart.  Noise hides directions of little variance first, in which crops
    differ, so there is little of it.

    Attributes:
        epochs: passes over the training squares, all of them in each optimizer step (at most `batch_size`).
        batch_size: squares per step.
        learning_rate: the peak, of AdamW.
        weight_decay: on weights of two axes or more.
        label_smoothing: in [0, 1).
        class_weighting: exponent w of the loss's weights, (mean count / count of the class)^w: 0 = every pixel counts
            alike, 1 = every class.
        noise: standard deviation of the noise in every number, in standard deviations of its band.
        gain: of the factor of a whole square, 1 + gain * n.
        offset: of the shift of a whole square, in standard deviations of each band, the same sign in all of them.
        seed: of weights, order and all of these.
    Raises:
        InputError: the first field outside its range.
    """

    epochs: int = 300
    batch_size: int = 64
    learning_rate: float = 3e-3
    weight_decay: float = 0.05
    label_smoothing: float = 0.1
    class_weighting: float = 0.5
    noise: float = 0.03
    gain: float = 0.03
    offset: float = 0.1
    seed: int = 0

    def __post_init__(self) -> None:
        for name, value, least in (
            ("epochs", self.epochs, 1), ("batch_size", self.batch_size, 1), ("weight_decay", self.weight_decay, 0),
            ("class_weighting", self.class_weighting, 0), ("noise", self.noise, 0), ("gain", self.gain, 0),
            ("offset", self.offset, 0), ("seed", self.seed, 0),
        ):  # fmt: skip
            if not least <= value < float("inf"):
                raise InputError(f"SceneRecipe: {name} must be at least {least} and finite, got {value!r}")
        if not 0 < self.learning_rate < float("inf") or not 0 <= self.label_smoothing < 1:
            raise InputError(
                "SceneRecipe: learning_rate must be above 0 and label_smoothing in [0, 1), "
                f"got {self.learning_rate!r} and {self.label_smoothing!r}"
            )
