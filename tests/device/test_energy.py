"""Energy: each published number, the sum of a MAC, and memories between the sizes of the table."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from luthier.arch.block import Precision
from luthier.device import Device, EnergyTable, Figure, MemoryLevel, energy_table

TABLE = energy_table("horowitz_45nm")
PJ = 1e-12


def mac_pj(label: str, table: EnergyTable = TABLE) -> float | None:
    figure = table.mac(Precision.parse(label))
    return None if figure is None else figure.value / PJ


@pytest.mark.parametrize(
    ("label", "multiply", "add"),
    [("int8", 0.2, 0.1), ("fp16", 1.1, 0.4), ("fp32", 3.7, 0.9), ("W8A16", 1.1, 0.4), ("W8A32", 3.7, 0.9)],
)
def test_a_mac_is_the_published_multiply_and_the_add_of_its_accumulator(
    label: str, multiply: float, add: float
) -> None:
    assert mac_pj(label) == pytest.approx(multiply + add, rel=1e-12)


@pytest.mark.parametrize("label", ["bf16", "int4", "W4A4"])
def test_what_the_table_does_not_say_is_unknown(label: str) -> None:
    assert mac_pj(label) is None


def test_the_published_ratio_of_fp16_to_int8_multiplies() -> None:
    assert TABLE.multiply_j["fp16"].value / TABLE.multiply_j["int8"].value == pytest.approx(5.5)


def test_a_mixed_unit_of_the_device_is_cheaper_than_the_wider_multiplier() -> None:
    own = replace(TABLE, multiply_j={**TABLE.multiply_j, "W8A16": Figure(0.5 * PJ, "a mixed unit")})
    assert mac_pj("W8A16", own) == pytest.approx(0.5 + 0.4)
    assert mac_pj("fp16", own) == mac_pj("fp16")


@pytest.mark.parametrize(("size", "pj_per_64_bit"), [(8 * 1024, 10), (32 * 1024, 20), (2**20, 100)])
def test_the_published_memories(size: int, pj_per_64_bit: float) -> None:
    figure = TABLE.sram(size)
    assert figure is not None
    assert figure.value * 8 / PJ == pytest.approx(pj_per_64_bit)


def test_between_two_sizes_the_geometric_mean_has_the_geometric_mean() -> None:
    figure = TABLE.sram(math.sqrt(8 * 1024 * 32 * 1024))
    assert figure is not None
    assert figure.value / PJ == pytest.approx(math.sqrt(1.25 * 2.5))
    assert "interpolation" in figure.source


@given(st.lists(st.integers(1, 2**34), min_size=2, max_size=2).map(sorted))
def test_a_larger_memory_never_costs_less_and_stays_within_the_table(pair: list[int]) -> None:
    small, large = (TABLE.sram(size) for size in pair)
    assert small is not None
    assert large is not None
    assert 1.25 * PJ * (1 - 1e-12) <= small.value <= large.value * (1 + 1e-12) <= 12.5 * PJ * (1 + 1e-9)


def test_beyond_its_ends_the_source_says_so() -> None:
    figure = TABLE.sram(300 * 2**20)
    assert figure is not None
    assert figure.value == TABLE.sram_j_per_byte[2**20].value
    assert "above its largest" in figure.source


def test_each_level_of_a_device() -> None:
    device = Device(name="d", title="D", kind="cpu", energy=TABLE)
    own = MemoryLevel("DRAM", energy_j_per_byte=Figure(5 * PJ, "its own"))
    assert device.energy_per_byte(own) == Figure(5 * PJ, "its own")
    assert device.energy_per_byte(MemoryLevel("DRAM")) == TABLE.dram_j_per_byte
    assert device.energy_per_byte(MemoryLevel("L2", size_bytes=Figure(2**20, "s"))) == TABLE.sram_j_per_byte[2**20]
    assert device.energy_per_byte(MemoryLevel("L2")) is None
    assert device.energy_per_byte(MemoryLevel("flash", size_bytes=Figure(2**20, "s"))) is None
    assert replace(device, energy=None).energy_per_byte(MemoryLevel("DRAM")) is None
