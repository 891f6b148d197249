from __future__ import annotations

import dataclasses
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from safetensors.torch import save_file

from luthier.arch import encode, presets
from luthier.deploy.onnx_file import to_onnx
from luthier.errors import DataError, GraphError, InputError, SpecError
from luthier.graph import from_network
from luthier.job.resolve import THUMBNAIL_PX, baseline_for, resolve, resolve_graph
from luthier.nn.build import build
from luthier.nn.recognise import recognise

NETWORK = dataclasses.replace(presets.get("mbconv_thumbnail"), name="mine")


def test_a_preset_a_file_and_a_run_folder(tmp_path: Path) -> None:
    assert resolve("mbconv_thumbnail") == presets.get("mbconv_thumbnail")
    (tmp_path / "network.json").write_text(encode.to_json(NETWORK))
    assert resolve(str(tmp_path)) == NETWORK
    assert resolve(str(tmp_path / "network.json")) == NETWORK


@pytest.mark.parametrize(
    ("model", "complaint"),
    [
        ("efficientnet_b9", r"MODEL: .*no network named 'efficientnet_b9'; did you mean efficientnet_b"),
        ("timm:resnet18", "MODEL is a preset, a run folder or a network.json"),
        ("model.onnx", "MODEL is a preset, a run folder or a network.json"),
        ("package.module:make", "MODEL is a preset, a run folder or a network.json"),
        ("made.plan", r"made.plan: a \.plan file describes no network; MODEL is a preset, a run folder"),
        ("", "MODEL"),
    ],
)
def test_anything_else_is_refused(model: str, complaint: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "made.plan").touch()
    with pytest.raises(InputError, match=complaint) as caught:
        resolve(model)
    assert "\n" not in str(caught.value)


def test_a_folder_without_a_network_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"a folder without network\.json"):
        resolve(str(tmp_path))


def test_a_missing_or_broken_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(SpecError, match=r"none\.json: cannot be read as a network"):
        resolve(str(tmp_path / "none.json"))
    (tmp_path / "broken.json").write_text("{")
    with pytest.raises(SpecError, match=r"broken\.json: not JSON"):
        resolve(str(tmp_path / "broken.json"))


@pytest.mark.parametrize(
    ("side", "name"),
    [(8, "mbconv_thumbnail"), (THUMBNAIL_PX, "mbconv_thumbnail"), (THUMBNAIL_PX + 1, "efficientnet_b0")],
)
def test_without_a_name_the_images_decide(side: int, name: str) -> None:
    assert baseline_for(None, None, side) == presets.get(name)


def test_the_named_model_wins(tmp_path: Path) -> None:
    assert baseline_for("resnet18", str(tmp_path / "none.safetensors"), 32) == presets.get("resnet18")
    assert baseline_for(None, "timm:mobilenetv3_large_100.ra_in1k", 32) == presets.get("mobilenetv3_large_100")
    assert baseline_for(None, "torchvision:mobilenet_v3_large", 32) == presets.get("mobilenet_v3_large")


def test_an_unknown_library_model_is_refused() -> None:
    with pytest.raises(InputError, match="no network named 'vit_base'"):
        baseline_for(None, "timm:vit_base", 32)


def test_a_missing_file_of_weights_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"none\.safetensors: no such file"):
        baseline_for(None, str(tmp_path / "none.safetensors"), 32)


def test_weights_find_their_preset_whatever_their_classes(tmp_path: Path) -> None:
    path = tmp_path / "w.safetensors"
    save_file(build(presets.get("mbconv_thumbnail").with_head(7)).state_dict(), path)
    assert baseline_for(None, str(path), 32) == presets.get("mbconv_thumbnail")


def test_weights_of_no_preset_ask_for_a_name(tmp_path: Path) -> None:
    path = tmp_path / "w.safetensors"
    odd = dataclasses.replace(NETWORK, stages=NETWORK.stages[:-1])
    save_file(build(odd).state_dict(), path)
    with pytest.raises(InputError, match="its weights fit no preset; name the network with --model"):
        baseline_for(None, str(path), 32)


def test_recognise_tells_sizes_apart() -> None:
    assert recognise(build(presets.get("mobilenetv2_100")).state_dict())[0] == "mobilenetv2_100"
    assert "mobilenetv2_100" not in recognise(build(presets.get("mobilenetv2_140")).state_dict())
    assert recognise({}) == ()


def test_published_weights_that_fit_two_presets_ask_which(data_dir: Path) -> None:
    file = data_dir / "weights" / "efficientnet_lite0.safetensors"
    with pytest.raises(InputError, match="several presets") as caught:
        baseline_for(None, str(file), 96)
    message = str(caught.value)
    assert "efficientnet_lite0" in message
    assert "tf_efficientnet_lite0" in message
    assert message.endswith("name one with --model")
    assert baseline_for("efficientnet_lite0", str(file), 96) == presets.get("efficientnet_lite0")


# -- as a graph --------------------------------------------------------------------------------------------------------

USER_MODULE = """
import torch
from luthier.arch import presets

kept = torch.nn.Sequential(torch.nn.Conv2d(5, 4, 3), torch.nn.ReLU())

def net():
    return kept

def sized():
    kept.default_cfg = {"input_size": (5, 11, 13)}
    return kept

def description():
    return presets.get("mbconv_thumbnail")

def ours():
    from luthier.nn.build import build
    return build(description())

def hungry(width, *, depth):
    return kept

def broken():
    raise RuntimeError("no weights here\\nsecond line")

def text():
    return "not a module"

class Space:
    net = staticmethod(net)
"""


@pytest.fixture
def user_module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A module in the current folder, under a name of its own for every test."""
    name = f"user_{tmp_path.name}".replace("-", "_")
    (tmp_path / f"{name}.py").write_text(USER_MODULE)
    monkeypatch.chdir(tmp_path)
    return name


def test_descriptions_become_graphs_without_weights(tmp_path: Path) -> None:
    (tmp_path / "network.json").write_text(encode.to_json(NETWORK))
    wanted = from_network(NETWORK, resolution=(24, 16), batch=2)
    for model in ("mbconv_thumbnail", str(tmp_path), str(tmp_path / "network.json")):
        assert resolve_graph(model, resolution=(24, 16), batch=2) == (wanted, None)
    assert resolve_graph("mbconv_thumbnail")[0].tensors["input"].shape == (1, 3, 32, 32)


def test_an_onnx_file_has_weights(tmp_path: Path) -> None:
    graph = from_network(NETWORK, fold_norm=True)
    weights = {name: np.ones(tensor.shape, np.float32) for name, tensor in graph.constants.items()}
    path = tmp_path / "model.onnx"
    path.write_bytes(to_onnx(graph, weights))
    read, values = resolve_graph(str(path))
    assert [op.attrs for op in read.ops] == [op.attrs for op in graph.ops]
    assert values is not None
    assert values.keys() == weights.keys()
    with pytest.raises(GraphError, match=r"none\.onnx: no such file"):
        resolve_graph(str(tmp_path / "none.onnx"))


def test_a_timm_name_has_a_size_of_its_own_and_no_weights() -> None:
    graph, values = resolve_graph("timm:lcnet_035")
    assert (graph.tensors[graph.inputs[0]].shape, values) == ((1, 3, 224, 224), None)
    assert resolve_graph("timm:lcnet_035", resolution=32)[0].tensors["x"].shape == (1, 3, 32, 32)
    with pytest.raises(DataError, match="timm:lcnet_36: timm has no such model; did you mean lcnet_0"):
        resolve_graph("timm:lcnet_36")


def test_callables_return_modules_or_networks(user_module: str) -> None:
    graph, values = resolve_graph(f"{user_module}:net", resolution=(9, 8), batch=2)
    assert graph.tensors[graph.inputs[0]].shape == (2, 5, 9, 8)
    assert values is not None
    assert values.keys() == {"0.weight", "0.bias"}
    assert resolve_graph(f"{user_module}:Space.net", resolution=8)[0].ops
    assert resolve_graph(f"{user_module}:sized")[0].tensors["input"].shape == (1, 5, 11, 13)
    assert resolve_graph(f"{user_module}:description") == (from_network(presets.get("mbconv_thumbnail")), None)
    assert resolve_graph(f"{user_module}:ours")[0].tensors["x"].shape == (1, 3, 32, 32)


@pytest.mark.parametrize(
    ("name", "complaint"),
    [
        (":net", ":net: the module does not say its input size; give --resolution"),
        (":none", r"cannot be imported: AttributeError: .*no attribute 'none'"),
        ("_x:net", r"cannot be imported: ModuleNotFoundError: No module named"),
        (":hungry", r"is called without arguments, but: missing a required argument: 'width'; wrap it"),
        (":broken", r":broken: raised RuntimeError: no weights here$"),
        (":text", r"must return a torch\.nn\.Module or a Network, got str"),
        (":USER", r"cannot be imported"),
        (":torch", r"is no callable but module"),
        (":", r"cannot be imported|is no callable"),
    ],
)
def test_callables_that_cannot_be_used(user_module: str, name: str, complaint: str) -> None:
    with pytest.raises(InputError, match=complaint) as caught:
        resolve_graph(user_module + name)
    assert "\n" not in str(caught.value)


def test_presets_and_onnx_files_need_no_torch(tmp_path: Path) -> None:
    test_an_onnx_file_has_weights(tmp_path)
    program = (
        "import sys; from luthier.job.resolve import resolve_graph; resolve_graph('mbconv_thumbnail')\n"
        f"assert 'numpy' not in sys.modules; resolve_graph({str(tmp_path / 'model.onnx')!r})\n"
        "assert 'torch' not in sys.modules"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)},
        capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
