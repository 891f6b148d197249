"""A device as data: peaks per number type, memory levels, energies.  Every figure quotes where it comes from.

What is not known is absent, never guessed: a method that needs it answers None, and tables print "unknown".
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from math import isfinite
from typing import Final, Literal, get_args

from luthier.arch.block import BITS, NumberType, Precision
from luthier.errors import SpecError

FigureKind = Literal["measured", "published", "derived"]
DeviceKind = Literal["microcontroller", "cpu", "gpu", "npu"]
#: what a memory holds; a microcontroller keeps weights in flash and activations in RAM
Holds = Literal["all", "activations", "weights"]
DEVICE_KINDS: Final = get_args(DeviceKind)


@dataclass(frozen=True, slots=True)
class Figure:
    """One number of a device, in its base unit, and where it comes from.

    Attributes:
        value: in FLOP/s, bytes/s, bytes, Hz or J; above zero.
        source: document and place, or how it was measured.
        kind: `measured` here, `published` by the maker or a paper, `derived` from published numbers by stated steps.
    """

    value: float
    source: str
    kind: FigureKind = "published"

    def __post_init__(self) -> None:
        if not (isfinite(self.value) and self.value > 0):
            raise SpecError(f"Figure: value must be above 0 and finite, got {self.value!r}")
        if not self.source.strip():
            raise SpecError(f"Figure: the source of {self.value!r} must be stated; leave out a figure that has none")


@dataclass(frozen=True, slots=True)
class MemoryLevel:
    """One level of the memory hierarchy.

    Attributes:
        name: `L1`, `L2`, `L3`, `DRAM`, `SRAM`, `flash`.
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

    def bandwidth(self, threads: int = 1) -> Figure | None:
        """Measured with the largest number of threads that is at most `threads`; None = not known."""
        return _at_most(self.bandwidth_bytes_per_s, threads)


@dataclass(frozen=True, slots=True)
class EnergyTable:
    """Energy of arithmetic and of memory.

    Attributes:
        name: of the table.
        add_j, multiply_j: of one operation, by number type (`int32` is the integer accumulator) or, for a device with
            a mixed unit, by label (`W8A16`).
        sram_j_per_byte: by the memory's size in bytes.
        dram_j_per_byte: of memory off the chip.
    """

    name: str
    add_j: Mapping[str, Figure]
    multiply_j: Mapping[str, Figure]
    sram_j_per_byte: Mapping[int, Figure] = field(default_factory=dict)
    dram_j_per_byte: Figure | None = None


@dataclass(frozen=True, slots=True)
class OpEfficiency:
    """How near a run time comes to the roofline for one class of ops, measured.

    Attributes:
        compute_share: of the peak, above 0.
        bandwidth_share: of the bandwidth, above 0.
        overhead_s: of one op.
    """

    compute_share: float
    bandwidth_share: float
    overhead_s: float


@dataclass(frozen=True, slots=True)
class Calibration:
    """A run time's efficiencies on a device.

    Attributes:
        runtime: name and version.
        threads: it ran with.
        source: how it was measured.
        ops: by class of ops, see `luthier.cost.latency`.
        kernels: seconds of one unit of each kind of work, by class of kernels, see `luthier.cost.calibrated`; what
            costs nothing is left out.  Empty = not measured.
        block: channels that the run time keeps together.
        cache_bytes: of the largest cache that a core has for itself, and of its share of the last one.
    """

    runtime: str
    threads: int
    source: str
    ops: Mapping[str, OpEfficiency]
    kernels: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
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
        memory: nearest first; the last is where everything fits.
        ram_bytes, flash_bytes: what a network may fill with activations, and with weights and code.
        energy: None = no table applies.
        battery_j: of the battery that a device of this kind ships with.
        calibrations: of run times on this device.
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

    def __post_init__(self) -> None:
        if self.kind not in DEVICE_KINDS:
            raise SpecError(f"Device({self.name}): kind must be one of {', '.join(DEVICE_KINDS)}, got {self.kind!r}")
        if self.cores < 1:
            raise SpecError(f"Device({self.name}): cores must be at least 1, got {self.cores}")
        names = [level.name for level in self.memory]
        if len(set(names)) != len(names):
            raise SpecError(f"Device({self.name}): two memory levels carry one name, {', '.join(names)}")

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


def multiplier(precision: Precision) -> NumberType:
    """Number type of the multiplier that a pair of operands needs where there is no mixed unit: the wider one.

    Example:
        >>> multiplier(Precision.parse("W8A16")), multiplier(Precision.parse("W4A8"))
        ('fp16', 'int8')
    """
    pair = (precision.activation, precision.weight)
    return max(pair, key=lambda number: BITS[number])


def _at_most(figures: Mapping[int, Figure], threads: int) -> Figure | None:
    known = [count for count in figures if count <= threads]
    return figures[max(known)] if known else None
