"""Which pixels train and which judge, kept apart: blocks with a guard band, and how far a split leaks.

The rule of `block_split`, fixed before anything is trained and blind to every score:

    1  the scene is cut into squares of `block` px from its upper left corner
    2  the squares are shuffled by the seed
    3  class by class, the rarest first (ties: the lower number), squares that hold the class join the training
       squares in shuffled order, until `train_share` of its pixels are in training squares; a square that would leave
       less than `LEFT_TO_TEST` of that class's pixels for the test is passed over
    4  labelled pixels of training squares train
    5  labelled pixels farther than `guard` px (rows and columns, whichever is more) from every training square judge
    6  classes with fewer than five training or five test pixels are left out of both, for every method alike

So no pixel that judges lies in a training square or sees one, and no window about a training square sees it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal

import numpy as np
import numpy.typing as npt

from luthier.errors import DataError
from luthier.scene.cube import LabelMap, Mask

#: fewest training and fewest test pixels of a class that counts
LEAST_PIXELS: Final = 5
#: share of every class's pixels that training squares leave over
LEFT_TO_TEST: Final = 0.25
#: side of the squares in which pixels that were drawn one by one are trained, in px
_RANDOM_BLOCK: Final = 16
SplitKind = Literal["blocks", "random", "given"]


@dataclass(frozen=True, eq=False)
class Split:
    """Labelled pixels that train, and those that judge.

    Attributes:
        kind: how it was made.
        train, test: (H, W); they share no pixel.
        ground: (H, W), pixels that training may look at; no pixel of it sees a test pixel if the split keeps its guard.
        groups: (H, W), the square of each pixel, for cross-validation inside the training ground.
        block: side of the squares, in px.
        classes: numbers of the classes that count.
        left_out: (class, training pixels, test pixels) of the others.
        guard: px between a test pixel and the training ground; 0 = none.
        seed: of the shuffle.
        remarks: what a reader of the accuracies must know.
    """

    kind: SplitKind
    train: Mask
    test: Mask
    ground: Mask
    groups: npt.NDArray[np.int64]
    block: int
    classes: tuple[int, ...]
    left_out: tuple[tuple[int, int, int], ...]
    guard: int
    seed: int
    remarks: tuple[str, ...] = ()

    def leakage(self, radius: int) -> float:
        """Share of test pixels whose window of 2 radius + 1 px holds a training pixel."""
        return leakage_index(self.train, self.test, radius)


def block_split(
    labels: LabelMap, guard: int, *, block: int | None = None, train_share: float = 0.1, seed: int = 0
) -> Split:
    """The module's rule.

    Args:
        labels: of the scene.
        guard: radius of the receptive field, in px.
        block: side of a square, in px; None = 2 guard + 1, the receptive field's own.
        train_share: of every class's pixels that should train, in (0, 1 - LEFT_TO_TEST].
        seed: of the shuffle.
    Raises:
        DataError: fewer than two classes have enough pixels on both sides; the message lists what can be done.
    Example:
        >>> classes = np.repeat(np.arange(1, 4), 20)[None].repeat(60, 0)
        >>> split = block_split(LabelMap(classes, ("a", "b", "c")), guard=2)
        >>> split.classes, split.leakage(2), bool((split.train & split.test).any())
        ((1, 2, 3), 0.0, False)
    """
    side = 2 * guard + 1 if block is None else block
    if side < 1 or guard < 0 or not 0 < train_share <= 1 - LEFT_TO_TEST:
        raise DataError(
            f"split: block must be at least 1, guard at least 0 and the training share in (0, {1 - LEFT_TO_TEST}], "
            f"got {side}, {guard}, {train_share}"
        )
    classes = labels.classes
    groups = _squares(classes.shape[0], classes.shape[1], side)
    counts = np.zeros((int(groups.max()) + 1, len(labels.names) + 1), np.int64)
    np.add.at(counts, (groups.ravel(), classes.ravel()), 1)
    total = counts.sum(axis=0)
    order = np.random.default_rng(seed).permutation(len(counts))
    chosen, have = np.zeros(len(counts), bool), np.zeros(len(total), np.int64)
    for k in sorted(range(1, len(total)), key=lambda k: (total[k], k)):
        for square in order:
            if have[k] >= train_share * total[k]:
                break
            if (
                not chosen[square]
                and counts[square, k]
                and have[k] + counts[square, k] <= (1 - LEFT_TO_TEST) * total[k]
            ):
                chosen[square] = True
                have += counts[square]
    ground = chosen[groups]
    train, test = ground & (classes > 0), (classes > 0) & ~widened(ground, guard)
    return _counted("blocks", labels, train, test, ground, side, guard, seed)


def random_split(labels: LabelMap, *, train_share: float = 0.1, seed: int = 0) -> Split:
    """Pixels drawn one by one, class by class: what most published figures use, and what this page warns of.

    Raises:
        DataError: see `block_split`.
    """
    classes, rng = labels.classes, np.random.default_rng(seed)
    train = np.zeros(classes.shape, bool)
    for k in range(1, len(labels.names) + 1):
        found = np.flatnonzero(classes.ravel() == k)
        train.ravel()[rng.permutation(found)[: round(train_share * len(found))]] = True
    remark = "random split: test pixels have training pixels for neighbours, and the accuracy is too good to be true"
    return _counted("random", labels, train, (classes > 0) & ~train, train, _RANDOM_BLOCK, 0, seed, (remark,))


def given_split(labels: LabelMap, train: Mask, test: Mask, guard: int = 0, block: int | None = None) -> Split:
    """Masks that somebody published, as they are; `guard` and `block` only say how they were made.

    Raises:
        DataError: they share a pixel, or are of another size; or see `block_split`.
    """
    for name, mask in (("train", train), ("test", test)):
        if mask.shape != labels.classes.shape:
            raise DataError(f"split: the {name} mask must be {labels.classes.shape}, got {mask.shape}")
    shared = int((train & test).sum())
    if shared:
        raise DataError(f"split: {shared} pixels are in both masks; a pixel that trains cannot judge")
    known = labels.classes > 0
    return _counted("given", labels, train & known, test & known, train, block or _RANDOM_BLOCK, guard, 0)


def leakage_index(train: Mask, test: Mask, radius: int) -> float:
    """Share of test pixels whose window holds a training pixel.

        leakage = |{p in test: some q in train with max(|p_row - q_row|, |p_col - q_col|) <= radius}| / |test|   (1)

    Args:
        train, test: (H, W).
        radius: of the window, in px.
    Example:
        >>> train, test = np.array([[1, 0, 0, 0]], bool), np.array([[0, 1, 0, 1]], bool)
        >>> [leakage_index(train, test, radius) for radius in (0, 1, 2, 3)]
        [0.0, 0.5, 0.5, 1.0]
    """
    total = int(test.sum())
    return float((widened(train, radius) & test).sum() / total) if total else 0.0


def widened(mask: Mask, radius: int) -> Mask:
    """Pixels within `radius` rows and columns of a marked one.

    Example:
        >>> widened(np.array([[0, 0, 1, 0, 0]], bool), 1).astype(int)
        array([[0, 1, 1, 1, 0]])
    """
    for axis in (0, 1):
        edges = np.concatenate([np.zeros_like(mask.take([0], axis), int), mask.cumsum(axis)], axis)
        at = np.arange(mask.shape[axis])
        last, first = np.minimum(at + radius + 1, len(at)), np.maximum(at - radius, 0)
        mask = edges.take(last, axis) > edges.take(first, axis)
    return mask


def _squares(height: int, width: int, side: int) -> npt.NDArray[np.int64]:
    across = -(-width // side)
    return (np.arange(height) // side * across)[:, None] + (np.arange(width) // side)[None]


def _counted(
    kind: SplitKind, labels: LabelMap, train: Mask, test: Mask, ground: Mask, block: int, guard: int, seed: int,
    remarks: tuple[str, ...] = (),
) -> Split:  # fmt: skip
    """Rule 6."""
    size = len(labels.names) + 1
    trains, tests = (np.bincount(labels.classes[mask], minlength=size) for mask in (train, test))
    numbers = range(1, size)
    classes = tuple(k for k in numbers if min(trains[k], tests[k]) >= LEAST_PIXELS)
    left_out = tuple((k, int(trains[k]), int(tests[k])) for k in numbers if k not in classes)
    if len(classes) < 2:
        raise DataError(
            f"split: only {len(classes)} of {size - 1} classes have {LEAST_PIXELS} training and {LEAST_PIXELS} test "
            "pixels; use smaller blocks (--block), a narrower guard with a network of smaller field, another "
            "--split-seed, more labels, or --split random, which leaks"
        )
    some = np.isin(labels.classes, classes)
    groups = _squares(labels.classes.shape[0], labels.classes.shape[1], block)
    return Split(kind, train & some, test & some, ground, groups, block, classes, left_out, guard, seed, remarks)
