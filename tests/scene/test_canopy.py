"""Leaves and canopies: Stern's integral by another route, energy, limits, and what pigments do."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from luthier.scene.canopy import canopy, leaf, transmissivity


@pytest.fixture(scope="module")
def constants(data_dir: Path) -> dict[str, Any]:
    with np.load(data_dir / "spectra/prospect_d.npz") as file:
        return {key: file[key] for key in file.files}


def test_the_integral_is_sterns_closed_form() -> None:
    # 90 degrees: Stern 1964, as quoted by Allen et al. 1973 for the mean over the half sphere
    n = np.array([1.3, 1.45, 1.6])
    r = (
        0.5
        + (n - 1) * (3 * n + 1) / (6 * (n + 1) ** 2)
        + n**2 * (n**2 - 1) ** 2 / (n**2 + 1) ** 3 * np.log((n - 1) / (n + 1))
        - 2 * n**3 * (n**2 + 2 * n - 1) / ((n**2 + 1) * (n**4 - 1))
        + 8 * n**4 * (n**4 + 1) / ((n**2 + 1) * (n**4 - 1) ** 2) * np.log(n)
    )
    np.testing.assert_allclose(transmissivity(90.0, n), 1 - r, rtol=1e-4)
    np.testing.assert_allclose(transmissivity(0.5, n), 1 - ((n - 1) / (n + 1)) ** 2, rtol=1e-4)  # straight on


@given(st.floats(0, 100), st.floats(0, 0.05), st.floats(1.05, 3))
def test_no_light_is_made(chlorophyll: float, water: float, structure: float) -> None:
    n = np.linspace(1.3, 1.5, 7)
    constants = {key: np.full(7, 0.03) for key in ("k_chl", "k_car", "k_ant", "k_brown", "k_water", "k_drymatter")}
    r, t = leaf({"n": n, **constants}, {"k_chl": chlorophyll, "k_water": water}, structure)
    assert min(r.min(), t.min()) > 0
    assert (r + t).max() <= 1 + 1e-9


def test_a_clear_leaf_loses_nothing() -> None:
    constants = {key: np.zeros(3) for key in ("k_chl", "k_car", "k_ant", "k_brown", "k_water", "k_drymatter")}
    r, t = leaf({"n": np.array([1.3, 1.4, 1.5]), **constants}, {}, 1.7)
    np.testing.assert_allclose(r + t, 1, atol=1e-6)


def test_chlorophyll_darkens_red_and_leaves_the_infrared(constants: Any) -> None:
    nm = constants["wavelengths_nm"]
    base = {"k_car": 8.0, "k_water": 0.015, "k_drymatter": 0.008}
    poor, rich = (leaf(constants, {"k_chl": c, **base}, 1.5)[0] for c in (15.0, 60.0))
    assert (rich <= poor + 1e-12).all()
    np.testing.assert_allclose(rich[nm == 850], poor[nm == 850])
    assert poor[nm == 710] - rich[nm == 710] > 0.1  # the red edge moves
    assert 0.4 < rich[nm == 850][0] < 0.55
    assert rich[nm == 670][0] < 0.06


def test_a_canopy_goes_from_soil_to_leaves() -> None:
    rho, tau, soil = np.array([0.4]), np.array([0.3]), np.array([0.15])
    np.testing.assert_allclose(canopy(rho, tau, soil, 0.0), soil)
    # many layers: R = r + t^2 R / (1 - r R) at its fixed point
    thin = 8 / 24
    r, t = rho * thin, 1 - (1 - tau) * thin
    deep = canopy(rho, tau, canopy(rho, tau, canopy(rho, tau, soil, 8), 8), 8)
    np.testing.assert_allclose(deep, r + t**2 * deep / (1 - r * deep), rtol=1e-3)
    areas = [canopy(rho, tau, soil, area)[0] for area in (0.5, 1, 2, 4)]
    assert areas == sorted(areas)
