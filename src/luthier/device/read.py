"""Device files: TOML in which every figure carries its unit and its source; read and checked.

    name = "stm32f746"
    kind = "microcontroller"
    clock = { value = "216MHz", source = "ST DS10916, title page" }
    ram = { value = "320KiB", source = "..." }

    [peak.int8]
    1 = { value = "864MOP/s", source = "2 MAC/cycle x 2 OP x 216 MHz, ...", kind = "derived" }

    [[memory]]
    name = "SRAM"
    size = { value = "320KiB", source = "..." }

`per_core` in the place of thread numbers stands for one figure per core: n threads have n times as much.
"""

from __future__ import annotations

import difflib
import tomllib
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final, NoReturn, TypeVar

from luthier import units
from luthier.device.device import Calibration, Device, EnergyTable, MemoryLevel
from luthier.device.figure import Figure
from luthier.errors import DeviceError, InputError

T = TypeVar("T")
SCHEMA: Final = "luthier.device/1"
ENERGY_SCHEMA: Final = "luthier.energy/1"
PER_CORE: Final = "per_core"


def read_device(path: Path, table: Callable[[str], EnergyTable]) -> Device:
    """Read a device file.

    Args:
        path: of the TOML file.
        table: the energy table of a name, see `luthier.device.registry.energy_table`.
    Raises:
        DeviceError: cannot be read, not TOML, an unknown key, or a value that is missing, of another unit, not above
            zero or without a source; the message names the file and the key.
    """
    return device_from_text(_text(path), table, str(path))


def read_energy(path: Path) -> EnergyTable:
    """Read an energy table; raises as `read_device`."""
    root = _parse(_text(path), str(path), ENERGY_SCHEMA)
    return _energy(root, EnergyTable(root.text("name"), {}, {}))


def device_from_text(text: str, table: Callable[[str], EnergyTable], origin: str = "device.toml") -> Device:
    """Read the text of a device file; `origin` opens the message of an error."""
    root = _parse(text, origin, SCHEMA)
    root.only(
        "name", "title", "kind", "cores", "clock", "peak", "memory", "ram", "flash", "energy", "battery",
        "calibration", "fingerprint", "remarks",
    )  # fmt: skip
    cores = root.get("cores", int, 1)
    energy = None
    if "energy" in root.entries:
        node = root.child("energy")
        base = table(node.text("table")) if "table" in node.entries else EnergyTable(node.text("name"), {}, {})
        energy = _energy(node, base)
    peak = root.child("peak")
    return root.checked(
        lambda: Device(
            name=root.text("name"),
            title=root.text("title"),
            kind=root.text("kind"),  # type: ignore[arg-type]  # Device checks it
            cores=cores,
            clock_hz=root.figure("clock", "frequency"),
            peak_flop_per_s={label: peak.child(label).by_threads("rate", cores) for label in peak.entries},
            memory=tuple(_level(node, cores) for node in root.children("memory", "name")),
            ram_bytes=root.figure("ram", "bytes"),
            flash_bytes=root.figure("flash", "bytes"),
            energy=energy,
            battery_j=root.figure("battery", "energy"),
            calibrations=tuple(_calibration(node) for node in root.children("calibration", "runtime")),
            fingerprint=root.get("fingerprint", str, ""),
            remarks=tuple(root.texts("remarks")),
        )
    )


@dataclass(frozen=True)
class _Node:
    """A table of a TOML file, and where it stands."""

    origin: str
    path: str
    entries: dict[str, Any]

    def fail(self, key: str, message: str) -> NoReturn:
        where = ".".join(filter(None, (self.path, key)))
        raise DeviceError(": ".join(filter(None, (self.origin, where, message)))) from None

    def only(self, *known: str) -> None:
        for key in self.entries:
            if key not in known:
                near = difflib.get_close_matches(key, known, 1)
                hint = f"did you mean {near[0]!r}?" if near else f"known keys are {', '.join(known)}"
                self.fail(key, f"unknown key; {hint}")

    def get(self, key: str, kind: type[T], default: T | None = None) -> T:
        value = self.entries.get(key, default)
        if value is None:
            self.fail(key, "missing; it must be given")
        if not isinstance(value, kind) or isinstance(value, bool) != (kind is bool):
            self.fail(key, f"expected {_WORDS[kind]}, got {str(value)[:60]!r}")
        return value

    def text(self, key: str, default: str | None = None) -> str:
        return self.get(key, str, default)

    def texts(self, key: str) -> list[str]:
        for entry in self.get(key, list, []):
            if not isinstance(entry, str):
                self.fail(key, f"expected texts in quotes, got {str(entry)[:60]!r}")
        return self.get(key, list, [])

    def child(self, key: str) -> _Node:
        return _Node(self.origin, ".".join(filter(None, (self.path, key))), self.get(key, dict, {}))

    def children(self, key: str, label: str) -> Iterable[_Node]:
        for index, entries in enumerate(self.get(key, list, [])):
            if not isinstance(entries, dict):
                self.fail(key, f"expected [[{key}]] tables, got {str(entries)[:60]!r}")
            yield _Node(self.origin, f"{key}.{entries.get(label, index)}", entries)

    def figure(self, key: str, dimension: str) -> Figure | None:
        """The figure under `key`; None where it is absent, which means unknown."""
        if key not in self.entries:
            return None
        node = self.child(key)
        node.only("value", "source", "kind")
        # made outside of `checked`, whose key is this one
        value, source, kind = node.text("value"), node.text("source"), node.text("kind", "published")
        return node.checked(lambda: Figure(units.parse(value, dimension), source, kind))  # type: ignore[arg-type]

    def by_threads(self, dimension: str, cores: int) -> dict[int, Figure]:
        if PER_CORE in self.entries:
            self.only(PER_CORE)
            one = self.figure(PER_CORE, dimension)
            assert one is not None
            more = {n: Figure(n * one.value, f"{n} cores x {one.source}", "derived") for n in range(2, cores + 1)}
            return {1: one, **more}
        for key in self.entries:
            if not key.isdecimal():
                self.fail(key, f"expected a number of threads or {PER_CORE!r}")
        return self.figures(dimension, int)

    def figures(self, dimension: str, key: Callable[[str], Any] = str) -> dict[Any, Figure]:
        return {key(name): figure for name in self.entries if (figure := self.figure(name, dimension)) is not None}

    def checked(self, make: Callable[[], T]) -> T:
        """What `make` makes; an error of ours that names no file yet gets this place in front."""
        try:
            return make()
        except InputError as error:
            if str(error).startswith(self.origin):
                raise
            self.fail("", str(error))


_WORDS: Final = {
    str: "text in quotes", int: "a whole number", dict: "a table", list: "a list", bool: "true or false",
}  # fmt: skip


def _text(path: Path) -> str:
    try:
        return path.read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise DeviceError(f"{path}: cannot be read as a device ({error})") from None


def _parse(text: str, origin: str, schema: str) -> _Node:
    try:
        document = tomllib.loads(text)
    except (tomllib.TOMLDecodeError, RecursionError) as error:
        raise DeviceError(f"{origin}: not TOML ({error})") from None
    found = document.pop("schema", None)
    if found != schema:
        raise DeviceError(f"{origin}: schema: expected {schema!r}, got {found!r}; written by another version?")
    return _Node(origin, "", document)


def _level(node: _Node, cores: int) -> MemoryLevel:
    node.only("name", "shared", "holds", "size", "bandwidth", "energy")
    return node.checked(
        lambda: MemoryLevel(
            name=node.text("name"),
            size_bytes=node.figure("size", "bytes"),
            bandwidth_bytes_per_s=node.child("bandwidth").by_threads("bandwidth", cores),
            shared=node.get("shared", bool, False),
            holds=node.text("holds", "all"),  # type: ignore[arg-type]  # MemoryLevel checks it
            energy_j_per_byte=node.figure("energy", "energy_per_byte"),
        )
    )


def _energy(node: _Node, base: EnergyTable) -> EnergyTable:
    node.only("table", "name", "remark", "add", "multiply", "sram", "dram")
    sram = node.child("sram")
    sizes = sram.checked(lambda: {int(units.parse(size, "bytes")): size for size in sram.entries})
    return replace(
        base,
        remark=node.text("remark", base.remark),
        add_j={**base.add_j, **node.child("add").figures("energy")},
        multiply_j={**base.multiply_j, **node.child("multiply").figures("energy")},
        sram_j_per_byte={
            **base.sram_j_per_byte,
            **{size: figure for size, key in sizes.items() if (figure := sram.figure(key, "energy_per_byte"))},
        },
        dram_j_per_byte=node.figure("dram", "energy_per_byte") or base.dram_j_per_byte,
    )


def _calibration(node: _Node) -> Calibration:
    # its fields carry their units in their names, and grow with what is measured: pydantic checks them
    from pydantic import TypeAdapter, ValidationError

    try:
        return TypeAdapter(Calibration).validate_python(node.entries)
    except ValidationError as error:
        first = error.errors()[0]
        node.fail(".".join(map(str, first["loc"])), f"{first['msg']}, got {str(first.get('input'))[:60]!r}")
