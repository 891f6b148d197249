"""A hyperspectral scene as one frozen value: pixels read by windows, wavelengths, labels, place on the earth."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final, Protocol, TypeAlias

import numpy as np
import numpy.typing as npt

from luthier.errors import DataError, ShapeError

Values: TypeAlias = npt.NDArray[np.float32]
Classes: TypeAlias = npt.NDArray[np.int64]
Mask: TypeAlias = npt.NDArray[np.bool_]
Window: TypeAlias = tuple[slice, slice]

#: bytes of fp32 values that a window may hold where the caller names no limit
WINDOW_BYTES: Final = 128 * 2**20


class Pixels(Protocol):
    """Where a cube's numbers come from: an array, or a file that is read piece by piece."""

    @property
    def shape(self) -> tuple[int, int, int]:
        """(H, W, bands of the file)."""
        ...

    def read(self, rows: slice, columns: slice) -> npt.NDArray[Any]:
        """(h, w, bands of the file), in the file's number type."""
        ...


@dataclass(frozen=True, eq=False)
class ArrayPixels:
    """A cube in memory, or mapped into it: anything that slices like an array (H, W, bands)."""

    array: npt.NDArray[Any]

    @property
    def shape(self) -> tuple[int, int, int]:
        """(H, W, bands)."""
        height, width, bands = self.array.shape
        return height, width, bands

    def read(self, rows: slice, columns: slice) -> npt.NDArray[Any]:
        """A window of it."""
        return np.asarray(self.array[rows, columns])


@dataclass(frozen=True)
class GeoReference:
    """Where a scene lies on the earth.

        (x, y) = (a * column + b * row + c, d * column + e * row + f)                                (1)

    Attributes:
        crs_wkt: coordinate reference system as well-known text.
        transform: (a, b, c, d, e, f) of equation (1), in units of that system, for the corners of pixels.
        pixel_area_m2: of one pixel, at the middle of the scene; None = the system has no known unit.
    """

    crs_wkt: str
    transform: tuple[float, float, float, float, float, float]
    pixel_area_m2: float | None


@dataclass(frozen=True, eq=False)
class LabelMap:
    """What is known of the ground.

    Attributes:
        classes: (H, W), 0 = not labelled, 1 .. K.
        names: of the classes 1 .. K, in their order.
    Raises:
        DataError: negative labels, or another number of names than classes.
    """

    classes: Classes
    names: tuple[str, ...]

    def __post_init__(self) -> None:
        lowest, highest = int(self.classes.min(initial=0)), int(self.classes.max(initial=0))
        if lowest < 0:
            raise DataError(f"labels: must be 0 (not labelled) or a class from 1 on, got {lowest}")
        if highest > len(self.names):
            raise DataError(f"labels: {len(self.names)} class names, but class {highest} occurs; name them all")

    @property
    def counts(self) -> tuple[int, ...]:
        """Labelled pixels of the classes 1 .. K."""
        return tuple(np.bincount(self.classes.ravel(), minlength=len(self.names) + 1)[1:].tolist())


@dataclass(frozen=True, eq=False)
class Scene:
    """A cube whose pixels are read when they are asked for.

        value = (stored value) / scale                                                               (2)

    A point spectrum is a scene of one pixel, a library of spectra or a time series a scene of height 1.

    Attributes:
        name: for people.
        pixels: all that the file holds.
        bands: those that count, as positions in the file; bad ones are left out.
        wavelengths_nm: centre of every band that counts, in the file's order, which need not rise; None = unknown.
        fwhm_nm: full width at half maximum of each; None = unknown.
        scale: of equation (2); an ENVI header's "reflectance scale factor".
        ignore_value: stored value that means "nothing was seen"; a pixel that has it in every band is invalid.
        labels: of the ground, if known.
        georeference: if known.
        remarks: what was guessed, repaired or left out while reading; one sentence each.
    Raises:
        ShapeError: labels of another size, or another number of wavelengths than bands.
    Example:
        >>> scene = Scene.of_array(np.ones((4, 6, 3), np.uint16), wavelengths_nm=(450.0, 550.0, 650.0))
        >>> scene.shape, scene.window(slice(1, 3), slice(0, 2)).dtype, scene.nearest_band(560.0)
        ((4, 6, 3), dtype('float32'), 1)
    """

    name: str
    pixels: Pixels
    bands: tuple[int, ...]
    wavelengths_nm: tuple[float, ...] | None = None
    fwhm_nm: tuple[float, ...] | None = None
    scale: float = 1.0
    ignore_value: float | None = None
    labels: LabelMap | None = None
    georeference: GeoReference | None = None
    remarks: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        height, width, stored = self.pixels.shape
        if min(height, width, len(self.bands)) < 1:
            raise ShapeError(f"{self.name}: a scene needs a pixel and a band, got {height} x {width}, {self.bands!r}")
        if not all(0 <= band < stored for band in self.bands):
            raise ShapeError(f"{self.name}: bands must lie in 0 .. {stored - 1}, got {self.bands!r}")
        for what, values in (("wavelengths", self.wavelengths_nm), ("fwhm", self.fwhm_nm)):
            if values is not None and len(values) != len(self.bands):
                raise ShapeError(f"{self.name}: {len(values)} {what} for {len(self.bands)} bands; give one for each")
        if self.labels is not None and self.labels.classes.shape != (height, width):
            raise ShapeError(
                f"{self.name}: labels of {' x '.join(map(str, self.labels.classes.shape))} pixels for a scene of "
                f"{height} x {width}; they must be of one size"
            )

    @classmethod
    def of_array(
        cls,
        cube: npt.NDArray[Any],
        *,
        name: str = "scene",
        wavelengths_nm: Sequence[float] | None = None,
        labels: LabelMap | None = None,
    ) -> Scene:
        """A scene in memory: (H, W, bands); spectra (n, bands) become a row of n pixels.

        Raises:
            ShapeError: the array has neither two nor three axes.
        """
        if cube.ndim == 2:
            cube = cube[None]
        if cube.ndim != 3:
            raise ShapeError(f"{name}: a cube must be (H, W, bands) or spectra (n, bands), got {cube.shape}")
        waves = None if wavelengths_nm is None else tuple(float(w) for w in wavelengths_nm)
        return cls(name, ArrayPixels(cube), tuple(range(cube.shape[2])), wavelengths_nm=waves, labels=labels)

    @property
    def hw(self) -> tuple[int, int]:
        """(H, W)."""
        return self.pixels.shape[0], self.pixels.shape[1]

    @property
    def shape(self) -> tuple[int, int, int]:
        """(H, W, bands that count)."""
        return (*self.hw, len(self.bands))

    def window(self, rows: slice = slice(None), columns: slice = slice(None)) -> Values:
        """A part of the cube, equation (2); all of it by default.

        Returns:
            (h, w, bands), fp32.  A pixel that is invalid, or not finite in a band that counts, is NaN in every band.
        """
        stored = self.pixels.read(rows, columns)
        if self.bands != tuple(range(stored.shape[2])):
            stored = stored[:, :, list(self.bands)]
        values = stored.astype(np.float32)
        bad = ~np.isfinite(values).all(axis=2)
        if self.ignore_value is not None:
            bad |= (stored == self.ignore_value).all(axis=2)
        if self.scale != 1:
            values /= np.float32(self.scale)
        values[bad] = np.nan
        return values

    def windows(self, max_bytes: int = WINDOW_BYTES) -> Iterator[Window]:
        """Strips of whole rows that cover the scene: `max_bytes` of fp32 values each, or one row."""
        height, width = self.hw
        step = max(1, max_bytes // (4 * width * self.pixels.shape[2]))
        for row in range(0, height, step):
            yield slice(row, min(row + step, height)), slice(0, width)

    def spectra(self, rows: npt.NDArray[np.int64], columns: npt.NDArray[np.int64]) -> Values:
        """Spectra of single pixels: (n,), (n,) -> (n, bands); the cube is read strip by strip."""
        found = np.empty((len(rows), len(self.bands)), np.float32)
        for window in self.windows():
            inside = (rows >= window[0].start) & (rows < window[0].stop)
            if inside.any():
                found[inside] = self.window(*window)[rows[inside] - window[0].start, columns[inside]]
        return found

    def statistics(self, where: Mask | None = None) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
        """Mean and standard deviation of every band over valid pixels, (bands,) each; sums strip by strip in fp64.

        Args:
            where: (H, W), only these pixels.
        Raises:
            DataError: no valid pixel is among them.
        """
        count, total, squares, shift = 0, np.zeros(len(self.bands)), np.zeros(len(self.bands)), None
        for window in self.windows():
            values = self.window(*window)
            chosen = valid(values) if where is None else valid(values) & where[window]
            if chosen.any():
                some = values[chosen].astype(np.float64)
                # sums about a value of the data's own size lose no digits
                shift = some.mean(axis=0) if shift is None else shift
                count, total, squares = (
                    count + len(some),
                    total + (some - shift).sum(0),
                    squares + ((some - shift) ** 2).sum(0),
                )
        if shift is None:
            raise DataError(f"{self.name}: no valid pixel: all are ignored or not finite")
        mean = total / count
        return shift + mean, np.sqrt(np.maximum(squares / count - mean**2, 0))

    def nearest_band(self, wavelength_nm: float, tolerance_nm: float = np.inf) -> int | None:
        """Position (among `wavelengths_nm`) of the band nearest to a wavelength; None = none within the tolerance.

        Raises:
            DataError: the scene's wavelengths are unknown.
        """
        if self.wavelengths_nm is None:
            raise DataError(f"{self.name}: its wavelengths are unknown; give them with --wavelengths")
        distance = np.abs(np.asarray(self.wavelengths_nm) - wavelength_nm)
        nearest = int(distance.argmin())
        return nearest if distance[nearest] <= tolerance_nm else None

    def with_labels(self, labels: LabelMap | None) -> Scene:
        """The same scene with other labels."""
        return dataclasses.replace(self, labels=labels)

    def select(self, positions: Sequence[int]) -> Scene:
        """The same scene with some of its bands, in this order."""

        def some(values: tuple[float, ...] | None) -> tuple[float, ...] | None:
            return None if values is None else tuple(values[p] for p in positions)

        return dataclasses.replace(
            self, bands=tuple(self.bands[p] for p in positions), wavelengths_nm=some(self.wavelengths_nm),
            fwhm_nm=some(self.fwhm_nm),
        )  # fmt: skip


def valid(values: Values) -> Mask:
    """Which pixels of a window are valid: (h, w, bands) -> (h, w)."""
    return ~np.isnan(values[..., 0])
