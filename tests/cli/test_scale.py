"""`luthier scale` from the command line: tables, files, pages, and what is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from luthier.arch import encode
from luthier.arch.presets import get
from luthier.arch.scaling import scale
from luthier.cost import cost
from luthier.job.scaling import read_phis


def test_the_document_agrees_with_the_cost_model(luthier: Any) -> None:
    ended = luthier("scale", "mobilenetv2_100", "--phi", "-1..1", "--device", "raspberry_pi_4", "--json")
    found = ended.result
    assert [member["phi"] for member in found["members"]] == [-1, 0, 1]
    for member in found["members"]:
        priced = cost(scale(get("mobilenetv2_100"), member["phi"]))
        assert (member["macs"], member["params"]) == (priced.macs, priced.params)
        assert member["peak_activation_bytes"] == priced.peak_activation_bytes
        assert member["latency_s"] > 0
        assert member["latency_s_kind"] == "modelled"
        assert member["measured_latency_s"] is None
    low, middle, high = (member["macs"] for member in found["members"])
    assert found["macs_per_step"] == [None, pytest.approx(middle / low), pytest.approx(high / middle)]
    assert found["wanted"] is None


def test_limits_become_a_phi_and_files(luthier: Any, tmp_path: Path) -> None:
    folder, page = tmp_path / "family", tmp_path / "family.html"
    arguments = ("scale", "mbconv_thumbnail", "--max-macs", "2M", "--max-memory", "64KiB", "--device", "stm32h743")
    ended = luthier(*arguments, "--save", folder, "--html", page, "--json")
    wanted = ended.result["wanted"]
    assert wanted["macs"] <= 2_000_000
    assert wanted["peak_activation_bytes"] <= 64 << 10
    written = sorted(path.name for path in folder.iterdir())
    assert len(written) == len(ended.result["members"])
    network = encode.read(folder / f"{wanted['name']}.json")
    assert cost(network).macs == wanted["macs"]
    assert f"phi = {wanted['phi']:g}" in page.read_text()
    again = luthier("analyze", folder / f"{wanted['name']}.json", "--device", "stm32h743", "--json")
    assert again.result["macs"] == wanted["macs"]
    refused = luthier(*arguments, "--save", folder)
    assert refused.code == 2
    assert "exists already" in refused.err


def test_a_measured_family(luthier: Any) -> None:
    found = luthier("scale", "mbconv_thumbnail", "--phi", "0", "--measure", "--json").result
    assert found["members"][0]["measured_latency_s"] > 0


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (("--max-macs", "1k"), 3, ("no phi in [-4, 8]", "nearest", "--max-macs")),
        (("--phi", "nan"), 2, ("--phi nan", "[-8, 12]")),
        (("--phi", "3..1"), 2, ("--phi 3..1", "-2..7")),
        (("--phi", "0..1:0"), 2, ("--phi 0..1:0",)),
        (("--phi", "0..8:0.001"), 2, ("at most 200",)),
        (("--phi", "13"), 2, ("must lie in [-8, 12], got 13",)),
        (("--alpha", "0.9"), 2, ("alpha must be at least 1", "0.9")),
        (("--gamma", "nan"), 2, ("gamma must be at least 1",)),
        (("--max-resolution", "0"), 2, ("--max-resolution",)),
        (("--device", "nrf52840", "--max-energy", "1mJ"), 2, ("--max-energy", "nrf52840")),
    ],
)
def test_refused_in_one_line(luthier: Any, arguments: tuple[str, ...], code: int, words: tuple[str, ...]) -> None:
    ended = luthier("scale", "mbconv_thumbnail", *arguments)
    assert ended.code == code, ended.err
    assert ended.out == ""
    assert "Traceback" not in ended.err
    last = ended.err.strip().splitlines()[-1]
    for word in words:
        assert word in last


def test_models_that_are_no_description(luthier: Any, tmp_path: Path) -> None:
    ended = luthier("scale", "timm:resnet18")
    assert ended.code == 2
    assert "MODEL is a preset" in ended.err


def test_ranges_of_phi() -> None:
    assert read_phis("-2..7") == tuple(float(n) for n in range(-2, 8))
    assert read_phis("0..0.5:0.25") == (0.0, 0.25, 0.5)
    assert read_phis("1,-1,1") == (-1.0, 1.0)
