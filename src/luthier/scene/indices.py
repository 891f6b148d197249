"""Spectral indices that people know, over the bands that a scene happens to have.

name          says                         formula
NDVI          green leaves                 (N - R) / (N + R)
NDREI         chlorophyll, early stress    (N - RE1) / (N + RE1)
NDWI          open water (McFeeters)       (G - N) / (G + N)
NDMI          water in leaves (Gao's NDWI) (N - S1) / (N + S1)
MNDWI         open water, not houses       (G - S1) / (G + S1)
CIRE          chlorophyll                  N / RE1 - 1
clay          clay minerals                S1 / S2
iron_oxide    iron oxides                  R / B

Definitions and wavelengths of the bands are those of the library spyndex; the two mineral ratios, which it lacks, are
ours.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, TypeAlias

import numpy as np
import numpy.typing as npt
import spyndex

from luthier.errors import InputError, ShapeError

Values: TypeAlias = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Index:
    """One index.

    Attributes:
        name: ours, which is spyndex's where it has the index.
        bands: spyndex's letters for the spectral regions it needs.
        source: where it was proposed.
        ratio: formula, of an index that spyndex lacks.
    """

    name: str
    bands: tuple[str, ...]
    source: str
    ratio: Callable[[Mapping[str, Values]], Values] | None = None


def _known(name: str) -> Index:
    entry = spyndex.indices[name]
    return Index(name, tuple(entry.bands), entry.reference)


INDICES: Final[dict[str, Index]] = {
    **{name: _known(name) for name in ("NDVI", "NDREI", "NDWI", "NDMI", "MNDWI", "CIRE")},
    "clay": Index("clay", ("S1", "S2"), "Drury 1987, Image Interpretation in Geology", lambda b: b["S1"] / b["S2"]),
    "iron_oxide": Index(
        "iron_oxide", ("R", "B"), "Segal 1982, Proc. 2nd Thematic Conference, 951-957", lambda b: b["R"] / b["B"]
    ),
}


def region_nm(letter: str) -> tuple[float, float]:
    """Shortest and longest wavelength of a spectral region.

    Example:
        >>> region_nm("RE1")
        (695.0, 715.0)
    """
    band = spyndex.bands[letter]
    return float(band.min_wavelength), float(band.max_wavelength)


def available(wavelengths_nm: Sequence[float]) -> tuple[str, ...]:
    """Names of the indices whose regions all hold a band.

    Example:
        >>> available((480.0, 560.0, 660.0, 830.0))
        ('NDVI', 'NDWI', 'iron_oxide')
    """
    waves = np.asarray(wavelengths_nm, np.float64)
    return tuple(name for name, index in INDICES.items() if all(_inside(waves, letter).any() for letter in index.bands))


def index(name: str, spectra: npt.NDArray[Any], wavelengths_nm: Sequence[float]) -> Values:
    """Values of an index.

    A region's reflectance is the mean of all bands inside it.

    Args:
        name: of `INDICES`.
        spectra: (..., bands), reflectance, or any number proportional to it.
        wavelengths_nm: centres of the bands.
    Returns:
        (...,); NaN where a denominator is zero or a band is missing.
    Raises:
        InputError: an unknown index, or a region without a band.
        ShapeError: another number of wavelengths than bands.
    Example:
        >>> float(index("NDVI", np.array([0.1, 0.5]), (660.0, 830.0)).round(3))
        0.667
    """
    if name not in INDICES:
        raise InputError(f"index: must be one of {', '.join(INDICES)}, got {name!r}")
    waves = np.asarray(wavelengths_nm, np.float64)
    if spectra.shape[-1:] != waves.shape:
        raise ShapeError(f"index {name}: {len(waves)} wavelengths for spectra of shape {spectra.shape}")
    regions: dict[str, Values] = {}
    for letter in INDICES[name].bands:
        inside = _inside(waves, letter)
        if not inside.any():
            low, high = region_nm(letter)
            raise InputError(
                f"index {name}: needs a band within {low:g} .. {high:g} nm ({letter}), the spectra have "
                f"{waves.min():g} .. {waves.max():g} nm; choose among {', '.join(available(wavelengths_nm)) or 'none'}"
            )
        regions[letter] = spectra[..., inside].astype(np.float64).mean(axis=-1)
    with np.errstate(divide="ignore", invalid="ignore"):
        ratio = INDICES[name].ratio
        found = ratio(regions) if ratio is not None else spyndex.computeIndex(name, params=regions)
    values = np.asarray(found, np.float64)
    return np.where(np.isfinite(values), values, np.nan)


def _inside(waves: Values, letter: str) -> npt.NDArray[np.bool_]:
    low, high = region_nm(letter)
    return np.asarray((waves >= low) & (waves <= high))
