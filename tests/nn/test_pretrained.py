"""What `load_pretrained` accepts, says and refuses; files, wrappers and names of models."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import timm
import torch
import torchvision
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from luthier.arch import Network, presets
from luthier.errors import DataError, SpecError
from luthier.nn import build, load_pretrained
from luthier.nn.build import Classifier
from luthier.nn.checkpoint import read_state_dict

State = dict[str, Tensor]
NETWORK = presets.get("mobilenetv3_small_075")


@pytest.fixture(scope="module")
def published() -> State:
    """A state dict with timm's names; nothing is zero or one by accident."""
    model = timm.create_model("mobilenetv3_small_075")
    generator = torch.Generator().manual_seed(3)
    state: State = model.state_dict()
    for tensor in state.values():
        if tensor.is_floating_point() and tensor.ndim == 1:
            tensor.uniform_(0.5, 1.5, generator=generator)
    return state


def saved(state: State, folder: Path, name: str = "net.safetensors") -> Path:
    file = folder / name
    if file.suffix == ".safetensors":
        save_file({key: tensor.contiguous() for key, tensor in state.items()}, file)
    else:
        torch.save(state, file)
    return file


def values(model: nn.Module) -> State:
    return {name: tensor.clone() for name, tensor in model.state_dict().items()}


def assert_refused(module: Classifier, source: str | Path, message: str) -> None:
    """One clear line, and the module as it was."""
    before = values(module)
    with pytest.raises(DataError, match=message) as caught:
        load_pretrained(module, source)
    assert str(source) in str(caught.value)
    assert "\n" not in str(caught.value)
    assert all(torch.equal(tensor, before[name]) for name, tensor in module.state_dict().items())


def test_own_file_round_trips(tmp_path: Path) -> None:
    first, second = build(NETWORK), build(NETWORK)
    report = load_pretrained(second, saved(first.state_dict(), tmp_path))
    assert report.naming == "luthier"
    assert report.classifier_loaded
    assert all(
        torch.equal(a, b) for a, b in zip(first.state_dict().values(), second.state_dict().values(), strict=True)
    )


@pytest.mark.parametrize(
    "wrap",
    [
        lambda state: state,
        lambda state: {"state_dict": state, "epoch": 3},
        lambda state: {"model": state, "state_dict_ema": state},
        lambda state: {f"module.{name}": tensor for name, tensor in state.items()},
    ],
)
def test_torch_files_and_their_wrappers_load(wrap: Callable[[State], State], published: State, tmp_path: Path) -> None:
    ours = build(NETWORK)
    report = load_pretrained(ours, saved(wrap(published), tmp_path, "net.pth"))
    assert report.num_params == sum(p.numel() for p in ours.parameters())
    assert torch.equal(ours.get_submodule("stages.stem.0.conv.conv").weight, published["conv_stem.weight"])


def test_half_precision_files_keep_the_modules_number_type(published: State, tmp_path: Path) -> None:
    halves = {name: t.half() if t.is_floating_point() else t for name, t in published.items()}
    ours = build(NETWORK)
    load_pretrained(ours, saved(halves, tmp_path))
    assert {p.dtype for p in ours.parameters()} == {torch.float32}
    assert torch.equal(ours.head.classifier.weight, published["classifier.weight"].half().float())


@pytest.mark.parametrize("policy, kept", [("auto", True), ("skip", True)])
def test_classifier_of_another_task_keeps_its_initialisation(
    policy: str, kept: bool, published: State, tmp_path: Path
) -> None:
    ours = build(NETWORK.with_head(7))
    before = ours.head.classifier.weight.clone()
    report = load_pretrained(ours, saved(published, tmp_path), classifier=policy)  # type: ignore[arg-type]
    assert (report.classifier_loaded, report.source_classes) == (False, 1000)
    assert torch.equal(ours.head.classifier.weight, before) is kept
    assert torch.equal(ours.head.hidden[0].weight, published["conv_head.weight"].flatten(1))
    assert "the classifier keeps its initialisation (the checkpoint has 1000 classes)" in str(report)


def test_classifier_of_the_same_size_can_be_skipped_or_demanded(published: State, tmp_path: Path) -> None:
    file = saved(published, tmp_path)
    ours = build(NETWORK)
    before = ours.head.classifier.weight.clone()
    assert not load_pretrained(ours, file, classifier="skip").classifier_loaded
    assert torch.equal(ours.head.classifier.weight, before)
    assert load_pretrained(ours, file, classifier="match").classifier_loaded
    with pytest.raises(DataError, match="the checkpoint has 1000 classes, the network 7; pass classifier='auto'"):
        load_pretrained(build(NETWORK.with_head(7)), file, classifier="match")
    with pytest.raises(SpecError, match="classifier must be one of auto, match, skip, got 'no'"):
        load_pretrained(ours, file, classifier="no")  # type: ignore[arg-type]


def test_folded_norms_equal_a_lenient_load_in_timm(published: State, tmp_path: Path) -> None:
    """Identity values 1, 0 and 1 leave the factor 1 / sqrt(1 + eps), with the network's eps."""
    gone = (".running_mean", ".running_var", ".num_batches_tracked")
    folded = {n: t for n, t in published.items() if not n.endswith(gone) and not re.search(r"bn\d\.weight$", n)}
    network = replace(NETWORK, norm_eps=1e-3)
    theirs = timm.create_model("mobilenetv3_small_075", bn_eps=1e-3).eval()
    theirs.load_state_dict(folded, strict=False)
    ours = build(network).eval()
    nn.init.constant_(ours.get_submodule("stages.stem.0.conv.norm").running_mean, 5.0)
    report = load_pretrained(ours, saved(folded, tmp_path))
    assert report.folded_norms == sum(isinstance(part, nn.BatchNorm2d) for part in ours.modules())
    x = torch.randn(2, 3, 65, 65)
    # the head sums 768 terms as a linear layer here and as a 1x1 convolution there
    torch.testing.assert_close(ours(x), theirs(x), rtol=1e-5, atol=1e-5)


def test_names_of_efficientnet_pytorch_load(tmp_path: Path) -> None:
    timm_state = timm.create_model("efficientnet_b0").state_dict()
    ends = {"conv_stem": "_conv_stem", "bn1": "_bn0", "conv_head": "_conv_head", "bn2": "_bn1", "classifier": "_fc"}
    blocks = sorted({tuple(map(int, name.split(".")[1:3])) for name in timm_state if name.startswith("blocks")})
    parts = {"conv_dw": "_depthwise_conv", "se.conv_reduce": "_se_reduce", "se.conv_expand": "_se_expand"}
    wide = parts | {"conv_pw": "_expand_conv", "bn1": "_bn0", "bn2": "_bn1", "conv_pwl": "_project_conv", "bn3": "_bn2"}
    narrow = parts | {"bn1": "_bn1", "conv_pw": "_project_conv", "bn2": "_bn2"}
    renamed: State = {}
    for name, tensor in timm_state.items():
        prefix, _, last = name.rpartition(".")
        if prefix in ends:
            renamed[f"{ends[prefix]}.{last}"] = tensor
        else:
            _, stage, index, part = prefix.split(".", 3)
            table = narrow if stage == "0" else wide
            renamed[f"_blocks.{blocks.index((int(stage), int(index)))}.{table[part]}.{last}"] = tensor
    first, second = build(presets.get("efficientnet_b0")), build(presets.get("efficientnet_b0"))
    assert load_pretrained(first, saved(renamed, tmp_path)).naming == "efficientnet_pytorch"
    load_pretrained(second, saved(timm_state, tmp_path))
    assert all(
        torch.equal(a, b) for a, b in zip(first.state_dict().values(), second.state_dict().values(), strict=True)
    )


def _without(state: State, *names: str) -> State:
    return {name: tensor for name, tensor in state.items() if name not in names}


def _nan(state: State) -> State:
    weight = state["blocks.1.0.conv_dw.weight"].clone()
    weight[0, 0, 0, 0] = float("nan")
    return {**state, "blocks.1.0.conv_dw.weight": weight}


@pytest.mark.parametrize(
    "change, message",
    [
        (lambda s: _without(s, "blocks.1.0.bn1.running_var"), r"'blocks\.1\.0\.bn1\.running_var' is missing"),
        (lambda s: _without(s, "blocks.1.0.conv_dw.weight"), r"stands where|is missing"),
        (lambda s: _without(s, "classifier.weight", "classifier.bias"), r"lacks 1 layers \(first: 'head\.clas"),
        (lambda s: {**s, "blocks.9.9.conv.weight": torch.ones(9)}, r"stands where|adds"),
        (lambda s: {**s, "neck.weight": torch.ones(9)}, r"unexpected layer 'neck' among timm"),
        (lambda s: {**s, "conv_stem.bias": torch.zeros(16)}, r"'conv_stem\.bias' has no place in our 'stages\.stem"),
        (lambda s: {**s, "bn1.weight": torch.ones(3)}, r"'bn1\.weight' has shape \(3,\), our 'stages\S+' needs \(16"),
        (_nan, r"'blocks\.1\.0\.conv_dw\.weight' holds NaN or infinity"),
        (lambda s: {"a": torch.zeros(2)}, r"key names of no known library \(first: 'a'\)"),
        (lambda s: {}, "no key at all"),
    ],
)  # fmt: skip
def test_damaged_and_foreign_state_dicts_are_refused(
    change: Callable[[State], State], message: str, published: State, tmp_path: Path
) -> None:
    assert_refused(build(NETWORK), saved(change(published), tmp_path), message)


def test_weights_of_another_network_are_refused(published: State, tmp_path: Path) -> None:
    assert_refused(build(presets.get("mobilenetv3_small_100")), saved(published, tmp_path), r"has shape .* needs")
    assert_refused(build(presets.get("resnet18")), saved(published, tmp_path), "stands where|has shape|lacks|adds")


def test_own_names_of_another_network_are_refused(tmp_path: Path) -> None:
    file = saved(build(presets.get("mobilenetv2_035")).state_dict(), tmp_path)
    assert_refused(build(NETWORK), file, r"(lacks|adds) \d+ layers \(first: ")


def test_more_input_channels_are_refused(published: State, tmp_path: Path) -> None:
    network: Network = replace(NETWORK, in_channels=4, input_mean=(0.5,) * 4, input_std=(0.5,) * 4)
    assert_refused(build(network), saved(published, tmp_path), "reads 3 channels, .* has in_channels=4")


def test_files_that_are_no_state_dict_are_refused(published: State, tmp_path: Path) -> None:
    module = build(NETWORK)
    whole = saved(published, tmp_path).read_bytes()
    for name, content, message in (
        ("cut.safetensors", whole[: len(whole) // 2], "not a safetensors file, or truncated"),
        ("empty.safetensors", b"", "not a safetensors file, or truncated"),
        ("cut.pth", b"PK\x03\x04 not a zip", "not a plain torch state dict, or truncated"),
        ("empty.pt", b"", "not a plain torch state dict, or truncated"),
        ("net.onnx", whole, r"must end in \.safetensors, \.pt or \.pth, got '\.onnx'"),
    ):
        (tmp_path / name).write_bytes(content)
        assert_refused(module, tmp_path / name, message)
    torch.save(nn.Linear(2, 2), tmp_path / "model.pth")
    assert_refused(module, tmp_path / "model.pth", "not a plain torch state dict")
    torch.save([torch.zeros(2)], tmp_path / "list.pth")
    assert_refused(module, tmp_path / "list.pth", "holds no state dict")
    assert_refused(module, tmp_path / "absent.safetensors", "no such file; give FILE.safetensors")


def test_models_by_name(monkeypatch: pytest.MonkeyPatch, published: State) -> None:
    """The libraries' own download is replaced; what reaches it and what comes back is checked."""
    asked: list[tuple[str, object]] = []
    create, get = timm.create_model, torchvision.models.get_model

    def timm_model(name: str, pretrained: bool) -> nn.Module:
        asked.append((name, pretrained))
        return create(name)

    def torchvision_model(name: str, weights: str, progress: bool) -> nn.Module:
        asked.append((name, weights))
        return get(name)

    monkeypatch.setattr("luthier.nn.checkpoint._reachable", lambda url: True)
    monkeypatch.setattr(timm, "create_model", timm_model)
    monkeypatch.setattr(torchvision.models, "get_model", torchvision_model)
    assert load_pretrained(build(NETWORK), "timm:mobilenetv3_small_075").source == "timm:mobilenetv3_small_075"
    assert set(read_state_dict("torchvision:resnet18")) == set(get("resnet18").state_dict())
    assert asked == [("mobilenetv3_small_075", True), ("resnet18", "DEFAULT")]


@pytest.mark.parametrize("library", ["timm", "torchvision"])
def test_offline_says_what_helps(library: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def offline(*args: object, **kwargs: object) -> nn.Module:
        raise ConnectionError("no route to host\nsecond line")

    monkeypatch.setattr("luthier.nn.checkpoint._reachable", lambda url: False)
    monkeypatch.setattr(timm, "create_model", offline)
    monkeypatch.setattr(torchvision.models, "get_model", offline)
    remedy = r"cannot be downloaded \(no route to host\); go online once, or give a local FILE\.safetensors"
    assert_refused(build(NETWORK), f"{library}:resnet18", remedy)


@pytest.mark.parametrize("library", ["timm", "torchvision"])
def test_unknown_models_are_named_with_their_neighbours(library: str) -> None:
    assert_refused(build(NETWORK), f"{library}:resnet_18", "no such model; did you mean .*resnet18")


def test_safetensors_round_trip_keeps_every_bit(tmp_path: Path) -> None:
    state = build(NETWORK).state_dict()
    read = load_file(saved(state, tmp_path))
    assert set(read) == set(state)
    assert all(torch.equal(read[name], state[name]) for name in state)
