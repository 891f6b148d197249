"""Maps as files that geographic software reads: GeoTIFF and ENVI, on the scene's own grid."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from luthier import files
from luthier.errors import RunFolderError
from luthier.scene.cube import GeoReference
from luthier.scene.draw import EMPTY, palette
from luthier.scene.map import ClassMap

Format = Literal["geotiff", "envi"]


def write_map(
    found: ClassMap, names: Sequence[str], place: GeoReference | None, folder: Path, how: Format = "geotiff"
) -> tuple[Path, Path]:
    """Classes (whole numbers, 0 = nothing, with colours and names) and probabilities (fp32), as two rasters.

    Args:
        found: the map.
        names: of the classes 1 .. K.
        place: of the scene; None = rasters without a place.
        folder: that gets `classes` and `probability`, `.tif` or `.dat` with `.hdr`.
        how: the file format.
    Raises:
        RunFolderError: the folder cannot be written to.
    """
    ending, write = (".tif", _geotiff) if how == "geotiff" else (".dat", _envi)
    small = np.uint8 if len(names) < 255 else np.uint16
    paths = folder / f"classes{ending}", folder / f"probability{ending}"
    write(paths[0], found.classes.astype(small), place, names)
    write(paths[1], found.probability, place, ())
    return paths


def _profile(array: npt.NDArray[Any], place: GeoReference | None) -> dict[str, Any]:
    from rasterio.crs import CRS
    from rasterio.transform import Affine

    shape = {"height": array.shape[0], "width": array.shape[1], "count": 1, "dtype": array.dtype}
    if place is None:
        return shape
    return shape | {"crs": CRS.from_wkt(place.crs_wkt), "transform": Affine(*place.transform)}


def _raster(path: Path, driver: str, array: npt.NDArray[Any], place: GeoReference | None, names: Sequence[str],
            **options: Any) -> None:  # fmt: skip
    import rasterio
    from rasterio.errors import NotGeoreferencedWarning, RasterioError

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", NotGeoreferencedWarning)
            with rasterio.open(path, "w", driver=driver, **_profile(array, place), **options) as raster:
                raster.write(array, 1)
                if names and driver == "GTiff":
                    raster.update_tags(1, **{f"class_{k}": name for k, name in enumerate(names, start=1)})
                    if array.dtype == np.uint8:
                        colours = {k: (*rgb, 255) for k, rgb in enumerate((EMPTY, *palette(len(names))))}
                        raster.write_colormap(1, colours)
    except RasterioError as error:
        raise RunFolderError(f"{path}: cannot be written ({error})") from None


def _geotiff(path: Path, array: npt.NDArray[Any], place: GeoReference | None, names: Sequence[str]) -> None:
    with files.replacing(path) as temporary:
        _raster(temporary, "GTiff", array, place, names, compress="deflate")


def _envi(path: Path, array: npt.NDArray[Any], place: GeoReference | None, names: Sequence[str]) -> None:
    """GDAL writes the numbers and the place; what makes the file a classification is added to its header."""
    header = path.with_suffix(".hdr")
    with files.replacing(path) as temporary:
        written = temporary.with_suffix(".hdr")
        try:
            _raster(temporary, "ENVI", array, place, ())
            text = written.read_text("utf-8")
        finally:
            for extra in (written, temporary.with_name(temporary.name + ".aux.xml")):
                extra.unlink(missing_ok=True)
        if names:
            lookup = ", ".join(str(value) for rgb in (EMPTY, *palette(len(names))) for value in rgb)
            text = text.replace("ENVI Standard", "ENVI Classification").rstrip() + (
                f"\nclasses = {len(names) + 1}\nclass names = {{{', '.join(['unlabelled', *map(_plain, names)])}}}\n"
                f"class lookup = {{{lookup}}}\n"
            )
        files.write_text(header, text.rstrip() + "\n")


def _plain(name: str) -> str:
    """A name that cannot end a header's list."""
    return "".join(" " if c in ",{}\n\r" else c for c in name).strip() or "class"
