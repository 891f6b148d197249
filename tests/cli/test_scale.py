"""`luthier scale` from the command line: tables, files, pages, and what is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from luthier.arch import Block, Head, Network, Stage, encode
from luthier.arch.presets import get
from luthier.arch.scaling import Coefficients, scale
from luthier.cost import cost
from luthier.job.coefficients import write_coefficients
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
        (("--beta", "inf"), 2, ("beta must be at least 1",)),
        (("--phi=-9",), 2, ("must lie in [-8, 12], got -9",)),
        (("--max-resolution", "7"), 2, ("--max-resolution 7", "total stride, 8 px")),
        (("--max-params", "10", "--max-macs", "1k"), 3, ("no phi in [-4, 8]", "--max-params", "--max-macs")),
        (("--coefficients", "none.json"), 2, ("--coefficients none.json", "cannot be read")),
        (("--coefficients", "none.json", "--alpha", "2"), 2, ("leave out --alpha",)),
        (("--fit", "digits", "--diagnose"), 2, ("--fit and --diagnose", "one at a time")),
        (("--fit", "digits", "--phi", "1"), 2, ("--fit and --phi",)),
        (("--fit", "digits", "--tolerance", "1.5"), 2, ("--tolerance", "(0, 1)")),
        (("--fit", "digits", "--resolution", "4"), 2, ("--resolution 4", "total stride, 8 px")),
        (("--fit", "no-such-folder"), 2, ("no-such-folder", "no such file or folder")),
        (("--images", "digits"), 2, ("--images", "--diagnose")),
        (("--diagnose", "--object-size", "40"), 2, ("--object-size", "px")),
        (("--diagnose", "--images", "no-such-folder"), 2, ("no-such-folder",)),
        (("--check-member", "1"), 2, ("--check-member", "--members")),
        (("--members", "no-such-run"), 2, ("no-such-run", "no finished run here")),
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


def narrowing(tmp_path: Path) -> Path:
    """A network whose pools take a pixel each: at a small phi nothing is left of a map."""
    blocks = (Block(kind="conv", out_channels=8, stride=2), Block(kind="pool", out_channels=8, kernel_size=4, stride=1))
    stages = tuple(Stage(name=f"s{n}", blocks=blocks) for n in range(2))
    network = Network(name="narrowing", stages=stages, head=Head(num_classes=3), resolution=16)
    path = tmp_path / "narrowing.json"
    path.write_text(encode.to_json(network))
    return path


def test_a_phi_that_leaves_nothing_of_a_map(luthier: Any, tmp_path: Path) -> None:
    path = narrowing(tmp_path)
    ended = luthier("scale", path, "--phi=-8")
    assert ended.code == 2
    assert "nothing is left of a 4 px input; raise the resolution" in ended.err
    assert "Traceback" not in ended.err
    # the smallest members do not exist, and do not stand in the way of those that fit
    found = luthier("scale", path, "--max-macs", "12k", "--device", "raspberry_pi_4", "--phi", "0", "--json").result
    assert found["wanted"]["macs"] <= 12_000


def test_joint_limits_bind_together(luthier: Any) -> None:
    def largest(*limits: str) -> Any:
        arguments = ("scale", "mbconv_thumbnail", "--device", "raspberry_pi_4", "--phi", "0", *limits, "--json")
        return luthier(*arguments).result["wanted"]

    alone = [largest("--max-latency", "1ms"), largest("--max-energy", "60uJ"), largest("--max-params", "300k")]
    both = largest("--max-latency", "1ms", "--max-energy", "60uJ", "--max-params", "300k")
    assert both["latency_s"] <= 1e-3
    assert both["energy_j"] <= 60e-6
    assert both["params"] <= 300_000
    assert both["macs"] == min(one["macs"] for one in alone)


def test_coefficients_from_a_file(luthier: Any, tmp_path: Path) -> None:
    chosen = Coefficients(alpha=1.0, beta=1.0, gamma=1.4)
    write_coefficients(chosen, tmp_path / "coefficients.json")
    found = luthier(
        "scale", "mobilenetv2_100", "--phi", "1", "--coefficients", tmp_path, "--device", "raspberry_pi_4", "--json"
    )
    assert found.result["coefficients"] == {"alpha": 1.0, "beta": 1.0, "gamma": 1.4, "product": chosen.product}
    assert found.result["members"][0]["macs"] == cost(scale(get("mobilenetv2_100"), 1, chosen)).macs


def test_a_diagnosis(luthier: Any, tmp_path: Path) -> None:
    page = tmp_path / "balance.html"
    ended = luthier(
        "scale", "vgg16", "--diagnose", "--resolution", "32", "--object-size", "20px", "--html", page, "--json"
    )
    layers = ended.result["layers"]
    assert [layer["field"][0] for layer in layers][-1] == 212
    assert sum(layer["beyond"] for layer in layers) == 9
    assert ended.result["object_px"] == 20
    assert any("9 of 18 layers" in line for line in ended.result["advice"])
    assert "9 of 18 layers" in page.read_text()


def test_a_fit_from_end_to_end(luthier: Any, draw: Any, tmp_path: Path) -> None:
    images, labels = draw(80)
    np.savez(tmp_path / "few.npz", x=images, y=labels)
    short = ("--epochs", "1", "--seeds", "2", "--candidates", "2")
    where = ("--run-dir", tmp_path / "run", "--html", tmp_path / "fit.html", "--json")
    command = ("scale", "mbconv_thumbnail", "--fit", tmp_path / "few.npz", *short, *where)
    ended = luthier(*command)
    assert ended.code == 0, ended.err
    assert ended.err.count("training ") >= 4
    assert len(ended.result["points"]) == 2
    assert all(0 <= a <= 1 for point in ended.result["points"] for a in point["accuracies"])
    assert "Points of the grid" in (tmp_path / "fit.html").read_text()
    again = luthier(*command)
    assert again.result == ended.result
    assert "training " not in again.err
    after = luthier(
        "scale",
        tmp_path / "run",
        "--coefficients",
        tmp_path / "run",
        "--phi",
        "1",
        "--device",
        "raspberry_pi_4",
        "--json",
    )
    best = max(ended.result["points"], key=lambda point: point["accuracy"])
    assert after.result["members"][0]["macs"] == best["macs"]


def test_models_that_are_no_description(luthier: Any, tmp_path: Path) -> None:
    ended = luthier("scale", "timm:resnet18")
    assert ended.code == 2
    assert "MODEL is a preset" in ended.err


def test_ranges_of_phi() -> None:
    assert read_phis("-2..7") == tuple(float(n) for n in range(-2, 8))
    assert read_phis("0..0.5:0.25") == (0.0, 0.25, 0.5)
    assert read_phis("1,-1,1") == (-1.0, 1.0)


def test_trained_members_give_a_curve_and_a_further_one_is_held_against_it(
    luthier: Any, data: Path, tmp_path: Path
) -> None:
    family = tmp_path / "family"
    assert luthier("scale", "mbconv_thumbnail", "--phi=-3,-2,-1", "--save", family).code == 0
    runs: list[Path] = []
    for number, member in enumerate(sorted(family.glob("*.json"))):
        run = tmp_path / f"member{number}"
        trained = luthier("train", member, data, "--epochs", "2", "--resolution", "16", "--run-dir", run)
        assert trained.code == 0, trained.err
        runs.append(run)
    given = [part for run in runs for part in ("--members", run)]
    few = luthier("scale", "mbconv_thumbnail", "--phi", "0", *given[:4])
    assert few.code == 2
    assert "needs 3 members of different work, got 2" in few.err
    ask = ("scale", "mbconv_thumbnail", "--phi", "0", "--max-resolution", "16", *given, "--check-member=-1.5")
    page = tmp_path / "family.html"
    found = luthier(*ask, "--run-dir", tmp_path / "further", "--html", page, "--json").result["trained"]
    assert len(found["members"]) == 3
    assert found["checked"]["macs"] not in {member["macs"] for member in found["members"]}
    low, high = found["checked"]["interval"]
    assert low <= found["checked"]["accuracy"] <= high
    assert "phi=-1.5" in page.read_text()
