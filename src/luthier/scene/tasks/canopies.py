"""Crop stress before it can be seen: simulated canopies that lack chlorophyll, whatever else differs between them."""

from __future__ import annotations

from pathlib import Path
from typing import Final

import numpy as np

from luthier.scene.canopy import ABSORBERS, canopy, leaf
from luthier.scene.ensemble import Ensemble, Setting, fit_ensemble
from luthier.scene.tasks.application import Application, Array, arrays, class_means, repeated_folds, share_right
from luthier.scene.tasks.baselines import index_thresholds, tuned_svm
from luthier.scene.tasks.explain import Examined
from luthier.scene.tasks.networks import pixel_network
from luthier.scene.views import fit_views
from luthier.train.recipe import Recipe

FOLDS: Final = 5
CANOPIES: Final = 1000
#: of the simulated sensor: every so many nm, standard deviation of its noise as reflectance
_STEP_NM: Final = 10
_SEEN_NM: Final = (450, 900)
_NOISE: Final = 0.005
#: chlorophyll of stressed and healthy leaves, in ug/cm^2
_CHLOROPHYLL: Final = ((20.0, 35.0), (35.0, 60.0))
SETTING: Final = Setting(
    views=("raw", "shape"),
    recipe=Recipe(
        epochs=20, batch_size=128, optimizer="adamw", learning_rate=5e-3, weight_decay=0.05, warmup_epochs=2,
        channels_last=False,
    ),
    noise=0.02,
)  # fmt: skip


def canopies(path: Path, *, setting: Setting = SETTING, members: int = 2, count: int = CANOPIES) -> Application:
    """The application on an archive with PROSPECT-D's constants: `wavelengths_nm`, `n`, `k_...`, `soil` (bands, 2)."""
    nm, n, soil, *absorbers = arrays(path, "wavelengths_nm", "n", "soil", *ABSORBERS)
    low, high = _SEEN_NM
    seen = (nm >= low) & (nm <= high) & ((nm - nm[0]) % _STEP_NM == 0)
    constants = {"n": n[seen]} | {key: k[seen] for key, k in zip(ABSORBERS, absorbers, strict=True)}
    waves = nm[seen].astype(np.float64)
    spectra, classes = simulate(constants, soil[seen].astype(np.float64), count, np.random.default_rng(0))

    def fit(rows: Array, seed: int) -> Ensemble:
        network = pixel_network(fit_views(spectra[rows], setting.views).num_features, 2)
        seeds = range(seed * members, (seed + 1) * members)
        return fit_ensemble(network, setting, spectra[rows], classes[rows], seeds)

    splits = repeated_folds(classes, FOLDS)

    def examine() -> Examined:
        split = splits(1)[0]
        return Examined(fit(split.train, 0), spectra[split.test], classes[split.test], waves)

    return Application(
        name="crop-stress-canopies",
        title=f"lack of chlorophyll (20-35 against 35-60 ug/cm^2) in {count} simulated canopies of {len(waves)} bands",
        design=f"repeated stratified {FOLDS}-fold cross-validation; leaf area, water, dry matter, other pigments, leaf "
        "structure and soil are drawn alike for both classes",
        measure="accuracy",
        higher_is_better=True,
        ours="MBConv",
        methods={
            "MBConv": lambda train, test, seed: fit(train, seed).predict(spectra[test]).argmax(axis=1),
            "SVM, tuned": lambda train, test, seed: tuned_svm(spectra[train], classes[train], spectra[test], seed),
            "index thresholds": lambda train, test, seed: index_thresholds(
                spectra[train], classes[train], spectra[test], seed, waves.tolist()
            ),
        },
        splits=splits,
        score=share_right(classes),
        train_all=lambda seed: {"model": fit(np.arange(count), seed)},
        examine=examine,
        curves=class_means("mean reflectance", "wavelength, nm", waves, spectra, classes, ("stressed", "healthy")),
        note="Simulated: leaves by PROSPECT-D, the canopy as thin layers of them over soil.",
    )


def simulate(constants: dict[str, Array], soil: Array, count: int, rng: np.random.Generator) -> tuple[Array, Array]:
    """Canopies, every second one stressed: reflectance (count, bands) with noise, and classes (0 = stressed)."""
    classes = np.arange(count) % 2
    spectra = np.empty((count, len(soil)))
    for row, kind in enumerate(classes):
        chlorophyll = rng.uniform(*_CHLOROPHYLL[kind])
        contents = {
            "k_chl": chlorophyll, "k_car": chlorophyll * rng.uniform(0.15, 0.3), "k_ant": rng.uniform(0, 2),
            "k_brown": rng.uniform(0, 0.2), "k_water": rng.uniform(0.005, 0.03),
            "k_drymatter": rng.uniform(0.002, 0.01),
        }  # fmt: skip
        dry = rng.uniform()
        ground = rng.uniform(0.6, 1.2) * (dry * soil[:, 0] + (1 - dry) * soil[:, 1])
        spectra[row] = canopy(*leaf(constants, contents, rng.uniform(1.2, 2.2)), ground, rng.uniform(0.5, 5))
    return spectra + _NOISE * rng.standard_normal(spectra.shape), classes
