"""Compound scaling: the published family, the law, and what scaling must never break."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from luthier.arch import Block, Head, Network, Stage, from_json, to_json
from luthier.arch.presets import get, names
from luthier.arch.scaling import Coefficients, family, scale, scale_by
from luthier.cost import graph_macs
from luthier.errors import SpecError
from luthier.graph import from_network

Count = Callable[[Network], int]
PHIS = st.floats(-8, 12, allow_nan=False)


@pytest.mark.parametrize(
    ("width", "depth", "resolution", "params"),
    [
        (1.0, 1.0, 224, 5_288_548),
        (1.0, 1.1, 240, 7_794_184),
        (1.1, 1.2, 260, 9_109_994),
        (1.2, 1.4, 300, 12_233_232),
        (1.4, 1.8, 380, 19_341_616),
        (1.6, 2.2, 456, 30_389_784),
        (1.8, 2.6, 528, 43_040_704),
        (2.0, 3.1, 600, 66_347_960),
    ],
)
def test_published_family_from_b0(
    width: float, depth: float, resolution: int, params: int, count_params: Count
) -> None:
    scaled = scale_by(get("efficientnet_b0"), width, depth, resolution)
    assert count_params(scaled) == params
    assert scaled.resolution == resolution


def test_paper_coefficients_miss_two() -> None:
    assert Coefficients().product == pytest.approx(1.2 * 1.1**2 * 1.15**2, rel=1e-12)
    assert Coefficients().product == pytest.approx(1.9203, abs=1e-4)


def test_macs_follow_the_law_where_rounding_is_fine() -> None:
    # wide and deep enough that whole channels, blocks and pixels matter little; the paper's law is then exact to 6 %
    blocks = tuple(Block(kind="mbconv", out_channels=512, expand_ratio=4) for _ in range(40))
    network = Network(
        name="wide",
        stages=(Stage(name="stem", blocks=(Block(kind="conv", out_channels=512),)), Stage(name="body", blocks=blocks)),
        head=Head(num_classes=10),
        resolution=64,
        channel_divisor=1,
    )
    base = graph_macs(from_network(network))
    for phi in (-2, -1, 1, 2):
        scaled = scale(network, phi, resolution_divisor=1)
        assert graph_macs(from_network(scaled)) / base == pytest.approx(Coefficients().product ** phi, rel=0.06)


@pytest.mark.parametrize("name", names())
def test_phi_zero_is_the_identity(name: str) -> None:
    assert scale(get(name), 0) is get(name)
    assert scale_by(get(name), 1, 1, get(name).resolution, name=name) == get(name)


@given(name=st.sampled_from(names()), phi=PHIS)
def test_scaled_networks_are_valid_and_round_trip(name: str, phi: float) -> None:
    base = get(name)
    scaled = scale(base, phi)
    assert from_json(to_json(scaled)) == scaled
    assert scaled.feature_size >= 1
    assert scaled.total_stride == base.total_stride
    assert [stage.name for stage in scaled.stages] == [stage.name for stage in base.stages]
    assert scaled.resolution >= min(base.total_stride, base.resolution)
    assert scaled.resolution == base.resolution or scaled.resolution % 4 == 0 or scaled.resolution == base.total_stride


@given(name=st.sampled_from(names()), low=PHIS, high=PHIS)
def test_params_and_work_never_fall_as_phi_grows(name: str, low: float, high: float) -> None:
    low, high = sorted((low, high))
    small, large = (scale_by(get(name), 1.1**phi, 1.2**phi, 256) for phi in (low, high))
    for before, after in zip(small.stages, large.stages, strict=True):
        assert len(before.blocks) <= len(after.blocks)
        assert before.blocks[-1].out_channels <= after.blocks[-1].out_channels
    assert small.feature_channels <= large.feature_channels


@given(low=PHIS, high=PHIS)
def test_count_never_falls_as_phi_grows(low: float, high: float, count_params: Count) -> None:
    low, high = sorted((low, high))
    for name in ("efficientnet_b0", "mbconv_thumbnail", "mobilenetv2_100"):
        assert count_params(scale(get(name), low)) <= count_params(scale(get(name), high))


def test_flags_keep_stem_head_and_ends() -> None:
    lite = scale_by(get("efficientnet_lite0"), 2.0, 3.0, 224)
    assert lite.stages[0].blocks[0].out_channels == 32
    assert lite.head.conv_channels == 1280
    assert [len(stage.blocks) for stage in lite.stages] == [1, 1, 6, 6, 9, 9, 12, 1]
    b = scale_by(get("efficientnet_b0"), 2.0, 3.0, 224)
    assert b.stages[0].blocks[0].out_channels == 64
    assert b.head.conv_channels == 2560
    assert [len(stage.blocks) for stage in b.stages] == [1, 3, 6, 6, 9, 9, 12, 3]


def test_a_stage_grows_at_stride_one_and_shrinks_from_its_end() -> None:
    deep = scale_by(get("efficientnet_b0"), 1, 4, 224)
    assert [block.stride for block in deep.stages[2].blocks] == [2] + [1] * 7
    shallow = scale_by(get("mobilenetv3_large_100"), 1, 0.5, 224)
    kept = get("mobilenetv3_large_100").stages[4].blocks[:2]
    assert shallow.stages[4].blocks == kept


def test_pools_keep_the_channels_and_the_place_they_have() -> None:
    resnet = scale_by(get("resnet18"), 0.5, 0.1, 224)
    assert [block.out_channels for block in resnet.stages[1].blocks] == [32]
    vgg = scale_by(get("vgg16"), 0.5, 2, 224)
    assert [block.kind for block in vgg.stages[0].blocks] == ["conv"] * 4 + ["pool"]
    assert {block.out_channels for block in vgg.stages[0].blocks} == {32}
    assert vgg.head.hidden == (4096, 4096)


@pytest.mark.parametrize(
    ("phi", "divisor", "maximum", "resolution"),
    [(1, 4, None, 256), (1, 1, None, 258), (1, 32, None, 256), (1, 4, 230, 230), (-1, 4, None, 196), (-8, 4, 20, 20)],
)
def test_resolution_rounding(phi: float, divisor: int, maximum: int | None, resolution: int) -> None:
    # 224 * 1.15 = 257.6; 224 / 1.15 = 194.8
    scaled = scale(get("efficientnet_b0"), phi, resolution_divisor=divisor, max_resolution=maximum)
    assert scaled.resolution == resolution


def test_the_last_map_keeps_a_pixel() -> None:
    tiny = replace(get("mbconv_thumbnail"), resolution=8)
    assert scale(tiny, -8).resolution == 8
    assert scale(get("mbconv_thumbnail"), -8).resolution == 12
    assert scale(get("mbconv_thumbnail"), 0, max_resolution=8).feature_size == 1


def test_steps_of_the_thumbnail_family_are_small() -> None:
    # a budget of any size must have a member near it: no step of 1/2 may more than double the work
    members = family(get("mbconv_thumbnail"), [n / 2 for n in range(-12, 13)], max_resolution=32)
    macs = [graph_macs(from_network(member)) for member in members]
    assert macs[0] < 0.4e6
    assert macs[-1] > 40e6
    assert all(later / earlier < 2 for earlier, later in pairwise(macs))


def test_family_names_and_duplicates() -> None:
    members = family(get("mbconv_thumbnail"), (-1.5, -1.5001, 0, 0.0, 2))
    assert [m.name for m in members] == ["mbconv_thumbnail@phi=-1.5", "mbconv_thumbnail", "mbconv_thumbnail@phi=2"]
    assert family(get("mbconv_thumbnail"), ()) == ()


@pytest.mark.parametrize("phi", [-8.1, 12.5, math.nan, math.inf, -math.inf])
def test_phi_out_of_bounds(phi: float) -> None:
    with pytest.raises(SpecError, match=r"phi must lie in \[-8, 12\], got"):
        scale(get("efficientnet_b0"), phi)


@pytest.mark.parametrize("field", ["alpha", "beta", "gamma"])
@pytest.mark.parametrize("value", [0.99, 0.0, -1.0, math.nan, math.inf])
def test_bad_coefficients(field: str, value: float) -> None:
    with pytest.raises(SpecError, match=f"Coefficients: {field} must be at least 1"):
        Coefficients(**{field: value})


@pytest.mark.parametrize("factor", [0.0, -1.0, math.nan, math.inf])
def test_bad_factors(factor: float) -> None:
    with pytest.raises(SpecError, match="width must be above zero"):
        scale_by(get("efficientnet_b0"), factor, 1, 224)
    with pytest.raises(SpecError, match="depth must be above zero"):
        scale_by(get("efficientnet_b0"), 1, factor, 224)


def test_bad_resolutions() -> None:
    with pytest.raises(SpecError, match="resolution_divisor must be at least 1"):
        scale(get("efficientnet_b0"), 1, resolution_divisor=0)
    with pytest.raises(SpecError, match="max_resolution must be at least 1"):
        scale(get("efficientnet_b0"), 1, max_resolution=0)
    with pytest.raises(SpecError, match=r"stage4\.2: nothing is left of a 16 px input; raise the resolution"):
        scale_by(get("vgg11"), 1, 1, 16)
