"""The same pictures at every resolution, each pixel the mean of its area; the seed draws, the test images stay."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from luthier.errors import DataError
from luthier.lab.images import splits
from luthier.train.source import ArraySource, Source


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """40 images of four classes, 8 x 8 px, ten of them for the test."""
    path = tmp_path_factory.mktemp("store") / "s.npz"
    encoded = []
    for pixels in np.random.default_rng(0).integers(0, 256, (40, 8, 8, 3)).astype(np.uint8):
        buffer = io.BytesIO()
        Image.fromarray(pixels).save(buffer, "JPEG")
        encoded.append(np.frombuffer(buffer.getvalue(), np.uint8))
    offsets = np.cumsum([0, *map(len, encoded)])
    labels = np.arange(40) % 4
    np.savez(path, jpeg=np.concatenate(encoded), offsets=offsets, labels=labels, is_test=np.arange(40) >= 30)
    return path


def pixels(source: Source) -> np.ndarray[tuple[int, ...], np.dtype[np.uint8]]:
    assert isinstance(source, ArraySource)
    return source.pixels[source.rows].numpy()


def test_half_the_side_is_the_mean_of_four(store: Path) -> None:
    whole = splits(store, 8, train=16, val=8, test=10, seed=3)
    half = splits(store, 4, train=16, val=8, test=10, seed=3)
    for big, small in ((whole.train, half.train), (whole.val, half.val), (whole.test, half.test)):
        assert small.labels.tolist() == big.labels.tolist()
        mean = pixels(big).reshape(len(big), 3, 4, 2, 4, 2).mean((3, 5))
        # rounded to 8 bits after the rows and again after the columns: half a step each
        assert np.abs(pixels(small) - mean).max() <= 1.0
    assert (len(whole.train), len(whole.val), len(whole.test)) == (16, 8, 10)
    assert half.image_hw == (4, 4)
    assert half.fingerprint != whole.fingerprint


def test_seeds_draw_training_images_and_share_the_test(store: Path) -> None:
    first, second = (splits(store, 8, train=16, val=8, test=10, seed=seed) for seed in (0, 1))
    assert set(first.train.keys.tolist()) != set(second.train.keys.tolist())
    assert first.test.keys.tolist() == second.test.keys.tolist()
    parts = [set(part.keys.tolist()) for part in (first.train, first.val, first.test)]
    assert sum(map(len, parts)) == len(set.union(*parts)) == 34


def test_more_pixels_than_there_are_is_refused(store: Path) -> None:
    with pytest.raises(DataError, match="a side of 9 px was asked for, the images have 8"):
        splits(store, 9, train=16, val=8, test=10, seed=0)
