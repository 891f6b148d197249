"""What work on scenes returns, as frozen values that need no torch to be read."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Accuracy:
    """How right a map is on the pixels that judge.

    Attributes:
        overall_accuracy, average_accuracy, kappa: see `luthier.scene.metrics.judge`.
        leakage_index: share of judged pixels whose window holds a training pixel.
        num_pixels: judged.
        classes: numbers of those that count.
        per_class: right share of each.
        confusion: a row per true class, a column per class that was said, and a last one for any other.
    """

    overall_accuracy: float
    average_accuracy: float
    kappa: float
    leakage_index: float
    num_pixels: int
    classes: tuple[int, ...]
    per_class: tuple[float, ...]
    confusion: tuple[tuple[int, ...], ...]
