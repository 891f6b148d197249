"""Chlorophyll in water by NASA's formula for the colour of the ocean, OC4."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final, TypeAlias

import numpy as np
import numpy.typing as npt

from luthier.errors import DataError

Values: TypeAlias = npt.NDArray[np.float64]
#: coefficients a_0 .. a_4 for SeaWiFS, version 6
OC4: Final = (0.3272, -2.9940, 2.7218, -1.2259, -0.5683)
BLUE_NM: Final = (443.0, 490.0, 510.0)
GREEN_NM: Final = 555.0
_TOLERANCE_NM: Final = 3.0


def band_ratio(rrs: npt.NDArray[Any], wavelengths_nm: Sequence[float]) -> Values:
    """The larger of the blue reflectances over the green one.

        R = log10( max(Rrs 443, Rrs 490, Rrs 510) / Rrs 555 )                                         (1)

    Args:
        rrs: (n, bands), remote-sensing reflectance in 1/sr; NaN = missing.
        wavelengths_nm: of the bands; the formula's own must be there within 3 nm.
    Returns:
        (n,); NaN where one of the four is missing or not above 0.
    Raises:
        DataError: a band that the formula needs is not there.
    """
    waves = np.asarray(wavelengths_nm, np.float64)
    columns = []
    for wanted in (*BLUE_NM, GREEN_NM):
        nearest = int(np.abs(waves - wanted).argmin())
        if abs(waves[nearest] - wanted) > _TOLERANCE_NM:
            raise DataError(f"OC4: needs a band at {wanted:g} nm, the nearest is at {waves[nearest]:g} nm")
        columns.append(nearest)
    values = rrs[:, columns].astype(np.float64)
    usable = np.isfinite(values).all(axis=1) & (np.nan_to_num(values) > 0).all(axis=1)
    found = np.full(len(rrs), np.nan)
    found[usable] = np.log10(values[usable, :3].max(axis=1) / values[usable, 3])
    return found


def oc4(rrs: npt.NDArray[Any], wavelengths_nm: Sequence[float], coefficients: Sequence[float] = OC4) -> Values:
    """Chlorophyll a.

        log10 chlorophyll = a_0 + a_1 R + a_2 R^2 + a_3 R^3 + a_4 R^4                                  (2)

    Args:
        rrs, wavelengths_nm: see `band_ratio`.
        coefficients: a_0 .. a_4.
    Returns:
        (n,), log10 of mg/m^3; NaN where the formula does not apply.
    Source:
        O'Reilly et al. 1998, Journal of Geophysical Research 103, 24937-24953; coefficients of version 6: NASA Ocean
        Biology Processing Group, algorithm description of chlorophyll a, SeaWiFS OC4.
    Example:
        >>> oc4(np.array([[0.01, 0.01, 0.01, 0.01]]), (443, 490, 510, 555)).round(4)
        array([0.3272])
    """
    return np.asarray(np.polynomial.polynomial.polyval(band_ratio(rrs, wavelengths_nm), np.asarray(coefficients)))
