"""ENVI scenes: a text header beside a file of bare numbers.  The header is believed only as far as the file reaches."""

from __future__ import annotations

import contextlib
import warnings
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from luthier.errors import DataError
from luthier.scene.cube import ArrayPixels, Scene
from luthier.scene.geotiff import georeference_of
from luthier.scene.wavelengths import in_nm
from luthier.train.pixels import path_text

#: data type -> what NumPy calls it; complex numbers (6, 9) are no cubes
_TYPES: Final = {
    1: "u1", 2: "i2", 3: "i4", 4: "f4", 5: "f8", 12: "u2", 13: "u4", 14: "i8", 15: "u8",
}  # fmt: skip
#: endings of the data file behind `x.hdr`, in the order they are tried; the interleave's name comes too
_ENDINGS: Final = ("", ".dat", ".img", ".raw", ".bin", ".bsq", ".bil", ".bip")


def find_envi(path: Path) -> tuple[Path, Path] | None:
    """(header, data) of an ENVI scene of which one of both is named; None = there is no header.

    `x.hdr` describes x, x.dat, x.img, ...; `x.dat.hdr` describes x.dat.

    Raises:
        DataError: the header stands alone.
    """
    if path.suffix.lower() != ".hdr":
        for header in (path.with_name(path.name + ".hdr"), path.with_suffix(".hdr")):
            if header.is_file():
                return header, path
        return None
    base = path.with_suffix("")
    for name in [base.name + ending for ending in _ENDINGS] + [base.name + ending.upper() for ending in _ENDINGS]:
        data = base.with_name(name)
        if data.is_file() and data != path:
            return path, data
    tried = ", ".join(base.name + ending for ending in _ENDINGS)
    raise DataError(f"{path_text(path)}: its data file is missing; expected beside it one of {tried}")


def read_header(header: Path) -> dict[str, Any]:
    """Fields of an ENVI header, keys in lower case; values are text, or lists of text.

    Raises:
        DataError: not an ENVI header.
    """
    from spectral.io import envi

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # "converted to lower case": as intended
            return dict(envi.read_envi_header(str(header)))
    except OSError as error:
        raise DataError(f"{path_text(header)}: cannot be read ({error.strerror or error})") from None
    except Exception as error:  # the library raises classes of its own, and bare ones for broken lists
        reason = str(error) or "broken list"
        raise DataError(f"{path_text(header)}: not an ENVI header ({' '.join(reason.split())[:100]})") from None


def map_data(header: Path, data: Path, fields: dict[str, Any]) -> npt.NDArray[Any]:
    """The data file as an array (H, W, bands) in the pages of memory that are looked at.

    Raises:
        DataError: a field is missing or senseless, or the file is shorter than the header says.
    """
    who = path_text(header)
    height, width, bands = (_whole(fields, key, who, least=1) for key in ("lines", "samples", "bands"))
    offset = _whole(fields, "header offset", who, default=0)
    kind = _whole(fields, "data type", who)
    if kind not in _TYPES:
        raise DataError(f"{who}: data type must be one of {', '.join(map(str, _TYPES))}, got {kind}")
    interleave = str(fields.get("interleave", "bsq")).strip().lower()
    if interleave not in ("bsq", "bil", "bip"):
        raise DataError(f"{who}: interleave must be bsq, bil or bip, got {interleave!r}")
    if str(fields.get("file compression", "0")).strip() not in ("", "0"):
        raise DataError(f"{who}: its data is compressed; decompress it first")
    dtype = np.dtype((">" if _whole(fields, "byte order", who, default=0) else "<") + _TYPES[kind])
    needed = offset + height * width * bands * dtype.itemsize
    size = data.stat().st_size
    if size < needed:
        raise DataError(
            f"{who}: {height} lines x {width} samples x {bands} bands of {dtype.itemsize} bytes behind {offset} need "
            f"{needed:,} bytes, but {path_text(data)} has {size:,}; correct the header, or copy the data again"
        )
    shape = {"bsq": (bands, height, width), "bil": (height, bands, width), "bip": (height, width, bands)}[interleave]
    order = {"bsq": (1, 2, 0), "bil": (0, 2, 1), "bip": (0, 1, 2)}[interleave]
    return np.memmap(data, dtype, "r", offset, shape).transpose(order)


def read_envi(header: Path, data: Path) -> Scene:
    """A scene whose pixels stay in the file until they are asked for.

    Bands that the header calls bad (`bbl` 0) are left out.

    Raises:
        DataError: see `map_data`; or wavelengths that are none.
    """
    who, fields = path_text(header), read_header(header)
    array = map_data(header, data, fields)
    num_bands = array.shape[2]
    waves, remarks = None, list[str]()
    if "wavelength" in fields:
        waves, said = in_nm(_several(fields, "wavelength"), fields.get("wavelength units"), num_bands, who)
        remarks += said
    else:
        remarks.append("the header gives no wavelengths")
    fwhm = None
    if "fwhm" in fields and waves is not None:
        with contextlib.suppress(ValueError):
            widths = tuple(float(value) for value in _several(fields, "fwhm"))
            if len(widths) == num_bands:
                fwhm = tuple(width * (1e3 if max(widths) < 1 else 1.0) for width in widths)
    bands = tuple(range(num_bands))
    if "bbl" in fields:
        good = _several(fields, "bbl")
        if len(good) != num_bands:
            raise DataError(f"{who}: bbl has {len(good)} entries for {num_bands} bands; correct or remove it")
        bands = tuple(band for band in bands if _number(good[band], "bbl", who) != 0)
        if not bands:
            raise DataError(f"{who}: bbl calls all {num_bands} bands bad; correct or remove it")
        if len(bands) < num_bands:
            remarks.append(f"{num_bands - len(bands)} of {num_bands} bands left out, as the header's bbl says")
    scale = _number(fields.get("reflectance scale factor", 1), "reflectance scale factor", who)
    if not scale > 0:
        raise DataError(f"{who}: reflectance scale factor must be above 0, got {scale:g}")
    ignore = fields.get("data ignore value")
    return Scene(
        name=data.stem,
        pixels=ArrayPixels(array),
        bands=bands,
        wavelengths_nm=None if waves is None else tuple(waves[band] for band in bands),
        fwhm_nm=None if fwhm is None else tuple(fwhm[band] for band in bands),
        scale=scale,
        ignore_value=None if ignore is None else _number(ignore, "data ignore value", who),
        georeference=georeference_of(data) if "map info" in fields else None,
        remarks=tuple(remarks),
    )


def _several(fields: dict[str, Any], key: str) -> list[str]:
    value = fields[key]
    return [str(part) for part in value] if isinstance(value, list) else [str(value)]


def _number(text: object, key: str, who: str) -> float:
    try:
        return float(str(text))
    except ValueError:
        raise DataError(f"{who}: {key} must be a number, got {str(text)[:40]!r}") from None


def _whole(fields: dict[str, Any], key: str, who: str, *, least: int = 0, default: int | None = None) -> int:
    if key not in fields and default is not None:
        return default
    if key not in fields:
        raise DataError(f"{who}: the field {key!r} is missing; an ENVI header must have it")
    value = _number(fields[key], key, who)
    if not (value.is_integer() and value >= least):
        raise DataError(f"{who}: {key} must be a whole number of at least {least}, got {fields[key]!r}")
    return int(value)
