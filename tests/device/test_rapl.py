"""Energy counters, on files as Linux shows them."""

from pathlib import Path

import pytest

from luthier.device.rapl import counters, measured_energy_j, spent_j


def zone(root: Path, folder: str, name: str, energy_uj: int, range_uj: int = 262_143_328_850) -> Path:
    path = root / folder
    path.mkdir()
    (path / "name").write_text(f"{name}\n")
    (path / "energy_uj").write_text(f"{energy_uj}\n")
    (path / "max_energy_range_uj").write_text(f"{range_uj}\n")
    return path


def test_packages_and_memory_are_added_but_no_part_of_a_package_twice(tmp_path: Path) -> None:
    zones = {
        folder: zone(tmp_path, folder, name, 0)
        for folder, name in {
            "intel-rapl:0": "package-0",
            "intel-rapl:0:0": "core",
            "intel-rapl:0:1": "dram",
            "intel-rapl:1": "package-1",
        }.items()
    }

    def run() -> int:
        for path, energy_uj in zip(zones.values(), (3_000_000, 2_000_000, 500_000, 1_000_000), strict=True):
            (path / "energy_uj").write_text(str(energy_uj))
        return 9

    assert measured_energy_j(run, tmp_path) == pytest.approx(4.5 / 9)


def test_a_counter_that_starts_again_goes_on(tmp_path: Path) -> None:
    path = zone(tmp_path, "intel-rapl:0", "package-0", 999_990, range_uj=999_999)
    before = counters(tmp_path)
    (path / "energy_uj").write_text("10")
    assert spent_j(before, counters(tmp_path)) == pytest.approx(20e-6)


def test_without_a_counter_nothing_is_measured_and_nothing_run(tmp_path: Path) -> None:
    def never() -> int:
        raise AssertionError

    assert measured_energy_j(never, tmp_path) is None
    path = zone(tmp_path, "intel-rapl:0", "package-0", 1)
    (path / "energy_uj").write_text("not a number")
    assert measured_energy_j(never, tmp_path) is None
    (path / "energy_uj").unlink()
    (path / "energy_uj").mkdir()  # cannot be read, as a file that is root's
    assert counters(tmp_path) == {}
