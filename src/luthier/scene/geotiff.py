"""GeoTIFF scenes through rasterio, stacks of pages through tifffile; and where a scene lies on the earth."""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from math import cos, pi, radians, sin, sqrt
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from luthier.errors import DataError
from luthier.scene.cube import GeoReference, Scene
from luthier.scene.wavelengths import in_nm
from luthier.train.pixels import path_text

#: WGS 84: equatorial radius, and square of the first eccentricity
_AXIS_M: Final = 6_378_137.0
_ECCENTRICITY2: Final = 0.00669437999014


@dataclass(frozen=True)
class RasterPixels:
    """A raster file that is opened for every window, so that it can be read from any process or thread."""

    path: Path
    shape: tuple[int, int, int]

    def read(self, rows: slice, columns: slice) -> npt.NDArray[Any]:
        """(h, w, bands) of the file.

        Raises:
            DataError: the file ends early, or a tile is damaged.
        """
        from rasterio.windows import Window

        height, width, _ = self.shape
        (top, bottom, _), (left, right, _) = rows.indices(height), columns.indices(width)
        with opened(self.path) as source:
            return np.asarray(source.read(window=Window(left, top, right - left, bottom - top))).transpose(1, 2, 0)


@contextlib.contextmanager
def opened(path: Path) -> Iterator[Any]:
    """A rasterio data set; what the library complains of becomes one line.

    Raises:
        DataError: not a raster, truncated or damaged.
    """
    import rasterio
    from rasterio.errors import NotGeoreferencedWarning, RasterioError

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", NotGeoreferencedWarning)
            with rasterio.open(path) as source:
                yield source
    except (RasterioError, OSError, MemoryError) as error:
        reason = " ".join(str(error).split())[:160]
        raise DataError(f"{path_text(path)}: cannot be read as a raster ({reason}); copy or write it again") from None


def georeference_of(path: Path) -> GeoReference | None:
    """Where a raster of any format lies, if it says so."""
    with opened(path) as source:
        if source.crs is None or source.transform.is_identity:
            return None
        a, b, c, d, e, f = tuple(source.transform)[:6]
        middle_y = d * source.width / 2 + e * source.height / 2 + f
        area = abs(a * e - b * d)
        if source.crs.is_projected:
            square_m: float | None = area * float(source.crs.linear_units_factor[1]) ** 2
        else:
            square_m = area * square_degree_m2(middle_y) if source.crs.is_geographic else None
        return GeoReference(source.crs.to_wkt(), (a, b, c, d, e, f), square_m)


def square_degree_m2(latitude_deg: float) -> float:
    """Area of one degree by one degree about a latitude p on the WGS 84 ellipsoid.

        M = a (1 - e^2) / (1 - e^2 sin^2 p)^(3/2),    N = a / (1 - e^2 sin^2 p)^(1/2)                 (1)
        area = M N cos p (pi / 180)^2                                                                (2)

    Source:
        Snyder 1987, USGS Professional Paper 1395, equations 4-19 and 4-20.
    Example:
        >>> round(square_degree_m2(0) / 1e6), round(square_degree_m2(60) / 1e6)
        (12309, 6217)
    """
    p, flat = radians(latitude_deg), 1 - _ECCENTRICITY2 * sin(radians(latitude_deg)) ** 2
    meridian, vertical = _AXIS_M * (1 - _ECCENTRICITY2) / (flat * sqrt(flat)), _AXIS_M / sqrt(flat)
    return meridian * vertical * cos(p) * (pi / 180) ** 2


def read_geotiff(path: Path) -> Scene:
    """A scene whose windows are read from the file.

    Wavelengths come from every band's IMAGERY domain (CENTRAL_WAVELENGTH_UM, FWHM_UM), or from its own `wavelength`.

    Raises:
        DataError: see `opened`; or wavelengths that are none.
    """
    with opened(path) as source:
        shape, no_data = (source.height, source.width, source.count), source.nodata
        imagery = [source.tags(band, ns="IMAGERY") for band in source.indexes]
        plain = [source.tags(band) for band in source.indexes]
    if shape[2] == 1 and (stack := _pages(path)) is not None:
        return Scene.of_array(stack, name=path.stem)
    remarks = list[str]()
    waves = fwhm = None
    if all("CENTRAL_WAVELENGTH_UM" in tags for tags in imagery):
        values, unit = [tags["CENTRAL_WAVELENGTH_UM"] for tags in imagery], "um"
        if all("FWHM_UM" in tags for tags in imagery):
            with contextlib.suppress(ValueError):
                fwhm = tuple(1e3 * float(tags["FWHM_UM"]) for tags in imagery)
    else:
        values = [tags["wavelength"] for tags in plain if "wavelength" in tags]
        unit = plain[0].get("wavelength_units", "")
    if values:
        waves, said = in_nm(values, unit, shape[2], path_text(path))
        remarks += said
    else:
        remarks.append("the file gives no wavelengths")
    return Scene(
        name=path.stem, pixels=RasterPixels(path, shape), bands=tuple(range(shape[2])), wavelengths_nm=waves,
        fwhm_nm=fwhm, ignore_value=None if no_data is None or np.isnan(no_data) else float(no_data),
        georeference=georeference_of(path), remarks=tuple(remarks),
    )  # fmt: skip


def _pages(path: Path) -> npt.NDArray[Any] | None:
    """A TIFF that keeps its bands as pages of one size: (H, W, pages), mapped where it is not compressed.

    Raises:
        DataError: it says that it has more pages than there are.
    """
    import tifffile

    try:
        with tifffile.TiffFile(path) as file:
            series = file.series[0]
            if len(series.shape) != 3 or series.shape[1:] != file.pages[0].shape:
                return None
            if len(file.pages) != series.shape[0]:
                raise DataError(
                    f"{path_text(path)}: {series.shape[0]} pages declared, {len(file.pages)} found; copy it again"
                )
            stack = tifffile.memmap(path, mode="r") if series.dataoffset is not None else series.asarray()
    except (tifffile.TiffFileError, IndexError, ValueError) as error:
        raise DataError(f"{path_text(path)}: cannot be read as a TIFF ({error}); copy it again") from None
    return np.asarray(stack).transpose(1, 2, 0)
