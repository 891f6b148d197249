"""Wavelengths as files give them, checked and in nanometres."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import numpy as np

from luthier.errors import DataError

#: nm per unit, by the first letters of what people write
_UNITS: Final = {"nano": 1.0, "nm": 1.0, "micro": 1e3, "um": 1e3, "µm": 1e3, "μm": 1e3}
#: what imaging spectrometers see, in nm: from the far ultraviolet to the thermal infra-red
SEEN_NM: Final = (100.0, 20_000.0)


def in_nm(
    values: Sequence[str | float], unit: str | None, num_bands: int, origin: str
) -> tuple[tuple[float, ...], tuple[str, ...]]:
    """Wavelengths in nm, and what had to be guessed.

    No imaging spectrometer sees below 100 nm, or beyond 100 um: values below 100 are micrometres, others nanometres.
    Where that contradicts the unit that the file names, the values are believed.

    Args:
        values: one per band, in the file's order.
        unit: as the file names it; None or "Unknown" = it does not.
        num_bands: of the cube.
        origin: who complains.
    Returns:
        (bands,) in nm, and remarks.
    Raises:
        DataError: another number of them than bands, not a number, or none that a spectrometer could see.
    Example:
        >>> in_nm((0.4, 0.5), None, 2, "scene")
        ((400.0, 500.0), ('wavelengths have no unit and lie in 0.4 .. 0.5: read as micrometres',))
        >>> in_nm(("450", "550"), "Nanometers", 2, "scene")
        ((450.0, 550.0), ())
    """
    if len(values) != num_bands:
        raise DataError(f"{origin}: {len(values)} wavelengths for {num_bands} bands; the header must give one for each")
    try:
        numbers = np.array([float(value) for value in values])
    except ValueError as error:
        raise DataError(f"{origin}: a wavelength is not a number ({error}); correct it") from None
    if not (np.isfinite(numbers).all() and (numbers > 0).all()):
        raise DataError(f"{origin}: wavelengths must be above 0 and finite, got {numbers.min():g} .. {numbers.max():g}")
    low, high = numbers.min(), numbers.max()
    guess = 1e3 if high < 100 else 1.0
    named = next((factor for start, factor in _UNITS.items() if (unit or "").strip().lower().startswith(start)), None)
    remarks = []
    if named != guess:
        what = "micrometres" if guess > 1 else "nanometres"
        said = "have no unit" if named is None else f"are said to be in {unit}"
        remarks.append(f"wavelengths {said} and lie in {low:g} .. {high:g}: read as {what}")
    nm = numbers * guess
    if nm.min() < SEEN_NM[0] or nm.max() > SEEN_NM[1]:
        raise DataError(
            f"{origin}: wavelengths of {nm.min():g} .. {nm.max():g} nm; a spectrometer sees "
            f"{SEEN_NM[0]:g} .. {SEEN_NM[1]:g} nm; check the unit"
        )
    falls = int((np.diff(nm) <= 0).sum())
    if falls:
        remarks.append(f"wavelengths do not rise at {falls} of {num_bands} bands; the file's order is kept")
    return tuple(round(float(value), 4) for value in nm), tuple(remarks)


def matched(wanted_nm: Sequence[float], given_nm: Sequence[float], tolerance_nm: float, origin: str) -> tuple[int, ...]:
    """For every wanted band the position of the nearest given one.

    Args:
        wanted_nm: of the model.
        given_nm: of the scene.
        tolerance_nm: how far the two may lie apart.
        origin: who complains.
    Raises:
        DataError: a wanted band has no neighbour within the tolerance.
    Example:
        >>> matched((500.0, 600.0), (400.0, 601.0, 499.0), tolerance_nm=5, origin="scene")
        (2, 1)
    """
    distance = np.abs(np.asarray(wanted_nm)[:, None] - np.asarray(given_nm)[None])
    nearest = distance.argmin(axis=1)
    off = distance[np.arange(len(nearest)), nearest]
    if (off > tolerance_nm).any():
        worst = int(off.argmax())
        raise DataError(
            f"{origin}: {int((off > tolerance_nm).sum())} of the model's {len(wanted_nm)} bands have no band within "
            f"{tolerance_nm:g} nm, the worst at {wanted_nm[worst]:g} nm ({off[worst]:g} nm off); train on this "
            "scene's bands, or raise --band-tolerance"
        )
    return tuple(int(position) for position in nearest)
