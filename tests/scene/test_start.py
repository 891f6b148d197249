"""Where the spectral mixer starts: signal before variance, and the principal directions without neighbours."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from scipy.ndimage import uniform_filter

from luthier.arch import presets
from luthier.arch.presets.scene import for_scene
from luthier.nn.build import build
from luthier.scene.crops import standardisation
from luthier.scene.cube import Scene
from luthier.scene.split import block_split
from luthier.scene.start import begin_with_signal, signal_directions

SIDE, BANDS = 40, 10


@pytest.fixture(scope="module")
def smooth_under_noise() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Two smooth images in two planted directions below noise of ten times their size in two others."""
    generator = np.random.default_rng(7)
    planted = np.linalg.qr(generator.normal(size=(BANDS, BANDS)))[0]
    smooth = uniform_filter(generator.normal(size=(SIDE, SIDE, 2)), (9, 9, 0)) * 3.0
    cube = smooth @ planted[:2] + 3.0 * generator.normal(size=(SIDE, SIDE, 2)) @ planted[2:4]
    cube += 0.02 * generator.normal(size=cube.shape)
    return cube.reshape(-1, BANDS).astype(np.float32), planted, generator.random((SIDE, SIDE)) < 0.7


def _share_of_smooth(directions: np.ndarray, planted: np.ndarray) -> float:
    """How much of the first two directions lies among the directions that answer the smooth images alone."""
    answers = directions[:2] @ planted.T
    return float((answers[:, :2] ** 2).sum() / (answers[:, :4] ** 2).sum())


def test_signal_comes_before_variance(smooth_under_noise: tuple[np.ndarray, np.ndarray, np.ndarray]) -> None:
    spectra, planted, mask = smooth_under_noise
    spectra = spectra[mask.ravel()]
    principal = np.linalg.svd(spectra - spectra.mean(axis=0), full_matrices=False)[2]
    assert _share_of_smooth(signal_directions(spectra, mask), planted) > 0.99
    assert _share_of_smooth(principal, planted) < 0.05


def test_each_is_the_best_of_what_is_left(smooth_under_noise: tuple[np.ndarray, np.ndarray, np.ndarray]) -> None:
    spectra = smooth_under_noise[0].astype(np.float64)
    directions = signal_directions(smooth_under_noise[0], np.ones((SIDE, SIDE), bool)).astype(np.float64)

    def noise(values: np.ndarray) -> np.ndarray:
        image = values.reshape(SIDE, SIDE, -1)
        steps = np.concatenate([np.diff(image, axis=axis).reshape(-1, image.shape[2]) for axis in (0, 1)])
        return (steps**2).mean(axis=0) / 2

    least = 1e-3 * noise(spectra).mean()
    values = spectra @ directions.T
    ratios = values.var(axis=0) / (noise(values) + least)
    assert (np.diff(ratios) < 1e-5 * ratios[0]).all()
    among = np.corrcoef(values.T) - np.eye(BANDS)
    assert np.abs(among).max() < 1e-3  # mixtures in these directions are uncorrelated


def test_without_neighbours_they_are_the_principal_ones() -> None:
    mask = np.indices((20, 20)).sum(axis=0) % 2 == 0
    spectra = np.random.default_rng(0).normal(size=(200, 5)).astype(np.float32) * (5, 4, 3, 2, 1)
    principal = np.linalg.svd(spectra - spectra.mean(axis=0), full_matrices=False)[2]
    found = signal_directions(spectra.astype(np.float32), mask)
    assert np.abs((found * principal).sum(axis=1)) == pytest.approx(1, abs=1e-4)


@pytest.mark.parametrize("name", ["mbconv_scene", "mbconv_scene_bandwise", "mbconv_scene_spectral"])
def test_a_network_starts_so_and_reads_training_pixels_alone(striped: Callable[..., Scene], name: str) -> None:
    scene = striped()
    assert scene.labels is not None
    split = block_split(scene.labels, 4, train_share=0.2)
    mean, std = standardisation(scene, split)
    cube = scene.window()
    altered = np.where(split.train[..., None], cube, -cube)
    weights = []
    for one in (scene, Scene.of_array(altered, name="altered", wavelengths_nm=scene.wavelengths_nm)):
        module = build(for_scene(presets.get(name), 3, mean.tolist(), std.tolist(), 48))
        begin_with_signal(module, one, split.train, mean, std)
        found = [w.detach().numpy() for w in module.parameters() if w.shape[1:] == (12, 1, 1)]
        weights.append(found[0][:12, :, 0, 0])
    expected = signal_directions(((cube - mean) / std)[split.train].astype(np.float32), split.train)
    assert weights[0] == pytest.approx(expected, abs=1e-5)
    assert np.array_equal(weights[0], weights[1])
