from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
from safetensors.torch import save_file

from luthier.arch import encode, presets
from luthier.errors import DataError, InputError, SpecError
from luthier.job.resolve import THUMBNAIL_PX, baseline_for, resolve
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
        ("", "MODEL"),
    ],
)
def test_anything_else_is_refused(model: str, complaint: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
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
