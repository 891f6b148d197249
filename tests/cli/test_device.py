"""`luthier device list|show|measure`, and what a user can do wrong."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from luthier.deploy import calibrate, calibrate_engine
from luthier.device import Calibration, energy_table, get, host, measure, names

pytestmark = pytest.mark.usefixtures("home")


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("LUTHIER_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("COLUMNS", "200")
    return tmp_path / "home"


def test_list_names_every_device(luthier: Callable[..., Any]) -> None:
    ended = luthier("device", "list", "--json")
    assert ended.code == 0
    assert [device["name"] for device in ended.result["devices"]] == list(names())
    assert all(name in ended.err for name in names())
    assert "unknown" in ended.err


def test_show_prints_each_figure_with_its_source(luthier: Callable[..., Any]) -> None:
    ended = luthier("device", "show", "stm32f746", "--json")
    assert ended.code == 0
    figures = {figure["figure"]: figure for figure in ended.result["figures"]}
    assert figures["RAM"]["value"] == 320 * 1024
    assert figures["RAM"]["value_kind"] == "published"
    assert "DS10916" in figures["RAM"]["source"]
    assert figures["peak int8, 1 thread"]["value"] == 864e6
    assert figures["peak fp32"]["value"] is None
    assert figures["energy of a MAC, int8"]["value"] == pytest.approx(0.3e-12)
    assert "DS10916" in ended.err
    assert "45 nm" in ended.err
    ridge = next(r for r in ended.result["ridges"] if (r["precision"], r["level"]) == ("int8", "SRAM"))
    assert ridge["intensity_flop_per_byte"] == pytest.approx(1.0)


def test_show_takes_a_file(luthier: Callable[..., Any], tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    path.write_text('schema = "luthier.device/1"\nname = "mine"\ntitle = "Mine"\nkind = "npu"\n')
    ended = luthier("device", "show", path, "--json")
    assert ended.code == 0
    assert ended.result["name"] == "mine"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("show", "stm32f747"), "device 'stm32f747': unknown; did you mean stm32f746?"),
        (("show", "gone.toml"), "gone.toml: cannot be read"),
        (("measure", "--time-limit", "1s"), "--time-limit must be from 2s to 10m, got 1s"),
        (("measure", "--time-limit", "20"), "no unit in '20'"),
    ],
)
def test_a_mistake_is_one_line_and_exit_2(
    luthier: Callable[..., Any], arguments: tuple[str, ...], message: str
) -> None:
    ended = luthier("device", *arguments)
    assert ended.code == 2
    assert message in ended.err
    assert len(ended.err.strip().splitlines()) == 1


def test_a_bad_file_is_one_line_and_exit_2(luthier: Callable[..., Any], tmp_path: Path) -> None:
    path = tmp_path / "bad.toml"
    path.write_text('schema = "luthier.device/1"\nname = "b"\ntitle = "B"\nkind = "cpu"\nram = { value = "-1KiB" }\n')
    ended = luthier("device", "show", path)
    assert ended.code == 2
    assert "bad.toml: ram.source: missing" in ended.err
    assert len(ended.err.strip().splitlines()) == 1


def test_measure_keeps_what_it_found(luthier: Callable[..., Any], home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # the least time that a user can give is longer than a test needs
    def short(table: Any, budget_s: float, say: Any, calibrations: Any) -> Any:
        return measure.run.measure(table, budget_s / 30, say, calibrations)

    monkeypatch.setattr(measure, "measure", short)
    ended = luthier("device", "measure", "--time-limit", "3s", "--json")
    assert ended.code == 0, ended.err
    path = home / "devices" / "host.toml"
    assert ended.result["path"] == str(path)
    assert [p.name for p in path.parent.iterdir()] == ["host.toml"]
    assert get("host").peak_flop_per_s["fp32"][1].kind == "measured"
    shown = luthier("device", "show", "host", "--json")
    assert {f["value_kind"] for f in shown.result["figures"] if f["figure"].startswith("peak fp32")} == {"measured"}


def test_measure_calibrates_when_asked(
    luthier: Callable[..., Any], home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    known = Calibration("a run time", 1, "a test", kernels={"add": {"byte": 1e-11}})
    own = Calibration("Luthier", 1, "a test", kernels={"matmul": {"cycle": 1e-10}})

    def measured(table: Any, budget_s: float, say: Any, calibrations: Any) -> Any:
        device = host.describe(table)
        return replace(device, calibrations=tuple(run(device) for run in calibrations))

    monkeypatch.setattr(measure, "measure", measured)
    monkeypatch.setattr(calibrate, "calibrate", lambda device, say: known)
    monkeypatch.setattr(calibrate_engine, "calibrate_engine", lambda device, say: own)
    for options, kept in (((), ()), (("--calibrate",), (own, known))):
        ended = luthier("device", "measure", *options)
        assert ended.code == 0, ended.err
        assert get("host").calibrations == kept


def test_an_interrupted_measurement_leaves_nothing_and_keeps_what_was_there(
    luthier: Callable[..., Any], home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stopped(*given: Any) -> Any:
        raise KeyboardInterrupt

    monkeypatch.setattr(measure, "measure", stopped)
    assert luthier("device", "measure").code == 130
    assert not home.exists()
    before = host.store(host.describe(energy_table), energy_table).read_bytes()
    assert luthier("device", "measure").code == 130
    assert (home / "devices" / "host.toml").read_bytes() == before
