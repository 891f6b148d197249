"""What the mixer learnt: the truth that was planted is found, elsewhere and without a plant nothing is."""

from __future__ import annotations

import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from luthier.arch import Attention, Block, Head, Network, Stage
from luthier.errors import DataError, InputError, ShapeError
from luthier.nn import build
from luthier.nn.build import Classifier
from luthier.scene.ensemble import Ensemble, Setting, fit_ensemble, to_input
from luthier.scene.mixer import BandImportance, Way, band_importance, index_matches, mixed, mixer_of
from luthier.scene.planted import NEAR_INFRARED_NM, RED_EDGE_NM, Plant, plant
from luthier.scene.tasks.networks import pixel_network
from luthier.train.recipe import Recipe


@pytest.fixture(scope="module")
def pixels(data_dir: Path) -> tuple[NDArray[Any], NDArray[Any]]:
    """Real spectra: every labelled pixel of the crops of Indian Pines in order, (n, bands), and nm."""
    with np.load(data_dir / "hsi/indian_pines.npz") as file:
        cube, truth, waves = file["cube"], file["gt"], file["wavelengths_nm"].astype(np.float64)
    return cube[(truth == 2) | (truth == 11)][:2400].astype(np.float64), waves


@pytest.fixture(scope="module")
def examined(
    pixels: tuple[NDArray[Any], NDArray[Any]],
) -> Callable[[Plant, int, Way], tuple[BandImportance, list[int]]]:
    """Train on one half of the pixels, examine on the other; a network for each plant and seed, examined both ways."""

    @functools.cache
    def trained(kind: Plant, seed: int) -> tuple[Ensemble, torch.Tensor, NDArray[Any], list[int]]:
        secret = plant(*pixels, kind, seed=seed)
        labels = secret.scene.labels
        assert labels is not None
        x, y = secret.scene.window()[0], labels.classes[0] - 1
        half = len(x) // 2
        recipe = Recipe(epochs=12, learning_rate=3e-3, optimizer="adamw")
        setting = Setting(views=("raw",), recipe=recipe, noise=0.0)
        found = fit_ensemble(pixel_network(x.shape[1], 2, width=16), setting, x[:half], y[:half], seeds=(0,))
        return found, to_input(found.network, found.views(x[half:])), y[half:], list(secret.bands)

    def examine(kind: Plant, seed: int, way: Way) -> tuple[BandImportance, list[int]]:
        ensemble, x, y, bands = trained(kind, seed)
        return band_importance(ensemble.members, x, y, pixels[1].tolist(), way=way), bands

    return examine


@pytest.mark.parametrize("way", ["weights", "occlusion"])
def test_stress_is_found_at_the_red_edge_and_in_the_near_infrared(examined: Any, way: Way) -> None:
    found, _ = examined("stress", 1, way)
    assert any(low <= found.peak_nm <= high for low, high in (RED_EDGE_NM, NEAR_INFRARED_NM))
    assert found.p.min() < 0.01


@pytest.mark.parametrize("way", ["weights", "occlusion"])
@pytest.mark.parametrize("seed", [2, 3])
def test_a_random_pair_is_found_where_it_is(examined: Any, way: Way, seed: int) -> None:
    found, bands = examined("pair", seed, way)
    assert set(np.argsort(found.importance)[-2:]) == set(bands)
    assert found.p[bands].max() < 0.01


@pytest.mark.parametrize("way", ["weights", "occlusion"])
def test_nothing_is_found_where_nothing_was_planted(examined: Any, way: Way) -> None:
    found, _ = examined("none", 4, way)
    assert found.p.min() > 0.05


def _linear(weights: NDArray[Any]) -> Classifier:
    """A network whose scores are linear in the bands: score_k = sum_b weights_kb x_b."""
    mixer = Stage(
        name="mixer",
        blocks=(Block(kind="conv", out_channels=len(weights), kernel_size=1, norm=False, activation="identity"),),
    )
    bands = weights.shape[1]
    network = Network(
        name="linear", stages=(mixer,), head=Head(num_classes=len(weights)), resolution=1, height=1, in_channels=bands,
        input_mean=(0.0,) * bands, input_std=(1.0,) * bands,
    )  # fmt: skip
    module = build(network).eval()
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.zero_()
        mixer_of(module).weight.copy_(torch.from_numpy(weights)[:, :, None, None])
        module.head.classifier.weight.copy_(torch.eye(len(weights)))
    return module


def test_both_ways_equal_the_formula_of_a_linear_network() -> None:
    rng = np.random.default_rng(5)
    weights = rng.normal(size=(3, 4)).astype(np.float32)
    x, y = rng.normal(size=(40, 4)).astype(np.float32), rng.integers(0, 3, 40)
    centred = x - x.mean(axis=0)
    d = centred[:, :, None] * (weights - weights.mean(axis=0)).T[None]
    wanted = [sum(d[n, b, y[n]] for n in range(40)) / 40 for b in range(4)]
    image = torch.from_numpy(x)[:, :, None, None]
    for way in ("weights", "occlusion"):
        found = band_importance([_linear(weights)], image, y, range(4), way=way)  # type: ignore[arg-type]
        # fp32 sums of four products
        np.testing.assert_allclose(found.importance, wanted, rtol=1e-4, atol=1e-5)


def test_the_significance_is_that_of_a_slow_loop() -> None:
    rng = np.random.default_rng(6)
    weights = rng.normal(size=(2, 5)).astype(np.float32)
    x, y = rng.normal(size=(30, 5)).astype(np.float32), np.arange(30) % 2
    x[:, 3] += np.where(y == 1, 0.6, -0.6) * np.sign(weights[1, 3] - weights[0, 3])
    found = band_importance([_linear(weights)], torch.from_numpy(x)[:, :, None, None], y, range(5), permutations=60)
    d = (x - x.mean(axis=0))[:, :, None] * (weights - weights.mean(axis=0)).T[None]
    draws = np.random.default_rng(0)
    null = np.array(
        [[d[np.arange(30), b, p].mean() for b in range(5)] for p in (draws.permutation(y) for _ in range(60))]
    )
    z = (null - null.mean(axis=0)) / null.std(axis=0)
    mine = (found.importance - null.mean(axis=0)) / null.std(axis=0)
    np.testing.assert_allclose(found.p, [(1 + sum(row.max() >= mine[b] for row in z)) / 61 for b in range(5)])
    assert found.p.argmin() == 3


def test_gates_on_the_bands_are_read() -> None:
    se = Attention(kind="eca", place="before_depthwise", kernel_size=1)
    block = Block(kind="depthwise_separable", out_channels=6, kernel_size=1, attention=se)
    network = Network(
        name="gated", stages=(Stage(name="first", blocks=(block,)),), head=Head(num_classes=2), resolution=1, height=1,
        in_channels=4, input_mean=(0.0,) * 4, input_std=(1.0,) * 4,
    )  # fmt: skip
    module = build(network).eval()
    rng = np.random.default_rng(7)
    x, y = rng.normal(size=(60, 4)).astype(np.float32), np.arange(60) % 2
    x[:, 2] += 3 * y
    found = band_importance([module], torch.from_numpy(x)[:, :, None, None], y, range(4), way="gates")
    weight = next(p.item() for name, p in module.named_parameters() if "attention" in name)
    gates = 1 / (1 + np.exp(-weight * x))
    wanted = np.std([gates[y == 0].mean(axis=0), gates[y == 1].mean(axis=0)], axis=0)
    np.testing.assert_allclose(found.importance, wanted, rtol=1e-4)
    assert found.p[2] < 0.01 < 0.05 < found.p[[0, 1, 3]].min()


def test_a_channel_that_is_an_index_is_matched() -> None:
    rng = np.random.default_rng(8)
    waves = np.array([480.0, 560.0, 660.0, 830.0])
    spectra = rng.uniform(0.05, 0.6, (200, 4))
    weights = rng.normal(size=(3, 4)).astype(np.float32)
    weights[1] = (0, 0, -1, 1)  # near infra-red minus red: the numerator of NDVI
    x = torch.from_numpy(spectra.astype(np.float32))[:, :, None, None]
    np.testing.assert_allclose(mixed(_linear(weights), x), spectra @ weights.T, rtol=1e-3, atol=1e-5)
    match = next(m for m in index_matches(_linear(weights), x, spectra, waves) if m.index == "NDVI")
    ndvi = (spectra[:, 3] - spectra[:, 2]) / (spectra[:, 3] + spectra[:, 2])
    wanted = [abs(np.corrcoef(ndvi, column)[0, 1]) for column in (spectra @ weights.T).T]
    assert match.channel == int(np.argmax(wanted))
    assert abs(match.correlation) == pytest.approx(max(wanted), rel=1e-4)


def test_what_cannot_be_examined_is_refused() -> None:
    module = _linear(np.ones((2, 4), np.float32))
    x = torch.zeros(6, 4, 1, 1)
    with pytest.raises(ShapeError, match="4 channels for 3 bands"):
        band_importance([module], x, np.arange(6) % 2, range(3))
    with pytest.raises(DataError, match="at least two classes"):
        band_importance([module], x, np.zeros(6, int), range(4))
    with pytest.raises(InputError, match="no gate on its 4 input channels"):
        band_importance([module], x, np.arange(6) % 2, range(4), way="gates")
    stem = Stage(name="stem", blocks=(Block(kind="conv", out_channels=8),))
    with pytest.raises(InputError, match="no 1x1 convolution over its 3 input channels"):
        mixer_of(build(Network(name="rgb", stages=(stem,), head=Head(num_classes=2))))
