"""Augmentation: per-image draws on a batch, exact on what can be exact."""

from __future__ import annotations

import itertools

import pytest
import torch

from luthier.errors import InputError, SpecError
from luthier.train.transforms import CropAndMirror, EachImage, make_transforms

ZERO, ONE = (0.0, 0.0, 0.0), (1.0, 1.0, 1.0)


def random_images(*shape: int) -> torch.Tensor:
    return torch.randint(1, 256, shape, dtype=torch.uint8)


@pytest.mark.parametrize("mirror", [False, True])
def test_crop_and_mirror_against_slow_loop(mirror: bool) -> None:
    images = random_images(40, 3, 7, 6)
    out = CropAndMirror(2, mirror)(images)
    padded = torch.zeros(40, 3, 11, 10, dtype=torch.uint8)
    padded[:, :, 2:9, 2:8] = images
    seen = set()
    for i in range(40):
        matches = []
        for top, left in itertools.product(range(5), repeat=2):
            cut = padded[i, :, top : top + 7, left : left + 6]
            matches += [
                (top, left, flip) for flip in (False, True) if torch.equal(out[i], cut.flip(-1) if flip else cut)
            ]
        assert len(matches) == 1
        seen.add(matches[0])
    assert len(seen) > 15  # each image has a draw of its own
    assert {flip for _, _, flip in seen} == ({False, True} if mirror else {False})


def test_every_place_is_reached_and_mirrors_are_even() -> None:
    image = torch.arange(1, 10, dtype=torch.uint8).reshape(1, 1, 3, 3).expand(4000, 3, 3, 3)
    out = CropAndMirror(1, True)(image)
    different = torch.unique(out.flatten(1), dim=0, return_counts=True)[1]
    assert len(different) == 18
    assert different.min() > 4000 / 18 * 0.7  # 4000 draws of 18: 222 +- 15, four deviations and more


def test_input_is_not_changed() -> None:
    images = random_images(4, 3, 8, 8)
    before = images.clone()
    make_transforms(8, train=True, native_hw=(32, 32), mean=ZERO, std=ONE)(images)
    assert torch.equal(images, before)


@pytest.mark.parametrize("augment", ["none", "crop", "crop_flip", "crop_flip_jitter", "auto"])
@pytest.mark.parametrize(("native", "resolution"), [((32, 32), 32), ((32, 32), 24), ((8, 8), 16), ((96, 80), 64)])
def test_shapes_and_types(augment: str, native: tuple[int, int], resolution: int) -> None:
    transform = make_transforms(resolution, train=True, native_hw=native, mean=ZERO, std=ONE, augment=augment)
    for images in (random_images(5, 3, *native), random_images(3, *native)):
        out = transform(images)
        assert out.dtype == torch.float32
        assert out.shape == (*images.shape[:-2], resolution, resolution)
        assert 0 <= out.min() <= out.max() <= 1


def test_evaluation_is_deterministic_and_normalised() -> None:
    mean, std = (0.1, 0.2, 0.3), (0.5, 0.4, 0.3)
    images = random_images(3, 3, 32, 32)
    out = make_transforms(32, train=False, native_hw=(32, 32), mean=mean, std=std)(images)
    expected = (images.double() / 255 - torch.tensor(mean).view(3, 1, 1)) / torch.tensor(std).view(3, 1, 1)
    assert torch.allclose(out.double(), expected, atol=1e-6)


def is_flipped_anywhere(augment: str, native: int) -> bool:
    """Does a left-bright image ever come out right-bright?"""
    image = torch.zeros(64, 3, native, native, dtype=torch.uint8)
    image[..., : native // 4] = 200
    image[..., native // 4 : native // 2] = 100
    out = make_transforms(native, train=True, native_hw=(native, native), mean=ZERO, std=ONE, augment=augment)(image)
    half = native // 2
    return bool((out[..., half:].sum((1, 2, 3)) > out[..., :half].sum((1, 2, 3))).any())


def test_mirroring_is_a_setting() -> None:
    assert is_flipped_anywhere("crop_flip", 32)
    assert is_flipped_anywhere("auto", 32)
    assert not is_flipped_anywhere("crop", 32)
    assert not is_flipped_anywhere("auto", 8)  # handwritten digits


def test_photographs_get_different_crops() -> None:
    image = random_images(3, 96, 96).expand(6, 3, 96, 96)
    out = make_transforms(48, train=True, native_hw=(96, 96), mean=ZERO, std=ONE, augment="crop")(image)
    assert len(torch.unique(out.flatten(1), dim=0)) == 6


def test_each_image_calls_once_per_image() -> None:
    calls = []

    def count(image: torch.Tensor) -> torch.Tensor:
        calls.append(image.shape)
        return image

    EachImage(count)(random_images(3, 3, 4, 4))
    assert calls == [(3, 4, 4)] * 3


def test_refused_arguments() -> None:
    with pytest.raises(
        InputError, match="augment: must be one of auto, none, crop, crop_flip, crop_flip_jitter, got 'x'"
    ):
        make_transforms(8, train=True, native_hw=(8, 8), mean=ZERO, std=ONE, augment="x")
    with pytest.raises(SpecError, match="resolution must be >= 1, got 0"):
        make_transforms(0, train=True, native_hw=(8, 8), mean=ZERO, std=ONE)
