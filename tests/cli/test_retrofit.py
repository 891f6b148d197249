"""`luthier retrofit` end to end: a user's module in, a run folder out that other commands take; and bad input."""

from __future__ import annotations

import json
import textwrap
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch
from tests.cli.conftest import Ended, in_process

from luthier.job.module import load_module

NETS = """
    import torch
    from torch import nn

    def small(inputs=3, classes=10):
        torch.manual_seed(0)

        def layer(before, after):
            return [nn.Conv2d(before, after, 3, 2, 1, bias=False), nn.BatchNorm2d(after), nn.ReLU(inplace=True)]

        return nn.Sequential(
            *layer(inputs, 16), *layer(16, 32), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(32, classes)
        )

    def grey():
        return small(1)

    def seven():
        return small(classes=7)

    def flat():
        return nn.Sequential(nn.Flatten(), nn.Linear(192, 10))
"""


@pytest.fixture(scope="module")
def nets(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("nets")
    (folder / "own_nets.py").write_text(textwrap.dedent(NETS))
    return folder


@pytest.fixture(autouse=True)
def in_its_folder(nets: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(nets)
    monkeypatch.setenv("LUTHIER_CACHE", str(nets / "cache"))


@pytest.fixture(scope="module")
def run(nets: Path) -> tuple[Path, Ended]:
    """One retrofit with fine-tuning that several tests look at."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(nets)
        patch.setenv("LUTHIER_CACHE", str(nets / "cache"))
        return nets / "r", retrofit(
            "own_nets:small", "--data", "digits", "--resolution", "16", "--epochs", "1", "--reduction", "8",
            "--device", "raspberry_pi_4", "--max-params", "+20%", "--run-dir", "r",
        )  # fmt: skip


def retrofit(*arguments: object) -> Ended:
    return in_process("retrofit", *arguments, "--json")


def test_bill_and_accuracy(run: tuple[Path, Ended]) -> None:
    result = run[1].result
    assert run[1].code == 0
    assert [gate["place"] for gate in result["gates"]] == ["2", "5"]
    assert [gate["reduced"] for gate in result["gates"]] == [2, 4]
    # reduce and expand with biases, and as many products
    params = [16 * 2 + 2 + 2 * 16 + 16, 32 * 4 + 4 + 4 * 32 + 32]
    assert [gate["params"] for gate in result["gates"]] == params
    assert [gate["macs"] for gate in result["gates"]] == [2 * 16 * 2, 2 * 32 * 4]
    before, after = result["before"], result["after"]
    assert after["params"] - before["params"] == sum(params)
    assert before["params"] == 3 * 9 * 16 + 2 * 16 + 16 * 9 * 32 + 2 * 32 + 32 * 10 + 10
    assert after["energy_j"] > before["energy_j"] > 0
    assert (after["latency_s_kind"], after["energy_j_kind"]) == ("measured", "modelled")
    assert 0 < after["latency_s"] < 0.1
    assert abs(result["latency_added_s"]) < after["latency_s"]
    assert result["latency_added_s_kind"] == "measured"
    low, high = result["accuracy_interval"]
    assert low <= result["accuracy"] <= high
    assert "--max-params" in result["limits"]
    assert "behind 2, 5" in run[1].err
    page = (run[0] / "report.html").read_text()
    assert "se in own_nets:small" in page
    assert "The bill, gate by gate" in page


def test_folder_is_a_model_for_other_commands(run: tuple[Path, Ended], tmp_path: Path) -> None:
    folder, ended = run
    assert {p.name for p in folder.iterdir()} >= {
        "run.toml", "retrofit.json", "model.onnx", "model.safetensors", "preprocess.json", "bill.json",
    }  # fmt: skip
    record = json.loads((folder / "retrofit.json").read_text())
    assert record["model"] == "own_nets:small"
    assert [one["path"] for one in record["insertions"]] == ["2", "5"]
    made = load_module(str(folder))
    x = torch.randn(1, 3, 16, 16)
    session = onnxruntime.InferenceSession(str(folder / "model.onnx"), providers=["CPUExecutionProvider"])
    (scores,) = session.run(None, {session.get_inputs()[0].name: x.numpy()})
    np.testing.assert_allclose(scores, made.module(x).detach().numpy(), rtol=1e-4, atol=1e-5)  # norms folded
    priced = in_process("analyze", folder, "--json").result
    assert priced["macs"] == ended.result["after"]["macs"]
    compiled = in_process("compile", folder, "--output", tmp_path / "m.plan", "--json")
    assert compiled.code == 0, compiled.err
    again = retrofit(folder, "--attention", "eca", "--places", "4", "--run-dir", tmp_path / "again")
    assert again.code == 2
    assert "--places 4: carries attention already" in again.err or "no such place" in again.err


def test_a_retrofitted_network_is_retrofitted_again(run: tuple[Path, Ended], nets: Path, tmp_path: Path) -> None:
    one = retrofit("own_nets:small", "--resolution", "16", "--places", "2", "--run-dir", tmp_path / "one")
    two = retrofit(tmp_path / "one", "--places", "5", "--attention", "spatial", "--run-dir", tmp_path / "two")
    assert (one.code, two.code) == (0, 0), two.err
    assert two.result["before"]["macs"] == one.result["after"]["macs"]
    first, second = (load_module(str(tmp_path / name)) for name in ("one", "two"))
    assert [i.path for i in second.recipe.insertions] == ["2", "5"]
    x = torch.randn(2, 3, 16, 16)
    base = load_module("own_nets:small", resolution=16)
    assert torch.equal(second.module(x), first.module(x))
    assert torch.equal(second.module(x), base.module(x))


def test_the_same_command_again_returns_what_it_found(run: tuple[Path, Ended]) -> None:
    folder, ended = run
    before = (folder / "model.onnx").stat().st_mtime_ns
    again = retrofit(
        "own_nets:small", "--data", "digits", "--resolution", "16", "--epochs", "1", "--reduction", "8",
        "--device", "raspberry_pi_4", "--max-params", "+20%", "--run-dir", folder,
    )  # fmt: skip
    assert again.result == {**ended.result, "run_dir": str(folder)}
    assert (folder / "model.onnx").stat().st_mtime_ns == before
    other = retrofit("own_nets:small", "--run-dir", folder)
    assert other.code == 2
    assert "this run was started with --data digits, now asked for None" in other.err


def test_reduction_by_measured_gain(nets: Path, tmp_path: Path) -> None:
    ended = retrofit(
        "own_nets:small", "--data", "digits", "--resolution", "16", "--epochs", "0", "--reduction", "auto",
        "--max-macs", "+0.5%", "--max-params", "+10%", "--run-dir", tmp_path / "auto",
    )  # fmt: skip
    assert ended.code == 0, ended.err
    result = ended.result
    assert {(t["place"], t["reduction"]) for t in result["trials"]} == {
        ("2", 4), ("2", 8), ("2", 16), ("5", 4), ("5", 8), ("5", 16), ("5", 32),
    }  # fmt: skip
    bought = {t["place"]: t for t in result["trials"] if t["chosen"]}
    assert [gate["place"] for gate in result["gates"]] == sorted(bought)
    assert all(gate["reduced"] == gate["shape"][0] // bought[gate["place"]]["reduction"] for gate in result["gates"])
    before, after = result["before"], result["after"]
    assert before["macs"] < after["macs"] <= before["macs"] * 1.005
    assert before["params"] < after["params"] <= before["params"] * 1.1
    assert all(t["gain_nats"] > 0 for t in bought.values())


SMALL = ("own_nets:small", "--resolution", "16")


@pytest.mark.parametrize("arguments, code, message", [
    (("own_nets:flat", "--resolution", "8"), 2, "Sequential: holds no convolution behind which attention could stand"),
    ((*SMALL, "--places", "conv9"), 2, "--places conv9: no such place; valid are auto, stage, block (alone), 2, 5"),
    ((*SMALL, "--reduction", "64"), 2, "2: reduction 64 must be at most its 16 channels; lower it"),
    ((*SMALL, "--reduction", "none"), 2, "--reduction: must be a whole number of at least 1, or auto, got 'none'"),
    ((*SMALL, "--attention", "self"), 2, "--attention: must be one of se, ese, eca, spatial, cbam, coord, got 'self'"),
    (("mbconv_thumbnail", "--resolution", "32"), 2, "--places auto: the network carries attention at all "),
    (("own_nets:grey", "--resolution", "16", "--data", "digits"), 2, "MODEL own_nets:grey: in_channels must be 3 for"),
    (("own_nets:seven", "--resolution", "16", "--data", "digits"), 2, "digits: has 10 classes, own_nets:seven tells 7"),
    ((*SMALL, "--max-params", "+0.1%"), 3, "parameters 5.68 k exceeds --max-params"),
    ((*SMALL, "--max-macs", "1%"), 2, "--max-macs 1%: a share is what may be added"),
    (("own_nets:small",), 2, "does not say the side of its square input; give --resolution"),
    (("own_nets:nothing",), 2, "own_nets:nothing: cannot be imported"),
    (("m.onnx",), 2, "m.onnx: an ONNX file is no module that can be trained"),
])  # fmt: skip
def test_bad_input_is_one_line(arguments: tuple[str, ...], code: int, message: str, tmp_path: Path) -> None:
    ended = in_process("retrofit", *arguments, "--run-dir", tmp_path / "run")
    assert ended.code == code, ended.err
    (line,) = [line for line in ended.err.splitlines() if line.startswith("luthier: ")]
    assert message in line
    assert "Traceback" not in ended.err
    assert ended.out == ""
    assert not (tmp_path / "run" / "bill.json").exists()


def test_a_preset(tmp_path: Path) -> None:
    ended = retrofit(
        "resnet20", "--resolution", "16", "--places", "stage", "--attention", "coord", "--run-dir", tmp_path / "run"
    )
    assert ended.code == 0, ended.err
    assert ended.result["weights"] == "random"
    assert [gate["place"] for gate in ended.result["gates"]] == [f"stages.stage{n}.2.second.norm" for n in (1, 2, 3)]
