"""What `luthier analyze` says of exported folders."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from luthier.cli import output
from luthier.cost.budget import Budget
from luthier.units import show

if TYPE_CHECKING:
    from luthier.device import Device
    from luthier.job.footprint import Footprint


def show_footprints(folders: Sequence[str], device: Device, budget: Budget, *, as_json: bool) -> None:
    """Flash and RAM of each, on a device."""
    from luthier.job.footprint import footprint

    found = [footprint(Path(folder), device, budget) for folder in folders]
    for folder, one in zip(folders, found, strict=True):
        made = one.manifest
        output.say(f"{folder}: {made.network} for {made.target} in {made.precision}, on {one.device}")
        output.say(
            f"flash {_of(one.flash_bytes, one.flash_limit)}: code {show(made.code_bytes, 'bytes')}, constants "
            f"{show(made.constant_bytes, 'bytes')}; measured, sections of {made.object}"
        )
        output.say(
            f"RAM {_of(one.ram_bytes, one.ram_limit)}: arena {show(made.arena_bytes, 'bytes')}, inputs and outputs "
            f"{show(one.ram_bytes - made.arena_bytes - made.data_bytes, 'bytes')}; measured, without the stack"
        )
        said = "; ".join(violation.text for violation in one.violations)
        output.say(f"does not fit: {said}" if said else "fits")
    if as_json:
        documents = [_document(folder, one) for folder, one in zip(folders, found, strict=True)]
        output.document("analyze", documents[0] if len(documents) == 1 else {"models": documents})


def _of(value: int, limit: int | None) -> str:
    return show(value, "bytes") + ("" if limit is None else f" of {show(limit, 'bytes')}")


def _document(folder: str, found: Footprint) -> dict[str, Any]:
    made = found.manifest
    return {
        "model": folder, "network": made.network, "device": found.device, "target": made.target,
        "precision": made.precision, "flash_bytes": found.flash_bytes, "flash_bytes_kind": "measured",
        "ram_bytes": found.ram_bytes, "ram_bytes_kind": "measured", "code_bytes": made.code_bytes,
        "constant_bytes": made.constant_bytes, "arena_bytes": made.arena_bytes,
        "flash_limit_bytes": found.flash_limit, "ram_limit_bytes": found.ram_limit, "fits": found.fits,
        "violations": [violation.text for violation in found.violations],
    }  # fmt: skip
