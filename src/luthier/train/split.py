"""Which images train, which choose, which judge: a stratified split that depends on the seed and the images alone."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from luthier.errors import DataError, InputError
from luthier.train.source import Keys, Labels

TRAIN, VAL, TEST = 0, 1, 2
_PARTS = ("train", "val", "test")


def stratified_split(
    labels: Labels,
    keys: Keys,
    class_names: Sequence[str],
    *,
    val_share: float,
    test_share: float,
    seed: int,
    origin: str = "data",
) -> npt.NDArray[np.int8]:
    """Assign every image to train (0), val (1) or test (2).

    Within each class of n different images, shuffled by `seed`,

        n_val = clamp(round(n * val_share), 1, n - 2),  n_test = clamp(round(n * test_share), 1, n - 1 - n_val)   (1)

    and a share of zero makes no such part.  Images with equal keys go to the same part, whatever their labels,
    so no copy of a training image is ever judged.  The order of the rows does not matter.

    Args:
        labels: (N,) class indices.
        keys: (N,) content hashes.
        class_names: one per class.
        val_share: part of each class for validation, in [0, 1).
        test_share: the same for the test; both together below 1.
        seed: >= 0.
        origin: what the user named; opens messages.
    Returns:
        (N,) int8.
    Raises:
        InputError: shares or seed outside their range.
        DataError: a class with fewer different images than there are parts.
    Example:
        >>> parts = stratified_split(np.repeat([0, 1], 10), np.arange(20).astype(np.uint64), ["a", "b"],
        ...                          val_share=0.1, test_share=0.2, seed=0)
        >>> [int((parts == part).sum()) for part in (TRAIN, VAL, TEST)]
        [14, 2, 4]
    """
    check_shares(val_share, test_share, seed)
    different, inverse = np.unique(keys, return_inverse=True)
    part_of_key = np.full(len(different), -1, np.int8)
    wanted = 1 + (val_share > 0) + (test_share > 0)
    for index, class_name in enumerate(class_names):
        mine = np.unique(inverse[labels == index])
        free = mine[part_of_key[mine] < 0]
        if len(free) < wanted:
            raise DataError(
                f"{origin}: class {class_name!r} has {len(free)} different image{'s' * (len(free) != 1)}, "
                f"at least {wanted} are needed for {', '.join(_names(val_share, test_share))}; add images"
            )
        order = np.random.default_rng([seed, index]).permutation(free)
        n_val = _count(len(order), val_share, len(order) - 1 - (test_share > 0))
        n_test = _count(len(order), test_share, len(order) - 1 - n_val)
        part_of_key[order] = TRAIN
        part_of_key[order[:n_val]] = VAL
        part_of_key[order[n_val : n_val + n_test]] = TEST
    return part_of_key[inverse]


def check_shares(val_share: float, test_share: float, seed: int) -> None:
    """Refuse shares that leave no training images, and a negative seed.

    Raises:
        InputError: the first argument outside its range.
    """
    for name, share in (("val_share", val_share), ("test_share", test_share)):
        if not 0 <= share < 1:
            raise InputError(f"{name}: must lie in [0, 1), got {share}")
    if val_share + test_share >= 1:
        raise InputError(f"val_share + test_share: must be below 1, got {val_share} + {test_share}")
    if seed < 0:
        raise InputError(f"seed: must be >= 0, got {seed}")


def _count(n: int, share: float, most: int) -> int:
    return min(max(round(n * share), 1), most) if share > 0 else 0


def _names(val_share: float, test_share: float) -> list[str]:
    return [part for part, share in zip(_PARTS, (1.0, val_share, test_share), strict=True) if share > 0]
