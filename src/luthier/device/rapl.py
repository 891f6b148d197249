"""The processor's own energy counters (Intel's and AMD's RAPL), where the system lets a program read them.

    energy of one call = sum over zones of (counter after - counter before) mod range / calls            (1)

Linux shows a counter per zone as files: `energy_uj` counts microjoules and starts again at 0 behind
`max_energy_range_uj`.  A package's zone holds its cores, so only the zones `package-N` and `dram` are added, and of a
package's parts only the memory.  What else runs on the machine is in the counters too: measure on an idle one.

Source: Linux, Documentation/power/powercap/powercap.rst; David et al. 2010, doi 10.1145/1840845.1840883.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final

POWERCAP: Final = Path("/sys/class/powercap")
_COUNTED: Final = ("package", "dram")


def counters(root: Path = POWERCAP) -> dict[Path, int]:
    """Microjoules by zone; none where there is no counter, or none that this user may read.

    Args:
        root: of the zones.
    """
    found: dict[Path, int] = {}
    for zone in sorted(root.glob("*:*")):
        try:
            if (zone / "name").read_text().strip().startswith(_COUNTED):
                found[zone] = int((zone / "energy_uj").read_text())
        except (OSError, ValueError):  # readable by root alone since 2020 (CVE-2020-8694)
            continue
    return found


def spent_j(before: Mapping[Path, int], after: Mapping[Path, int]) -> float:
    """Energy between two readings, in J; a counter that started again did so once.

    Example:
        >>> spent_j({Path("package-0"): 250}, {Path("package-0"): 1_000_250})
        1.0
    """
    total_uj = 0
    for zone, start in before.items():
        end = after[zone]
        if end < start:
            end += int((zone / "max_energy_range_uj").read_text()) + 1
        total_uj += end - start
    return total_uj / 1e6


def measured_energy_j(run: Callable[[], int], root: Path = POWERCAP) -> float | None:
    """Equation (1) for one of the calls that `run` makes, idle power included; None where nothing can be read.

    Args:
        run: makes at least one call, long enough for the counters, which move about every millisecond; returns how
            many it made.
        root: of the zones.
    """
    before = counters(root)
    if not before:
        return None
    calls = run()
    return spent_j(before, counters(root)) / calls
