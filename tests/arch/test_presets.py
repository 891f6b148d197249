"""Presets against published figures, against the library's own modules, and through JSON."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import pytest

from luthier.arch import Network, from_json, to_json
from luthier.arch.network import HALF, IMAGENET_MEAN
from luthier.arch.presets import get, names, register
from luthier.arch.presets.mobilenet import mobilenet_v2
from luthier.errors import SpecError
from luthier.graph import from_network
from luthier.nn import build

Count = Callable[[Network], int]

#: parameters as timm and torchvision list them for their ImageNet weights (resnet20: shortcut option A, 10 classes)
PUBLISHED = {
    "efficientnet_b0": 5_288_548,
    "efficientnet_b1": 7_794_184,
    "efficientnet_b2": 9_109_994,
    "efficientnet_b3": 12_233_232,
    "efficientnet_b4": 19_341_616,
    "efficientnet_b5": 30_389_784,
    "efficientnet_b6": 43_040_704,
    "efficientnet_b7": 66_347_960,
    "efficientnet_lite0": 4_652_008,
    "efficientnet_lite1": 5_416_680,
    "efficientnet_lite2": 6_092_072,
    "efficientnet_lite3": 8_197_096,
    "efficientnet_lite4": 13_006_568,
    "efficientnet_v2_s": 21_458_488,
    "efficientnet_v2_m": 54_139_356,
    "efficientnet_v2_l": 118_515_272,
    "mobilenetv2_100": 3_504_872,
    "mobilenetv2_140": 6_108_776,
    "mobilenetv2_110d": 4_516_520,
    "mobilenetv2_120d": 5_831_144,
    "mobilenetv3_large_100": 5_483_032,
    "mobilenetv3_small_100": 2_542_856,
    "mnasnet_100": 4_383_312,
    "semnasnet_100": 3_887_038,
    "seresnet50": 28_088_024,
    "resnet18": 11_689_512,
    "resnet34": 21_797_672,
    "resnet50": 25_557_032,
    "resnet20": 269_722,
    "vgg11": 132_863_336,
    "vgg11_bn": 132_868_840,
    "vgg16": 138_357_544,
    "vgg16_bn": 138_365_992,
}
TORCHVISION = {name: name for name in PUBLISHED if name.startswith(("efficientnet_b", "efficientnet_v2", "vgg"))} | {
    "resnet18": "resnet18",
    "resnet34": "resnet34",
    "resnet50": "resnet50",
    "mobilenet_v2": "mobilenet_v2",
    "mobilenet_v3_large": "mobilenet_v3_large",
    "mobilenet_v3_small": "mobilenet_v3_small",
    "mnasnet1_0": "mnasnet1_0",
}
#: not in timm: torchvision's own names, the two networks for small images, and those for scenes
NOT_TIMM = {"mbconv_thumbnail", "resnet20"} | {
    n for n in names() if n.startswith(("efficientnet_v2", "mobilenet_v", "mbconv_scene"))
}


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_params(name: str, count_params: Count) -> None:
    assert count_params(get(name)) == PUBLISHED[name]


@pytest.mark.parametrize("name", sorted(set(names()) - NOT_TIMM))
def test_params_and_epsilon_equal_timm(name: str, count_params: Count) -> None:
    import timm
    import torch

    with torch.device("meta"):
        model = timm.create_model(name, pretrained=False)
    network = get(name)
    assert count_params(network) == sum(p.numel() for p in model.parameters())
    found = {m.eps for m in model.modules() if isinstance(m, torch.nn.BatchNorm2d)}
    assert found <= {network.norm_eps}


@pytest.mark.parametrize("name", TORCHVISION)
def test_params_equal_torchvision(name: str, count_params: Count) -> None:
    import torch
    from torchvision import models

    with torch.device("meta"):
        model = models.get_model(TORCHVISION[name], weights=None)
    assert count_params(get(name)) == sum(p.numel() for p in model.parameters())


@pytest.mark.parametrize("name", names())
def test_params_of_our_module(name: str, count_params: Count) -> None:
    import torch

    with torch.device("meta"):
        model = build(get(name))
    assert count_params(get(name)) == sum(p.numel() for p in model.parameters())


@pytest.mark.parametrize("name", names())
def test_json_round_trip(name: str) -> None:
    assert from_json(to_json(get(name))) == get(name)
    assert get(name).name == name


def test_macs_near_the_papers() -> None:
    # arXiv:1905.11946 table 2 rounds to 0.39 B, 0.70 B, 1.0 B, 1.8 B, 4.2 B, 9.9 B, 19 B, 37 B
    from luthier.cost import graph_macs

    paper = (0.39e9, 0.70e9, 1.0e9, 1.8e9, 4.2e9, 9.9e9, 19e9, 37e9)
    for index, published in enumerate(paper):
        assert graph_macs(from_network(get(f"efficientnet_b{index}"))) == pytest.approx(published, rel=0.05)


@pytest.mark.parametrize(
    ("name", "resolution", "feature_size", "dropout"),
    [
        ("efficientnet_b0", 224, 7, 0.2),
        ("efficientnet_b1", 240, 8, 0.2),
        ("efficientnet_b2", 260, 9, 0.3),
        ("efficientnet_b3", 300, 10, 0.3),
        ("efficientnet_b4", 380, 12, 0.4),
        ("efficientnet_b5", 456, 15, 0.4),
        ("efficientnet_b6", 528, 17, 0.5),
        ("efficientnet_b7", 600, 19, 0.5),
        ("tf_efficientnet_lite3", 280, 9, 0.3),
        ("efficientnet_lite4", 300, 10, 0.3),
        ("efficientnet_v2_s", 384, 12, 0.2),
        ("tf_efficientnetv2_l", 480, 15, 0.4),
        ("mobilenetv3_small_100", 224, 7, 0.2),
        ("resnet50", 224, 7, 0.0),
        ("resnet20", 32, 8, 0.0),
        ("vgg16_bn", 224, 7, 0.5),
        ("mbconv_thumbnail", 32, 4, 0.1),
    ],
)
def test_input_and_head(name: str, resolution: int, feature_size: int, dropout: float) -> None:
    network = get(name)
    assert (network.resolution, network.feature_size, network.head.dropout) == (resolution, feature_size, dropout)


def test_tf_variants_differ_in_what_the_weights_need() -> None:
    ours, tf = get("efficientnet_b0"), get("tf_efficientnet_b0")
    assert (ours.padding, ours.norm_eps, tf.padding, tf.norm_eps) == ("symmetric", 1e-5, "tf_same", 1e-3)
    assert tf.stages == ours.stages
    assert tf.input_mean == IMAGENET_MEAN
    assert get("tf_efficientnet_lite0").input_mean == HALF == get("tf_efficientnet_lite0").input_std
    assert get("mobilenet_v3_large").norm_eps == 1e-3
    assert get("mobilenet_v3_large").padding == "symmetric"


@pytest.mark.parametrize(("width_mult", "last"), [(0.35, 112), (0.5, 160), (0.75, 240), (1.0, 320), (1.4, 448)])
def test_mobilenet_v2_head_never_shrinks(width_mult: float, last: int) -> None:
    network = mobilenet_v2(width_mult)
    assert network.stages[-1].blocks[-1].out_channels == last
    assert network.head.conv_channels == max(1280, round(1280 * width_mult))
    assert network == get(network.name)


@pytest.mark.parametrize(
    ("alias", "name"),
    [
        ("mobilenet_v2", "mobilenetv2_100"),
        ("MNASNet1-0", "mnasnet_100"),
        ("mnasnet_a1", "semnasnet_100"),
        ("EfficientNet-B0", "efficientnet_b0"),
        (" VGG11-bn ", "vgg11_bn"),
    ],
)
def test_aliases(alias: str, name: str) -> None:
    assert get(alias) is get(name)
    assert name in names()
    assert alias not in names()


def test_names_are_sorted_and_complete() -> None:
    assert list(names()) == sorted(names())
    assert set(PUBLISHED) <= set(names())


def test_unknown_name_shows_the_nearest_and_where_all_are() -> None:
    with pytest.raises(SpecError, match=r"'efficientnet_b9'; did you mean efficientnet_b.*presets\.names\(\)"):
        get("efficientnet_b9")
    with pytest.raises(SpecError, match=r"no network named '\?'; all \d+ names"):
        get("?")


@pytest.mark.parametrize("taken", ["efficientnet_b0", "EfficientNet-B0", "mobilenet_v2"])
def test_register_refuses_a_taken_name(taken: str) -> None:
    with pytest.raises(SpecError, match="exists already"):
        register(taken, partial(get, "resnet18"))
    with pytest.raises(SpecError, match="exists already"):
        register("a_new_name", partial(get, "resnet18"), aliases=(taken,))
    assert "a_new_name" not in names()


@pytest.mark.parametrize("resolution", [8, 12, 16, 24, 32, 48])
def test_thumbnail_takes_small_images(resolution: int) -> None:
    import torch

    from luthier.arch.scaling import scale_by

    network = scale_by(get("mbconv_thumbnail"), 1, 1, resolution)
    assert network.feature_size == -(-resolution // 8)
    scores = build(network).eval()(torch.zeros(1, 3, resolution, resolution))
    assert scores.shape == (1, 10)
