"""What an `.npz` archive declares, checked before anything is allocated."""

from __future__ import annotations

import os
import zipfile
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, cast

import numpy as np
import numpy.typing as npt

from luthier.errors import DataError
from luthier.train.pixels import path_text

#: Declared size above which an archive is refused, all arrays together; half of the machine's memory if that is less.
MAX_NPZ_BYTES: Final = 16 * 2**30
#: Deflate cannot shrink real pixels this much; such an archive is a bomb or holds nothing but constants.
MAX_EXPANSION: Final = 500


@dataclass(frozen=True)
class Member:
    """One array of an archive, by its header alone."""

    shape: tuple[int, ...]
    dtype: np.dtype[Any]

    @property
    def nbytes(self) -> int:
        """Bytes of the decoded array."""
        return int(np.prod(self.shape, dtype=object)) * self.dtype.itemsize


def npz_members(path: Path, max_bytes: int | None = None) -> dict[str, Member]:
    """Read the header of every array.

    Args:
        max_bytes: limit on the declared size of all arrays.
    Raises:
        DataError: not a zip archive, truncated, a member that is no array, holds Python objects or lies about its
            size, or arrays larger than the limit.
    """
    shown = path_text(path)
    limit = max_bytes if max_bytes is not None else min(MAX_NPZ_BYTES, _memory_bytes() // 2)
    try:
        with zipfile.ZipFile(path) as archive:
            members = {info.filename.removesuffix(".npy"): _member(archive, info, shown) for info in archive.infolist()}
            total = sum(info.file_size for info in archive.infolist())
    except zipfile.BadZipFile as error:
        size = path.stat().st_size
        raise DataError(
            f"{shown}: not an .npz archive, or truncated ({size:,} bytes: {error}); write it with np.savez"
        ) from None
    except OSError as error:
        raise DataError(f"{shown}: cannot be read ({error.strerror or error})") from None
    if total > limit:
        raise DataError(
            f"{shown}: arrays of {total:,} bytes declared, limit {limit:,}; "
            "use a class-per-folder tree instead, whose images are read one at a time"
        )
    packed = max(path.stat().st_size, 1)
    if total > 2**26 and total / packed > MAX_EXPANSION:
        raise DataError(
            f"{shown}: {packed:,} bytes would expand to {total:,}, limit {MAX_EXPANSION}-fold; "
            "if the data is sound, write it uncompressed with np.savez"
        )
    return members


def load_array(path: Path, key: str) -> npt.NDArray[Any]:
    """Read one array whose header was accepted.

    Raises:
        DataError: its bytes are damaged or end early.
    """
    shown = path_text(path)
    try:
        with np.load(path, allow_pickle=False) as archive:
            return cast("npt.NDArray[Any]", archive[key])
    except (zipfile.BadZipFile, zlib.error, EOFError, ValueError, OSError) as error:
        raise DataError(_damaged(shown, key, error)) from None


def _member(archive: zipfile.ZipFile, info: zipfile.ZipInfo, shown: str) -> Member:
    try:
        with archive.open(info) as stream:
            version = np.lib.format.read_magic(stream)
            read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
            shape, _, dtype = read(stream)
            header_bytes = stream.tell()
    except (zipfile.BadZipFile, zlib.error) as error:
        raise DataError(_damaged(shown, info.filename.removesuffix(".npy"), error)) from None
    except (ValueError, EOFError, RuntimeError, NotImplementedError) as error:
        reason = " ".join(str(error).split())
        raise DataError(
            f"{shown}: member {info.filename!r} is not a NumPy array ({reason}); write it with np.savez"
        ) from None
    if dtype.hasobject:
        raise DataError(
            f"{shown}: array {info.filename.removesuffix('.npy')!r} holds Python objects (dtype object), which are "
            "never loaded because unpickling can run code; store plain numbers, or text as np.array([...], dtype=str)"
        )
    member = Member(tuple(int(n) for n in shape), dtype)
    if member.nbytes + header_bytes != info.file_size:
        raise DataError(
            f"{shown}: array {info.filename!r} declares {member.nbytes:,} bytes for shape {member.shape} "
            f"but {info.file_size - header_bytes:,} are stored; write the archive again"
        )
    return member


def _damaged(shown: str, key: str, error: Exception) -> str:
    reason = " ".join(str(error).split())
    return f"{shown}: array {key!r} is damaged or truncated ({reason}); write the archive again"


def _memory_bytes() -> int:
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
