"""Image classification data from a tree with one folder per class."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from luthier.errors import DataError
from luthier.train.parts import Parts, class_gaps
from luthier.train.pixels import conversion_notes, path_text
from luthier.train.source import ArraySource, FileSource, Source, channels_first
from luthier.train.tree import Tree, find_images
from luthier.train.verify import IN_MEMORY_BYTES, Checked, verify_files


def read_folder(root: Path, *, skip_bad: bool = False, in_memory_bytes: int = IN_MEMORY_BYTES) -> Parts:
    """List and verify the images of `root` (layouts: see `find_images`).

    Images of one size that fit `in_memory_bytes` are held decoded; all others are decoded when asked for.

    Args:
        skip_bad: leave out files that cannot be decoded, and list them, instead of refusing the folder.
    Raises:
        DataError: the tree is not one of classes, or a file is bad; names the first and counts them.
    """
    tree = find_images(root)
    checked = verify_files(tree.files, path_text(root), in_memory_bytes)
    if checked.errors and not skip_bad:
        first = checked.errors[min(checked.errors)]
        count = f"; {len(checked.errors):,} of {len(tree.files):,} files are bad" if len(checked.errors) > 1 else ""
        raise DataError(f"{first}{count}; remove or repair, or pass --skip-bad")
    good = np.array([row for row in range(len(tree.files)) if row not in checked.errors], np.int64)
    skipped = tuple(path_text(tree.files[row]) for row in sorted(checked.errors))
    notes = [*tree.notes, *conversion_notes(checked.kinds)]
    if skipped:
        notes.append(f"{len(skipped):,} of {len(tree.files):,} files skipped as unreadable, first {skipped[0]}")
    source = _source(tree, checked)
    splits = np.array(tree.splits)
    parts: dict[str, Source | None] = {"train": None, "val": None, "test": None}
    for split in parts:
        rows = good[splits[good] == split]
        if (splits == split).any():
            parts[split] = source.take(rows)
            _refuse_lost_class(root, tree, split, source.take(rows))
    train = parts["train"]
    if train is None:
        raise DataError(f"{path_text(root)}: no training images")
    characters = checked.pixels is not None and max(checked.pixels.shape[1:3]) <= 64
    characters = characters and checked.kinds.count("greyscale") == len(good)
    if characters:
        notes.append(NO_MIRROR_NOTE)
    return Parts(
        train,
        parts["val"],
        parts["test"],
        tree.class_names,
        tuple(notes),
        skipped,
        "crop" if characters else "crop_flip",
    )


#: Said when small greyscale images are taken for characters.
NO_MIRROR_NOTE = (
    "small greyscale images are mostly characters: not mirrored in training (augment crop_flip mirrors them)"
)


def _source(tree: Tree, checked: Checked) -> Source:
    labels = np.array(tree.labels, np.int64)
    names = tuple(str(file) for file in tree.files)
    if checked.pixels is None:
        return FileSource(labels, checked.keys, names, checked.sizes_hw)
    rows = np.arange(len(names), dtype=np.int64)
    return ArraySource(labels, checked.keys, channels_first(checked.pixels), rows, names)


def _refuse_lost_class(root: Path, tree: Tree, split: str, source: Source) -> None:
    """After skipping, every class that had files in this split must still have one."""
    had = {label for label, where in zip(tree.labels, tree.splits, strict=True) if where == split}
    lost = [index for index in class_gaps(source.labels.tolist(), len(tree.class_names)) if index in had]
    if lost:
        raise DataError(
            f"{path_text(root)}: class {tree.class_names[lost[0]]!r} has no readable image left in {split} "
            "after skipping bad files, at least 1 is needed; add images or remove the class"
        )
