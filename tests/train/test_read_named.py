"""Torchvision data sets by name, from archives made on the spot (nothing is downloaded)."""

from __future__ import annotations

import struct
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from torchvision import datasets

from luthier.errors import DataError
from luthier.train import read_named
from luthier.train.data import load_data
from luthier.train.source import ArraySource, FileSource


def write_mnist(root: Path) -> dict[str, np.ndarray]:
    raw = root / "MNIST" / "raw"
    raw.mkdir(parents=True)
    arrays = {}
    for part, count, seed in (("train", 60, 0), ("t10k", 20, 1)):
        images = np.random.default_rng(seed).integers(0, 256, (count, 28, 28), dtype=np.uint8)
        labels = (np.arange(count) % 10).astype(np.uint8)
        (raw / f"{part}-images-idx3-ubyte").write_bytes(struct.pack(">IIII", 0x803, count, 28, 28) + images.tobytes())
        (raw / f"{part}-labels-idx1-ubyte").write_bytes(struct.pack(">II", 0x801, count) + labels.tobytes())
        arrays[part] = images
    return arrays


def test_mnist_honours_its_test_split(tmp_path: Path) -> None:
    arrays = write_mnist(tmp_path)
    splits = load_data(f"torchvision:MNIST@{tmp_path}", val_share=0.2)
    assert isinstance(splits.train, ArraySource)
    assert (len(splits.train), len(splits.val), len(splits.test)) == (50, 10, 20)
    assert splits.image_hw == (28, 28)
    assert splits.class_names[3] == "3 - three"
    assert splits.augment == "crop"
    assert np.array_equal(splits.test.image(4)[0], arrays["t10k"][4])
    assert splits.test.label(4) == 4


def test_default_root_follows_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LUTHIER_CACHE", str(tmp_path))
    write_mnist(tmp_path / "torchvision")
    assert len(load_data("torchvision:mnist").test) == 20


def write_eurosat(root: Path, damaged: bool) -> None:
    for label, folder in enumerate(("Forest", "River")):
        where = root / "eurosat" / "2750" / folder
        where.mkdir(parents=True)
        for index in range(6):
            pixels = np.random.default_rng(10 * label + index).integers(0, 256, (9, 9, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(where / f"{folder}_{index}.jpg")
    if damaged:
        (root / "eurosat" / "2750" / "Forest" / "Forest_2.jpg").write_bytes(b"")


def test_data_of_files_is_lazy_and_split_by_us(tmp_path: Path) -> None:
    write_eurosat(tmp_path, damaged=False)
    splits = load_data(f"torchvision:EuroSAT@{tmp_path}", val_share=0.2, test_share=0.2)
    assert isinstance(splits.train, FileSource)
    assert (len(splits.train), len(splits.val), len(splits.test)) == (8, 2, 2)
    assert splits.class_names == ("Forest", "River")
    assert splits.augment == "crop_flip"


def test_damaged_file_of_a_named_set(tmp_path: Path) -> None:
    write_eurosat(tmp_path, damaged=True)
    spec = f"torchvision:EuroSAT@{tmp_path}"
    with pytest.raises(DataError, match=r"Forest_2\.jpg: empty file \(0 bytes\); remove .* or pass --skip-bad"):
        load_data(spec)
    splits = load_data(spec, skip_bad=True)
    assert splits.skipped == (str(tmp_path / "eurosat" / "2750" / "Forest" / "Forest_2.jpg"),)
    assert "1 of 12 files skipped as unreadable" in splits.notes


def test_unknown_name_lists_the_known() -> None:
    with pytest.raises(DataError, match="unknown data set 'CIFAR11', known are CIFAR10, CIFAR100, Country211"):
        load_data("torchvision:CIFAR11")


def test_no_network(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def offline(*_: object, **__: object) -> None:
        raise RuntimeError("no\nroute")

    monkeypatch.setattr(datasets.CIFAR10, "download", offline)
    with pytest.raises(DataError, match=r"CIFAR10: not found in .* and cannot be downloaded \(no route\); go online"):
        load_data(f"torchvision:CIFAR10@{tmp_path}")
    with pytest.raises(DataError, match=r"CIFAR10: not found in .*; allow the download"):
        read_named.read_named(f"torchvision:CIFAR10@{tmp_path}", download=False)


def test_every_known_name_is_torchvisions() -> None:
    for name in read_named.NAMED:
        assert hasattr(datasets, name)
