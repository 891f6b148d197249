"""Arrays of MATLAB files: version 5 through scipy, version 7.3 (HDF5) through h5py, read window by window."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, cast

import numpy as np
import numpy.typing as npt

from luthier.errors import DataError
from luthier.scene.cube import Pixels
from luthier.train.pixels import path_text

#: deflate cannot shrink anything by more
_MAX_EXPANSION: Final = 1032
#: bytes per number, by MATLAB's class
_BYTES: Final = {
    "int8": 1, "uint8": 1, "logical": 1, "char": 2, "int16": 2, "uint16": 2, "int32": 4, "uint32": 4, "single": 4,
    "int64": 8, "uint64": 8, "double": 8,
}  # fmt: skip


@dataclass(frozen=True)
class Hdf5Pixels:
    """A cube of a version 7.3 file, which stores its axes in reverse: (bands, W, H)."""

    path: Path
    variable: str
    shape: tuple[int, int, int]

    def read(self, rows: slice, columns: slice) -> npt.NDArray[Any]:
        """(h, w, bands).

        Raises:
            DataError: the file is damaged there.
        """
        with _hdf5(self.path) as file:
            return np.asarray(file[self.variable][:, columns, rows]).transpose(2, 1, 0)


def is_hdf5(path: Path) -> bool:
    """Whether a .mat file is of version 7.3."""
    import h5py

    return bool(h5py.is_hdf5(path))


def shapes(path: Path) -> dict[str, tuple[int, ...]]:
    """Names and shapes of all arrays of numbers, in MATLAB's order of axes; nothing is loaded.

    Raises:
        DataError: not a MATLAB file, or an array that declares more bytes than the file could hold.
    """
    from scipy.io import whosmat

    who = path_text(path)
    if is_hdf5(path):
        with _hdf5(path) as file:
            return {name: tuple(item.shape[::-1]) for name, item in file.items() if hasattr(item, "dtype")}
    with _explained(who):
        # version 4 has two axes only, and no compression: it could hold labels
        found = {name: (shape, _BYTES[kind]) for name, shape, kind in whosmat(str(path)) if kind in _BYTES}
    size = path.stat().st_size
    for name, (shape, itemsize) in found.items():
        # numbers may be stored in fewer bytes than their class has
        least = int(np.prod(shape, dtype=object)) * (1 if itemsize > 1 else itemsize)
        if least > size * _MAX_EXPANSION:
            raise DataError(
                f"{who}: {name} declares {' x '.join(map(str, shape))} numbers, but the file has {size:,} bytes; "
                "write it again"
            )
    return {name: shape for name, (shape, _) in found.items()}


def load(path: Path, variable: str) -> npt.NDArray[Any]:
    """One array as MATLAB shows it.

    Raises:
        DataError: damaged or truncated.
    """
    from scipy.io import loadmat

    if is_hdf5(path):
        with _hdf5(path) as file:
            return np.asarray(file[variable]).T
    with _explained(path_text(path)):
        return cast("npt.NDArray[Any]", loadmat(str(path), variable_names=[variable])[variable])


def pixels(path: Path, variable: str, shape: tuple[int, int, int]) -> Pixels | None:
    """The cube of a version 7.3 file without loading it; None for other versions, which cannot be read in part."""
    return Hdf5Pixels(path, variable, shape) if is_hdf5(path) else None


@contextlib.contextmanager
def _hdf5(path: Path) -> Iterator[Any]:
    import h5py

    with _explained(path_text(path)), h5py.File(path, "r") as file:
        yield file


@contextlib.contextmanager
def _explained(who: str) -> Iterator[None]:
    """Whatever a reader of binary files trips over, in one line."""
    try:
        yield
    except DataError:
        raise
    except Exception as error:  # damaged files raise anything: ValueError, KeyError, zlib.error, MatReadError, OSError
        reason = " ".join(str(error).split())[:120] or type(error).__name__
        raise DataError(f"{who}: not a MATLAB file, or damaged ({reason}); write it again") from None
