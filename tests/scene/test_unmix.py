"""Abundances and angles: exact mixtures, the conditions of an optimum, a slow search; OC4's published curve."""

from __future__ import annotations

from itertools import product
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from luthier.errors import DataError, ShapeError
from luthier.scene.unmix import fcls, spectral_angles
from luthier.scene.water import OC4, band_ratio, oc4


@given(st.integers(0, 10_000), st.booleans())
def test_exact_mixtures_are_taken_apart(seed: int, shade: bool) -> None:
    rng = np.random.default_rng(seed)
    endmembers, shares = rng.uniform(0.1, 1, (4, 12)), rng.dirichlet(np.ones(4), 5)
    brightness = rng.uniform(0.4, 1, (5, 1)) if shade else 1.0
    # the sum is weighted 1000 times, not infinitely
    np.testing.assert_allclose(fcls(brightness * (shares @ endmembers), endmembers, shade=shade), shares, atol=1e-4)


def test_no_point_of_a_fine_grid_fits_better() -> None:
    rng = np.random.default_rng(1)
    endmembers, spectra = rng.uniform(size=(3, 6)), rng.uniform(size=(20, 6))
    found = fcls(spectra, endmembers)
    np.testing.assert_allclose(found.sum(axis=1), 1)
    assert found.min() >= 0
    grid = np.array([(a, b, 40 - a - b) for a, b in product(range(41), repeat=2) if a + b <= 40]) / 40
    best = (((spectra[:, None] - grid @ endmembers) ** 2).sum(axis=2)).min(axis=1)
    mine = ((spectra - found @ endmembers) ** 2).sum(axis=1)
    assert (mine <= best + 1e-6).all()


def test_angles_are_blind_to_brightness_and_equal_a_slow_loop() -> None:
    rng = np.random.default_rng(2)
    spectra, endmembers = rng.uniform(size=(4, 7)), rng.uniform(size=(3, 7))
    found = spectral_angles(spectra, endmembers)
    np.testing.assert_allclose(found, spectral_angles(7 * spectra, 0.1 * endmembers))
    for i, j in product(range(4), range(3)):
        x, e = spectra[i], endmembers[j]
        assert np.cos(found[i, j]) == pytest.approx(sum(x * e) / (sum(x * x) * sum(e * e)) ** 0.5)
    with pytest.raises(ShapeError, match="spectra \\(n, bands\\) and endmembers"):
        spectral_angles(spectra, endmembers[:, :5])


def test_oc4_is_the_published_polynomial() -> None:
    # R = log10 of the largest blue reflectance, 490 nm, over green
    waves, rrs = (443.0, 489.0, 510.0, 555.0), np.array([[0.002, 0.006, 0.004, 0.003]])
    r = np.log10(0.006 / 0.003)
    wanted = 0.3272 - 2.9940 * r + 2.7218 * r**2 - 1.2259 * r**3 - 0.5683 * r**4
    np.testing.assert_allclose(oc4(rrs, waves), [wanted])
    assert np.isnan(oc4(np.array([[0.002, np.nan, 0.004, 0.003], [0.002, 0.006, 0.004, 0.0]]), waves)).all()
    with pytest.raises(DataError, match="OC4: needs a band at 510 nm, the nearest is at 489 nm"):
        band_ratio(rrs[:, [0, 1, 3]], (443.0, 489.0, 555.0))


def test_oc4_has_its_published_error_on_nomad(data_dir: Path) -> None:
    with np.load(data_dir / "rs/nomad_water.npz") as file:
        rrs, waves, chlorophyll = file["rrs_per_sr"], file["wavelengths_nm"], file["chl_mg_m3"]
    found, truth = oc4(rrs, waves, OC4), np.log10(chlorophyll)
    there = np.isfinite(found)
    assert np.corrcoef(found[there], truth[there])[0, 1] == pytest.approx(0.92, abs=0.005)
    assert np.sqrt(((found - truth)[there] ** 2).mean()) == pytest.approx(0.27, abs=0.005)
