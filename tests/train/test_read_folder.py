"""Class-per-folder trees end to end: layouts that are honoured, and bad input that is refused in one line."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from luthier.errors import DataError
from luthier.train.data import load_data
from luthier.train.parts import divide
from luthier.train.read_folder import read_folder
from luthier.train.source import ArraySource, FileSource, Source
from luthier.train.verify import verify_files

MakeTree = Callable[..., Path]


def names(*sources: Source) -> list[str]:
    return sorted(Path(source.name(i)).as_posix() for source in sources for i in range(len(source)))


def refusal(root: Path, **options: bool) -> str:
    before = sorted(path for path in root.rglob("*"))
    with pytest.raises(DataError, match=r".") as caught:
        load_data(str(root), **options)
    assert sorted(path for path in root.rglob("*")) == before
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_plain_tree(make_tree: MakeTree) -> None:
    root = make_tree({"dog": 10, "cat": 20})
    splits = load_data(str(root))
    assert splits.class_names == ("cat", "dog")
    assert (len(splits.train), len(splits.val), len(splits.test)) == (24, 3, 3)
    assert splits.image_hw == (12, 10)
    assert splits.in_channels == 3
    assert splits.origin == str(root)
    assert splits.notes == splits.skipped == ()
    assert names(splits.train, splits.val, splits.test) == sorted(str(file) for file in root.rglob("*.png"))
    for source in (splits.train, splits.val, splits.test):
        for i in range(len(source)):
            assert splits.class_names[source.label(i)] == Path(source.name(i)).parent.name
            assert np.array_equal(source.image(i).permute(1, 2, 0), np.asarray(Image.open(source.name(i))))


def test_same_split_again_and_another_with_another_seed(make_tree: MakeTree) -> None:
    root = make_tree({"dog": 20, "cat": 20})
    assert load_data(str(root)).fingerprint == load_data(str(root)).fingerprint
    assert names(load_data(str(root)).test) != names(load_data(str(root), seed=1).test)


@pytest.mark.parametrize("val", ["val", "valid", "validation"])
def test_given_splits_are_honoured(make_tree: MakeTree, val: str) -> None:
    for seed, (part, count) in enumerate((("train", 6), (val, 2), ("test", 3))):
        root = make_tree({f"{part}/cat": count, f"{part}/dog": count}, seed=seed)
    splits = load_data(str(root))
    for source, part, count in ((splits.train, "train", 12), (splits.val, val, 4), (splits.test, "test", 6)):
        assert names(source) == sorted(str(file) for file in (root / part).rglob("*.png"))
        assert len(source) == count


def test_missing_validation_is_drawn_from_train(make_tree: MakeTree) -> None:
    make_tree({"train/cat": 10, "train/dog": 10})
    root = make_tree({"test/cat": 3, "test/dog": 3}, seed=1)
    splits = load_data(str(root), val_share=0.2)
    assert names(splits.train, splits.val) == sorted(str(file) for file in (root / "train").rglob("*.png"))
    assert (len(splits.train), len(splits.val), len(splits.test)) == (16, 4, 6)


def test_a_class_may_be_called_train(make_tree: MakeTree) -> None:
    splits = load_data(str(make_tree({"bus": 5, "train": 5, "test": 5})))
    assert splits.class_names == ("bus", "test", "train")


def test_large_or_mixed_sizes_are_read_lazily(make_tree: MakeTree) -> None:
    make_tree({"cat": 5}, hw=(20, 30))
    root = make_tree({"dog": 6}, hw=(40, 10))
    splits = load_data(str(root))
    assert isinstance(splits.train, FileSource)
    assert splits.image_hw in {(20, 10), (20, 30), (40, 10)}
    one = splits.train.image(0)
    assert one.dtype == torch.uint8
    assert one.shape in {(3, 20, 30), (3, 40, 10)}
    same = make_tree({"a": 4, "b": 4}, "same")
    assert isinstance(read_folder(same).train, ArraySource)
    assert isinstance(read_folder(same, in_memory_bytes=100).train, FileSource)


def test_lazy_and_held_images_are_the_same(make_tree: MakeTree) -> None:
    root = make_tree({"a": 6, "b": 6})
    held, lazy = (
        divide(read_folder(root, in_memory_bytes=n), "x", seed=0, val_share=0.2, test_share=0.2) for n in (10**9, 0)
    )
    assert held.fingerprint == lazy.fingerprint
    for i in range(len(held.train)):
        assert torch.equal(held.train.image(i), lazy.train.image(i))


def test_a_file_that_vanishes_later_is_named(make_tree: MakeTree) -> None:
    root = make_tree({"a": 3, "b": 3})
    source = read_folder(root, in_memory_bytes=0).train
    (root / "a" / "000.png").unlink()
    with pytest.raises(DataError, match=r"a/000\.png: cannot be read"):
        source.image(0)


def test_mixed_modes_are_converted_and_said(make_tree: MakeTree) -> None:
    root = make_tree({"cat": 5, "dog": 5})
    rng = np.random.default_rng(9)
    Image.fromarray(rng.integers(0, 65536, (12, 10), dtype=np.uint16)).save(root / "cat" / "deep.png")
    Image.fromarray(rng.integers(0, 256, (12, 10), dtype=np.uint8)).save(root / "cat" / "grey.png")
    Image.fromarray(rng.integers(0, 256, (12, 10, 4), dtype=np.uint8), "RGBA").save(root / "dog" / "alpha.png")
    Image.fromarray(rng.integers(0, 256, (12, 10, 4), dtype=np.uint8), "CMYK").save(root / "dog" / "print.jpg")
    splits = load_data(str(root))
    assert splits.notes == (
        "2 images greyscale, read as RGB by repeating the channel",
        "1 image 16-bit, scaled to 8 bit (value / 257)",
        "1 image with transparency, composed on white",
        "1 image CMYK, converted to RGB",
    )
    assert splits.augment == "crop_flip"


def test_small_greyscale_images_are_not_mirrored(make_tree: MakeTree) -> None:
    splits = load_data(str(make_tree({"a": 4, "b": 4}, mode="L")))
    assert splits.augment == "crop"
    assert splits.notes[-1].startswith("small greyscale images are mostly characters: not mirrored")


def test_what_is_left_out_is_said(make_tree: MakeTree) -> None:
    root = make_tree({"cat": 4, "dog": 4, ".cache": 2})
    (root / "cat" / "README.txt").write_text("cats")
    (root / "dog" / ".hidden.png").write_bytes(b"")
    (root / "loose.png").write_bytes((root / "cat" / "000.png").read_bytes())
    assert load_data(str(root)).notes == (
        "1 image beside the class folders left out (loose.png)",
        "1 file without an image suffix left out (README.txt)",
    )


def test_linked_folders_are_entered_once(make_tree: MakeTree) -> None:
    root = make_tree({"cat": 4, "dog/young": 4})
    os.symlink(root / "dog", root / "dog" / "young" / "loop")
    splits = load_data(str(root))
    assert len(splits.train) + len(splits.val) + len(splits.test) == 8


@pytest.mark.parametrize(
    ("raw", "reason"),
    [
        (b"", "empty file (0 bytes)"),
        (b"plain text", "not an image (10 bytes that no image format begins with)"),
        (None, "damaged or truncated image ("),
    ],
)
def test_bad_image_is_refused_or_skipped(make_tree: MakeTree, raw: bytes | None, reason: str) -> None:
    root = make_tree({"cat": 5, "dog": 5})
    bad = root / "dog" / "002.png"
    bad.write_bytes(bad.read_bytes()[:-80] if raw is None else raw)
    message = refusal(root)
    assert message.startswith(f"{bad}: {reason}")
    assert message.endswith("; remove or repair, or pass --skip-bad")
    (root / "cat" / "004.png").write_bytes(b"")
    assert "; 2 of 10 files are bad; remove" in refusal(root)
    splits = load_data(str(root), skip_bad=True)
    assert splits.skipped == (str(root / "cat" / "004.png"), str(bad))
    assert splits.notes == (f"2 of 10 files skipped as unreadable, first {splits.skipped[0]}",)
    assert len(splits.train) + len(splits.val) + len(splits.test) == 8
    assert not set(names(splits.train, splits.val, splits.test)) & set(splits.skipped)


def test_class_lost_by_skipping(make_tree: MakeTree) -> None:
    root = make_tree({"cat": 5, "dog": 3})
    for file in (root / "dog").iterdir():
        file.write_bytes(b"")
    assert "class 'dog' has no readable image left in train after skipping" in refusal(root, skip_bad=True)


def test_bomb_among_images(make_tree: MakeTree) -> None:
    root = make_tree({"cat": 4, "dog": 4})
    Image.new("1", (30_000, 30_000)).save(root / "cat" / "bomb.png")
    assert "cat/bomb.png: image too large, limit 89,478,485 pixels, got" in refusal(root)
    assert load_data(str(root), skip_bad=True).skipped == (str(root / "cat" / "bomb.png"),)


def test_pipe_with_an_image_suffix_does_not_hang(make_tree: MakeTree) -> None:
    root = make_tree({"cat": 4, "dog": 4})
    os.mkfifo(root / "cat" / "pipe.png")
    assert "pipe.png: not a regular file" in refusal(root)


def test_name_that_is_not_utf8(make_tree: MakeTree) -> None:
    root = make_tree({"cat": 4, "dog": 4})
    Path(os.fsdecode(bytes(root / "cat") + b"/\xff.png")).write_bytes(b"")
    assert r"\udcff.png: empty file" in refusal(root)


@pytest.mark.parametrize(
    ("counts", "message"),
    [
        ({"cat": 5}, "only one class ('cat'), at least 2 are needed; add a folder"),
        ({"cat": 5, "dog": 0}, "class folder dog holds no images, at least 1 is needed; add images or remove"),
        ({"cat": 0, "dog": 0}, "no images found; known suffixes are .bmp"),
        ({"cat": 5, "dog": 2}, "class 'dog' has 2 different images, at least 3 are needed"),
        ({}, "expected one folder per class, but it has no subfolders"),
        ({"train/cat": 5, "train/dog": 5, "docs": 0}, "beside train/ only val/ and test/ are expected, found docs"),
        ({"test/cat": 5, "val/dog": 5}, "train/ is missing beside test/, val/; add it"),
        ({"train/cat": 5, "train/dog": 5, "test/cow": 1, "test/dog": 1}, "class cow has no folder in train/"),
        ({"train/cat": 5, "train/dog": 5, "test/cat": 0, "test/dog": 1}, "class folder cat holds no images"),
        ({"train/a": 5, "train/b": 5, "val/a": 1, "val/b": 1, "valid/a": 1}, "second folder for val, beside val/"),
    ],
)
def test_refused_trees(make_tree: MakeTree, tmp_path: Path, counts: dict[str, int], message: str) -> None:
    (tmp_path / "pets").mkdir()
    assert message in refusal(make_tree(counts))


def test_images_directly_in_the_folder(make_tree: MakeTree) -> None:
    root = make_tree({"": 3})
    assert "3 images lie directly in it; sort images into class folders" in refusal(root)


def test_missing_test_class_is_said(make_tree: MakeTree) -> None:
    make_tree({"train/cat": 5, "train/dog": 5, "train/emu": 5})
    root = make_tree({"test/cat": 2, "test/dog": 2}, seed=1)
    assert "test/ has no images of class emu" in load_data(str(root)).notes


@pytest.mark.parametrize("terminal", [False, True])
def test_progress_for_many_files(
    make_tree: MakeTree, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, terminal: bool
) -> None:
    if terminal:
        monkeypatch.setenv("FORCE_COLOR", "1")
    root = make_tree({"a": 3, "b": 3}, hw=(2, 2))
    files = sorted(root.rglob("*.png")) * 200
    checked = verify_files(files)
    assert checked.pixels is not None
    assert checked.pixels.shape == (1200, 2, 2, 3)
    assert not checked.errors
    out, err = capfd.readouterr()
    assert out == ""
    assert ("checking images" in err) == terminal
