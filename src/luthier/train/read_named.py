"""Torchvision's classification data sets by name: `torchvision:CIFAR10`, or `torchvision:CIFAR10@FOLDER`."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import numpy as np
from PIL import Image

from luthier.errors import DataError
from luthier.train.parts import Parts
from luthier.train.pixels import conversion_notes, path_text, to_rgb
from luthier.train.source import ArraySource, FileSource, Source, in_memory
from luthier.train.verify import verify_files

PREFIX: Final = "torchvision:"


@dataclass(frozen=True)
class Named:
    """How one torchvision class is asked for its splits.

    Attributes:
        splits: split -> constructor arguments; a split that is not there is drawn from `train`.
        files: attributes that list files: one of (file, label) pairs, or one of files and one of labels;
            empty for data sets that torchvision holds in memory.
        mirror: whether a mirrored image still is of its class.
    """

    splits: Mapping[str, Mapping[str, Any]] = field(default_factory=lambda: {"train": {}})
    files: tuple[str, ...] = ()
    mirror: bool = True


_BY_FLAG: Final = {"train": {"train": True}, "test": {"train": False}}
_BY_NAME: Final = {"train": {"split": "train"}, "test": {"split": "test"}}
_THREE: Final = {**_BY_NAME, "val": {"split": "val"}}
_FILES_AND_LABELS: Final = ("_image_files", "_labels")

#: Known names, spelt as torchvision spells them.
NAMED: Final[dict[str, Named]] = {
    "CIFAR10": Named(_BY_FLAG),
    "CIFAR100": Named(_BY_FLAG),
    "Country211": Named({**_BY_NAME, "val": {"split": "valid"}}, ("samples",)),
    "DTD": Named(_THREE, _FILES_AND_LABELS),
    "EuroSAT": Named(files=("samples",)),
    "FGVCAircraft": Named(_THREE, _FILES_AND_LABELS),
    "FashionMNIST": Named(_BY_FLAG),
    "Flowers102": Named(_THREE, _FILES_AND_LABELS),
    "Food101": Named(_BY_NAME, _FILES_AND_LABELS),
    "GTSRB": Named(_BY_NAME, ("_samples",), mirror=False),
    "Imagenette": Named({"train": {"split": "train"}, "test": {"split": "val"}}, ("_samples",)),
    "KMNIST": Named(_BY_FLAG, mirror=False),
    "MNIST": Named(_BY_FLAG, mirror=False),
    "OxfordIIITPet": Named({"train": {"split": "trainval"}, "test": {"split": "test"}}, ("_images", "_labels")),
    "QMNIST": Named(_BY_FLAG, mirror=False),
    "RenderedSST2": Named(_THREE, ("_samples",), mirror=False),
    "SEMEION": Named(mirror=False),
    "STL10": Named(_BY_NAME),
    "SUN397": Named(files=_FILES_AND_LABELS),
    "SVHN": Named(_BY_NAME, mirror=False),
    "USPS": Named(_BY_FLAG, mirror=False),
}


def default_root() -> Path:
    """Where torchvision archives are kept when the user names no folder: $LUTHIER_CACHE or ~/.cache/luthier."""
    return Path(os.environ.get("LUTHIER_CACHE") or Path.home() / ".cache" / "luthier") / "torchvision"


def read_named(spec: str, *, download: bool = True, skip_bad: bool = False) -> Parts:
    """Read `torchvision:NAME` or `torchvision:NAME@FOLDER`; a given test (and validation) split is honoured.

    Args:
        download: fetch the archives when FOLDER has none.
        skip_bad: leave out files that cannot be decoded.
    Raises:
        DataError: an unknown name, data that is neither there nor can be fetched, or a bad file.
    """
    name, _, folder = spec.removeprefix(PREFIX).partition("@")
    known = {entry.lower(): entry for entry in NAMED}
    if name.lower() not in known:
        raise DataError(f"{PREFIX}{name}: unknown data set {name!r}, known are {', '.join(NAMED)}")
    name = known[name.lower()]
    named, root = NAMED[name], Path(folder) if folder else default_root()
    notes: list[str] = []
    skipped: list[str] = []
    sources: dict[str, Source] = {}
    class_names: tuple[str, ...] = ()
    for split, arguments in named.splits.items():
        dataset = _open(name, root, arguments, download)
        sources[split] = (
            _from_files(dataset, named, skip_bad, notes, skipped) if named.files else _from_memory(dataset, notes)
        )
        class_names = class_names or _class_names(dataset, sources[split])
    return Parts(
        sources["train"],
        sources.get("val"),
        sources.get("test"),
        class_names,
        tuple(dict.fromkeys(notes)),
        tuple(skipped),
        "crop_flip" if named.mirror else "crop",
    )


def _open(name: str, root: Path, arguments: Mapping[str, Any], download: bool) -> Any:
    from torchvision import datasets

    build = getattr(datasets, name)
    try:
        return build(root, **arguments, download=False)
    except (RuntimeError, OSError):
        if not download:
            raise DataError(f"{PREFIX}{name}: not found in {path_text(root)}; allow the download") from None
    try:
        root.mkdir(parents=True, exist_ok=True)
        return build(root, **arguments, download=True)
    except (RuntimeError, OSError) as error:
        reason = " ".join(str(error).split())
        raise DataError(
            f"{PREFIX}{name}: not found in {path_text(root)} and cannot be downloaded ({reason}); "
            f"go online, or name the folder that holds it: {PREFIX}{name}@FOLDER"
        ) from None


def _from_memory(dataset: Any, notes: list[str]) -> ArraySource:
    pixels, labels = [], []
    kinds: list[str] = []
    for index in range(len(dataset)):
        image, label = dataset[index]
        rgb, needed = to_rgb(image) if isinstance(image, Image.Image) else (image, ())
        kinds += needed
        pixels.append(np.asarray(rgb, np.uint8))
        labels.append(int(label))
    notes += conversion_notes(kinds)
    return in_memory(np.stack(pixels), np.array(labels, np.int64))


def _from_files(dataset: Any, named: Named, skip_bad: bool, notes: list[str], skipped: list[str]) -> FileSource:
    listed = [getattr(dataset, attribute) for attribute in named.files]
    pairs = listed[0] if len(listed) == 1 else list(zip(*listed, strict=True))
    files = [Path(file) for file, _ in pairs]
    labels = np.array([label for _, label in pairs], np.int64)
    checked = verify_files(files, type(dataset).__name__, in_memory_bytes=0)
    if checked.errors and not skip_bad:
        raise DataError(f"{checked.errors[min(checked.errors)]}; remove the folder and load again, or pass --skip-bad")
    if checked.errors:
        notes.append(f"{len(checked.errors):,} of {len(files):,} files skipped as unreadable")
        skipped += [path_text(files[row]) for row in sorted(checked.errors)]
    notes += conversion_notes(checked.kinds)
    good = np.array([row for row in range(len(files)) if row not in checked.errors], np.int64)
    return FileSource(labels, checked.keys, tuple(map(str, files)), checked.sizes_hw).take(good)


def _class_names(dataset: Any, source: Source) -> tuple[str, ...]:
    names = getattr(dataset, "classes", None)
    if not names:
        return tuple(str(index) for index in range(int(source.labels.max()) + 1))
    return tuple(name if isinstance(name, str) else str(name[0]) for name in names)
