"""A chip with round figures, made up so that results can be worked out by hand."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from luthier.device import Device, EnergyTable, Figure, MemoryLevel
from luthier.device.registry import energy_table

PJ = 1e-12


def figure(value: float) -> Figure:
    return Figure(value, "made up for tests")


@pytest.fixture(scope="session")
def horowitz() -> EnergyTable:
    return energy_table("horowitz_45nm")


@pytest.fixture(scope="session")
def level() -> Callable[..., MemoryLevel]:
    def make(name: str, size: float | None = None, bandwidth: float | None = None, **others: object) -> MemoryLevel:
        return MemoryLevel(
            name,
            None if size is None else figure(size),
            {} if bandwidth is None else {1: figure(bandwidth)},
            **others,  # type: ignore[arg-type]
        )

    return make


@pytest.fixture(scope="session")
def chip(horowitz: EnergyTable, level: Callable[..., MemoryLevel]) -> Device:
    """100 GFLOP/s fp32; 32 KiB at 400 GB/s, 1 MiB at 100 GB/s, DRAM at 10 GB/s: DRAM ridge at 10 FLOP/byte."""
    return Device(
        name="chip",
        title="A chip for tests",
        kind="cpu",
        cores=2,
        peak_flop_per_s={
            "fp32": {1: figure(100e9), 2: figure(200e9)},
            "fp16": {1: figure(200e9)},
            "int8": {1: figure(400e9)},
        },
        memory=(
            level("L1", 32 * 1024, 400e9),
            level("L2", 1024 * 1024, 100e9),
            level("DRAM", None, 10e9, shared=True),
        ),
        energy=horowitz,
        battery_j=figure(40_000.0),
    )
