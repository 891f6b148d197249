"""`load_data`: the embedded default, and names that lead nowhere."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits

from luthier.errors import DataError, InputError
from luthier.train.data import channel_mean_std, load_data
from luthier.train.source import ArraySource, in_memory


def test_digits_are_the_default() -> None:
    splits = load_data(None)
    assert splits.origin == "digits"
    assert splits.fingerprint == load_data("digits").fingerprint != load_data(None, seed=1).fingerprint
    assert splits.num_classes == 10
    assert splits.augment == "crop"
    original = load_digits()
    rows = []
    for source in (splits.train, splits.val, splits.test):
        assert isinstance(source, ArraySource)
        for i in range(len(source)):
            row = int(source.name(i))
            rows.append(row)
            assert source.label(i) == original.target[row]
            assert torch.equal(source.image(i)[0], source.image(i)[2])
            np.testing.assert_allclose(source.image(i)[1] / 255 * 16, original.images[row], atol=0.04)
    assert sorted(rows) == list(range(1797))  # published: 1,797 images


def test_shares_are_kept_in_each_class() -> None:
    splits = load_data(None, val_share=0.2, test_share=0.3)
    for label, total in enumerate(np.bincount(load_digits().target)):
        assert abs((splits.val.labels == label).sum() - 0.2 * total) <= 0.5
        assert abs((splits.test.labels == label).sum() - 0.3 * total) <= 0.5


@pytest.mark.parametrize("name", ["nowhere", "no/such/data.npz", "x" * 5000, "nul\0byte"])
def test_missing_path(name: str) -> None:
    with pytest.raises(DataError, match=r"no such file or folder; expected a folder|: cannot be read \(") as caught:
        load_data(name)
    assert len(str(caught.value)) < 6000


def test_neither_folder_nor_npz(tmp_path: Path) -> None:
    file = tmp_path / "data.csv"
    file.write_text("1,2")
    with pytest.raises(DataError, match=r"data\.csv: neither a folder nor an \.npz file; expected"):
        load_data(file)


def test_arguments_are_checked_first() -> None:
    with pytest.raises(InputError, match="val_share: must lie in"):
        load_data("nowhere", val_share=2.0)


def test_channel_statistics_against_numpy() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (50, 7, 5, 3), dtype=np.uint8)
    pixels[..., 2] = 51
    mean, std = channel_mean_std(in_memory(pixels, np.zeros(50, np.int64)))
    scaled = pixels.reshape(-1, 3) / 255
    np.testing.assert_allclose(mean, scaled.mean(0), atol=1e-6)
    np.testing.assert_allclose(std[:2], scaled.std(0)[:2], atol=1e-6)
    assert std[2] == pytest.approx(1 / 255, abs=1e-6)


def test_channel_statistics_of_nothing() -> None:
    with pytest.raises(DataError, match="expected at least 1 image, got 0"):
        channel_mean_std(in_memory(np.zeros((0, 2, 2, 3), np.uint8), np.zeros(0, np.int64)))
