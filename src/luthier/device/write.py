"""A device as the text of a device file, see `luthier.device.read` for its form."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping
from dataclasses import asdict
from typing import Any

from luthier import units
from luthier.device.device import Device, EnergyTable
from luthier.device.figure import Figure
from luthier.device.read import SCHEMA
from luthier.errors import DeviceError


def device_to_text(device: Device, table: Callable[[str], EnergyTable]) -> str:
    """A device as the text of a file that `device_from_text` reads back to an equal device.

    An energy table that only adds to or overrides a table of the catalogue is written as that difference.
    """
    import tomli_w

    document = {
        "schema": SCHEMA,
        "name": device.name,
        "title": device.title,
        "kind": device.kind,
        "cores": device.cores,
        "fingerprint": device.fingerprint or None,
        "remarks": list(device.remarks) or None,
        "clock": _written(device.clock_hz, "frequency"),
        "ram": _written(device.ram_bytes, "bytes"),
        "flash": _written(device.flash_bytes, "bytes"),
        "battery": _written(device.battery_j, "energy"),
        "peak": {label: _each(figures, "rate") for label, figures in device.peak_flop_per_s.items()},
        "energy": None if device.energy is None else _energy_entries(device.energy, table),
        "memory": [
            {
                "name": level.name,
                "shared": level.shared,
                "holds": level.holds,
                "size": _written(level.size_bytes, "bytes"),
                "bandwidth": _each(level.bandwidth_bytes_per_s, "bandwidth"),
                "energy": _written(level.energy_j_per_byte, "energy_per_byte"),
            }
            for level in device.memory
        ],
        "calibration": [asdict(calibration) for calibration in device.calibrations] or None,
    }
    return tomli_w.dumps(_without_none(document))


def _written(figure: Figure | None, dimension: str) -> dict[str, str] | None:
    if figure is None:
        return None
    return {"value": units.write(figure.value, dimension), "source": figure.source, "kind": figure.kind}


def _each(figures: Mapping[Any, Figure], dimension: str) -> dict[str, Any] | None:
    return {str(key): _written(figure, dimension) for key, figure in figures.items()} or None


def _energy_entries(energy: EnergyTable, table: Callable[[str], EnergyTable]) -> dict[str, Any]:
    start, head = EnergyTable(energy.name, {}, {}), "name"
    with contextlib.suppress(DeviceError):  # a table that the catalogue lacks is written whole
        if _extends(energy, table(energy.name)):
            start, head = table(energy.name), "table"

    def changed(new: Mapping[Any, Figure], old: Mapping[Any, Figure], dimension: str) -> dict[str, Any] | None:
        return _each({key: figure for key, figure in new.items() if old.get(key) != figure}, dimension)

    sram = {units.write(size, "bytes"): figure for size, figure in energy.sram_j_per_byte.items()}
    old_sram = {units.write(size, "bytes"): figure for size, figure in start.sram_j_per_byte.items()}
    dram = None if energy.dram_j_per_byte == start.dram_j_per_byte else energy.dram_j_per_byte
    return {
        head: energy.name,
        "remark": None if energy.remark == start.remark else energy.remark,
        "add": changed(energy.add_j, start.add_j, "energy"),
        "multiply": changed(energy.multiply_j, start.multiply_j, "energy"),
        "sram": changed(sram, old_sram, "energy_per_byte"),
        "dram": _written(dram, "energy_per_byte"),
    }


def _extends(energy: EnergyTable, base: EnergyTable) -> bool:
    """Whether `energy` has all that `base` has, perhaps with other values: a file can add and override, not remove."""
    keys = (
        (base.add_j, energy.add_j),
        (base.multiply_j, energy.multiply_j),
        (base.sram_j_per_byte, energy.sram_j_per_byte),
    )
    whole = all(set(old) <= set(new) for old, new in keys)
    return whole and bool(energy.dram_j_per_byte or not base.dram_j_per_byte) and bool(energy.remark or not base.remark)


def _without_none(value: Any) -> Any:
    """TOML has no null: what is unknown is left out."""
    if isinstance(value, dict):
        return {str(key): _without_none(entry) for key, entry in value.items() if entry is not None}
    return [_without_none(entry) for entry in value] if isinstance(value, list | tuple) else value
