"""`luthier scene map`: a scene and a finished model in, rasters and a picture out.  Needs no torch."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

import numpy as np

from luthier.errors import InputError
from luthier.scene import draw
from luthier.scene.cube import Scene
from luthier.scene.map import ClassMap, Mapper
from luthier.scene.model import fitted, read_model
from luthier.scene.read import read_scene
from luthier.scene.results import MapReport
from luthier.scene.write import Format, write_map

Say = Callable[[float, str], None]
#: median distance of the bands' means from those of the training, in standard deviations, that is warned of
_FAR: Final = 5.0


def run_map(
    name: str, run: Path, folder: Path, how: str, wavelengths: str | None, tolerance_nm: float | None, threads: int,
    say: Say,
) -> MapReport:  # fmt: skip
    """Map a scene, tile by tile where it is large.

    Args:
        name: of the scene, see `read_scene`.
        run: a finished `luthier scene train`.
        folder: that gets the maps.
        how: geotiff or envi.
        wavelengths: a file that overrules the scene's own.
        tolerance_nm: see `luthier.scene.model.fitted`.
        threads: of the engine.
        say: called with the share that is done.
    Raises:
        DataError: the scene, the model or their bands do not fit.
    """
    form = format_of(how)
    model, network, state = read_model(run)
    scene = fitted(read_scene(name, wavelengths=wavelengths), model, network, tolerance_nm)
    mapper = Mapper.compiled(network, state, model.classes, scene.hw, model.radius, threads=threads)
    remarks = scene.remarks + _unlike(scene, network.input_mean, network.input_std)
    begin = time.perf_counter()
    found = mapper(scene, say=say)
    latency_s = time.perf_counter() - begin
    pixels = np.bincount(found.classes.ravel(), minlength=len(model.class_names) + 1)
    areas = [area_ha(scene, int(count)) for count in pixels[1:]]
    paths = write_outputs(found, model.class_names, scene, folder, form, areas)
    return MapReport(
        scene=scene.name, shape=scene.shape, paths=tuple(str(path) for path in paths),
        classes=tuple(zip(model.class_names, pixels[1:].tolist(), areas, strict=True)), invalid=int(pixels[0]),
        latency_s=latency_s, tile=mapper.hw, remarks=remarks,
    )  # fmt: skip


def format_of(how: str) -> Format:
    """The file format by its name.

    Raises:
        InputError: no such format.
    """
    if how == "geotiff":
        return "geotiff"
    if how == "envi":
        return "envi"
    raise InputError(f"--format {how}: must be geotiff or envi")


def area_ha(scene: Scene, pixels: int) -> float | None:
    """Hectares of a number of pixels; None = the scene has no place on the earth."""
    place = scene.georeference
    return None if place is None or place.pixel_area_m2 is None else pixels * place.pixel_area_m2 / 1e4


def write_outputs(
    found: ClassMap, names: Sequence[str], scene: Scene, folder: Path, how: Format, areas_ha: Sequence[float | None]
) -> list[Path]:
    """Rasters of classes and probabilities, and a picture with a legend."""
    paths = list(write_map(found, names, scene.georeference, folder, how))
    areas = ["" if area is None else f"{area:,.1f} ha" for area in areas_ha]
    picture = folder / "map.png"
    draw.write_png(draw.with_legend(draw.class_picture(found.classes, len(names)), names, areas), picture)
    return [*paths, picture]


def _unlike(scene: Scene, mean: Sequence[float], std: Sequence[float]) -> tuple[str, ...]:
    """A warning where the values lie far from those of the training: another unit, most likely."""
    here, _ = scene.statistics()
    off = float(np.median(np.abs(here - np.array(mean)) / np.array(std)))
    if off <= _FAR:
        return ()
    return (f"the values lie {off:.0f} standard deviations from those of the training: another unit or scale?",)
