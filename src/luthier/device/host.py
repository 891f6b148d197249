"""This machine: what its operating system says of it, and the profile that `luthier device measure` keeps."""

from __future__ import annotations

import hashlib
import os
import platform
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from luthier import files, units
from luthier.device.device import Device, EnergyTable, MemoryLevel
from luthier.device.figure import Figure
from luthier.device.read import read_device
from luthier.device.write import device_to_text
from luthier.errors import DeviceError, UnitError

ENERGY: Final = "horowitz_45nm"
SYSTEM: Final = Path("/sys/devices/system/cpu")
CPUINFO: Final = Path("/proc/cpuinfo")
MEASURE: Final = "run `luthier device measure`"
#: lines of /proc/cpuinfo that tell one CPU from another; x86 names first, then Arm's
_IDENTITY: Final = (
    "vendor_id", "cpu family", "model", "model name", "stepping", "flags",
    "CPU implementer", "CPU architecture", "CPU variant", "CPU part", "CPU revision", "Features",
)  # fmt: skip


@dataclass(frozen=True)
class Cache:
    """A data or unified cache as the operating system describes it.

    Attributes:
        cores: physical ones, of those that this process may use, that share one instance.
    """

    level: int
    size_bytes: int
    cores: int


def home() -> Path:
    """Where Luthier keeps what it learns of devices: LUTHIER_HOME, else below the user's data folder."""
    named = os.environ.get("LUTHIER_HOME")
    data = os.environ.get("XDG_DATA_HOME")
    return Path(named) if named else (Path(data) if data else Path.home() / ".local" / "share") / "luthier"


def profile_path() -> Path:
    """Where the profile of this machine is kept."""
    return home() / "devices" / "host.toml"


def predictor_path(device: str) -> Path:
    """Where the latency predictor of a device is kept.

    Raises:
        DeviceError: a name that no file can have.
    """
    if not re.fullmatch(r"[\w.-]+", device) or device.startswith("."):
        raise DeviceError(f"device {device!r}: a predictor's name has letters, digits, '.', '_' and '-' only")
    return home() / "predictors" / f"{device}.json"


def load(table: Callable[[str], EnergyTable]) -> Device:
    """This machine: its stored profile, else what is known without measuring.

    A profile of another CPU (a home folder shared by machines) is not used; a remark of the device says so.

    Raises:
        DeviceError: the profile is damaged.
    """
    path = profile_path()
    if not path.is_file():
        return describe(table, f"peaks and bandwidths of this machine are unknown; {MEASURE}")
    try:
        stored = read_device(path, table)
    except DeviceError as error:
        raise DeviceError(f"{error}; {MEASURE} to write it anew") from None
    if stored.fingerprint != fingerprint():
        return describe(table, f"{path}: measured on another CPU ({stored.title}), so it is not used; {MEASURE}")
    return stored


def store(device: Device, table: Callable[[str], EnergyTable]) -> Path:
    """Write the profile of this machine, whole or not at all; returns its path.

    Raises:
        RunFolderError: the folder cannot be written to, or the disk is full.
    """
    path = profile_path()
    files.write_text(path, device_to_text(device, table))
    return path


def describe(table: Callable[[str], EnergyTable], *remarks: str) -> Device:
    """What can be known of this machine without measuring: name, cores, sizes of caches and of memory."""
    cores = physical_cores()
    levels = [
        MemoryLevel(
            name=f"L{cache.level}",
            size_bytes=Figure(cache.size_bytes, f"the CPU itself, by way of {SYSTEM}", "published"),
            shared=cache.cores >= cores > 1,
        )
        for cache in caches()
    ]
    memory = memory_bytes()
    size = None if memory is None else Figure(memory, "physical memory, by way of the operating system", "published")
    energy = table(ENERGY)
    return Device(
        name="host",
        title=cpu_name(),
        kind="cpu",
        cores=cores,
        memory=(*levels, MemoryLevel("DRAM", size_bytes=size, shared=True)),
        ram_bytes=size,
        energy=energy,
        fingerprint=fingerprint(),
        remarks=remarks,
    )


def fingerprint() -> str:
    """Of this CPU: equal on equal CPUs with as many usable cores and the same caches, different otherwise."""
    found = _cpuinfo()
    seen = [platform.machine(), *(f"{key}={found.get(key, '')}" for key in _IDENTITY)]
    seen += [cpu_name(), str(physical_cores()), *map(str, caches())]
    return hashlib.sha256("\n".join(seen).encode()).hexdigest()[:16]


def cpu_name() -> str:
    """The model as the operating system calls it."""
    found = _cpuinfo()
    return found.get("model name") or found.get("Model") or platform.processor() or platform.machine()


def usable_cpus() -> tuple[int, ...]:
    """Numbers of the logical CPUs that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return tuple(sorted(os.sched_getaffinity(0)))
    return tuple(range(os.cpu_count() or 1))


def core_cpus() -> tuple[int, ...]:
    """One logical CPU of each physical core that this process may use."""
    first: dict[str, int] = {}
    for cpu in usable_cpus():
        siblings = _line(SYSTEM / f"cpu{cpu}" / "topology" / "thread_siblings_list") or str(cpu)
        first.setdefault(siblings, cpu)
    return tuple(first.values())


def physical_cores() -> int:
    """How many physical cores this process may use."""
    return len(core_cpus())


def caches() -> tuple[Cache, ...]:
    """Data and unified caches of the first usable core, nearest first; empty where the system does not tell."""
    found = []
    for index in sorted((SYSTEM / f"cpu{usable_cpus()[0]}" / "cache").glob("index*")):
        size, level = _line(index / "size"), _line(index / "level")
        if _line(index / "type") not in ("Data", "Unified") or not size or not level:
            continue
        try:
            # the kernel writes 48K for 48 KiB
            bytes_ = int(units.parse(re.sub("([KMG])$", r"\1iB", size), "bytes"))
        except UnitError:
            continue
        sharing = _listed(_line(index / "shared_cpu_list"))
        found.append(Cache(int(level), bytes_, max(len(sharing.intersection(core_cpus())), 1)))
    return tuple(sorted(found, key=lambda cache: cache.level))


def memory_bytes() -> int | None:
    """Physical memory; None where the system does not tell."""
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError, OSError):
        return None


def _listed(cpus: str) -> set[int]:
    """The numbers in a list of the kernel: 0-3,8 are five."""
    ranges = [part.split("-") for part in cpus.split(",") if part]
    return {cpu for ends in ranges for cpu in range(int(ends[0]), int(ends[-1]) + 1)}


def _cpuinfo() -> dict[str, str]:
    """Keys of the first processor."""
    lines = (_text(CPUINFO) or "").partition("\n\n")[0].splitlines()
    pairs = (line.partition(":") for line in lines)
    return {key.strip(): value.strip() for key, _, value in pairs}


def _line(path: Path) -> str:
    return (_text(path) or "").strip()


def _text(path: Path) -> str | None:
    try:
        return path.read_text("utf-8")
    except (OSError, UnicodeDecodeError):
        return None
