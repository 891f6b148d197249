"""Leave to use the matrix unit of x86 CPUs (AMX): Linux gives its registers to a process that asks."""

from __future__ import annotations

import ctypes
import platform
import sys
from functools import cache

_ARCH_PRCTL, _REQUEST_PERMISSION, _TILE_DATA = 158, 0x1023, 18


@cache
def permitted() -> bool:
    """Ask, once for the process and the threads that it will begin; False where there is no such unit or no leave."""
    if not sys.platform.startswith("linux") or platform.machine() != "x86_64":
        return False
    try:
        return bool(ctypes.CDLL(None).syscall(_ARCH_PRCTL, _REQUEST_PERMISSION, _TILE_DATA) == 0)
    except (OSError, AttributeError):
        return False
