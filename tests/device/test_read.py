"""Device files: the way there and back is exact, and every mistake is one line that names the file and the key."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from luthier.device import Device, EnergyTable, Figure, MemoryLevel, energy_table, get, names
from luthier.device.device import Calibration
from luthier.device.read import device_from_text, read_device, read_energy
from luthier.device.write import device_to_text
from luthier.errors import DeviceError

GOOD = """
schema = "luthier.device/1"
name = "toy"
title = "Toy"
kind = "cpu"
cores = 2
clock = { value = "1GHz", source = "page 1" }

[peak.fp32]
1 = { value = "16GFLOP/s", source = "page 2" }
2 = { value = "32GFLOP/s", source = "2 x page 2", kind = "derived" }

[energy]
table = "horowitz_45nm"

[[memory]]
name = "L1"
size = { value = "32KiB", source = "page 3" }
[memory.bandwidth]
per_core = { value = "8GB/s", source = "page 4" }

[[memory]]
name = "DRAM"
energy = { value = "20pJ/B", source = "page 5" }
"""


def read(text: str) -> Device:
    return device_from_text(text, energy_table, "toy.toml")


def round_trip(device: Device) -> Device:
    return read(device_to_text(device, energy_table))


def test_every_figure_of_a_file_is_read_in_base_units() -> None:
    device = read(GOOD)
    assert device.clock_hz == Figure(1e9, "page 1", "published")
    assert device.peak_flop_per_s["fp32"][2] == Figure(32e9, "2 x page 2", "derived")
    near, far = device.memory
    assert near.size_bytes is not None
    assert near.size_bytes.value == 32 * 1024
    assert near.bandwidth_bytes_per_s == {1: Figure(8e9, "page 4"), 2: Figure(16e9, "2 cores x page 4", "derived")}
    assert far.energy_j_per_byte is not None
    assert far.energy_j_per_byte.value == 20e-12
    assert far.size_bytes is None
    assert device.energy == energy_table("horowitz_45nm")


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ('value = "1GHz", ', "", r"toy\.toml: clock\.value: missing"),
        ('"1GHz"', '"-1GHz"', r"toy\.toml: clock: .*got '-1GHz'"),
        ('"1GHz"', '"0GHz"', r"toy\.toml: clock: .*must be above zero"),
        ('"1GHz"', '"1GB"', r"toy\.toml: clock: .*unit 'GB' in '1GB', known units for frequency"),
        ('"1GHz"', '"1"', r"toy\.toml: clock: .*no unit in '1'"),
        ('"1GHz"', "1e9", r"toy\.toml: clock\.value: expected text in quotes, got '1000000000"),
        ('"1GHz"', '"1e999GHz"', r"toy\.toml: clock: .*finite"),
        (', source = "page 1"', "", r"toy\.toml: clock\.source: missing"),
        ('source = "page 1"', 'source = " "', r"toy\.toml: clock: .*source of 1000000000\.0 must be stated"),
        ('source = "page 2"', 'source = "page 2", kind = "guessed"', r"peak\.fp32\.1: .*kind must be one of measured"),
        ("cores = 2", "cores = 0", r"toy\.toml: Device\(toy\): cores must be at least 1, got 0"),
        ("cores = 2", "cores = 2.5", r"toy\.toml: cores: expected a whole number, got '2\.5'"),
        ("cores = 2", "cores = true", r"toy\.toml: cores: expected a whole number"),
        ("cores = 2", "coers = 2", r"toy\.toml: coers: unknown key; did you mean 'cores'"),
        ('size = {', 'sise = {', r"toy\.toml: memory\.L1\.sise: unknown key; did you mean 'size'"),
        ("per_core = {", "per_chip = {", r"memory\.L1\.bandwidth\.per_chip: .*number of threads or 'per_core'"),
        ("1 = {", "0 = {", r"toy\.toml: Device\(toy\): fp32 has a figure for 0 threads"),
        ("[peak.fp32]", "[peak.fp31]", r"toy\.toml: precision: expected one of fp32"),
        ('kind = "cpu"', 'kind = "abacus"', r"toy\.toml: Device\(toy\): kind must be one of microcontroller"),
        ('kind = "cpu"', "", r"toy\.toml: kind: missing"),
        ('name = "DRAM"', 'name = "L1"', r"toy\.toml: Device\(toy\): two memory levels carry one name, L1, L1"),
        ('name = "DRAM"', 'name = "DRAM"\nholds = "water"', r"memory\.DRAM: .*holds must be one of"),
        ('"horowitz_45nm"', '"horowitz_46nm"', r"energy table 'horowitz_46nm': unknown; did you mean horowitz_45nm"),
        ("device/1", "device/9", r"toy\.toml: schema: expected 'luthier\.device/1', got 'luthier\.device/9'"),
        ('name = "toy"', "name = ", r"toy\.toml: not TOML \("),
    ],
)  # fmt: skip
def test_a_mistake_is_one_line_that_names_file_and_key(old: str, new: str, message: str) -> None:
    assert old in GOOD
    with pytest.raises(DeviceError, match=message) as caught:
        read(GOOD.replace(old, new, 1))
    assert "\n" not in str(caught.value)
    assert caught.value.exit_code == 2


@pytest.mark.parametrize("content", [None, b"\xff\xfe\x00", b""])
def test_a_file_that_cannot_be_read_is_named(tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "gone.toml"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(DeviceError, match=r"gone\.toml: "):
        read_device(path, energy_table)
    with pytest.raises(DeviceError, match=r"gone\.toml: "):
        read_energy(path)


@pytest.mark.parametrize("name", names())
def test_the_catalogue_survives_the_way_there_and_back(name: str) -> None:
    assert round_trip(get(name)) == get(name)


figures = st.builds(
    Figure,
    value=st.floats(1e-14, 1e16, allow_nan=False),
    source=st.text(min_size=1).filter(str.strip),
    kind=st.sampled_from(["measured", "published", "derived"]),
)
sizes = st.builds(Figure, value=st.integers(1, 2**50), source=st.just("s"))
tables = st.builds(
    EnergyTable,
    name=st.sampled_from(["horowitz_45nm", "own"]),
    add_j=st.dictionaries(st.sampled_from(["int32", "fp16", "fp32"]), figures),
    multiply_j=st.dictionaries(st.sampled_from(["int8", "W8A16"]), figures),
    sram_j_per_byte=st.dictionaries(st.integers(1, 2**30), figures, max_size=3),
    dram_j_per_byte=st.none() | figures,
    remark=st.sampled_from(["", "a remark"]),
)
levels = st.builds(
    MemoryLevel,
    name=st.sampled_from(["L1", "DRAM"]),
    size_bytes=st.none() | sizes,
    bandwidth_bytes_per_s=st.dictionaries(st.integers(1, 64), figures, max_size=3),
    shared=st.booleans(),
    holds=st.sampled_from(["all", "weights"]),
    energy_j_per_byte=st.none() | figures,
)
calibrations = st.builds(
    Calibration,
    runtime=st.just("onnxruntime 1.31"),
    threads=st.integers(1, 8),
    source=st.text(),
    kernels=st.dictionaries(
        st.sampled_from(["pointwise", "depthwise"]),
        st.dictionaries(st.sampled_from(["call", "mac"]), st.floats(1e-15, 1e-3)),
    ),
)
devices = st.builds(
    Device,
    name=st.just("d"),
    title=st.text(min_size=1),
    kind=st.sampled_from(["cpu", "npu"]),
    cores=st.integers(1, 8),
    clock_hz=st.none() | figures,
    peak_flop_per_s=st.dictionaries(
        st.sampled_from(["fp32", "int8", "int8_vector", "int16", "W8A16"]),
        st.dictionaries(st.integers(1, 64), figures, min_size=1, max_size=3),
    ),
    memory=st.lists(levels, max_size=2, unique_by=lambda level: level.name).map(tuple),
    ram_bytes=st.none() | sizes,
    energy=st.none() | tables,
    battery_j=st.none() | figures,
    calibrations=st.lists(calibrations, max_size=2).map(tuple),
    fingerprint=st.text(),
    remarks=st.lists(st.text(min_size=1), max_size=2).map(tuple),
)


@settings(max_examples=60)
@given(devices)
def test_any_device_survives_the_way_there_and_back(device: Device) -> None:
    assert round_trip(device) == device


def test_an_override_is_written_as_an_override() -> None:
    base = energy_table("horowitz_45nm")
    mixed = Figure(0.5e-12, "a mixed unit, synthesised", "published")
    device = replace(get("h100"), energy=replace(base, multiply_j={**base.multiply_j, "W8A16": mixed}))
    text = device_to_text(device, energy_table)
    assert 'table = "horowitz_45nm"' in text
    assert "0.5pJ" in text
    assert "3.7pJ" not in text  # what the table says is not copied
    assert round_trip(device) == device


def test_a_calibration_with_an_unknown_field_is_refused() -> None:
    bad = GOOD + '\n[[calibration]]\nruntime = "r"\nthreads = 1\nsource = "s"\nkernels = {}\nspeed = 3\n'
    with pytest.raises(DeviceError, match=r"toy\.toml: calibration\.r\.speed: "):
        read(bad)
