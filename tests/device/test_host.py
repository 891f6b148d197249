"""This machine without measuring, on made-up system files; and its profile: kept, found, refused."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from luthier.device import Device, Figure, energy_table, get, host
from luthier.errors import DeviceError, RunFolderError

CPUINFO = """processor\t: 0
vendor_id\t: AuthenticAMD
model name\t: AMD Example 4-Core
stepping\t: 1
flags\t\t: fpu avx2

processor\t: 1
model name\t: another
"""


@pytest.fixture
def system(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Four logical CPUs on two cores: 48 KiB L1, 1 MiB L2 per core, 32 MiB L3 for both."""
    root = tmp_path / "cpu"
    for cpu in range(4):
        pair = f"{cpu % 2},{cpu % 2 + 2}"
        put(root / f"cpu{cpu}" / "topology" / "thread_siblings_list", pair)
        levels = [("1", "Data", "48K", pair), ("1", "Instruction", "32K", pair), ("2", "Unified", "1024K", pair),
                  ("3", "Unified", "32M", "0-3")]  # fmt: skip
        for index, (level, kind, size, shared) in enumerate(levels):
            folder = root / f"cpu{cpu}" / "cache" / f"index{index}"
            for name, text in (("level", level), ("type", kind), ("size", size), ("shared_cpu_list", shared)):
                put(folder / name, text)
    put(tmp_path / "cpuinfo", CPUINFO)
    monkeypatch.setattr(host, "SYSTEM", root)
    monkeypatch.setattr(host, "CPUINFO", tmp_path / "cpuinfo")
    monkeypatch.setattr(host, "usable_cpus", lambda: (0, 1, 2, 3))
    monkeypatch.setenv("LUTHIER_HOME", str(tmp_path / "home"))
    return root


def put(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text + "\n")


def test_what_the_system_says(system: Path) -> None:
    assert host.core_cpus() == (0, 1)
    assert [(c.level, c.size_bytes, c.cores) for c in host.caches()] == [
        (1, 48 << 10, 1),
        (2, 1 << 20, 1),
        (3, 32 << 20, 2),
    ]
    device = get("host")
    assert (device.name, device.title, device.cores) == ("host", "AMD Example 4-Core", 2)
    shared = [(level.name, level.shared) for level in device.memory]
    assert shared == [("L1", False), ("L2", False), ("L3", True), ("DRAM", True)]
    assert device.peak_flop_per_s == {}
    assert any("run `luthier device measure`" in remark for remark in device.remarks)


def test_a_system_that_tells_nothing_is_still_a_device(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(host, "SYSTEM", tmp_path / "nothing")
    monkeypatch.setattr(host, "CPUINFO", tmp_path / "nothing")
    monkeypatch.setenv("LUTHIER_HOME", str(tmp_path))
    device = get("host")
    assert [level.name for level in device.memory] == ["DRAM"]
    assert device.title
    assert device.cores >= 1


def test_the_fingerprint_tells_cpus_apart(system: Path, tmp_path: Path) -> None:
    first = host.fingerprint()
    assert host.fingerprint() == first
    put(tmp_path / "cpuinfo", CPUINFO.replace("avx2", "avx2 avx512f"))
    second = host.fingerprint()
    put(system / "cpu0" / "cache" / "index2" / "size", "2048K")
    assert len({first, second, host.fingerprint()}) == 3


def measured() -> Device:
    return replace(
        host.describe(energy_table),
        peak_flop_per_s={"fp32": {1: Figure(170.123456e9, "luthier device measure: a test", "measured")}},
    )


def test_a_stored_profile_is_the_host(system: Path) -> None:
    path = host.store(measured(), energy_table)
    assert path == host.profile_path()
    assert get("host") == measured()
    assert [p.name for p in path.parent.iterdir()] == ["host.toml"]


def test_a_profile_of_another_cpu_is_not_used_and_the_remark_says_so(system: Path, tmp_path: Path) -> None:
    host.store(measured(), energy_table)
    put(tmp_path / "cpuinfo", CPUINFO.replace("Example", "Other"))
    device = get("host")
    assert device.peak_flop_per_s == {}
    assert any("measured on another CPU (AMD Example 4-Core)" in remark for remark in device.remarks)


def test_a_damaged_profile_says_how_to_write_it_anew(system: Path) -> None:
    path = host.store(measured(), energy_table)
    path.write_text(path.read_text()[:200])
    with pytest.raises(DeviceError, match=r"host\.toml: .*; run `luthier device measure` to write it anew"):
        get("host")


def test_a_profile_that_cannot_be_written_is_one_line(
    system: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(tmp_path / "file", "")
    monkeypatch.setenv("LUTHIER_HOME", str(tmp_path / "file"))
    with pytest.raises(RunFolderError, match=r"host\.toml: "):
        host.store(measured(), energy_table)


@pytest.mark.parametrize(
    ("luthier_home", "data_home", "expected"),
    [("/a", "/b", "/a/devices/host.toml"), (None, "/b", "/b/luthier/devices/host.toml"),
     (None, None, "/h/.local/share/luthier/devices/host.toml")],
)  # fmt: skip
def test_where_the_profile_is_kept(
    monkeypatch: pytest.MonkeyPatch, luthier_home: str | None, data_home: str | None, expected: str
) -> None:
    for name, value in (("LUTHIER_HOME", luthier_home), ("XDG_DATA_HOME", data_home), ("HOME", "/h")):
        monkeypatch.delenv(name, raising=False)
        if value is not None:
            monkeypatch.setenv(name, value)
    assert host.profile_path() == Path(expected)
