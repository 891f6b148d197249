"""How much memory this process holds, and the most that it held."""

from __future__ import annotations

import contextlib
import re
import resource
import sys
from pathlib import Path


def rss_bytes() -> int:
    """Resident now; where the system does not say, the most that ever was."""
    return _status("VmRSS")


def peak_rss_bytes() -> int:
    """The most that was resident since `reset_peak`, or since the start where that cannot be reset."""
    return _status("VmHWM")


def reset_peak() -> None:
    """Forget the peak so far (Linux)."""
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")


def _status(field: str) -> int:
    with contextlib.suppress(OSError):
        if match := re.search(rf"^{field}:\s+(\d+) kB", Path("/proc/self/status").read_text(), re.M):
            return 1024 * int(match[1])
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return most if sys.platform == "darwin" else 1024 * most
