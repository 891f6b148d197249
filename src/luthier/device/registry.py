"""Devices by name: the catalogue that comes with Luthier, this machine as `host`, or a file of the user's."""

from __future__ import annotations

import difflib
from functools import cache
from pathlib import Path
from typing import Final

from luthier.device import host
from luthier.device.device import Device, EnergyTable
from luthier.device.read import read_device, read_energy
from luthier.errors import DeviceError

CATALOG: Final = Path(__file__).parent / "catalog"
HOST: Final = "host"


def names() -> tuple[str, ...]:
    """What `get` knows besides files: this machine, and the catalogue in alphabetical order.

    Example:
        >>> names()[0], "stm32f746" in names()
        ('host', True)
    """
    return (HOST, *sorted(file.stem for file in CATALOG.glob("*.toml")))


def get(name_or_path: str | Path) -> Device:
    """The device of this name, or of this file if it ends in `.toml`.

    Raises:
        DeviceError: no such device or file, or a file that is not a device.
    Example:
        >>> get("STM32F746").ram_bytes.value / 1024
        320.0
    """
    text = str(name_or_path)
    if text.endswith(".toml"):
        return read_device(Path(text), energy_table)
    name = text.strip().lower().replace("-", "_")
    if name == HOST:
        return host.load(energy_table)
    return _catalogued(_known("device", name, names()))


@cache
def energy_table(name: str) -> EnergyTable:
    """An energy table of the catalogue.

    Raises:
        DeviceError: no such table.
    Example:
        >>> from luthier.arch.block import Precision
        >>> f"{energy_table('horowitz_45nm').mac(Precision.parse('int8')).value * 1e12:.1f} pJ"
        '0.3 pJ'
    """
    known = tuple(sorted(file.stem for file in (CATALOG / "energy").glob("*.toml")))
    return read_energy(CATALOG / "energy" / f"{_known('energy table', name, known)}.toml")


@cache
def _catalogued(name: str) -> Device:
    return read_device(CATALOG / f"{name}.toml", energy_table)


def _known(what: str, name: str, known: tuple[str, ...]) -> str:
    if name not in known:
        near = difflib.get_close_matches(name, known, 1)
        hint = f"did you mean {near[0]}? " if near else ""
        end = ", or a .toml file" if what == "device" else ""
        raise DeviceError(f"{what} {name!r}: unknown; {hint}known are {', '.join(known)}{end}")
    return name
