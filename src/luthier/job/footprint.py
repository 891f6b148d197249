"""`luthier analyze` of an exported folder: what it takes of a device's flash and RAM, read from what was exported.

    flash = code + constants + initial values of the object file's sections                          (1)
    RAM   = arena (its size as the header says it) + data sections + arrays of inputs and outputs     (2)

Not counted: the stack, of which a run takes some hundred bytes to a few KiB, and the program around the network.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from luthier.cost.budget import Budget, Violation
from luthier.deploy.embedded.manifest import Manifest, read_manifest
from luthier.deploy.embedded.object_file import read_sections
from luthier.device import Device
from luthier.errors import DataError, InputError


@dataclass(frozen=True, slots=True, kw_only=True)
class Footprint:
    """What an export takes.

    Attributes:
        manifest: of the export.
        device: title of the target.
        flash_bytes, ram_bytes: equations (1) and (2), measured.
        flash_limit, ram_limit: in bytes; None = not known, and not given.
        violations: limits that are broken.
    """

    manifest: Manifest
    device: str
    flash_bytes: int
    ram_bytes: int
    flash_limit: int | None
    ram_limit: int | None
    violations: tuple[Violation, ...]

    @property
    def fits(self) -> bool:
        """Whether no limit is broken."""
        return not self.violations


def footprint(folder: Path, device: Device, budget: Budget) -> Footprint:
    """Equations (1) and (2) against the device's memories, or the limits that are given.

    Raises:
        DataError: the folder's files are not those that were exported, or say different things.
        InputError: the device says no memory sizes and none are given, or another limit is.
    """
    manifest = read_manifest(folder)
    sections = read_sections((folder / manifest.object).read_bytes(), str(folder / manifest.object))
    said = _arena(folder / f"{manifest.name}.h", manifest.name)
    counted = (sections.code_bytes, sections.constant_bytes, sections.data_bytes + sections.zeroed_bytes, said)
    stated = (manifest.code_bytes, manifest.constant_bytes, manifest.data_bytes, manifest.arena_bytes)
    if counted != stated:
        raise DataError(f"{folder}: its object file and header say {counted}, its manifest {stated}; export it again")
    others = [name for name, _ in budget.limits() if name not in ("max_memory_bytes", "max_size_bytes")]
    if others:
        raise InputError(f"{folder}: is an export; only --max-memory and --max-size can be held against it")
    limits = budget.with_memories(device)
    ram_limit, flash_limit = limits.max_memory_bytes, limits.max_size_bytes
    if ram_limit is None and flash_limit is None:
        raise InputError(
            f"--device {device.name}: does not say how much RAM and flash it has; give --max-memory and --max-size, or "
            "another device"
        )
    ram, flash = manifest.ram_bytes, manifest.flash_bytes
    violations = [
        Violation(name, limit, value)
        for name, limit, value in (("max_size_bytes", flash_limit, flash), ("max_memory_bytes", ram_limit, ram))
        if limit is not None and value > limit
    ]
    return Footprint(
        manifest=manifest, device=device.title, flash_bytes=flash, ram_bytes=ram, flash_limit=flash_limit,
        ram_limit=ram_limit, violations=tuple(violations),
    )  # fmt: skip


def _arena(header: Path, name: str) -> int:
    found = re.search(rf"^#define {name.upper()}_ARENA_BYTES (\d+)$", header.read_text("utf-8"), re.M)
    if found is None:
        raise DataError(f"{header}: does not say {name.upper()}_ARENA_BYTES; export the network again")
    return int(found[1])
