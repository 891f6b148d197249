"""Leaves and canopies computed from what is in them: PROSPECT-D, and thin layers of its leaves over soil.

Constants (absorption of the pigments, of water and dry matter, the index of refraction, two soils) come with the data.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, TypeAlias

import numpy as np
import numpy.typing as npt

Values: TypeAlias = npt.NDArray[np.float64]
#: absorbers by their keys in the constants
ABSORBERS: Final = ("k_chl", "k_car", "k_ant", "k_brown", "k_water", "k_drymatter")
#: incidence on the first plate, in degrees: PROSPECT's own choice
_FIRST_DEGREES: Final = 40.0
#: layers that a canopy is cut into; each holds at most a third of a leaf area
_LAYERS: Final = 24


def transmissivity(degrees: float, n: npt.NDArray[Any]) -> Values:
    """Share of diffuse light within a cone that enters a dielectric.

        tav = integral over angles up to alpha of T(angle, n) sin(2 angle) / sin(alpha)^2              (1)

    T is the mean of Fresnel's two transmissivities; the integral is taken by Gauss and Legendre's rule.

    Args:
        degrees: alpha, half the cone's opening, in (0, 90].
        n: index of refraction, above 1.
    Source:
        Stern 1964, Applied Optics 3, 111-113.
    Example:
        >>> float(transmissivity(90, np.array([1.5]))[0].round(3))
        0.908
    """
    nodes, weights = np.polynomial.legendre.leggauss(48)
    top = np.radians(degrees)
    angle = (nodes + 1) * top / 2
    inside = np.cos(np.arcsin(np.sin(angle) / np.asarray(n, np.float64)[:, None]))
    outside, ratio = np.cos(angle), np.asarray(n, np.float64)[:, None]
    across = ((outside - ratio * inside) / (outside + ratio * inside)) ** 2
    along = ((inside - ratio * outside) / (inside + ratio * outside)) ** 2
    passed = (1 - (across + along) / 2) * np.sin(2 * angle)
    return np.asarray((passed * weights).sum(axis=1) * top / 2 / np.sin(top) ** 2)


def leaf(
    constants: Mapping[str, npt.NDArray[Any]], contents: Mapping[str, float], structure: float
) -> tuple[Values, Values]:
    """Reflectance and transmittance of a leaf: a pile of N plates, N need not be whole.

        k = sum over absorbers of content * coefficient / N                                            (2)
        tau = (1 - k) exp(-k) + k^2 E1(k)          of one plate's inside                                (3)

    Plates are joined by Stokes' equations.

    Args:
        constants: `n` and `ABSORBERS`, each (bands,).
        contents: by absorber: pigments in ug/cm^2, water and dry matter in g/cm^2 (cm of water); absent ones are 0.
        structure: N, above 1.
    Returns:
        Reflectance and transmittance, (bands,) each.
    Source:
        Feret et al. 2017, Remote Sensing of Environment 193, 204-215 (PROSPECT-D); Allen et al. 1969, J. Opt. Soc.
        Am. 59, 1376-1379 (plates).
    """
    from scipy.special import exp1

    n = constants["n"].astype(np.float64)
    k = sum((contents.get(key, 0.0) * constants[key].astype(np.float64) for key in ABSORBERS), np.zeros(len(n)))
    k = np.maximum(k / structure, 1e-12)
    tau = (1 - k) * np.exp(-k) + k**2 * exp1(k)
    first, rest = transmissivity(_FIRST_DEGREES, n), transmissivity(90.0, n)
    back = rest / n**2  # out of the plate
    mirrored = 1 - back
    left = 1 - mirrored**2 * tau**2
    top_t = first * tau * back / left
    top_r = 1 - first + mirrored * tau * top_t
    t = rest * tau * back / left
    r = 1 - rest + mirrored * tau * t
    pile_r, pile_t = _pile(r, t, structure - 1)
    between = 1 - pile_r * r
    return top_r + top_t * pile_r * t / between, top_t * pile_t / between


def _pile(r: Values, t: Values, plates: float) -> tuple[Values, Values]:
    """Stokes: reflectance and transmittance of equal plates; absorbing nothing is a limit of its own."""
    clear = r + t >= 1 - 1e-12
    safe = np.where(clear, 0.5 * t, t)
    root = np.sqrt((1 + r + safe) * (1 + r - safe) * (1 - r + safe) * (1 - r - safe))
    a = (1 + r**2 - safe**2 + root) / (2 * r)
    b = ((1 - r**2 + safe**2 + root) / (2 * safe)) ** plates
    below = a**2 * b**2 - 1
    passed = np.where(clear, t / (t + (1 - t) * plates), b * (a**2 - 1) / below)
    return np.where(clear, 1 - passed, a * (b**2 - 1) / below), passed


def canopy(reflectance: Values, transmittance: Values, soil: Values, leaf_area: float) -> Values:
    """Reflectance of leaves over soil: thin layers added one by one from below.

        layer: r = rho d,  t = 1 - (1 - tau) d,  d = leaf_area / layers                                (4)
        R <- r + t^2 R / (1 - r R),   starting with the soil's                                         (5)

    Args:
        reflectance, transmittance: rho and tau of one leaf, (bands,).
        soil: reflectance of the ground, (bands,).
        leaf_area: one-sided leaf area over ground area, in [0, 8].
    Source:
        van de Hulst 1980, Multiple Light Scattering, volume 1, chapter 4 (adding).
    Example:
        >>> bright, dark = canopy(np.array([0.45, 0.05]), np.array([0.45, 0.02]), np.array([0.2, 0.2]), 4.0)
        >>> bool(bright > 0.4 and dark < 0.05)
        True
    """
    share = leaf_area / _LAYERS
    r, t = reflectance * share, 1 - (1 - transmittance) * share
    found = soil
    for _ in range(_LAYERS):
        found = r + t**2 * found / (1 - r * found)
    return found
