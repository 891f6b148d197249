"""Memory for plans: on large pages where it is large, or between pages that nobody may touch."""

from __future__ import annotations

import ctypes
import mmap
import sys
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from luthier.engine.layout import round_up
from luthier.errors import InputError

_LARGE_PAGE: Final = 2 << 20
_ALIGNMENT: Final = 128
_NO_ACCESS: Final = 0


def _map(what: str, length: int) -> mmap.mmap:
    """Zeroed pages of this process alone: a forked child writes to pages of its own."""
    private = {} if sys.platform == "win32" else {"flags": mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS}
    try:
        return mmap.mmap(-1, length, **private)
    except (OSError, ValueError, OverflowError) as error:
        raise InputError(f"engine: no memory for {what}: {length / 2**20:,.1f} MiB wanted ({error})") from error


class Buffer:
    """Zeroed memory; from 2 MiB on it begins on a large page, and the system is asked for those that it fills.

    Args:
        bytes: wanted.
        what: it is for, in the message of an error.
    Raises:
        InputError: there is not as much memory.

    Example:
        >>> buffer = Buffer(100, "an example")
        >>> buffer.address % 128, buffer.array(np.float32).sum()
        (0, np.float32(0.0))
    """

    def __init__(self, bytes: int, what: str) -> None:
        self.bytes = max(bytes, 4)
        large = self.bytes // _LARGE_PAGE * _LARGE_PAGE
        unit = _LARGE_PAGE if large else _ALIGNMENT
        self._map = _map(what, round_up(self.bytes, unit) + unit)
        base = ctypes.addressof(ctypes.c_char.from_buffer(self._map))
        self._start = -base % unit
        self.address = base + self._start
        if large and hasattr(mmap, "MADV_HUGEPAGE"):
            self._map.madvise(mmap.MADV_HUGEPAGE, self._start, large)

    def array(self, dtype: Any) -> NDArray[Any]:
        """All of it, as numbers."""
        return np.frombuffer(self._map, np.uint8, self.bytes, self._start).view(dtype)


class Guarded(Buffer):
    """Memory that ends (to a vector) at a page nobody may touch, and begins behind another one.

    A kernel that reads or writes past either end stops the process at once.
    """

    def __init__(self, bytes: int, what: str = "debugging") -> None:
        self.bytes = round_up(max(bytes, 4), 4)
        page = mmap.PAGESIZE
        inner = round_up(self.bytes, page)
        self._map = _map(what, inner + 2 * page)
        base = ctypes.addressof(ctypes.c_char.from_buffer(self._map))
        self._start = page + (inner - self.bytes) // 64 * 64
        self.address = base + self._start
        for guard in (base, base + page + inner):
            _protect(guard, page)


def _protect(address: int, length: int) -> None:
    """Forbid every access; where the system cannot be asked, do nothing."""
    if sys.platform == "win32":
        return
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.mprotect(ctypes.c_void_p(address), ctypes.c_size_t(length), _NO_ACCESS):
        raise OSError(ctypes.get_errno(), "mprotect")
