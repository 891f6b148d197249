"""From what a reader found to three disjoint splits."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from luthier.errors import DataError
from luthier.train.source import ArraySource, FileSource, Source, Splits, fingerprint, median_hw
from luthier.train.split import TEST, TRAIN, VAL, stratified_split


@dataclass(frozen=True, eq=False)
class Parts:
    """What a reader returns: the images as given, not yet divided.

    Attributes:
        train: all images, or those given for training.
        val: those given for validation, if any.
        test: those given for the test, if any.
        class_names: one per class index.
        notes: what the reader has to say.
        skipped: files left out by `skip_bad`.
        augment: see `Splits.augment`.
    """

    train: Source
    val: Source | None
    test: Source | None
    class_names: tuple[str, ...]
    notes: tuple[str, ...] = ()
    skipped: tuple[str, ...] = ()
    augment: str = "crop_flip"


def divide(parts: Parts, origin: str, *, seed: int, val_share: float, test_share: float) -> Splits:
    """Honour given splits, draw the missing ones from the training images, and let no image be in two.

    An exact copy of a given test image is dropped from validation and training, one of a given validation image
    from training; a note counts them.

    Raises:
        DataError: fewer than two classes, or a class too small to be divided.
    """
    if len(parts.class_names) < 2:
        raise DataError(f"{origin}: at least 2 classes are needed, got {len(parts.class_names)}")
    notes = list(parts.notes)
    test = parts.test
    val = parts.val
    if val is not None and test is not None:
        val = _without_copies(val, test, "validation", "test", notes)
    train = parts.train
    for given, name in ((test, "test"), (val, "validation")):
        if given is not None:
            train = _without_copies(train, given, "training", name, notes)
    assigned = stratified_split(
        train.labels,
        train.keys,
        parts.class_names,
        val_share=0.0 if val is not None else val_share,
        test_share=0.0 if test is not None else test_share,
        seed=seed,
        origin=origin,
    )
    copies = len(train) - len(np.unique(train.keys))
    if copies:
        notes.append(f"{_images(copies)} exact copies of others: kept on one side of the split")
    rows = [np.flatnonzero(assigned == part) for part in (TRAIN, VAL, TEST)]
    train, val, test = (
        train.take(rows[TRAIN]),
        val if val is not None else train.take(rows[VAL]),
        test if test is not None else train.take(rows[TEST]),
    )
    for name, source in (("validation", val), ("test", test)):
        if not len(source):
            raise DataError(f"{origin}: no {name} images, at least 1 is needed; raise its share above 0 or give some")
    return Splits(
        train=train,
        val=val,
        test=test,
        class_names=parts.class_names,
        image_hw=native_hw(train),
        in_channels=3,
        origin=origin,
        notes=tuple(notes),
        skipped=parts.skipped,
        fingerprint=fingerprint(parts.class_names, train, val, test),
        augment=parts.augment,
    )


def native_hw(source: Source) -> tuple[int, int]:
    """The images' (H, W), or the median of each when they differ."""
    if isinstance(source, ArraySource):
        return int(source.pixels.shape[2]), int(source.pixels.shape[3])
    if isinstance(source, FileSource):
        return median_hw(source.sizes_hw)
    sample = np.unique(np.linspace(0, len(source) - 1, min(len(source), 256)).astype(np.int64))
    return median_hw(np.array([source.image(int(row)).shape[1:] for row in sample]))


def _without_copies(source: Source, judge: Source, name: str, judge_name: str, notes: list[str]) -> Source:
    kept = np.flatnonzero(~np.isin(source.keys, judge.keys))
    if len(kept) == len(source):
        return source
    dropped = len(source) - len(kept)
    notes.append(f"{_images(dropped)} dropped from {name}: exact copies of {judge_name} images")
    return source.take(kept)


def _images(count: int) -> str:
    return f"{count:,} image{'s' if count > 1 else ''}"


def class_gaps(labels: Iterable[int], num_classes: int) -> list[int]:
    """Class indices below `num_classes` that no label has."""
    return sorted(set(range(num_classes)) - set(labels))
