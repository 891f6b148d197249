"""Our modules against the libraries' own, with their weights: same names of layers, same arithmetic.

Every parameter and every statistic of the library model is random, so a swapped pair of norms shows.  Maps of 97 pixels
meet odd sizes at every stride, where the two paddings differ.  Tolerance: 1e-5 of the largest score; both sides run the
same torch kernels, and only a linear layer in place of a 1x1 convolution may sum in another order (1280 terms: 2e-6).
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import timm
import torch
import torchvision
from safetensors.torch import save_file
from timm.models.vgg import ConvMlp
from torch import Tensor, nn

from luthier.arch import presets
from luthier.nn import LoadReport, build, load_pretrained
from luthier.nn.build import Classifier

PAIRS = [
    ("timm", "efficientnet_b0", "efficientnet_b0"),
    ("torchvision", "efficientnet_b0", "efficientnet_b0"),
    ("timm", "tf_efficientnetv2_s", "tf_efficientnetv2_s"),
    ("torchvision", "efficientnet_v2_s", "efficientnet_v2_s"),
    ("timm", "mobilenetv3_large_100", "mobilenetv3_large_100"),
    ("torchvision", "mobilenet_v3_large", "mobilenet_v3_large"),
    ("timm", "tf_mobilenetv3_small_100", "tf_mobilenetv3_small_100"),
    ("torchvision", "mobilenet_v3_small", "mobilenet_v3_small"),
    ("timm", "tf_efficientnet_lite0", "tf_efficientnet_lite0"),
    ("timm", "seresnet50", "seresnet50"),
    ("timm", "resnet18", "resnet18"),
    ("torchvision", "resnet18", "resnet18"),
    ("timm", "resnet50", "resnet50"),
    ("torchvision", "resnet50", "resnet50"),
    ("timm", "mobilenetv2_100", "mobilenetv2_100"),
    ("torchvision", "mobilenet_v2", "mobilenetv2_100"),
    ("timm", "mnasnet_100", "mnasnet_100"),
    ("torchvision", "mnasnet1_0", "mnasnet_100"),
    ("timm", "semnasnet_100", "semnasnet_100"),
]


def randomised(model: nn.Module, seed: int = 1) -> nn.Module:
    """The model with random weights, biases and statistics, scaled so that signals neither vanish nor explode."""
    model.to_empty(device="cpu")
    generator = torch.Generator().manual_seed(seed)
    for part in model.modules():
        if isinstance(part, nn.modules.batchnorm._BatchNorm):
            assert part.running_mean is not None
            assert part.running_var is not None
            part.weight.data.uniform_(0.5, 1.2, generator=generator)
            part.running_mean.normal_(0, 0.2, generator=generator)
            part.running_var.uniform_(0.5, 1.5, generator=generator)
            part.bias.data.normal_(0, 0.2, generator=generator)
            assert part.num_batches_tracked is not None
            part.num_batches_tracked.zero_()
        elif isinstance(part, nn.Conv2d | nn.Linear):
            fan_in = part.weight[0].numel()
            part.weight.data.normal_(0, (2 / fan_in) ** 0.5, generator=generator)
            if part.bias is not None:
                part.bias.data.normal_(0, 0.2, generator=generator)
    return model.eval()


def library_model(library: str, name: str) -> nn.Module:
    with torch.device("meta"):
        model: nn.Module = timm.create_model(name) if library == "timm" else torchvision.models.get_model(name)
    return randomised(model)


def loaded(theirs: nn.Module, preset: str, folder: Path) -> tuple[Classifier, LoadReport]:
    file = folder / "weights.safetensors"
    save_file({name: tensor.contiguous() for name, tensor in theirs.state_dict().items()}, file)
    ours = build(presets.get(preset))
    return ours.eval(), load_pretrained(ours, file, classifier="match")


@torch.inference_mode()
def largest_difference(ours: nn.Module, theirs: nn.Module, x: Tensor) -> float:
    """max |ours - theirs| over max |theirs|."""
    wanted, found = theirs(x), ours(x)
    assert wanted.std() > 1e-3
    return float((found - wanted).abs().max() / wanted.abs().max())


@pytest.mark.parametrize("library, name, preset", PAIRS)
def test_same_outputs_as_the_library_model(library: str, name: str, preset: str, tmp_path: Path) -> None:
    theirs = library_model(library, name)
    ours, report = loaded(theirs, preset, tmp_path)
    assert report.num_params == sum(p.numel() for p in theirs.parameters())
    assert largest_difference(ours, theirs, torch.randn(2, 3, 97, 97)) < 1e-5


@pytest.mark.parametrize("library", ["timm", "torchvision"])
def test_vgg_with_narrow_linear_layers(library: str, tmp_path: Path) -> None:
    """The two 4096-wide layers are 89 % of VGG and say nothing that 32-wide ones do not."""
    with torch.device("meta"):
        if library == "timm":
            theirs: nn.Module = timm.create_model("vgg11_bn")
            theirs.pre_logits, theirs.head.fc = ConvMlp(512, 32, 7, mlp_ratio=1.0), nn.Linear(32, 1000)
        else:
            theirs = torchvision.models.get_model("vgg11_bn", init_weights=False)
            theirs.classifier[0], theirs.classifier[3] = nn.Linear(25088, 32), nn.Linear(32, 32)
            theirs.classifier[6] = nn.Linear(32, 1000)
    theirs = randomised(theirs)
    network = presets.get("vgg11_bn")
    ours = build(replace(network, head=replace(network.head, hidden=(32, 32)))).eval()
    file = tmp_path / "vgg.safetensors"
    save_file(theirs.state_dict(), file)
    load_pretrained(ours, file, classifier="match")
    assert largest_difference(ours, theirs, torch.randn(1, 3, 224, 224)) < 1e-5


def test_a_swapped_pair_of_norms_would_be_seen(tmp_path: Path) -> None:
    theirs = library_model("timm", "efficientnet_b0")
    ours, _ = loaded(theirs, "efficientnet_b0", tmp_path)
    first, second = theirs.get_submodule("blocks.1.1.bn1"), theirs.get_submodule("blocks.1.1.bn2")
    assert first.weight.shape == second.weight.shape
    before = first.running_mean.clone()
    first.running_mean.copy_(second.running_mean)
    second.running_mean.copy_(before)
    assert largest_difference(ours, theirs, torch.randn(2, 3, 97, 97)) > 1e-3


def test_dropout_stands_where_the_library_has_it(tmp_path: Path) -> None:
    """With dropout 1 - 1e-7 in both, training mode leaves the classifier's bias; elsewhere it would leave more."""
    network = presets.get("mobilenet_v3_small")
    ours = build(replace(network, head=replace(network.head, dropout=1 - 1e-7)))
    nn.init.normal_(ours.head.classifier.bias)
    for part in ours.modules():
        if isinstance(part, nn.BatchNorm2d):
            part.eval()
    scores = ours(torch.randn(1, 3, 64, 64))
    assert torch.equal(scores[0], ours.head.classifier.bias)
