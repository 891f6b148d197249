"""Deployed preprocessing: Pillow and NumPy alone, equal to what training evaluates with."""

from __future__ import annotations

import json
import subprocess
import sys

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from luthier.errors import DataError, SpecError
from luthier.train.preprocess import IMAGENET_MEAN, IMAGENET_STD, Preprocess, preprocess_for, resized_wh
from luthier.train.transforms import make_transforms


def photograph(height: int, width: int) -> np.ndarray:
    """Smooth waves with some noise, (H, W, 3) uint8."""
    rng = np.random.default_rng(0)
    y, x = np.mgrid[:height, :width]
    waves = [127 + 90 * np.sin(x / (7 + c) + c) * np.cos(y / (11 - c)) for c in range(3)]
    return (np.stack(waves, -1) + rng.normal(0, 8, (height, width, 3))).clip(0, 255).astype(np.uint8)


def test_module_needs_no_torch() -> None:
    code = "import luthier.train.preprocess, luthier.train.convert, sys; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_formula_without_resizing() -> None:
    image = photograph(8, 8)
    got = Preprocess(8).apply(image)
    expected = (image.astype(np.float64) / 255 - IMAGENET_MEAN) / IMAGENET_STD
    assert got.shape == (1, 3, 8, 8)
    assert got.dtype == np.float32
    np.testing.assert_allclose(got[0], expected.transpose(2, 0, 1), atol=1e-6)  # a few float32 roundings of |x| < 3


def test_short_side_256_centre_224() -> None:
    spec = Preprocess(224, 0.875, "short_side", mean=(0, 0, 0), std=(1, 1, 1))
    image = Image.fromarray(photograph(300, 401))
    by_hand = image.resize((342, 256), Image.Resampling.BICUBIC).crop((59, 16, 283, 240))
    assert np.array_equal(spec.apply(image)[0] * 255, np.asarray(by_hand, np.float32).transpose(2, 0, 1))


@pytest.mark.parametrize("hw", [(256, 300), (31, 400), (1000, 257), (224, 224)])
@pytest.mark.parametrize("resolution", [32, 97, 224])
def test_size_is_always_the_resolution(hw: tuple[int, int], resolution: int) -> None:
    spec = Preprocess(resolution, 0.875, "short_side")
    assert spec.apply(photograph(*hw)).shape == (1, 3, resolution, resolution)


@pytest.mark.parametrize(
    ("native_hw", "resolution"), [((32, 32), 32), ((32, 32), 40), ((8, 8), 32), ((32, 48), 24), ((120, 161), 64)]
)
def test_equals_what_training_evaluates_with(native_hw: tuple[int, int], resolution: int) -> None:
    mean, std = (0.4, 0.5, 0.6), (0.2, 0.25, 0.3)
    image = photograph(*native_hw)
    transform = make_transforms(resolution, train=False, native_hw=native_hw, mean=mean, std=std)
    trained = transform(torch.from_numpy(image.transpose(2, 0, 1).copy())).numpy()
    deployed = preprocess_for(resolution, native_hw, mean, std).apply(image)[0]
    # One grey level where torchvision's and Pillow's fixed-point bicubic kernels round apart.
    assert np.abs(trained - deployed).max() <= 1.01 / 255 / min(std)
    assert np.abs(trained - deployed).mean() <= 0.05 / 255 / min(std)


def test_modes_other_than_rgb() -> None:
    spec = Preprocess(4, mean=(0, 0, 0), std=(1, 1, 1))
    grey = np.full((4, 4), 51, np.uint8)
    for image in (grey, grey[..., None], Image.fromarray(grey), Image.fromarray(grey.astype(np.uint16) * 257)):
        np.testing.assert_allclose(spec.apply(image), 0.2, rtol=1e-6)
    assert spec.apply(np.zeros((4, 4, 4), np.uint8)).min() == 1.0  # transparent is white


@given(
    resolution=st.integers(1, 600),
    crop_pct=st.floats(0.5, 1.0),
    mean=st.tuples(*[st.floats(0, 1)] * 3),
    std=st.tuples(*[st.floats(0.01, 1)] * 3),
)
def test_json_round_trip(resolution: int, crop_pct: float, mean: tuple, std: tuple) -> None:
    spec = Preprocess(resolution, crop_pct, "short_side", "bilinear", True, mean, std)
    assert Preprocess.from_json(json.loads(json.dumps(spec.to_json()))) == spec
    assert min(resized_wh((640, 481), spec)) >= resolution


@pytest.mark.parametrize(("resolution", "side"), [(224, 256), (112, 128), (96, 109), (384, 438)])
def test_resize_side_is_the_published_one(resolution: int, side: int) -> None:
    assert Preprocess(resolution, 0.875, "short_side").resize_side == side


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"resolution": 0}, "resolution must be >= 1, got 0"),
        ({"crop_pct": 1.5}, r"crop_pct must lie in \(0, 1\], got 1.5"),
        ({"crop_pct": 0.9}, "crop_pct must be 1 when resize is 'stretch', got 0.9"),
        ({"resize": "tile"}, "resize must be one of stretch, short_side, got 'tile'"),
        ({"interpolation": "nearest"}, "interpolation must be one of bicubic, bilinear, got 'nearest'"),
        ({"antialias": False}, "antialias must be true"),
        ({"std": (1.0, 0.0, 1.0)}, "std above zero"),
    ],
)
def test_refused_fields(fields: dict, message: str) -> None:
    with pytest.raises(SpecError, match=message):
        Preprocess(**{"resolution": 8, **fields})


def test_unknown_json_fields() -> None:
    with pytest.raises(SpecError, match="expected the fields"):
        Preprocess.from_json({**Preprocess(8).to_json(), "gamma": 2})


@pytest.mark.parametrize(
    ("array", "message"),
    [(np.zeros((4, 4, 3), np.float32), "must be uint8, got float32"), (np.zeros((3, 4, 5, 6), np.uint8), "expected")],
)
def test_refused_arrays(array: np.ndarray, message: str) -> None:
    with pytest.raises(DataError, match=message):
        Preprocess(4).apply(array)
