"""Indices: spyndex's own numbers, formulas written out, bands found by wavelength."""

from __future__ import annotations

import numpy as np
import pytest
import spyndex
from hypothesis import given
from hypothesis import strategies as st

from luthier.errors import InputError, ShapeError
from luthier.scene.indices import INDICES, available, index, region_nm

#: one band in each region, and one that belongs to none
WAVES = (480.0, 560.0, 655.0, 705.0, 830.0, 1000.0, 1650.0, 2215.0)
REGIONS = ("B", "G", "R", "RE1", "N", None, "S1", "S2")
FORMULAS = {
    "NDVI": lambda b: (b["N"] - b["R"]) / (b["N"] + b["R"]),
    "NDREI": lambda b: (b["N"] - b["RE1"]) / (b["N"] + b["RE1"]),
    "NDWI": lambda b: (b["G"] - b["N"]) / (b["G"] + b["N"]),
    "NDMI": lambda b: (b["N"] - b["S1"]) / (b["N"] + b["S1"]),
    "MNDWI": lambda b: (b["G"] - b["S1"]) / (b["G"] + b["S1"]),
    "CIRE": lambda b: b["N"] / b["RE1"] - 1,
    "clay": lambda b: b["S1"] / b["S2"],
    "iron_oxide": lambda b: b["R"] / b["B"],
}


@given(st.lists(st.floats(0.01, 1), min_size=8, max_size=8))
def test_every_index_is_its_formula(values: list[float]) -> None:
    spectrum = np.array(values)
    bands = {letter: value for letter, value in zip(REGIONS, values, strict=True) if letter}
    assert set(FORMULAS) == set(INDICES) == set(available(WAVES))
    for name, formula in FORMULAS.items():
        np.testing.assert_allclose(index(name, spectrum, WAVES), formula(bands), rtol=1e-12)
        if INDICES[name].ratio is None:
            wanted = spyndex.computeIndex(name, params={letter: bands[letter] for letter in INDICES[name].bands})
            np.testing.assert_allclose(index(name, spectrum, WAVES), wanted, rtol=1e-12)


def test_a_region_is_the_mean_of_its_bands_in_any_order() -> None:
    spectrum, waves = np.array([[0.5, 0.2, 0.3, 9.0]]), (850.0, 640.0, 680.0, 1200.0)
    np.testing.assert_allclose(index("NDVI", spectrum, waves), [(0.5 - 0.25) / 0.75])


def test_what_cannot_be_computed() -> None:
    assert available((660.0, 830.0)) == ("NDVI",)
    assert region_nm("S2") == (2080.0, 2350.0)
    assert np.isnan(index("NDVI", np.zeros(8), WAVES))
    assert np.isnan(index("NDVI", np.full(8, np.nan), WAVES))
    with pytest.raises(InputError, match=r"needs a band within 1550 \.\. 1750 nm"):
        index("NDMI", np.ones(2), (660.0, 830.0))
    with pytest.raises(InputError, match="must be one of NDVI, NDREI"):
        index("NDXI", np.ones(8), WAVES)
    with pytest.raises(ShapeError, match="8 wavelengths for spectra of shape"):
        index("NDVI", np.ones(7), WAVES)
