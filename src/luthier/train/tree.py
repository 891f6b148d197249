"""The files of a class-per-folder tree: which are images, of which class, of which given split."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from luthier.errors import DataError
from luthier.train.pixels import IMAGE_SUFFIXES, path_text

#: folder name -> split
SPLIT_FOLDERS: Final = {"train": "train", "val": "val", "valid": "val", "validation": "val", "test": "test"}


@dataclass(frozen=True)
class Tree:
    """What a folder holds.

    Attributes:
        class_names: sorted folder names.
        files: every image file, class by class, sorted by path.
        labels: class index of each.
        splits: `train`, `val` or `test` of each; all `train` in a plain tree.
        notes: what was left out.
    """

    class_names: tuple[str, ...]
    files: tuple[Path, ...] = field(repr=False)
    labels: tuple[int, ...] = field(repr=False)
    splits: tuple[str, ...] = field(repr=False)
    notes: tuple[str, ...] = ()


def find_images(root: Path) -> Tree:
    """List the images of `root`.

    Two layouts are known: `root/CLASS/**/image.png`, and the same below `root/train`, `root/val` (also `valid`,
    `validation`) and `root/test`.  Hidden files and files without an image suffix are left out, and counted.

    Raises:
        DataError: no class folders, one class only, a class folder without images, folders beside `train/` that
            are no split, or a class of `val/` or `test/` that `train/` lacks.
    """
    folders = _subfolders(root)
    if not _has_split_layout(root, folders):
        return _plain(root, folders)
    strange = [folder.name for folder in folders if folder.name not in SPLIT_FOLDERS]
    if strange:
        raise DataError(
            f"{path_text(root)}: beside train/ only val/ and test/ are expected, found {_listed(strange)}; "
            "move it elsewhere, or put it among the classes in train/"
        )
    if "train" not in {folder.name for folder in folders}:
        have = _listed([folder.name + "/" for folder in folders])
        raise DataError(f"{path_text(root)}: train/ is missing beside {have}; add it")
    return _given(folders)


def _given(folders: list[Path]) -> Tree:
    by_split: dict[str, Path] = {}
    for folder in folders:
        split = SPLIT_FOLDERS[folder.name]
        if split in by_split:
            raise DataError(f"{path_text(folder)}: second folder for {split}, beside {by_split[split].name}/; keep one")
        by_split[split] = folder
    trees = {split: _plain(folder, _subfolders(folder)) for split, folder in sorted(by_split.items())}
    class_names = trees["train"].class_names
    files: list[Path] = []
    labels: list[int] = []
    splits: list[str] = []
    notes: list[str] = []
    for split, tree in trees.items():
        unknown = sorted(set(tree.class_names) - set(class_names))
        if unknown:
            raise DataError(
                f"{path_text(by_split[split])}: class {_listed(unknown)} has no folder in train/; "
                "add training images or remove it"
            )
        missing = sorted(set(class_names) - set(tree.class_names))
        if missing:
            notes.append(f"{split}/ has no images of class {_listed(missing)}")
        files += tree.files
        labels += [class_names.index(tree.class_names[label]) for label in tree.labels]
        splits += [split] * len(tree.files)
        notes += [f"{split}/: {note}" for note in tree.notes]
    return Tree(class_names, tuple(files), tuple(labels), tuple(splits), tuple(notes))


def _plain(root: Path, folders: list[Path]) -> Tree:
    loose = [entry.name for entry in sorted(root.iterdir()) if entry.is_file() and _is_image(entry.name)]
    if not folders:
        reason = f"{len(loose)} images lie directly in it" if loose else "it has no subfolders"
        raise DataError(
            f"{path_text(root)}: expected one folder per class, but {reason}; sort images into class folders"
        )
    files: list[Path] = []
    labels: list[int] = []
    other: list[str] = []
    empty: list[str] = []
    for label, folder in enumerate(folders):
        mine, not_images = _walk(folder)
        files += mine
        labels += [label] * len(mine)
        other += not_images
        if not mine:
            empty.append(folder.name)
    if not files:
        raise DataError(f"{path_text(root)}: no images found; known suffixes are {' '.join(sorted(IMAGE_SUFFIXES))}")
    if empty:
        raise DataError(
            f"{path_text(root)}: class folder {_listed(empty)} holds no images, at least 1 is needed; "
            "add images or remove the folder"
        )
    if len(folders) < 2:
        raise DataError(
            f"{path_text(root)}: only one class ({folders[0].name!r}), at least 2 are needed; "
            "add a folder for each further class"
        )
    notes = []
    if loose:
        notes.append(
            f"{len(loose):,} image{'s' * (len(loose) != 1)} beside the class folders left out ({_listed(loose)})"
        )
    if other:
        notes.append(
            f"{len(other):,} file{'s' * (len(other) != 1)} without an image suffix left out ({_listed(other)})"
        )
    names = tuple(folder.name for folder in folders)
    return Tree(names, tuple(files), tuple(labels), ("train",) * len(files), tuple(notes))


def _has_split_layout(root: Path, folders: list[Path]) -> bool:
    """A class may be called `train` too: then it holds images itself."""
    names = {folder.name for folder in folders}
    if not names or not names & set(SPLIT_FOLDERS):
        return False
    if names <= set(SPLIT_FOLDERS):
        return all(_subfolders(folder) for folder in folders) or not any(_has_images(folder) for folder in folders)
    return "train" in names and bool(_subfolders(root / "train")) and not _has_images(root / "train")


def _has_images(folder: Path) -> bool:
    return any(entry.is_file() and _is_image(entry.name) for entry in folder.iterdir())


def _subfolders(root: Path) -> list[Path]:
    try:
        entries = sorted(root.iterdir(), key=lambda entry: entry.name)
    except OSError as error:
        raise DataError(f"{path_text(root)}: folder cannot be read ({error.strerror or error})") from None
    return [entry for entry in entries if entry.is_dir() and not _hidden(entry.name)]


def _walk(folder: Path) -> tuple[list[Path], list[str]]:
    """Image files and names of other files below `folder`, in sorted order; each linked folder is entered once."""
    images: list[Path] = []
    other: list[str] = []
    entered: set[str] = set()
    for where, subfolders, names in os.walk(folder, followlinks=True):
        real = os.path.realpath(where)
        if real in entered:
            subfolders.clear()
            continue
        entered.add(real)
        subfolders[:] = sorted(name for name in subfolders if not _hidden(name))
        for name in sorted(names):
            if _is_image(name):
                images.append(Path(where, name))
            elif not _hidden(name):
                other.append(name)
    return images, other


def _is_image(name: str) -> bool:
    return not _hidden(name) and os.path.splitext(name)[1].lower() in IMAGE_SUFFIXES


def _hidden(name: str) -> bool:
    return name.startswith(".") or name == "__MACOSX"


def _listed(names: list[str], most: int = 3) -> str:
    shown = ", ".join(name.encode("utf-8", "backslashreplace").decode() for name in names[:most])
    return shown + (f" and {len(names) - most} more" if len(names) > most else "")
