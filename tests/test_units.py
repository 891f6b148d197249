"""Quantities: each suffix against its value written out, the way back, and what is refused."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from luthier.errors import UnitError
from luthier.units import UNITS, parse, show, spell, write

VALUES = {
    "latency": {"ns": 1e-9, "us": 1e-6, "µs": 1e-6, "ms": 1e-3, "s": 1.0},
    "pixels": {"px": 1},
    "duration": {"s": 1, "sec": 1, "m": 60, "min": 60, "h": 3600, "d": 86400},
    "bytes": {
        "B": 1,
        "kB": 1000,
        "KB": 1000,
        "MB": 1000**2,
        "GB": 1000**3,
        "KiB": 1024,
        "MiB": 1024**2,
        "GiB": 1024**3,
        "TiB": 1024**4,
    },
    "energy": {"pJ": 1e-12, "nJ": 1e-9, "uJ": 1e-6, "µJ": 1e-6, "mJ": 1e-3, "J": 1.0}
    | {"kJ": 1000, "mWh": 3.6, "Wh": 3600},
    "count": {"": 1, "k": 1000, "K": 1000, "M": 1000**2, "G": 1000**3, "B": 1000**3},
    "rate": {"FLOP/s": 1, "kFLOP/s": 1e3, "MFLOP/s": 1e6, "GFLOP/s": 1e9, "TFLOP/s": 1e12, "PFLOP/s": 1e15}
    | {"OP/s": 1, "kOP/s": 1e3, "MOP/s": 1e6, "GOP/s": 1e9, "TOP/s": 1e12, "POP/s": 1e15},
    "bandwidth": {"B/s": 1, "kB/s": 1e3, "MB/s": 1e6, "GB/s": 1e9, "TB/s": 1e12, "PB/s": 1e15},
    "frequency": {"Hz": 1, "kHz": 1e3, "MHz": 1e6, "GHz": 1e9},
    "energy_per_byte": {"pJ/B": 1e-12, "nJ/B": 1e-9, "uJ/B": 1e-6, "µJ/B": 1e-6, "mJ/B": 1e-3, "J/B": 1, "kJ/B": 1e3},
}
SUFFIXES = [(dimension, suffix) for dimension, units in UNITS.items() for suffix in units]


@pytest.mark.parametrize(("dimension", "suffix"), SUFFIXES)
def test_every_suffix(dimension: str, suffix: str) -> None:
    expected = VALUES[dimension][suffix]
    assert parse(f"1{suffix}", dimension) == pytest.approx(expected, rel=1e-15)
    assert parse(f" 4 {suffix} ", dimension) == pytest.approx(4 * expected, rel=1e-15)


@pytest.mark.parametrize(
    ("text", "dimension", "value"),
    [
        ("1,000", "count", 1000),
        ("66_347_960", "count", 66_347_960),
        ("1.5e3", "count", 1500),
        ("1.5B", "bytes", 1),
        (".5ms", "latency", 0.0005),
        ("2.ms", "latency", 0.002),
    ],
)
def test_forms_of_numbers(text: str, dimension: str, value: float) -> None:
    assert parse(text, dimension) == value


@pytest.mark.parametrize(
    ("text", "dimension", "message"),
    [
        (
            "2 parsecs",
            "latency",
            "--max-latency: unit 'parsecs' in '2 parsecs', known units for latency are ns us µs ms s",
        ),
        ("10m", "bytes", "unit 'm' in '10m', known units for bytes are B kB"),
        ("2", "latency", "no unit in '2'"),
        ("5MS", "latency", "unit 'MS'"),
        ("", "count", "expected a number with a unit .*or no suffix.*got ''"),
        ("ms", "latency", "expected a number with a unit"),
        ("-1ms", "latency", "expected a number with a unit"),
        ("1,5ms", "latency", "expected a number with a unit"),
        ("1 2ms", "latency", "expected a number with a unit"),
        ("0ms", "latency", "must be above zero and finite"),
        ("0.4B", "bytes", "must be at least 1 and finite"),
        ("1e999s", "duration", "must be above zero and finite"),
        ("1e999", "count", "must be at least 1 and finite"),
        ("nan s", "duration", "expected a number"),
    ],
)
def test_refused(text: str, dimension: str, message: str) -> None:
    with pytest.raises(UnitError, match=message):
        parse(text, dimension, "--max-latency")


@given(
    value=st.floats(1e-15, 1e18),
    dimension=st.sampled_from([dimension for dimension in UNITS if dimension not in ("bytes", "count", "pixels")]),
)
def test_what_is_written_is_read_back_to_the_last_bit(value: float, dimension: str) -> None:
    assert parse(write(value, dimension), dimension) == value


@given(value=st.integers(1, 2**53), dimension=st.sampled_from(["bytes", "count"]))
def test_whole_numbers_are_written_and_read_back(value: int, dimension: str) -> None:
    assert parse(write(value, dimension), dimension) == value


@given(value=st.integers(1, 10**15), dimension=st.sampled_from(["bytes", "count"]))
def test_whole_numbers_survive_the_way_back(value: int, dimension: str) -> None:
    # two decimals below ten, one above: 0.5 % at most is lost
    assert parse(show(value, dimension), dimension) == pytest.approx(value, rel=0.0051)


@given(exponent=st.floats(-9, 5), dimension=st.sampled_from(["latency", "duration", "energy"]))
def test_real_numbers_survive_the_way_back(exponent: float, dimension: str) -> None:
    value = 10**exponent * (1e9 if dimension == "duration" else 1)
    assert parse(show(value, dimension), dimension) == pytest.approx(value, rel=0.0051)


@pytest.mark.parametrize(
    ("value", "dimension", "text"),
    [
        (0.00213, "latency", "2.13 ms"),
        (5_288_548, "count", "5.29 M"),
        (512 * 1024, "bytes", "512 KiB"),
        (3600, "duration", "1 h"),
        (1e-6, "energy", "1 µJ"),
    ],
)
def test_show(value: float, dimension: str, text: str) -> None:
    assert show(value, dimension) == text


@given(st.floats(1e-9, 1e12), st.sampled_from(["count", "bytes", "latency", "duration", "energy"]))
def test_what_is_spelled_can_be_typed_and_is_never_below(value: float, dimension: str) -> None:
    value = max(value, 1.0) if dimension in ("count", "bytes", "duration") else min(value, 1e3)
    read = parse(spell(value, dimension), dimension)
    floor = math.floor(value) if dimension in ("count", "bytes") else value * (1 - 1e-9)
    assert floor <= read <= value * 1.011 + 1e-12
