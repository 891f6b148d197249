"""What becomes of a spectrum before a network sees it; all that is learnt of it comes from training spectra.

view    meaning                                                       what it is blind to
raw     x_b                                                           nothing
log     log x_b                                                       nothing; ratios become differences
shape   log x_b - mean over the bands of log x                        brightness
slope   shape, then its change from band to band, smoothed            brightness, and colour that changes slowly

Every feature is standardised.  A value that is missing (NaN) becomes the training mean, and where the training
spectra lack some, one more feature per band says whether it was there.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final, Literal, TypeAlias, get_args

import numpy as np
import numpy.typing as npt

from luthier.errors import InputError, ShapeError

Values: TypeAlias = npt.NDArray[np.float32]
View = Literal["raw", "log", "shape", "slope"]
#: values below this part of the training median count as that: logarithms need it
_FLOOR: Final = 1e-3
#: smoothing of `slope`: bands on each side
_HALF_WINDOW: Final = 4


@dataclass(frozen=True, eq=False)
class Views:
    """Spectra (n, bands) -> features (n, C), as fitted to the training spectra.

    Attributes:
        names: in the order of the features.
        floor: smallest value whose logarithm is taken.
        mean, std: of every feature before it is standardised, (views x bands,).
        says_missing: whether each band has one more feature, 1 = present.
    """

    names: tuple[View, ...]
    floor: float
    mean: Values
    std: Values
    says_missing: bool

    def __call__(self, spectra: npt.NDArray[Any]) -> Values:
        """Features of other spectra.

        Raises:
            ShapeError: another number of bands than the training spectra's.
        """
        bands = len(self.mean) // len(self.names)
        if spectra.ndim != 2 or spectra.shape[1] != bands:
            raise ShapeError(f"views: spectra must be (n, {bands}) as in training, got {spectra.shape}")
        features = (_stack(spectra, self.names, self.floor) - self.mean) / self.std
        there = np.isfinite(spectra).astype(np.float32) if self.says_missing else np.empty((len(spectra), 0))
        return np.asarray(np.nan_to_num(np.hstack([features, there])), np.float32)

    @property
    def num_features(self) -> int:
        """C."""
        return len(self.mean) + (len(self.mean) // len(self.names) if self.says_missing else 0)


def fit_views(spectra: npt.NDArray[Any], names: tuple[View, ...]) -> Views:
    """Learn the views' numbers.

    Args:
        spectra: (n, bands), of the training records alone; NaN = missing.
        names: one view or more.
    Raises:
        InputError: no view, or an unknown one.
    Example:
        >>> spectra = np.array([[1.0, 2.0, 4.0], [2.0, 4.0, 8.0], [1.0, 3.0, 9.0]])
        >>> views = fit_views(spectra, ("shape",))
        >>> bool(np.allclose(views(spectra)[0], views(10 * spectra)[0], atol=1e-5))  # blind to brightness
        True
    """
    if not names or not set(names) <= set(get_args(View)):
        raise InputError(f"views: must be some of {', '.join(get_args(View))}, got {', '.join(names) or 'none'}")
    floor = _FLOOR * float(np.nanmedian(np.abs(spectra)))
    features = _stack(spectra, names, floor)
    seen = np.isfinite(features)
    count = np.maximum(seen.sum(axis=0), 1)
    mean = np.where(seen, features, 0).sum(axis=0) / count
    std = np.sqrt(np.where(seen, (features - mean) ** 2, 0).sum(axis=0) / count)
    std[std < 1e-6 * np.abs(mean) + 1e-12] = 1.0
    missing = bool(np.isnan(spectra).any())
    return Views(names, floor, mean.astype(np.float32), std.astype(np.float32), missing)


def _stack(spectra: npt.NDArray[Any], names: tuple[View, ...], floor: float) -> npt.NDArray[np.float64]:
    x = spectra.astype(np.float64)
    logs = np.log(np.maximum(x, floor))
    there = np.isfinite(x)
    level = np.where(there, logs, 0).sum(axis=1, keepdims=True) / np.maximum(there.sum(axis=1, keepdims=True), 1)
    found: dict[View, npt.NDArray[np.float64]] = {"raw": x, "log": logs, "shape": logs - level}
    if "slope" in names:
        found["slope"] = _slope(logs - level)
    return np.hstack([found[name] for name in names])


def _slope(shape: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Least-squares slope over up to 2 * _HALF_WINDOW + 1 bands around each; at the ends over those that exist."""
    bands = shape.shape[1]
    weights = np.zeros((bands, bands))
    for band in range(bands):
        near = np.arange(max(0, band - _HALF_WINDOW), min(bands, band + _HALF_WINDOW + 1))
        offsets = near - near.mean()
        weights[near, band] = offsets / max(float((offsets**2).sum()), 1e-12)
    return np.asarray(shape @ weights)
