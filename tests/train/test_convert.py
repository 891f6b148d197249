"""The converter on stores made here and on the real ones."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from luthier.errors import DataError
from luthier.train.convert import read_store, store_to_npz, store_to_tree
from luthier.train.data import load_data


def jpegs(n: int, hw: tuple[int, int] = (9, 8)) -> list[bytes]:
    encoded = []
    for index in range(n):
        buffer = io.BytesIO()
        pixels = np.random.default_rng(index).integers(0, 256, (*hw, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(buffer, "JPEG")
        encoded.append(buffer.getvalue())
    return encoded


def write_store(path: Path, images: list[bytes], **changes: Any) -> Path:
    offsets = np.concatenate([[0], np.cumsum([len(raw) for raw in images])])
    arrays = {
        "jpeg": np.frombuffer(b"".join(images), np.uint8),
        "offsets": offsets,
        "labels": (np.arange(len(images)) % 2).astype(np.uint8),
        "is_test": np.arange(len(images)) % 4 == 3,
        "class_names": np.array(["sea", "land"]),
        **changes,
    }
    np.savez(path, **{key: value for key, value in arrays.items() if value is not None})
    return path


def decoded(raw: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(raw)).convert("RGB"))


def test_npz_and_tree_hold_the_store(tmp_path: Path) -> None:
    images = jpegs(20)
    store = write_store(tmp_path / "store.npz", images)
    assert store_to_npz(read_store(store), tmp_path / "plain.npz") == (20, 9, 8, 3)
    assert store_to_tree(read_store(store), tmp_path / "tree") == 20
    with np.load(tmp_path / "plain.npz") as plain:
        assert np.array_equal(plain["x"], np.stack([decoded(raw) for raw in images]))
        assert plain["y"].tolist() == [0, 1] * 10
        assert (plain["split"] == "test").tolist() == [i % 4 == 3 for i in range(20)]
        assert plain["class_names"].tolist() == ["sea", "land"]
    for i, raw in enumerate(images):
        split, name = "test" if i % 4 == 3 else "train", ("sea", "land")[i % 2]
        assert (tmp_path / "tree" / split / name / f"{i:05d}.jpg").read_bytes() == raw
    assert sorted(path.name for path in tmp_path.iterdir()) == ["plain.npz", "store.npz", "tree"]


def test_store_without_splits_or_names(tmp_path: Path) -> None:
    store = read_store(write_store(tmp_path / "store.npz", jpegs(8), is_test=None, class_names=None))
    assert store_to_npz(store, tmp_path / "plain.npz") == (8, 9, 8, 3)
    assert store_to_tree(store, tmp_path / "tree") == 8
    with np.load(tmp_path / "plain.npz") as plain:
        assert sorted(plain.files) == ["class_names", "x", "y"]
    for data in ("plain.npz", "tree"):
        splits = load_data(tmp_path / data)
        assert splits.class_names == ("0", "1")
        assert len(splits.train) == 4


def test_nothing_is_written_over(tmp_path: Path) -> None:
    store = write_store(tmp_path / "store.npz", jpegs(4))
    before = store.read_bytes()
    with pytest.raises(DataError, match=r"store\.npz: exists, nothing is written over; remove it"):
        store_to_npz(read_store(store), store)
    assert store.read_bytes() == before
    (tmp_path / "tree").mkdir()
    with pytest.raises(DataError, match="tree: exists, nothing is written over"):
        store_to_tree(read_store(store), tmp_path / "tree")


def test_damaged_image_leaves_nothing_behind(tmp_path: Path) -> None:
    images = jpegs(4)
    images[2] = b"no jpeg"
    store = read_store(write_store(tmp_path / "store.npz", images))
    with pytest.raises(DataError, match=r"store\.npz: image 2: not an image \(7 bytes"):
        store_to_npz(store, tmp_path / "plain.npz")
    assert [path.name for path in tmp_path.iterdir()] == ["store.npz"]


def test_several_sizes_need_a_tree(tmp_path: Path) -> None:
    store = read_store(write_store(tmp_path / "store.npz", jpegs(3) + jpegs(1, (5, 8))))
    with pytest.raises(DataError, match=r"image 3 is 8 x 5 pixels, an \.npz needs one size, 8 x 9 .* with --tree"):
        store_to_npz(store, tmp_path / "plain.npz")
    assert store_to_tree(store, tmp_path / "tree") == 4


def test_place_that_cannot_be_written(tmp_path: Path) -> None:
    store = read_store(write_store(tmp_path / "store.npz", jpegs(4)))
    with pytest.raises(DataError, match=r"plain\.npz: cannot be written"):
        store_to_npz(store, tmp_path / "store.npz" / "plain.npz")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"jpeg": None}, "not a store of JPEG images, array 'jpeg' is missing, found class_names"),
        ({"jpeg": np.zeros(4, np.int32)}, r"jpeg must be uint8 of shape \(bytes,\), got int32"),
        ({"labels": np.zeros(4)}, r"labels must be integers of shape \(N,\), got float64"),
        ({"labels": np.array([0, 1, 2, 0])}, r"labels must lie in 0 \.\. 1, got 0 \.\. 2"),
        ({"offsets": np.arange(3)}, r"offsets must be integers of shape \(5,\), got int64 \(3,\)"),
        ({"offsets": np.array([0, 9, 5, 7, 8])}, "offsets must rise from 0 to at most"),
        ({"offsets": np.array([0, 1, 2, 3, 10**9])}, "offsets must rise from 0 to at most"),
        ({"is_test": np.zeros(3, bool)}, r"is_test must be bool of shape \(4,\), got bool \(3,\)"),
        ({"class_names": np.array([1, 2])}, r"class_names must be text of shape \(K,\)"),
    ],
)
def test_refused_stores(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    path = write_store(tmp_path / "store.npz", jpegs(4), **changes)
    with pytest.raises(DataError, match=message):
        read_store(path)


def test_class_names_that_are_no_folders(tmp_path: Path) -> None:
    path = write_store(tmp_path / "store.npz", jpegs(4), class_names=np.array(["..", "b"]))
    with pytest.raises(DataError, match="class_names must give different folder names"):
        store_to_tree(read_store(path), tmp_path / "tree")


def test_missing_store(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"none\.npz: no such file; expected an \.npz store"):
        read_store(tmp_path / "none.npz")


def test_rsscn7(data_dir: Path, tmp_path: Path) -> None:
    """2,800 scenes of 96 x 96 in 7 classes, 300 to train on and 100 to test in each."""
    store = read_store(data_dir / "rs" / "rsscn7_96.npz")
    assert store_to_npz(store, tmp_path / "plain.npz") == (2800, 96, 96, 3)
    store_to_tree(store, tmp_path / "tree")
    arrays, files = (load_data(tmp_path / name, val_share=0.1) for name in ("plain.npz", "tree"))
    for splits in (arrays, files):
        assert splits.image_hw == (96, 96)
        assert set(splits.class_names) == {"Grass", "Field", "Industry", "RiverLake", "Forest", "Resident", "Parking"}
        assert np.bincount(splits.test.labels).tolist() == [100] * 7
        assert np.bincount(splits.train.labels).tolist() == [270] * 7
    assert files.class_names == tuple(sorted(arrays.class_names))
    for i in range(0, 700, 50):
        row = int(Path(files.test.name(i)).stem)
        found = np.flatnonzero([arrays.test.name(j) == str(row) for j in range(700)])
        assert np.array_equal(files.test.image(i), arrays.test.image(int(found[0])))


@pytest.mark.slow
def test_cifar10(data_dir: Path, tmp_path: Path) -> None:
    """60,000 images of 32 x 32: published 50,000 to train on and 10,000 to test, 1,000 of each class."""
    store = read_store(data_dir / "images" / "cifar10.npz")
    assert store_to_npz(store, tmp_path / "plain.npz") == (60_000, 32, 32, 3)
    splits = load_data(tmp_path / "plain.npz")
    assert splits.class_names[:2] == ("airplane", "automobile")
    assert len(splits.train) + len(splits.val) == 50_000
    assert np.bincount(splits.test.labels).tolist() == [1000] * 10
    assert np.bincount(splits.val.labels).tolist() == [500] * 10
    for i in (0, 4321, 9999):
        row = int(splits.test.name(i))
        assert np.array_equal(splits.test.image(i).permute(1, 2, 0), decoded(store.encoded(row)))
