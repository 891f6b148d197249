"""A device as data: peaks per number type, memory levels, energies.  Every figure quotes where it comes from.

What is not known is absent, never guessed: a method that needs it answers None, and tables print "unknown".
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final, Literal, get_args

from luthier.arch.block import Precision, Spec
from luthier.device.energy import EnergyTable, multiplier
from luthier.device.figure import Figure
from luthier.errors import DeviceError

__all__ = ["Calibration", "Device", "EnergyTable", "Figure", "MemoryLevel", "multiplier"]

DeviceKind = Literal["microcontroller", "cpu", "gpu", "npu"]
#: what a memory holds; a microcontroller keeps weights in flash and activations in RAM
Holds = Literal["all", "activations", "weights"]
DEVICE_KINDS: Final = get_args(DeviceKind)
HOLDS: Final = get_args(Holds)


@dataclass(frozen=True, slots=True)
class MemoryLevel:
    """One level of the memory hierarchy.

    Attributes:
        name: `L1`, `L2`, `L3`, `DRAM`, `SRAM`, `flash`.  `DRAM` is off the chip, `flash` is flash, all else is SRAM.
        size_bytes: of one instance; None = not known.
        bandwidth_bytes_per_s: reads, by the number of threads that read together.
        shared: whether all cores share one instance.
        holds: which tensors live there.
        energy_j_per_byte: of a read or write; None = the device's energy table by size.
    """

    name: str
    size_bytes: Figure | None = None
    bandwidth_bytes_per_s: Mapping[int, Figure] = field(default_factory=dict)
    shared: bool = False
    holds: Holds = "all"
    energy_j_per_byte: Figure | None = None

    def __post_init__(self) -> None:
        if self.holds not in HOLDS:
            raise DeviceError(f"MemoryLevel({self.name}): holds must be one of {', '.join(HOLDS)}, got {self.holds!r}")

    def bandwidth(self, threads: int = 1) -> Figure | None:
        """Measured with the largest number of threads that is at most `threads`; None = not known."""
        return _at_most(self.bandwidth_bytes_per_s, threads)


@dataclass(frozen=True)
class Calibration(Spec):
    """What the kernels of a run time cost on a device.

    Attributes:
        runtime: name and version.
        threads: it ran with.
        source: how it was measured.
        kernels: seconds of one unit of each kind of work, by class of kernels, see `luthier.cost.calibrated`; what
            costs nothing is left out.
        block: channels that the run time keeps together.
        cache_bytes: of the largest cache that a core has for itself, and of its share of the last one.
    """

    runtime: str
    threads: int
    source: str
    kernels: Mapping[str, Mapping[str, float]]
    block: int = 16
    cache_bytes: tuple[float, float] = (2.0**20, 2.0**24)


@dataclass(frozen=True, slots=True, kw_only=True)
class Device:
    """A machine that networks are designed for.

    Attributes:
        name: in the catalogue, lower case.
        title: for people.
        kind: of machine.
        cores: that one network may use.
        clock_hz: None = not known.
        peak_flop_per_s: by precision label (`fp32`, `int8`, `W8A16`), then by number of threads; 1 MAC = 2 FLOP.
            `int16` may stand beside the number types of networks.  A label that ends in `_vector` is the peak without
            the matrix unit, on a machine that has one: `int8_vector`.
        memory: nearest first; the last is where everything fits.
        ram_bytes, flash_bytes: what a network may fill with activations, and with weights and code.
        energy: None = no table applies.
        battery_j: of the battery that a device of this kind ships with.
        calibrations: of run times on this device.
        fingerprint: of the CPU that was measured, see `luthier.device.host`; empty for a device of the catalogue.
        remarks: what a reader of its figures must know.
    """

    name: str
    title: str
    kind: DeviceKind
    cores: int = 1
    clock_hz: Figure | None = None
    peak_flop_per_s: Mapping[str, Mapping[int, Figure]] = field(default_factory=dict)
    memory: tuple[MemoryLevel, ...] = ()
    ram_bytes: Figure | None = None
    flash_bytes: Figure | None = None
    energy: EnergyTable | None = None
    battery_j: Figure | None = None
    calibrations: tuple[Calibration, ...] = ()
    fingerprint: str = ""
    remarks: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.kind not in DEVICE_KINDS:
            raise DeviceError(f"Device({self.name}): kind must be one of {', '.join(DEVICE_KINDS)}, got {self.kind!r}")
        if self.cores < 1:
            raise DeviceError(f"Device({self.name}): cores must be at least 1, got {self.cores}")
        names = [level.name for level in self.memory]
        if len(set(names)) != len(names):
            raise DeviceError(f"Device({self.name}): two memory levels carry one name, {', '.join(names)}")
        for label, threads in [
            *self.peak_flop_per_s.items(),
            *((m.name, m.bandwidth_bytes_per_s) for m in self.memory),
        ]:
            if any(count < 1 for count in threads):
                raise DeviceError(f"Device({self.name}): {label} has a figure for {min(threads)} threads, at least 1")
        for label in self.peak_flop_per_s:
            if label.removesuffix("_vector") != "int16":
                Precision.parse(label.removesuffix("_vector"))

    def peak(self, precision: Precision, threads: int = 1) -> Figure | None:
        """Arithmetic peak for weights and activations of these number types; None = not known.

        A mixed pair without a unit of its own runs on the multiplier of its wider operand: W8A16 on the fp16 one.

        Example:
            >>> ghz = Figure(1e9, "an example")
            >>> device = Device(name="d", title="D", kind="cpu", peak_flop_per_s={"fp16": {1: ghz}})
            >>> device.peak(Precision.parse("W8A16")).value, device.peak(Precision.parse("int8"))
            (1000000000.0, None)
        """
        for label in (precision.label, multiplier(precision)):
            if label in self.peak_flop_per_s:
                return _at_most(self.peak_flop_per_s[label], threads)
        return None

    def ridge(self, level: MemoryLevel, precision: Precision, threads: int = 1) -> float | None:
        """Arithmetic intensity from which an op is bound by compute and no longer by `level`.

            ridge = peak / bandwidth        FLOP/byte                                                (1)

        Source:
            Williams et al. 2009, doi 10.1145/1498765.1498785 (roofline).
        """
        peak, bandwidth = self.peak(precision, threads), level.bandwidth(threads)
        return None if peak is None or bandwidth is None else peak.value / bandwidth.value

    def energy_per_byte(self, level: MemoryLevel) -> Figure | None:
        """Energy of reading or writing one byte of `level`, in J; None = not known.

        The level's own figure; else that of the device's energy table: for `DRAM` its memory off the chip, for an
        on-chip RAM by size (`EnergyTable.sram`).  No table says what flash costs.

        Example:
            >>> table = EnergyTable("t", {}, {}, {8192: Figure(1.25e-12, "t")}, dram_j_per_byte=Figure(2e-10, "t"))
            >>> device = Device(name="d", title="D", kind="cpu", energy=table)
            >>> level = MemoryLevel("L1", size_bytes=Figure(8192, "an example"))
            >>> device.energy_per_byte(level).value, device.energy_per_byte(MemoryLevel("DRAM")).value
            (1.25e-12, 2e-10)
        """
        if level.energy_j_per_byte is not None or self.energy is None or level.name == "flash":
            return level.energy_j_per_byte
        if level.name == "DRAM":
            return self.energy.dram_j_per_byte
        return None if level.size_bytes is None else self.energy.sram(level.size_bytes.value)


def _at_most(figures: Mapping[int, Figure], threads: int) -> Figure | None:
    known = [count for count in figures if count <= threads]
    return figures[max(known)] if known else None
