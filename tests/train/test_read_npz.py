"""`.npz` archives end to end: every accepted form, and bad input that is refused in one line."""

from __future__ import annotations

import io
import itertools
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from luthier.errors import DataError
from luthier.train.data import load_data
from luthier.train.read_npz import read_npz

N = 24


def images(shape: tuple[int, ...] = (N, 6, 5, 3), seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


LABELS = np.arange(N) % 2


def write(folder: Path, **arrays: Any) -> Path:
    path = folder / "data.npz"
    np.savez(path, **arrays)
    return path


def refusal(path: Path) -> str:
    with pytest.raises(DataError, match=r".") as caught:
        load_data(str(path))
    message = str(caught.value)
    assert message.startswith(str(path))
    assert "\n" not in message
    return message


def test_uint8_rgb(tmp_path: Path) -> None:
    x = images()
    splits = load_data(str(write(tmp_path, x=x, y=LABELS.astype(np.uint8))), val_share=0.25, test_share=0.25)
    assert (len(splits.train), len(splits.val), len(splits.test)) == (12, 6, 6)
    assert splits.class_names == ("0", "1")
    assert splits.image_hw == (6, 5)
    for source in (splits.train, splits.val, splits.test):
        for i in range(len(source)):
            row = int(source.name(i))
            assert np.array_equal(source.image(i).permute(1, 2, 0), x[row])
            assert source.label(i) == LABELS[row]


def test_path_object_and_keras_names(tmp_path: Path) -> None:
    path = write(tmp_path, x_train=images(), y_train=LABELS, x_test=images(seed=1), y_test=LABELS[:, None])
    splits = load_data(path)
    assert len(splits.test) == N
    assert len(splits.train) + len(splits.val) == N


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_float_is_rounded_to_eight_bit(tmp_path: Path, dtype: type) -> None:
    x = images()
    parts = read_npz(write(tmp_path, x=(x / 255).astype(dtype), y=LABELS))
    got = parts.train.images(np.arange(N)).permute(0, 2, 3, 1).numpy()
    assert np.array_equal(got, x)  # half a level is 2e-3, above float16's 5e-4 spacing
    assert parts.notes == (f"x: {np.dtype(dtype)} pixels stored as 8 bit",)


@pytest.mark.parametrize("shape", [(N, 6, 5), (N, 6, 5, 1)])
def test_greyscale(tmp_path: Path, shape: tuple[int, ...]) -> None:
    x = images(shape)
    parts = read_npz(write(tmp_path, x=x, y=LABELS))
    assert np.array_equal(parts.train.image(3), np.repeat(x[3].reshape(1, 6, 5), 3, axis=0))
    assert parts.notes[0] == f"{N} greyscale images read as RGB by repeating the channel"
    assert parts.augment == "crop"


def test_alpha_is_composed_on_white(tmp_path: Path) -> None:
    x = images((N, 6, 5, 4))
    x[..., 3] = 0
    parts = read_npz(write(tmp_path, x=x, y=LABELS))
    assert parts.train.image(0).min() == 255
    assert parts.notes == ("x: alpha composed on white",)


def test_split_array_and_class_names(tmp_path: Path) -> None:
    split = np.array(["train"] * 16 + ["val"] * 4 + ["test"] * 4)
    names = np.array(["dog", "cat"])
    splits = load_data(str(write(tmp_path, x=images(), y=LABELS, split=split, class_names=names, extra=np.ones(3))))
    assert splits.class_names == ("dog", "cat")
    for source, word in ((splits.train, "train"), (splits.val, "val"), (splits.test, "test")):
        assert sorted(int(source.name(i)) for i in range(len(source))) == np.flatnonzero(split == word).tolist()
    assert splits.notes == ("arrays not used: extra",)


@given(
    counts=st.lists(st.integers(3, 12), min_size=2, max_size=4),
    seed=st.integers(0, 99),
    size=st.tuples(st.integers(1, 5), st.integers(2, 5)),
)
def test_splits_are_disjoint_and_complete(
    tmp_path_factory: pytest.TempPathFactory, counts: list[int], seed: int, size: tuple[int, int]
) -> None:
    y = np.repeat(np.arange(len(counts)), counts)
    x = images((len(y), *size, 3), seed)
    x[:, 0, 0, 0], x[:, 0, 1, 0] = np.arange(len(y)), seed  # all images differ
    path = write(tmp_path_factory.mktemp("npz"), x=x, y=y)
    splits = load_data(path, seed=seed)
    rows = [[int(source.name(i)) for i in range(len(source))] for source in (splits.train, splits.val, splits.test)]
    assert sorted(itertools.chain(*rows)) == list(range(len(y)))
    assert all(set(y[part].tolist()) == set(range(len(counts))) for part in rows)


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"y": LABELS}, "array 'x' is missing, found y; add it"),
        ({"x": images()}, "array 'y' is missing, found x; add it"),
        ({"x": images(), "y": LABELS, "x_test": images()}, "array 'y_test' is missing beside 'x_test'"),
        ({"x": images((N, 5)), "y": LABELS}, "got (24, 5); reshape it"),
        ({"x": images((N, 2, 6, 5, 3)), "y": LABELS}, "got (24, 2, 6, 5, 3); reshape it"),
        ({"x": images((N, 3, 6, 5)), "y": LABELS}, "got (24, 3, 6, 5); channels come last: x.transpose(0, 2, 3, 1)"),
        ({"x": images((N, 6, 0, 3)), "y": LABELS}, "N, H and W of at least 1, got shape (24, 6, 0, 3)"),
        ({"x": images((0, 6, 5, 3)), "y": LABELS[:0]}, "N, H and W of at least 1, got shape (0, 6, 5, 3)"),
        ({"x": images().astype(np.int64), "y": LABELS}, "must be uint8, or float in [0, 1], got int64"),
        ({"x": images(), "y": LABELS[:-1]}, "y must have shape (24,), one label for each image, got (23,)"),
        (
            {"x": images(), "y": np.eye(N, 2, dtype=int)},
            "y must have shape (24,), one label for each image, got (24, 2)",
        ),
        ({"x": images(), "y": LABELS.astype(float)}, "y must be integers, got float64; convert with y.astype"),
        ({"x": images(), "y": LABELS.astype(bool)}, "y must be integers, got bool"),
        ({"x": images(), "y": LABELS - 1}, "y[0] must lie in 0 .. 0 (the 1 classes of y), got -1; correct 12 labels"),
        ({"x": images(), "y": LABELS, "class_names": np.array(["a"])}, "at least 2 classes are needed, got 1"),
        ({"x": images(), "y": LABELS * 2, "class_names": np.array(["a", "b"])}, "(2 class_names), got 2; correct 12"),
        ({"x": images(), "y": LABELS * 2}, "class 1 (1) has no training image, labels must be 0 .. K-1"),
        ({"x": images(), "y": LABELS * 2_000_000_000}, "y has label 2000000000 but only 24 images"),
        ({"x": images(), "y": np.zeros(N, int)}, "at least 2 classes are needed, got 1"),
        ({"x": images(), "y": (np.arange(N) < 2).astype(int)}, "class '1' has 2 different images, at least 3"),
        ({"x": images(), "y": LABELS, "class_names": np.array([1, 2])}, "class_names must be text of shape (K,)"),
        ({"x": images(), "y": LABELS, "class_names": np.array(["a", "a"])}, "class_names must differ, got a, a"),
        ({"x": images(), "y": LABELS, "split": np.array(["train"])}, "split must be text of shape (24,)"),
        ({"x": images(), "y": LABELS, "split": np.array(["learn"] * N)}, "split must hold train, val or test"),
        ({"x": images(), "y": LABELS, "split": np.array(["test"] * N)}, "split names no image 'train'"),
        (
            {"x": images(), "y": LABELS, "x_test": images((N, 9, 9, 3)), "y_test": LABELS},
            "x_test must have the image size of x, (6, 5), got (9, 9)",
        ),
        (
            {"x": images(), "y": LABELS, "x_test": images(), "y_test": LABELS, "split": np.array(["train"] * N)},
            "both 'split' and 'x_val' or 'x_test' are given; keep one",
        ),
        ({"x": images(), "y": LABELS, "x_test": images(seed=1), "y_test": LABELS + 5}, "y_test[0] must lie in 0 .. 1"),
        ({"jpeg": images((9,)), "offsets": np.arange(3), "labels": LABELS}, "luthier data convert"),
    ],
)
def test_refused_arrays(tmp_path: Path, arrays: dict[str, np.ndarray], message: str) -> None:
    assert message in refusal(write(tmp_path, **arrays))


@pytest.mark.parametrize(
    ("value", "remedy"),
    [(np.nan, "correct or remove"), (np.inf, "correct or remove"), (-0.1, "correct or remove"), (1.5, "divide by 255")],
)
def test_float_pixels_out_of_range(tmp_path: Path, value: float, remedy: str) -> None:
    x = images().astype(np.float32) / 255
    x[17, 2, 3, 1] = value
    message = refusal(write(tmp_path, x=x, y=LABELS))
    assert f"x[17] has a pixel of {np.float32(value)}, floats must lie in [0, 1]; {remedy}" in message


def test_object_array(tmp_path: Path) -> None:
    ragged = np.array([images((3, 3)), images((2, 2))] * 12, dtype=object)
    message = refusal(write(tmp_path, x=ragged, y=LABELS))
    assert "array 'x' holds Python objects (dtype object), which are never loaded because unpickling" in message


def test_not_a_zip(tmp_path: Path) -> None:
    path = tmp_path / "data.npz"
    path.write_bytes(b"hello")
    assert "not an .npz archive, or truncated (5 bytes: File is not a zip file)" in refusal(path)
    path.write_bytes(b"")
    assert "not an .npz archive, or truncated (0 bytes" in refusal(path)


@pytest.mark.parametrize("keep", [0.1, 0.5, 0.99])
def test_truncated(tmp_path: Path, keep: float) -> None:
    path = write(tmp_path, x=images(), y=LABELS)
    raw = path.read_bytes()
    path.write_bytes(raw[: int(len(raw) * keep)])
    assert "not an .npz archive, or truncated" in refusal(path)


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_damaged_bytes(tmp_path: Path, save: Any) -> None:
    path = tmp_path / "data.npz"
    save(path, x=images(), y=LABELS)
    raw = bytearray(path.read_bytes())
    raw[len(raw) // 2] ^= 0xFF
    path.write_bytes(bytes(raw))
    assert "array 'x' is damaged or truncated" in refusal(path)


def test_members_that_are_no_arrays(tmp_path: Path) -> None:
    path = tmp_path / "data.npz"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("notes.txt", "hello")
    assert "member 'notes.txt' is not a NumPy array" in refusal(path)


def npy_header(shape: tuple[int, ...]) -> bytes:
    buffer = io.BytesIO()
    np.lib.format.write_array_header_1_0(buffer, {"descr": "|u1", "fortran_order": False, "shape": shape})
    return buffer.getvalue()


def test_header_that_lies_about_its_size(tmp_path: Path) -> None:
    path = tmp_path / "data.npz"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("x.npy", npy_header((10**6, 1000, 1000, 3)) + b"1234")
    assert "declares 3,000,000,000,000 bytes for shape (1000000, 1000, 1000, 3) but 4 are stored" in refusal(path)


def test_declared_size_above_the_limit(tmp_path: Path) -> None:
    path = write(tmp_path, x=images(), y=LABELS)
    with pytest.raises(DataError, match=r"arrays of 2,\d+ bytes declared, limit 1,000; use a class-per-folder tree"):
        read_npz(path, max_bytes=1000)


def test_zip_bomb_is_not_expanded(tmp_path: Path) -> None:
    path = tmp_path / "bomb.npz"
    n = 200
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive, archive.open("x.npy", "w") as stream:
        stream.write(npy_header((n, 1024, 1024)))
        for _ in range(n):
            stream.write(bytes(2**20))
    assert path.stat().st_size < 2**20
    assert "would expand to 209,715," in refusal(path)
