"""Image classification data from one `.npz` archive.

    x        (N, H, W, C) or (N, H, W); uint8, or float in [0, 1]; C = 1 (grey), 3 (RGB) or 4 (alpha, put on white)
    y        (N,) integers 0 .. K-1
    x_val, y_val, x_test, y_test     optional, given splits
    split    optional instead: (N,) text `train`, `val` or `test`
    class_names                      optional, (K,) text

`x_train` and `y_train` are taken for `x` and `y`.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from luthier.errors import DataError
from luthier.train.npz_members import Member, load_array, npz_members
from luthier.train.parts import Parts, class_gaps
from luthier.train.pixels import PixelArray, on_white, path_text
from luthier.train.read_folder import NO_MIRROR_NOTE
from luthier.train.source import ArraySource, Labels, in_memory

_KNOWN: Final = frozenset({"x", "y", "x_val", "y_val", "x_test", "y_test", "split", "class_names"})
_CHUNK_BYTES: Final = 2**25


def read_npz(path: Path, max_bytes: int | None = None) -> Parts:
    """Read and check the arrays named in the module's table.

    Args:
        max_bytes: limit on what the archive declares (default: see `npz_members`).
    Raises:
        DataError: unreadable, an array missing, of a wrong type or shape, pixels or labels out of range.
    """
    shown = path_text(path)
    members = npz_members(path, max_bytes)
    if {"jpeg", "offsets"} <= set(members):
        raise DataError(
            f"{shown}: encoded images (arrays jpeg, offsets), expected x and y; convert it first: "
            f"luthier data convert {shown} OUT.npz"
        )
    alias = {"x": "x_train", "y": "y_train"} if {"x_train", "y_train"} <= set(members) - {"x", "y"} else {}
    keys = {name: alias.get(name, name) for name in _KNOWN}
    present = {name for name in _KNOWN if keys[name] in members}
    for name in ("x", "y"):
        if name not in present:
            raise DataError(f"{shown}: array {name!r} is missing, found {', '.join(sorted(members)) or 'none'}; add it")
    if "split" in present and present & {"x_val", "x_test"}:
        raise DataError(f"{shown}: both 'split' and 'x_val' or 'x_test' are given; keep one")
    pairs = [suffix for suffix in ("", "_val", "_test") if {f"x{suffix}", f"y{suffix}"} & present]
    for suffix in pairs:
        _check_headers(shown, members, keys, suffix, present)
    loaded = {suffix: load_array(path, keys[f"y{suffix}"]).reshape(-1) for suffix in pairs}
    class_names = _class_names(shown, path, members, loaded)
    notes: list[str] = []
    unknown = sorted(set(members) - {keys[name] for name in present})
    if unknown:
        notes.append(f"arrays not used: {', '.join(unknown)}")
    grey = members[keys["x"]].shape[3:] in ((), (1,))
    sources: dict[str, ArraySource] = {}
    for suffix in pairs:
        member = members[keys[f"x{suffix}"]]
        pixels = _eight_bit_rgb(shown, f"x{suffix}", load_array(path, keys[f"x{suffix}"]))
        sources[suffix] = in_memory(pixels, loaded[suffix].astype(np.int64))
        if member.dtype.kind == "f":
            notes.append(f"x{suffix}: {member.dtype} pixels stored as 8 bit")
        if member.shape[3:] == (4,):
            notes.append(f"x{suffix}: alpha composed on white")
    if grey:
        notes.append(f"{sum(map(len, sources.values())):,} greyscale images read as RGB by repeating the channel")
    train: ArraySource = sources[""]
    val, test = sources.get("_val"), sources.get("_test")
    if "split" in present:
        train, val, test = _by_split(shown, load_array(path, "split"), train)
    lost = class_gaps(train.labels.tolist(), len(class_names))
    if lost:
        raise DataError(
            f"{shown}: class {lost[0]} ({class_names[lost[0]]}) has no training image, labels must be 0 .. K-1 "
            "without gaps; renumber y with np.unique(y, return_inverse=True)[1]"
        )
    characters = grey and max(train.pixels.shape[2:]) <= 64
    if characters:
        notes.append(NO_MIRROR_NOTE)
    augment = "crop" if characters else "crop_flip"
    return Parts(train, val, test, class_names, tuple(notes), augment=augment)


def _check_headers(
    shown: str, members: dict[str, Member], keys: dict[str, str], suffix: str, present: set[str]
) -> None:
    for letter in "xy":
        if f"{letter}{suffix}" not in present:
            other = "y" if letter == "x" else "x"
            raise DataError(f"{shown}: array '{letter}{suffix}' is missing beside '{other}{suffix}'; add it")
    x, y = members[keys[f"x{suffix}"]], members[keys[f"y{suffix}"]]
    at = f"{shown}: {keys[f'x{suffix}']}"
    if len(x.shape) not in (3, 4) or (len(x.shape) == 4 and x.shape[3] not in (1, 3, 4)):
        first = len(x.shape) == 4 and x.shape[1] in (1, 3, 4)
        remedy = "channels come last: x.transpose(0, 2, 3, 1)" if first else "reshape it"
        raise DataError(f"{at} must have shape (N, H, W), or (N, H, W, C) with C = 1, 3 or 4, got {x.shape}; {remedy}")
    if 0 in x.shape:
        raise DataError(f"{at} must have N, H and W of at least 1, got shape {x.shape}; add images")
    if x.dtype != np.uint8 and x.dtype.kind != "f":
        raise DataError(f"{at} must be uint8, or float in [0, 1], got {x.dtype}; convert with x.astype(np.uint8)")
    if y.dtype.kind not in "iu":
        raise DataError(
            f"{shown}: {keys[f'y{suffix}']} must be integers, got {y.dtype}; convert with y.astype(np.int64)"
        )
    if y.shape not in ((x.shape[0],), (x.shape[0], 1)):
        raise DataError(
            f"{shown}: {keys[f'y{suffix}']} must have shape ({x.shape[0]},), one label for each image, got {y.shape}"
        )
    train = members[keys["x"]] if "x" in present else x
    if x.shape[1:3] != train.shape[1:3]:
        raise DataError(f"{at} must have the image size of x, {train.shape[1:3]}, got {x.shape[1:3]}; resize it")


def _class_names(
    shown: str, path: Path, members: dict[str, Member], labels: dict[str, npt.NDArray[Any]]
) -> tuple[str, ...]:
    if "class_names" in members:
        names = load_array(path, "class_names")
        if names.ndim != 1 or names.dtype.kind not in "US":
            raise DataError(f"{shown}: class_names must be text of shape (K,), got {names.dtype} {names.shape}")
        class_names = tuple(name.decode("utf-8", "replace") if isinstance(name, bytes) else str(name) for name in names)
        source = f"{len(class_names)} class_names"
    else:
        most = int(labels[""].max())
        if most >= max(10_000, len(labels[""])):
            raise DataError(
                f"{shown}: y has label {most} but only {len(labels[''])} images, labels must be 0 .. K-1; "
                "renumber with np.unique(y, return_inverse=True)[1]"
            )
        class_names = tuple(str(index) for index in range(most + 1))
        source = f"the {most + 1} classes of y"
    if len(set(class_names)) != len(class_names):
        raise DataError(f"{shown}: class_names must differ, got {', '.join(class_names)[:200]}")
    if len(class_names) < 2 and labels[""].min() >= 0:
        raise DataError(f"{shown}: at least 2 classes are needed, got {len(class_names)}; add images of another class")
    for suffix, y in labels.items():
        outside = np.flatnonzero((y < 0) | (y >= len(class_names)))
        if len(outside):
            raise DataError(
                f"{shown}: y{suffix}[{outside[0]}] must lie in 0 .. {len(class_names) - 1} ({source}), "
                f"got {y[outside[0]]}; correct {len(outside):,} label{'s' if len(outside) > 1 else ''}"
            )
    return class_names


def _eight_bit_rgb(shown: str, key: str, x: npt.NDArray[Any]) -> PixelArray:
    if x.ndim == 3:
        x = x[..., None]
    rgb = np.empty((*x.shape[:3], 3), np.uint8)
    step = max(1, _CHUNK_BYTES // max(x[0].nbytes, 1))
    for start in range(0, len(x), step):
        chunk = x[start : start + step]
        if chunk.dtype != np.uint8:
            chunk = _from_unit_interval(shown, key, chunk, start)
        rgb[start : start + step] = on_white(chunk) if chunk.shape[3] == 4 else chunk
    return rgb


def _from_unit_interval(shown: str, key: str, x: npt.NDArray[Any], start: int) -> PixelArray:
    with np.errstate(invalid="ignore"):
        bad = ~((x >= 0) & (x <= 1))
    if bad.any():
        image = int(np.flatnonzero(bad.any(axis=(1, 2, 3)))[0])
        value = x[image][bad[image]][0]
        remedy = "divide by 255, or store uint8" if np.isfinite(value) and value > 1 else "correct or remove the image"
        raise DataError(f"{shown}: {key}[{start + image}] has a pixel of {value}, floats must lie in [0, 1]; {remedy}")
    return np.rint(x.astype(np.float32) * 255).astype(np.uint8)


def _by_split(
    shown: str, split: npt.NDArray[Any], everything: ArraySource
) -> tuple[ArraySource, ArraySource | None, ArraySource | None]:
    if split.shape != (len(everything),) or split.dtype.kind not in "US":
        raise DataError(f"{shown}: split must be text of shape ({len(everything)},), got {split.dtype} {split.shape}")
    words = split.astype(str)
    strange = sorted(set(words.tolist()) - {"train", "val", "test"})
    if strange:
        raise DataError(f"{shown}: split must hold train, val or test, got {strange[0]!r}")
    rows: dict[str, Labels] = {word: np.flatnonzero(words == word) for word in ("train", "val", "test")}
    if not len(rows["train"]):
        raise DataError(f"{shown}: split names no image 'train', at least 3 of each class are needed")
    val, test = (everything.take(rows[word]) if len(rows[word]) else None for word in ("val", "test"))
    return everything.take(rows["train"]), val, test
