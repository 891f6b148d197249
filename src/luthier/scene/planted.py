"""Scenes whose truth is known because we put it there: real spectra, some of them altered in chosen bands."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final, Literal

import numpy as np
import numpy.typing as npt

from luthier.errors import InputError
from luthier.scene.cube import LabelMap, Scene

Plant = Literal["stress", "pair", "none"]
#: where a plant under stress changes, in nm: the red edge rises, the near infra-red falls
RED_EDGE_NM: Final = (690.0, 740.0)
NEAR_INFRARED_NM: Final = (760.0, 900.0)


@dataclass(frozen=True, eq=False)
class Planted:
    """A scene with its secret.

    Attributes:
        scene: one row of pixels; class 1 = as found, 2 = altered.
        bands: positions of the altered bands; none for `none`.
    """

    scene: Scene
    bands: tuple[int, ...]


def plant(
    spectra: npt.NDArray[Any], wavelengths_nm: npt.NDArray[Any], kind: Plant, *, strength: float = 0.1,
    noise: float = 0.002, seed: int = 0,
) -> Planted:  # fmt: skip
    """Alter half of the spectra, drawn at random, in chosen bands.

        x'_b = x_b (1 + strength * c_b) + noise of std noise * mean x                                  (1)

    stress    c = +1 at the red edge, -1 in the near infra-red
    pair      c = +1 and -1 in two bands drawn at random
    none      c = 0: the labels are drawn, and nothing else

    Args:
        spectra: (n, bands), as measured.
        wavelengths_nm: (bands,).
        kind: what is altered.
        strength: of the change, as a part of the reflectance.
        noise: of every spectrum, altered or not.
        seed: of the draws.
    Raises:
        InputError: `stress`, and no band lies at the red edge and in the near infra-red.
    Example:
        >>> waves = np.arange(400.0, 1000.0, 20.0)
        >>> secret = plant(np.ones((6, 30)), waves, "stress")
        >>> [float(waves[band]) for band in secret.bands][:3], secret.scene.labels.counts
        ([700.0, 720.0, 740.0], (3, 3))
    """
    rng = np.random.default_rng(seed)
    n, bands = spectra.shape
    change = np.zeros(bands)
    if kind == "stress":
        for (low, high), sign in ((RED_EDGE_NM, 1.0), (NEAR_INFRARED_NM, -1.0)):
            inside = (wavelengths_nm >= low) & (wavelengths_nm <= high)
            if not inside.any():
                raise InputError(f"plant: stress needs a band within {low:g} .. {high:g} nm")
            change[inside] = sign
    elif kind == "pair":
        change[rng.choice(bands, 2, replace=False)] = (1.0, -1.0)
    altered = rng.permutation(n) < n // 2
    made = spectra * (1 + strength * altered[:, None] * change)
    made = made + noise * float(spectra.mean()) * rng.standard_normal(made.shape)
    labels = LabelMap(altered[None].astype(np.int64) + 1, ("as found", "altered"))
    scene = Scene.of_array(
        made.astype(np.float32), name=f"planted {kind}", wavelengths_nm=wavelengths_nm.tolist(), labels=labels
    )
    return Planted(scene, tuple(np.flatnonzero(change).tolist()))
