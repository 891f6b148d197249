"""Maps: the engine against torch, tiles against one pass, rasters and pictures read back."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
import torch
from PIL import Image
from random_networks import lively

from luthier.arch import presets
from luthier.arch.presets.scene import for_scene
from luthier.errors import DataError
from luthier.nn.build import build
from luthier.scene import draw
from luthier.scene.cube import GeoReference, Scene
from luthier.scene.geotiff import georeference_of
from luthier.scene.map import ClassMap, Mapper
from luthier.scene.model import SceneModel, fitted, read_model
from luthier.scene.train import field_radius
from luthier.scene.write import write_map

NAMES = ("mbconv_scene", "mbconv_scene_bandwise")


def made(name: str, scene: Scene, tile: int) -> tuple[Mapper, torch.nn.Module]:
    """A lively network over a scene."""
    mean, std = scene.statistics()
    network = for_scene(presets.get(name), 3, mean.tolist(), std.tolist())
    module = lively(build(network), (2, 12, 9, 9), 0).float()
    state = {key: value.numpy() for key, value in module.state_dict().items()}
    return Mapper.compiled(network, state, (1, 2, 3), scene.hw, field_radius(network), tile=tile), module


@pytest.mark.parametrize("name", NAMES)
def test_the_engine_equals_torch_and_tiles_equal_one_pass(striped: Callable[..., Scene], name: str) -> None:
    scene = striped(side=37)
    mapper, module = made(name, scene, tile=64)
    assert mapper.hw == (37, 37)
    found = mapper(scene)
    mean, std = (np.array(v, np.float32) for v in (mapper.network.input_mean, mapper.network.input_std))
    with torch.no_grad():
        scores = (
            module(torch.from_numpy(((scene.window() - mean) / std).transpose(2, 0, 1)[None])).softmax(1)[0].numpy()
        )
    assert found.probability == pytest.approx(scores.max(0), abs=1e-5)  # two orders of summation in fp32
    sure = np.sort(scores, axis=0)[-1] - np.sort(scores, axis=0)[-2] > 1e-4
    assert np.array_equal(found.classes[sure], scores.argmax(0)[sure] + 1)
    tiled, _ = made(name, scene, tile=16)
    assert tiled.hw == (16, 16)
    again = tiled(scene)
    assert again.probability == pytest.approx(found.probability, abs=1e-5)
    assert np.array_equal(again.classes[sure], found.classes[sure])


def test_every_pixel_is_decided_once() -> None:
    for length, side, radius in ((37, 16, 4), (16, 16, 4), (17, 16, 7), (100, 20, 0)):
        mapper = Mapper(None, None, (), (side, side), radius)  # type: ignore[arg-type]
        starts, kept = mapper._cuts(0, length)
        assert [pixel for first, last in kept for pixel in range(first, last)] == list(range(length))
        for start, (first, last) in zip(starts, kept, strict=True):
            assert 0 <= start <= length - side
            assert first == 0 or first >= start + radius
            assert last == length or last <= start + side - radius


def test_invalid_pixels_have_no_class(striped: Callable[..., Scene]) -> None:
    scene = striped(side=20)
    cube = scene.window()
    cube[3:5, 6] = np.nan
    holed = dataclasses.replace(scene, pixels=Scene.of_array(cube).pixels)
    mapper, _ = made("mbconv_scene", scene, tile=64)
    found = mapper(holed)
    assert np.array_equal(np.argwhere(found.classes == 0), [[3, 6], [4, 6]])
    assert np.isfinite(found.probability).all()


def a_map() -> ClassMap:
    generator = np.random.default_rng(0)
    return ClassMap(generator.integers(0, 4, (9, 7)), generator.random((9, 7), dtype=np.float32))


PLACE = GeoReference(rasterio.crs.CRS.from_epsg(32616).to_wkt(), (20.0, 0.0, 500000.0, 0.0, -20.0, 4480000.0), 400.0)


@pytest.mark.parametrize("how", ["geotiff", "envi"])
@pytest.mark.parametrize("place", [PLACE, None])
def test_rasters_read_back(tmp_path: Path, how: Any, place: GeoReference | None) -> None:
    found = a_map()
    classes, probability = write_map(found, ("corn", "soy {bean}, mintill", "woods"), place, tmp_path, how)
    for path, want in ((classes, found.classes), (probability, found.probability)):
        there = georeference_of(path)
        if place is None:
            assert there is None
        else:
            assert there is not None
            assert there.transform == place.transform
            assert there.pixel_area_m2 == pytest.approx(400.0)
        from luthier.scene.geotiff import opened

        with opened(path) as raster:
            assert np.array_equal(raster.read(1), want)
    assert not [p for p in tmp_path.iterdir() if "partial" in p.name]
    if how == "envi":
        from luthier.scene.read import read_labels

        labels = read_labels(str(classes))
        assert labels.names == ("corn", "soy  bean   mintill", "woods")
        assert np.array_equal(labels.classes, found.classes)


def test_the_picture_has_a_colour_per_class_and_a_legend(tmp_path: Path) -> None:
    found = a_map()
    draw.write_png(
        draw.with_legend(draw.class_picture(found.classes, 3), ("a", "b", "c"), ("1 ha", "", "")), tmp_path / "m.png"
    )
    image = np.asarray(Image.open(tmp_path / "m.png"))
    scale = 480 // 9
    assert np.array_equal(
        image[: 9 * scale : scale, : 7 * scale : scale], np.array([draw.EMPTY, *draw.palette(3)])[found.classes]
    )
    assert image.shape[0] > 9 * scale + 3 * 20


def test_colours_differ() -> None:
    colours = np.array([draw.EMPTY, *draw.palette(16)], float)
    apart = np.abs(colours[:, None] - colours[None]).sum(2) + 1000 * np.eye(17)
    assert apart.min() >= 40


# -- bands of another scene ------------------------------------------------------------------------------------------


def a_model(waves: tuple[float, ...] | None) -> tuple[SceneModel, Any]:
    network = for_scene(presets.get("mbconv_scene"), 2, (0.0,) * 3, (1.0,) * 3)
    return SceneModel(classes=(1, 2), class_names=("a", "b"), wavelengths_nm=waves, radius=4), network


def test_bands_are_found_by_wavelength() -> None:
    model, network = a_model((450.0, 550.0, 650.0))
    cube = np.arange(4 * 5 * 5, dtype=np.float32).reshape(4, 5, 5)
    scene = Scene.of_array(cube, wavelengths_nm=(651.0, 900.0, 452.0, 549.0, 700.0))
    same = fitted(scene, model, network)
    assert same.bands == (2, 3, 0)
    assert np.array_equal(same.window(), cube[:, :, [2, 3, 0]])
    with pytest.raises(DataError, match=r"1 of the model's 3 bands have no band within 1.5 nm, the worst at 450 nm"):
        fitted(scene, model, network, 1.5)


def test_without_wavelengths_the_number_of_bands_must_agree() -> None:
    model, network = a_model(None)
    assert fitted(Scene.of_array(np.ones((2, 2, 3))), model, network).shape[2] == 3
    with pytest.raises(DataError, match="4 bands for a model of 3, and the wavelengths of the model are unknown"):
        fitted(Scene.of_array(np.ones((2, 2, 4))), model, network)


def test_a_folder_without_a_model(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"holds no scene\.json"):
        read_model(tmp_path)
