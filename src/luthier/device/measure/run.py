"""`luthier device measure`: what this machine's arithmetic and memory reach, as a `Device`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Final

from luthier.device import host
from luthier.device.device import Calibration, Device, EnergyTable, MemoryLevel
from luthier.device.figure import Figure
from luthier.device.jit import Cpu, host_cpu
from luthier.device.measure import kernels as vector
from luthier.device.measure import loops, matrix, stream
from luthier.device.measure.crew import Probe, Rate, Say, rates
from luthier.errors import MeasurementError

#: how much faster than the bound a figure may seem: the clock may rise between two loops
SLACK: Final = 1.15
CLOCK: Final = "clock"
#: a level's buffers are at most so many times those of the level before, lest translation misses be measured
STRETCH: Final = 8
_MEMORY_SHARE: Final = 0.125


@dataclass(frozen=True)
class Unit:
    """An instruction that is measured.

    Attributes:
        label: in `Device.peak_flop_per_s`.
        what: for people.
        make: loops of it, one per thread.
        bound: FLOP that one core could at most do in one cycle.
    """

    label: str
    what: str
    make: Callable[[], loops.Loop]
    bound: float


def measure(
    table: Callable[[str], EnergyTable],
    budget_s: float = 20.0,
    say: Say = lambda share, what: None,
    calibrations: Sequence[Callable[[Device], Calibration]] = (),
) -> Device:
    """Measure this machine.

    Args:
        table: the energy table of a name, see `luthier.device.registry.energy_table`.
        budget_s: for all loops together; compiling and calibrating come on top.
        say: told the share that is done, and what is going on.
        calibrations: each is given the measured device and measures a run time on it.
    Raises:
        MeasurementError: a loop does not do what it should.
    """
    cpu, device = host_cpu(), host.describe(table)
    cores = host.core_cpus()
    counts = thread_counts(len(cores))
    parts = units(cpu)
    sizes = {count: working_sets(device.memory, host.caches(), count) for count in counts}
    probes = [Probe((CLOCK, 1), (stream.clock(cpu),))]
    for unit in parts:
        probes += [Probe((unit.what, count), tuple(unit.make() for _ in range(count))) for count in counts]
    probes += _memory_probes(cpu, sizes, device.memory[-1].name)
    found = rates(probes, cores, budget_s, say)
    clock = found[CLOCK, 1]
    peaks = {
        label: {count: _figure(found[unit.what, count], unit.what, count) for count in counts}
        for label, unit in labelled(parts).items()
    }
    for unit in parts:
        bound = SLACK * unit.bound * clock.per_s
        if (rate := found[unit.what, 1].per_s) > bound:
            raise MeasurementError(
                f"device measure: {unit.what}: {rate / 1e9:.0f} GFLOP/s exceeds the clock's {bound / 1e9:.0f}"
            )
    levels = tuple(
        replace(
            level,
            bandwidth_bytes_per_s={
                count: _figure(
                    found[level.name, count], f"read stream over {sizes[count][level.name]} B per thread", count
                )
                for count in counts
                if (level.name, count) in found
            },
        )
        for level in device.memory
    )
    measured = replace(
        device,
        clock_hz=_figure(clock, "chain of dependent additions", 1),
        peak_flop_per_s=peaks,
        memory=levels,
        remarks=(*device.remarks, *cross_check(levels, counts)),
    )
    return replace(measured, calibrations=tuple(calibrate(measured) for calibrate in calibrations))


def units(cpu: Cpu) -> tuple[Unit, ...]:
    """Every instruction to measure: the vector unit's of each number type, and the matrix unit's."""
    found = []
    for kernel in vector.kernels(cpu):
        # no core issues more than two wide or four narrow multiplies in a cycle
        issue = 2 if kernel.width_bits > 128 else 4
        what = f"{kernel.label} {kernel.instruction}, {kernel.width_bits} bit"
        found.append(Unit(kernel.label, what, loops.arithmetic(kernel, cpu), 2.0 * kernel.macs * issue))
    for tiles in matrix.kernels(cpu):
        # sixteen rows, at most two per cycle
        bound = 2.0 * tiles.macs / 8
        what = f"{tiles.label} {tiles.instruction}, matrix unit"
        found.append(Unit(tiles.label, what, matrix.arithmetic(tiles, cpu), bound))
    return tuple(found)


def labelled(parts: Sequence[Unit]) -> dict[str, Unit]:
    """The matrix unit's figure is the peak of its number type; the vector unit's then stands beside it."""
    labelled: dict[str, Unit] = {}
    for unit in parts:
        if unit.label in labelled:
            labelled[f"{unit.label}_vector"] = labelled[unit.label]
        labelled[unit.label] = unit
    return labelled


def thread_counts(cores: int) -> tuple[int, ...]:
    """Every number of threads up to eight, then powers of two, and all cores.

    Example:
        >>> thread_counts(2), thread_counts(24)
        ((1, 2), (1, 2, 3, 4, 5, 6, 7, 8, 16, 24))
    """
    powers = [2**n for n in range(4, cores.bit_length()) if 2**n < cores]
    return tuple(sorted({*range(1, min(cores, 8) + 1), *powers, cores}))


def working_sets(memory: Sequence[MemoryLevel], caches: Sequence[host.Cache], threads: int) -> dict[str, int]:
    """Bytes that each thread reads for each level: too large for the level before, half of its share of this one.

    A level that is too small for that beside the level before it is left out.  Memory is read over at least twice the
    last cache, within an eighth of what the machine has.
    """
    found: dict[str, int] = {}
    before = 0
    for cache in caches:
        share = cache.size_bytes // min(threads, cache.cores) // 2
        if before:
            share = min(share, STRETCH * before)
        if share >= 2 * before:
            found[f"L{cache.level}"] = share
        before = cache.size_bytes // min(threads, cache.cores)
    last = max((cache.size_bytes for cache in caches), default=32 * 2**20)
    limit = (host.memory_bytes() or 2**30) * _MEMORY_SHARE
    if limit >= 2 * last:
        found[memory[-1].name] = int(2 * last // threads)
    return found


def cross_check(levels: Sequence[MemoryLevel], counts: Sequence[int]) -> tuple[str, ...]:
    """A remark for each cache whose read stream is no faster than that of the level after it."""
    remarks = []
    for count in (counts[0], counts[-1]):
        known = [(level.name, level.bandwidth_bytes_per_s[count].value) for level in levels
                 if count in level.bandwidth_bytes_per_s]  # fmt: skip
        remarks += [
            f"{near} reads no faster than {far} on {count} of the cores: its size is the system's word, not confirmed"
            for (near, fast), (far, slow) in pairwise(known)
            if fast < 1.05 * slow
        ]
    return tuple(dict.fromkeys(remarks))


def _memory_probes(cpu: Cpu, sizes: dict[int, dict[str, int]], far: str) -> list[Probe]:
    make = stream.streams(cpu)
    probes = []
    # memory is taken once and divided anew for each number of threads; probes never run beside each other
    whole = stream.buffer(max((n * levels[far] for n, levels in sizes.items() if far in levels), default=0))
    for count, levels in sizes.items():
        for name, size in levels.items():
            if name == far:
                lines = tuple(stream.pieces(cpu, part) for part in stream.split(whole, count))
            else:
                lines = tuple(make(stream.buffer(size)) for _ in range(count))
            probes.append(Probe((name, count), lines))
    return probes


def _figure(rate: Rate, what: str, threads: int) -> Figure:
    source = (
        f"luthier device measure: {what}, {threads} thread{'s' if threads > 1 else ''}, best of {rate.bursts} bursts; "
        f"the median burst reached {100 * rate.typical:.0f} % of it"
    )
    return Figure(float(f"{rate.per_s:.6g}"), source, "measured")
