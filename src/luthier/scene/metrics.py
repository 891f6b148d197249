"""How right a map is: overall and average accuracy, kappa, per class, from one confusion matrix."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from luthier.errors import DataError
from luthier.scene.results import Accuracy


def judge(
    truth: npt.NDArray[np.int64], found: npt.NDArray[np.int64], classes: Sequence[int], leakage_index: float
) -> Accuracy:
    """Accuracies on pixels.

        OA = trace / n,   AA = mean over classes of C_kk / sum_j C_kj                                (1)
        kappa = (OA - p_e) / (1 - p_e),   p_e = sum_k (sum_j C_kj) (sum_i C_ik) / n^2                (2)

    Args:
        truth: (n,), class numbers, all of `classes`.
        found: (n,), what a method said; a number outside `classes` is wrong.
        classes: that count, in the order of the matrix.
        leakage_index: of the split, at the method's own window.
    Raises:
        DataError: no pixel, or one of a class that does not count.
    Source:
        Cohen 1960, doi 10.1177/001316446002000104 (kappa).
    Example:
        >>> accuracy = judge(np.array([1, 1, 2, 2]), np.array([1, 2, 2, 2]), (1, 2), 0.0)
        >>> accuracy.overall_accuracy, accuracy.average_accuracy, accuracy.kappa
        (0.75, 0.75, 0.5)
    """
    if len(truth) == 0 or not np.isin(truth, classes).all():
        raise DataError("accuracy: every judged pixel must be of a class that counts, and there must be one")
    table = np.full(int(max(truth.max(), found.max(), *classes)) + 1, len(classes))
    table[list(classes)] = np.arange(len(classes))
    confusion = np.zeros((len(classes), len(classes) + 1), np.int64)
    np.add.at(confusion, (table[truth], table[found]), 1)
    right, of_truth = np.diag(confusion), confusion.sum(axis=1)
    seen = of_truth > 0
    per_class = np.where(seen, right / np.maximum(of_truth, 1), np.nan)
    total = len(truth)
    overall = float(right.sum() / total)
    by_chance = float((of_truth * confusion.sum(axis=0)[:-1]).sum() / total**2)
    kappa = (overall - by_chance) / (1 - by_chance) if by_chance < 1 else 1.0
    return Accuracy(
        overall_accuracy=overall, average_accuracy=float(np.nanmean(per_class)), kappa=kappa,
        leakage_index=leakage_index, num_pixels=total, classes=tuple(classes),
        per_class=tuple(float(value) for value in per_class),
        confusion=tuple(tuple(int(n) for n in row) for row in confusion),
    )  # fmt: skip
