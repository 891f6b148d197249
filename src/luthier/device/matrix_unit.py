"""Leave to use the matrix unit of x86 CPUs (AMX), which Linux gives to processes that ask."""

from __future__ import annotations

import ctypes
import platform
import sys
from functools import cache

_ARCH_PRCTL, _REQUEST_PERMISSION, _TILE_DATA = 158, 0x1023, 18


@cache
def permitted() -> bool:
    """Ask for the tile registers, which a process must do once before it uses them; False where there are none.

    Example:
        >>> permitted() in (True, False)
        True
    """
    if not sys.platform.startswith("linux") or platform.machine() != "x86_64":
        return False
    try:
        return bool(ctypes.CDLL(None).syscall(_ARCH_PRCTL, _REQUEST_PERMISSION, _TILE_DATA) == 0)
    except (OSError, AttributeError):
        return False
