"""The arithmetic peak of one number type alone, in a second: the floor that a benchmark's times are held against."""

from __future__ import annotations

from collections.abc import Callable

from luthier.device.host import core_cpus
from luthier.device.jit import host_cpu
from luthier.device.measure.crew import Probe, rates
from luthier.device.measure.run import labelled, units


def peak_meter(label: str, threads: int) -> Callable[[float], float]:
    """A function that measures the peak anew at each call; its loops are compiled here, once.

    Args:
        label: number type, `fp32`, `bf16` or `int8`; the matrix unit's where the CPU has one.
        threads: at most the cores that this process may use.
    Returns:
        From seconds to spend to FLOP/s (integer operations count as FLOP); 0 where the CPU has no such instruction.
    Example:
        >>> peak_meter("fp32", 1)(0.05) > 1e8
        True
    """
    cpu, cpus = host_cpu(), core_cpus()
    unit = labelled(units(cpu)).get(label)
    if unit is None or threads > len(cpus):
        return lambda budget_s: 0.0
    probe = Probe((unit.what, threads), tuple(unit.make() for _ in range(threads)))
    return lambda budget_s: rates([probe], cpus, budget_s)[probe.key].per_s
