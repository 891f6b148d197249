from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from luthier.scene.cube import LabelMap, Scene

WAVES = tuple(np.linspace(450.0, 950.0, 12).round(1).tolist())


def fields(side: int = 48, classes: int = 3, seed: int = 0) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    """A cube (side, side, 12) of stripes, each class with its own spectrum, and labels; every 7th row has none."""
    generator = np.random.default_rng(seed)
    labels = np.arange(side)[None].repeat(side, 0) // 4 % classes + 1
    labels[::7] = 0
    spectra = generator.uniform(500, 3000, (classes + 1, len(WAVES)))
    cube = spectra[labels] + generator.normal(0, 120, (side, side, len(WAVES)))
    return cube.astype(np.float32), labels


@pytest.fixture(scope="session")
def striped() -> Callable[..., Scene]:
    """A scene in memory."""

    def make(side: int = 48, classes: int = 3, seed: int = 0) -> Scene:
        cube, labels = fields(side, classes, seed)
        names = tuple(f"crop {k}" for k in range(1, classes + 1))
        return Scene.of_array(cube, name="striped", wavelengths_nm=WAVES, labels=LabelMap(labels, names))

    return make
