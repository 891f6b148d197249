"""Quantities as people write them: `2ms`, `512KiB`, `20M`, `10m`, `3mJ`; parsed to SI base numbers and printed back.

The dimension decides what a suffix means, so `10m` is ten minutes as a time limit and an error as a number of bytes.
Bytes follow IEC 80000-13 (KiB = 1024 B, kB = 1000 B); counts are decimal (20M = 20,000,000).

Example:
    >>> parse("2ms", "latency"), parse("512KiB", "bytes"), parse("1.5M", "count")
    (0.002, 524288, 1500000)
    >>> show(0.00213, "latency"), show(1505280, "bytes"), show(385_800_000, "count")
    ('2.13 ms', '1.44 MiB', '385.8 M')
"""

from __future__ import annotations

import math
import re
from typing import Final

from luthier.errors import UnitError

_LATENCY: Final = {"ns": 1e-9, "us": 1e-6, "µs": 1e-6, "ms": 1e-3, "s": 1.0}
_DURATION: Final = {"s": 1.0, "sec": 1.0, "m": 60.0, "min": 60.0, "h": 3600.0, "d": 86400.0}
_BYTES: Final = {
    "B": 1.0, "kB": 1e3, "KB": 1e3, "MB": 1e6, "GB": 1e9,
    "KiB": 2.0**10, "MiB": 2.0**20, "GiB": 2.0**30, "TiB": 2.0**40,
}  # fmt: skip
_SI: Final = {"": 1.0, "k": 1e3, "M": 1e6, "G": 1e9, "T": 1e12, "P": 1e15}
_RATE: Final = {f"{prefix}{unit}/s": factor for unit in ("FLOP", "OP") for prefix, factor in _SI.items()}
_BANDWIDTH: Final = {f"{prefix}B/s": factor for prefix, factor in _SI.items()}
_FREQUENCY: Final = {"Hz": 1.0, "kHz": 1e3, "MHz": 1e6, "GHz": 1e9}
_ENERGY: Final = {
    "pJ": 1e-12, "nJ": 1e-9, "uJ": 1e-6, "µJ": 1e-6, "mJ": 1e-3, "J": 1.0, "kJ": 1e3, "mWh": 3.6, "Wh": 3600.0,
}  # fmt: skip
_ENERGY_PER_BYTE: Final = {f"{unit}/B": factor for unit, factor in _ENERGY.items() if unit.endswith("J")}
_COUNT: Final = {"": 1.0, "k": 1e3, "K": 1e3, "M": 1e6, "G": 1e9, "B": 1e9}

#: dimension -> (suffix -> factor to the base unit)
UNITS: Final[dict[str, dict[str, float]]] = {
    "latency": _LATENCY, "duration": _DURATION, "bytes": _BYTES, "energy": _ENERGY, "count": _COUNT,
    "rate": _RATE, "bandwidth": _BANDWIDTH, "frequency": _FREQUENCY,
    "energy_per_byte": _ENERGY_PER_BYTE, "pixels": {"px": 1.0},
}  # fmt: skip
_WHOLE: Final = frozenset({"bytes", "count", "pixels"})
# a comma only between groups of three digits: 1,5ms must not be read as 15 ms
_QUANTITY: Final = re.compile(
    r"\s*((?:[0-9]{1,3}(?:,[0-9]{3})+|[0-9][0-9_]*)\.?[0-9]*(?:[eE][+-]?[0-9]+)?|\.[0-9]+)\s*([A-Za-zµ/]*)\s*"
)


def parse(text: str, dimension: str, name: str = "quantity") -> float:
    """Read one quantity.

    Args:
        text: digits and a suffix, such as `2ms` or `512 KiB`.
        dimension: `latency` (s), `duration` (s), `bytes`, `energy` (J), `count`, `rate` (FLOP/s; an integer operation
            counts as one), `bandwidth` (bytes/s), `frequency` (Hz) or `energy_per_byte` (J/byte).
        name: what the value is for (`--max-latency`); opens the error message.
    Returns:
        The value in the base unit: seconds, bytes, joules, a plain count, or one of these per second.  Bytes and
        counts are whole numbers.
    Raises:
        UnitError: no number, an unknown suffix, a missing one, or a value that is not above zero and finite.
    Example:
        >>> parse("10m", "duration")
        600.0
    """
    units = UNITS[dimension]
    known = " ".join(u for u in units if u) + (" or no suffix" if "" in units else "")
    match = _QUANTITY.fullmatch(text)
    if match is None:
        raise UnitError(f"{name}: expected a number with a unit ({known}), got {text!r}")
    digits, suffix = match.groups()
    if suffix not in units:
        found = f"unit {suffix!r}" if suffix else "no unit"
        raise UnitError(f"{name}: {found} in {text!r}, known units for {dimension} are {known}")
    value = float(digits.replace("_", "").replace(",", "")) * units[suffix]
    if math.isfinite(value) and dimension in _WHOLE:
        value = math.floor(value)
    if not (math.isfinite(value) and value > 0):
        least = "at least 1" if dimension in _WHOLE else "above zero"
        raise UnitError(f"{name}: must be {least} and finite, got {text!r}")
    return value


_SCALES: Final[dict[str, tuple[tuple[float, str], ...]]] = {
    "latency": ((1.0, "s"), (1e-3, "ms"), (1e-6, "µs"), (1e-9, "ns")),
    "duration": ((3600.0, "h"), (60.0, "min"), (1.0, "s")),
    "bytes": ((2.0**30, "GiB"), (2.0**20, "MiB"), (2.0**10, "KiB"), (1.0, "B")),
    "energy": ((1.0, "J"), (1e-3, "mJ"), (1e-6, "µJ"), (1e-9, "nJ"), (1e-12, "pJ")),
    "count": ((1e9, "G"), (1e6, "M"), (1e3, "k"), (1.0, "")),
    "rate": ((1e12, "TFLOP/s"), (1e9, "GFLOP/s"), (1e6, "MFLOP/s"), (1.0, "FLOP/s")),
    "bandwidth": ((1e12, "TB/s"), (1e9, "GB/s"), (1e6, "MB/s"), (1e3, "kB/s"), (1.0, "B/s")),
    "frequency": ((1e9, "GHz"), (1e6, "MHz"), (1e3, "kHz"), (1.0, "Hz")),
    "pixels": ((1.0, "px"),),
    "energy_per_byte": ((1e-3, "mJ/B"), (1e-6, "µJ/B"), (1e-9, "nJ/B"), (1e-12, "pJ/B")),
}


def show(value: float, dimension: str) -> str:
    """Print a base-unit value with the largest suffix that keeps it above one, to four digits at most.

    Example:
        >>> show(0, "bytes"), show(90, "duration"), show(999, "count")
        ('0 B', '1.5 min', '999')
    """
    scales = _SCALES[dimension]
    factor, suffix = next((s for s in scales if abs(value) >= s[0]), scales[-1])
    scaled = value / factor
    digits = f"{scaled:.2f}" if abs(scaled) < 10 else f"{scaled:.1f}"
    digits = digits.rstrip("0").rstrip(".") if "." in digits else digits
    return f"{digits} {suffix}".strip()


def write(value: float, dimension: str) -> str:
    """A quantity that `parse` reads back to the last bit, in as few digits as that allows.

    Example:
        >>> write(327_680, "bytes"), write(432e6, "rate"), write(0.002, "latency")
        ('320KiB', '432MFLOP/s', '2ms')
    """
    scales = [scale for scale in _SCALES[dimension] if scale[0] <= value] or _SCALES[dimension][-1:]
    short = (f"{value / factor:.{digits}g}{suffix}" for digits in (6, 12) for factor, suffix in scales)
    base = next(suffix for suffix, factor in UNITS[dimension].items() if factor == 1.0)
    exact = (text for text in short if "e" not in text and parse(text, dimension) == value)
    return next(exact, f"{value!r}{base}")


def spell(value: float, dimension: str) -> str:
    """A quantity as an option takes it: no space, and never below `value`, so that what is printed can be typed.

    As many digits as make it exact, six at most; else three, rounded up.

    Example:
        >>> spell(20_000_000, "count"), spell(28_800, "bytes"), spell(0.002, "latency"), spell(0.002134791, "latency")
        ('20M', '28.125KiB', '2ms', '2.14ms')
    """
    factor, suffix = next((s for s in _SCALES[dimension] if value >= s[0]), _SCALES[dimension][-1])
    suffix = {"µs": "us", "µJ": "uJ"}.get(suffix, suffix)
    scaled = value / factor
    for digits in range(1, 7):
        text = f"{scaled:.{digits}g}"
        if "e" not in text and float(text) * factor == value:
            return f"{text}{suffix}"
    step = 10.0 ** (math.floor(math.log10(scaled)) - 2)
    return f"{math.ceil(scaled / step - 1e-9) * step:.6g}{suffix}"
