"""What every device of the catalogue keeps to, and published values spot-checked by hand."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise

import pytest

from luthier.arch.block import Precision
from luthier.device import Device, Figure, get, names
from luthier.device.registry import CATALOG
from luthier.errors import DeviceError

CATALOGUED = tuple(name for name in names() if name != "host")


def figures(device: Device) -> Iterator[Figure]:
    """Every figure of a device but those of its energy table."""
    yield from (f for f in (device.clock_hz, device.ram_bytes, device.flash_bytes, device.battery_j) if f)
    for peaks in device.peak_flop_per_s.values():
        yield from peaks.values()
    for level in device.memory:
        yield from (f for f in (level.size_bytes, level.energy_j_per_byte) if f)
        yield from level.bandwidth_bytes_per_s.values()


@pytest.mark.parametrize("name", CATALOGUED)
class TestConformance:
    def test_it_is_called_what_its_file_is_called(self, name: str) -> None:
        device = get(name)
        assert device.name == name
        assert device.fingerprint == ""
        assert device.title.strip()

    def test_every_figure_names_a_document(self, name: str) -> None:
        found = list(figures(get(name)))
        assert found
        for figure in found:
            assert len(figure.source) > 20
            assert figure.kind in ("published", "derived")

    def test_a_derived_figure_shows_its_steps(self, name: str) -> None:
        for figure in figures(get(name)):
            if figure.kind == "derived":
                assert any(step in figure.source for step in (" x ", " + ", " / ")), figure.source

    def test_nearer_memories_are_smaller_and_faster(self, name: str) -> None:
        levels = [level for level in get(name).memory if level.holds != "weights"]
        known = [level.size_bytes.value for level in levels if level.size_bytes]
        assert all(near < far for near, far in pairwise(known))
        for threads in (1, get(name).cores):
            speeds = [figure.value for level in levels if (figure := level.bandwidth(threads))]
            # the peak of an interface stands for every number of threads, so one core's cache may stay below it
            if name != "epyc_9654" or threads > 1:
                assert all(near > far for near, far in pairwise(speeds))

    def test_narrower_numbers_are_not_slower_and_more_threads_not_either(self, name: str) -> None:
        device = get(name)
        order = [device.peak(Precision.parse(label), device.cores) for label in ("fp32", "fp16", "int8")]
        values = [figure.value for figure in order if figure]
        assert values == sorted(values)
        for peaks in device.peak_flop_per_s.values():
            by_threads = [peaks[count].value for count in sorted(peaks)]
            assert by_threads == sorted(by_threads)
            assert max(peaks) <= device.cores

    def test_ridges_are_above_zero_or_unknown(self, name: str) -> None:
        device = get(name)
        for label in ("fp32", "bf16", "fp16", "int8"):
            for level in device.memory:
                ridge = device.ridge(level, Precision.parse(label))
                known = device.peak(Precision.parse(label)) and level.bandwidth()
                assert ridge is None if not known else ridge is not None and ridge > 0

    def test_its_energy_table_says_whose_process_it_is(self, name: str) -> None:
        energy = get(name).energy
        assert energy is not None
        assert "45 nm" in energy.remark

    def test_a_microcontroller_has_ram_flash_and_somewhere_to_put_both(self, name: str) -> None:
        device = get(name)
        if device.kind == "microcontroller":
            assert device.ram_bytes is not None
            assert device.flash_bytes is not None
            assert {level.holds for level in device.memory} >= {"activations", "weights"}


@pytest.mark.parametrize(
    ("name", "label", "threads", "flop_per_s"),
    [
        ("stm32f746", "int8", 1, 2 * 2 * 216e6),  # two MAC of SMLAD
        ("stm32h743", "int8", 1, 2 * 2 * 480e6),
        ("nrf52840", "fp32", 1, 64e6),  # VMUL, then VADD
        ("raspberry_pi_4", "fp32", 1, 4 * 2 * 1.8e9),  # one FMLA of four lanes
        ("raspberry_pi_5", "fp32", 4, 4 * 2 * 4 * 2 * 2.4e9),  # two FMLA of four lanes on four cores
        ("raspberry_pi_5", "int8", 1, 2 * 16 * 2 * 2.4e9),  # two SDOT of sixteen products
        ("snapdragon_8_gen2", "fp32", 5, 4 * 4 * 2 * 3.2e9 + 4 * (2 * 4 * 2 * 2.8e9)),
        ("jetson_orin_nano", "fp32", 1, 1024 * 2 * 625e6),
        ("epyc_9654", "fp32", 96, 96 * 2 * 8 * 2 * 2.4e9),
        ("h100", "fp16", 1, 132 * 4 * 512 * 2 * 1.83e9),  # SMs x tensor cores x FMA x FLOP x boost clock
        ("h100", "int8", 1, 2 * 132 * 4 * 512 * 2 * 1.83e9),
        ("h200", "int8", 1, 3958e12 / 2),
        ("qcs8550_npu", "int8", 1, 48e12),
    ],
)  # fmt: skip
def test_peaks_are_lanes_times_issue_times_clock(name: str, label: str, threads: int, flop_per_s: float) -> None:
    peak = get(name).peak(Precision.parse(label), threads)
    assert peak is not None
    assert peak.value == pytest.approx(flop_per_s, rel=1e-3)


@pytest.mark.parametrize(
    ("name", "ram_kib", "flash_kib"), [("stm32f746", 320, 1024), ("stm32h743", 512, 2048), ("nrf52840", 256, 1024)]
)
def test_what_a_network_may_fill(name: str, ram_kib: int, flash_kib: int) -> None:
    device = get(name)
    assert device.ram_bytes is not None
    assert device.flash_bytes is not None
    assert (device.ram_bytes.value, device.flash_bytes.value) == (ram_kib * 1024, flash_kib * 1024)


@pytest.mark.parametrize(
    ("name", "bytes_per_s"),
    [("raspberry_pi_4", 3.2e9 * 4), ("raspberry_pi_5", 4.267e9 * 4), ("h100", 3.35e12), ("h200", 4.8e12),
     ("jetson_orin_nano", 68e9), ("epyc_9654", 12 * 4.8e9 * 8)],
)  # fmt: skip
def test_memory_bandwidths(name: str, bytes_per_s: float) -> None:
    bandwidth = get(name).memory[-1].bandwidth()
    assert bandwidth is not None
    assert bandwidth.value == pytest.approx(bytes_per_s)


def test_the_ridge_of_an_h100_in_fp16() -> None:
    device = get("h100")
    assert device.ridge(device.memory[-1], Precision.parse("fp16")) == pytest.approx(989.4e12 / 3.35e12)


def test_the_machines_that_were_asked_for_are_there() -> None:
    assert {"stm32f746", "stm32h743", "nrf52840", "raspberry_pi_4", "raspberry_pi_5", "snapdragon_8_elite",
            "qcs8550_npu", "jetson_orin_nano", "h100", "h200", "epyc_9654"} <= set(names())  # fmt: skip
    assert len(CATALOGUED) == len(list(CATALOG.glob("*.toml")))


def test_names_are_forgiving_and_unknown_ones_list_the_known() -> None:
    assert get("Raspberry-Pi-5") is get("raspberry_pi_5")
    with pytest.raises(
        DeviceError, match=r"device 'raspberry_pi_6': unknown; did you mean raspberry_pi_.*host, core_i9_10940x, epyc"
    ):
        get("raspberry_pi_6")
    with pytest.raises(DeviceError, match=r"nowhere/d\.toml: cannot be read"):
        get("nowhere/d.toml")


def test_a_file_is_a_device_too() -> None:
    assert get(CATALOG / "h100.toml") == get("h100")
