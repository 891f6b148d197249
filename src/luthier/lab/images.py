"""Images of a JPEG store, divided by the seed and resized by area: the same pictures at every resolution."""

from __future__ import annotations

from dataclasses import replace
from functools import lru_cache
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image

from luthier.errors import DataError
from luthier.train.convert import JpegStore, read_store
from luthier.train.parts import Parts, divide
from luthier.train.source import ArraySource, Source, Splits, in_memory

#: the test images that are looked at are the same for every seed
_TEST_SEED = 0


@lru_cache(maxsize=2)
def _store(path: Path) -> JpegStore:
    store = read_store(path)
    if store.is_test is None:
        raise DataError(f"{path}: array 'is_test' is missing; a lab needs to know the test images")
    return store


@lru_cache(maxsize=2)
def _native(path: Path, train: int, val: int, test: int, seed: int) -> Splits:
    store = _store(path)
    assert store.is_test is not None
    pool = np.random.default_rng([seed, 1]).permutation(np.flatnonzero(~store.is_test))[: train + val]
    judged = np.random.default_rng(_TEST_SEED).permutation(np.flatnonzero(store.is_test))[:test]
    given = Parts(_decoded(store, pool), None, _decoded(store, judged), store.class_names)
    return divide(given, str(path), seed=seed, val_share=val / (train + val), test_share=0.0)


def _decoded(store: JpegStore, rows: npt.NDArray[np.int64]) -> ArraySource:
    return in_memory(np.stack([store.pixels(int(row)) for row in rows]), store.labels[rows])


@lru_cache(maxsize=8)
def splits(path: Path, side: int, *, train: int, val: int, test: int, seed: int) -> Splits:
    """Training, validation and test images of a store, `side` pixels high and wide.

    Training and validation images are drawn by the seed from those that the store gives for training, stratified;
    the test images are the same for all seeds.  Which images are where does not depend on `side`.

    Args:
        path: a store as `luthier.train.convert` reads it, with `is_test`; all images of one square size.
        side: at most the images' own; every new pixel is the mean over the area that it covers.
        train, val, test: how many at most.
    Raises:
        DataError: unreadable, without `is_test`, or of smaller images.
    """
    found = _native(path, train, val, test, seed)
    if side > min(found.image_hw):
        raise DataError(f"{path}: a side of {side} px was asked for, the images have {min(found.image_hw)}")
    if found.image_hw == (side, side):
        return found
    resized = [_resized(part, side) for part in (found.train, found.val, found.test)]
    return replace(
        found, train=resized[0], val=resized[1], test=resized[2], image_hw=(side, side),
        fingerprint=f"{found.fingerprint}@{side}",
    )  # fmt: skip


def _resized(source: Source, side: int) -> ArraySource:
    assert isinstance(source, ArraySource)
    images = source.pixels[source.rows].permute(0, 2, 3, 1).numpy()
    small = [np.asarray(Image.fromarray(image).resize((side, side), Image.Resampling.BOX)) for image in images]
    return in_memory(np.stack(small), source.labels)
