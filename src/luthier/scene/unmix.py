"""Which substances a spectrum is made of, by the two methods that need no training: spectral angle, and FCLS."""

from __future__ import annotations

from typing import Any, Final, TypeAlias

import numpy as np
import numpy.typing as npt
from scipy.optimize import nnls

from luthier.errors import ShapeError

Values: TypeAlias = npt.NDArray[np.float64]
#: weight of the row that makes abundances sum to one, over the largest number among the endmembers
_SUM_WEIGHT: Final = 1e3


def spectral_angles(spectra: npt.NDArray[Any], endmembers: npt.NDArray[Any]) -> Values:
    """Angle between spectra and endmembers, blind to brightness.

        angle = arccos( x . e / (|x| |e|) )                                                           (1)

    Args:
        spectra: (n, bands).
        endmembers: (m, bands).
    Returns:
        (n, m), in radians.
    Source:
        Kruse et al. 1993, Remote Sensing of Environment 44, 145-163.
    Example:
        >>> float(spectral_angles(np.array([[2.0, 0.0]]), np.array([[1.0, 1.0]]))[0, 0]) / np.pi
        0.25
    """
    _same_bands(spectra, endmembers)
    x, e = (v / np.maximum(np.linalg.norm(v, axis=1, keepdims=True), 1e-300) for v in (spectra, endmembers))
    return np.asarray(np.arccos(np.clip(x.astype(np.float64) @ e.astype(np.float64).T, -1, 1)))


def fcls(spectra: npt.NDArray[Any], endmembers: npt.NDArray[Any], *, shade: bool = False) -> Values:
    """Fully constrained least squares: how much of each endmember a spectrum holds.

        min |x - E^T a|^2   with   a >= 0,   sum a = 1                                                 (2)

    The sum is one more, heavily weighted equation of a non-negative least-squares problem.

    Args:
        spectra: (n, bands).
        endmembers: (m, bands).
        shade: whether a black endmember takes part; its share is left out and the others are brought to a sum of 1.
    Returns:
        (n, m) abundances.
    Source:
        Heinz & Chang 2001, IEEE Transactions on Geoscience and Remote Sensing 39, 529-545.
    Example:
        >>> e = np.array([[1.0, 0.0, 0.5], [0.0, 1.0, 0.5]])
        >>> fcls(0.3 * e[:1] + 0.7 * e[1:], e).round(3)
        array([[0.3, 0.7]])
    """
    _same_bands(spectra, endmembers)
    columns = endmembers.astype(np.float64).T
    if shade:
        columns = np.hstack([columns, np.zeros((len(columns), 1))])
    weight = _SUM_WEIGHT * float(np.abs(columns).max())
    system = np.vstack([columns, np.full((1, columns.shape[1]), weight)])
    found = np.array([nnls(system, np.append(x, weight))[0] for x in spectra.astype(np.float64)])
    found = found[:, : len(endmembers)]
    return np.asarray(found / np.maximum(found.sum(axis=1, keepdims=True), 1e-300))


def _same_bands(spectra: npt.NDArray[Any], endmembers: npt.NDArray[Any]) -> None:
    if spectra.ndim != 2 or endmembers.ndim != 2 or spectra.shape[1] != endmembers.shape[1]:
        raise ShapeError(
            f"unmix: spectra (n, bands) and endmembers (m, bands), got {spectra.shape}, {endmembers.shape}"
        )
