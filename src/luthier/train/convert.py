"""From a store of JPEG images in one `.npz` to a plain `.npz`, and to a class-per-folder tree.

The store holds

    jpeg         (bytes,) uint8, the encoded images end to end
    offsets      (N+1,) integers, image i is jpeg[offsets[i]:offsets[i+1]]
    labels       (N,) integers 0 .. K-1
    is_test      optional, (N,) bool
    class_names  optional, (K,) text

and becomes `x` (N, H, W, 3) uint8, `y` (N,) int64, `split` (N,) and `class_names`, or files
`train/CLASS/00000.jpg` and `test/CLASS/...` that hold the very bytes of the store.

    luthier data convert cifar10.npz plain.npz --tree folder
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from luthier.errors import DataError
from luthier.train.npz_members import load_array, npz_members
from luthier.train.pixels import PixelArray, path_text, read_rgb


@dataclass(frozen=True, eq=False)
class JpegStore:
    """An opened store.

    Attributes:
        path: where it came from; opens messages.
        jpeg: (bytes,) uint8.
        offsets: (N+1,) int64, rising.
        labels: (N,) int64.
        is_test: (N,) bool, or none if the store names no test images.
        class_names: one per class.
    """

    path: Path
    jpeg: PixelArray = field(repr=False)
    offsets: npt.NDArray[np.int64] = field(repr=False)
    labels: npt.NDArray[np.int64] = field(repr=False)
    is_test: npt.NDArray[np.bool_] | None = field(repr=False)
    class_names: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.labels)

    def encoded(self, i: int) -> bytes:
        """The JPEG bytes of image `i`."""
        return self.jpeg[self.offsets[i] : self.offsets[i + 1]].tobytes()

    def pixels(self, i: int) -> PixelArray:
        """Image `i` as (H, W, 3) uint8 RGB."""
        return read_rgb(self.encoded(i), f"{path_text(self.path)}: image {i}")[0]

    def split(self, i: int) -> str:
        """`train` or `test`; `train` if the store does not say."""
        return "test" if self.is_test is not None and self.is_test[i] else "train"


def read_store(path: Path) -> JpegStore:
    """Open and check a store; images are decoded later.

    Raises:
        DataError: unreadable, an array missing, or arrays that contradict each other.
    """
    shown = path_text(path)
    if not path.is_file():
        raise DataError(f"{shown}: no such file; expected an .npz store with arrays jpeg, offsets and labels")
    members = npz_members(path)
    missing = [key for key in ("jpeg", "offsets", "labels") if key not in members]
    if missing:
        raise DataError(
            f"{shown}: not a store of JPEG images, array {missing[0]!r} is missing, "
            f"found {', '.join(sorted(members)) or 'none'}"
        )
    jpeg, offsets, labels = (load_array(path, key) for key in ("jpeg", "offsets", "labels"))
    n = len(labels) if labels.ndim == 1 else -1
    if jpeg.ndim != 1 or jpeg.dtype != np.uint8:
        raise DataError(f"{shown}: jpeg must be uint8 of shape (bytes,), got {jpeg.dtype} {jpeg.shape}")
    if n < 1 or labels.dtype.kind not in "iu":
        raise DataError(f"{shown}: labels must be integers of shape (N,), got {labels.dtype} {labels.shape}")
    if offsets.shape != (n + 1,) or offsets.dtype.kind not in "iu":
        raise DataError(f"{shown}: offsets must be integers of shape ({n + 1},), got {offsets.dtype} {offsets.shape}")
    starts = offsets.astype(np.int64)
    if starts[0] < 0 or starts[-1] > len(jpeg) or (np.diff(starts) <= 0).any():
        raise DataError(f"{shown}: offsets must rise from 0 to at most {len(jpeg)}, the length of jpeg")
    is_test = load_array(path, "is_test") if "is_test" in members else None
    if is_test is not None and (is_test.shape != (n,) or is_test.dtype != np.bool_):
        raise DataError(f"{shown}: is_test must be bool of shape ({n},), got {is_test.dtype} {is_test.shape}")
    names = _names(shown, load_array(path, "class_names") if "class_names" in members else None, labels)
    return JpegStore(path, jpeg, starts, labels.astype(np.int64), is_test, names)


def store_to_npz(store: JpegStore, out: Path) -> tuple[int, int, int, int]:
    """Decode every image and write `x`, `y`, `split` (if the store has one) and `class_names`, uncompressed.

    Returns:
        The shape of x, (N, H, W, 3).
    Raises:
        DataError: `out` exists or cannot be written, images of several sizes, or a damaged one.
    """
    first = store.pixels(0)
    x = np.empty((len(store), *first.shape), np.uint8)
    for i in range(len(store)):
        pixels = store.pixels(i)
        if pixels.shape != first.shape:
            raise DataError(
                f"{path_text(store.path)}: image {i} is {pixels.shape[1]} x {pixels.shape[0]} pixels, an .npz needs "
                f"one size, {first.shape[1]} x {first.shape[0]} like image 0; convert to a folder with --tree"
            )
        x[i] = pixels
    arrays: dict[str, npt.NDArray[Any]] = {"x": x, "y": store.labels, "class_names": np.array(store.class_names)}
    if store.is_test is not None:
        arrays["split"] = np.where(store.is_test, "test", "train")

    def write(temporary: Path) -> None:
        with open(temporary, "wb") as stream:
            np.savez(stream, **arrays)  # type: ignore[arg-type]
            stream.flush()
            os.fsync(stream.fileno())

    _all_or_nothing(out, write)
    return x.shape[0], x.shape[1], x.shape[2], x.shape[3]


def store_to_tree(store: JpegStore, out: Path) -> int:
    """Write each image's own bytes to `out/train/CLASS/NUMBER.jpg` or `out/test/...`.

    Without `is_test` the class folders lie directly in `out`.  A reader numbers classes by sorted folder name, so
    their numbers may differ from the store's; their names do not.

    Returns:
        The number of files.
    Raises:
        DataError: `out` exists or cannot be written, or class names that no folder can have.
    """
    folders = [name.strip().replace("/", "_").replace("\\", "_") for name in store.class_names]
    bad = [name for name in folders if not name or name.startswith(".") or "\0" in name]
    if bad or len(set(folders)) < len(folders):
        raise DataError(f"{path_text(store.path)}: class_names must give different folder names, got {folders}")
    width = max(5, len(str(len(store) - 1)))

    def write(temporary: Path) -> None:
        splits = sorted({store.split(i) for i in range(len(store))}) if store.is_test is not None else [""]
        for split in splits:
            for folder in folders:
                (temporary / split / folder).mkdir(parents=True)
        for i in range(len(store)):
            split = store.split(i) if store.is_test is not None else ""
            target = temporary / split / folders[store.labels[i]] / f"{i:0{width}d}.jpg"
            target.write_bytes(store.encoded(i))

    _all_or_nothing(out, write)
    return len(store)


def _names(shown: str, given: npt.NDArray[Any] | None, labels: npt.NDArray[Any]) -> tuple[str, ...]:
    if given is not None and (given.ndim != 1 or given.dtype.kind != "U"):
        raise DataError(f"{shown}: class_names must be text of shape (K,), got {given.dtype} {given.shape}")
    names = tuple(map(str, given)) if given is not None else tuple(map(str, range(int(labels.max()) + 1)))
    if labels.min() < 0 or labels.max() >= len(names):
        raise DataError(f"{shown}: labels must lie in 0 .. {len(names) - 1}, got {labels.min()} .. {labels.max()}")
    return names


def _all_or_nothing(out: Path, write: Callable[[Path], None]) -> None:
    """Write beside `out` and rename, so that `out` is whole or absent."""
    shown = path_text(out)
    if out.exists():
        raise DataError(f"{shown}: exists, nothing is written over; remove it or choose another name")
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        workplace = Path(tempfile.mkdtemp(prefix=f".{out.name}.", dir=out.parent))
    except OSError as error:
        raise DataError(f"{shown}: cannot be written ({error.strerror or error}); choose another place") from None
    try:
        write(workplace / out.name)
        (workplace / out.name).rename(out)
    except OSError as error:
        raise DataError(
            f"{shown}: cannot be written ({error.strerror or error}); free space or choose another place"
        ) from None
    finally:
        shutil.rmtree(workplace, ignore_errors=True)
