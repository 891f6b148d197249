"""Hard limits, what breaks them, and the nearest network when none fits."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, fields, replace
from math import isfinite
from typing import Final, Protocol

from luthier.device import Device
from luthier.errors import InputError
from luthier.units import show, spell

#: limit -> (command-line option, what it limits, dimension in `luthier.units`, unit written behind a count)
_LIMITS: Final = {
    "max_macs": ("--max-macs", "work", "count", " MAC"),
    "max_params": ("--max-params", "parameters", "count", ""),
    "max_memory_bytes": ("--max-memory", "peak activation memory", "bytes", ""),
    "max_size_bytes": ("--max-size", "weights", "bytes", ""),
    "max_latency_s": ("--max-latency", "latency", "latency", ""),
    "max_energy_j": ("--max-energy", "energy", "energy", ""),
}


class Priced(Protocol):
    """Whatever limits can be set on: `Cost`, or the `Totals` of an analysis."""

    @property
    def params(self) -> int: ...
    @property
    def macs(self) -> int: ...
    @property
    def peak_activation_bytes(self) -> int: ...
    @property
    def weight_bytes(self) -> int: ...


@dataclass(frozen=True, slots=True)
class Violation:
    """One limit that a network breaks.

    Attributes:
        limit_name: field of `Budget`.
        limit, value: in the limit's base unit (MAC, count, bytes, s, J).
    """

    limit_name: str
    limit: float
    value: float

    @property
    def excess_ratio(self) -> float:
        """value / limit, above 1."""
        return self.value / self.limit

    @property
    def option(self) -> str:
        """The command line's word for the limit."""
        return _LIMITS[self.limit_name][0]

    @property
    def text(self) -> str:
        """One line, such as `peak activation memory 1.44 MiB exceeds --max-memory 512KiB by 187 %`."""
        option, what, dimension, unit = _LIMITS[self.limit_name]
        percent = 100 * (self.excess_ratio - 1)
        by = f"{percent:.0f} %" if percent >= 1 else "less than 1 %"
        return f"{what} {show(self.value, dimension)}{unit} exceeds {option} {spell(self.limit, dimension)} by {by}"

    @property
    def remedy(self) -> str:
        """The option, with a limit that the value keeps."""
        option, _, dimension, _ = _LIMITS[self.limit_name]
        return f"{option} {spell(self.value, dimension)}"


@dataclass(frozen=True, kw_only=True, slots=True)
class Budget:
    """Limits of a device or a wish; None = no limit.  A value that equals its limit fits.

    Attributes:
        max_macs: multiply-accumulates of one image.
        max_params: trained numbers, as published.
        max_memory_bytes: peak activations at the deployed precision, batch 1, weights excluded.
        max_size_bytes: deployed weights.
        max_latency_s: of one image.
        max_energy_j: of one image.
    Raises:
        InputError: a limit that is not above zero and finite.
    Example:
        >>> Budget(max_macs=20_000_000, max_latency_s=2e-3).text
        '--max-macs 20M --max-latency 2ms'
    """

    max_macs: int | None = None
    max_params: int | None = None
    max_memory_bytes: int | None = None
    max_size_bytes: int | None = None
    max_latency_s: float | None = None
    max_energy_j: float | None = None

    def __post_init__(self) -> None:
        for name, limit in self.limits():
            if not (isfinite(limit) and limit > 0):
                raise InputError(f"Budget: {name} must be above 0 and finite, got {limit!r}")

    def limits(self) -> Iterator[tuple[str, float]]:
        """The limits that are set, by name."""
        for field in fields(self):
            limit = getattr(self, field.name)
            if limit is not None:
                yield field.name, limit

    def with_memories(self, device: Device) -> Budget:
        """The same limits; what they leave open, the device's RAM and flash decide, if their sizes are known."""
        ram, flash = device.ram_bytes, device.flash_bytes
        return replace(
            self,
            max_memory_bytes=self.max_memory_bytes or (None if ram is None else int(ram.value)),
            max_size_bytes=self.max_size_bytes or (None if flash is None else int(flash.value)),
        )

    @property
    def text(self) -> str:
        """The limits as options of the command line."""
        return " ".join(f"{_LIMITS[name][0]} {spell(limit, _LIMITS[name][2])}" for name, limit in self.limits())

    def violations(
        self, cost: Priced, latency_s: float | None = None, energy_j: float | None = None
    ) -> tuple[Violation, ...]:
        """The limits that a network breaks, the worst first.

        Args:
            cost: of the network as deployed.
            latency_s: measured or modelled; None = not known, and its limit is not judged.
            energy_j: likewise.
        """
        values: dict[str, float | None] = {
            "max_macs": cost.macs,
            "max_params": cost.params,
            "max_memory_bytes": cost.peak_activation_bytes,
            "max_size_bytes": cost.weight_bytes,
            "max_latency_s": latency_s,
            "max_energy_j": energy_j,
        }
        broken = [
            Violation(name, limit, value)
            for name, limit in self.limits()
            if (value := values[name]) is not None and value > limit
        ]
        return tuple(sorted(broken, key=lambda v: -v.excess_ratio))


@dataclass(frozen=True, slots=True)
class Nearest:
    """The candidate that breaks the limits least.

    Attributes:
        name: of the candidate.
        violations: worst first; empty if it fits.
    """

    name: str
    violations: tuple[Violation, ...]

    @property
    def excess_ratio(self) -> float:
        """Worst value / limit; 1 if it fits."""
        return self.violations[0].excess_ratio if self.violations else 1.0

    @property
    def text(self) -> str:
        """Which network exists, what it breaks, and what would have to give; one line."""
        if not self.violations:
            return f"{self.name} fits"
        broken = "; ".join(v.text for v in self.violations)
        raised = " ".join(violation.remedy for violation in self.violations)
        return f"nearest that exists is {self.name}: {broken}; it would fit with {raised}"


def nearest(candidates: Iterable[tuple[str, tuple[Violation, ...]]]) -> Nearest:
    """The candidate with the smallest worst excess, for the message when nothing fits.

        nearest = argmin over candidates of max over limits of value / limit                         (1)

    Args:
        candidates: name and `Budget.violations` of each; the first of equals wins.
    Raises:
        InputError: there is no candidate at all.
    """
    found = [Nearest(name, violations) for name, violations in candidates]
    if not found:
        raise InputError("nearest: there is no candidate network to compare with the limits")
    return min(found, key=lambda n: n.excess_ratio)
