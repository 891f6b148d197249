"""Crop stress: the stage of stem rot of a peanut plant, from one reflectance spectrum of its stem."""

from __future__ import annotations

from pathlib import Path
from typing import Final

import numpy as np

from luthier.scene.ensemble import Ensemble, Setting
from luthier.scene.tasks.application import Application, Array, arrays, class_means, repeated_folds, share_right
from luthier.scene.tasks.baselines import index_thresholds, plain_svm, random_forest, tuned_svm
from luthier.scene.tasks.choose import fit_chosen
from luthier.scene.tasks.explain import Examined
from luthier.scene.tasks.networks import pixel_network
from luthier.train.recipe import Recipe

FOLDS: Final = 5
_RECIPE: Final = Recipe(
    epochs=60, batch_size=128, optimizer="adamw", learning_rate=5e-3, weight_decay=0.05, warmup_epochs=5,
    label_smoothing=0.05, channels_last=False,
)  # fmt: skip
SETTINGS: Final = (
    Setting(views=("raw", "shape"), recipe=_RECIPE, noise=0.1),
    Setting(views=("raw", "shape", "slope"), recipe=_RECIPE, noise=0.1),
)


def crop_stress(path: Path, *, settings: tuple[Setting, ...] = SETTINGS, members: int = 5) -> Application:
    """The application on an archive with `spectra` (n, bands), `wavelengths_nm`, `labels` (n,) and `class_names`.

    Source:
        Wei et al. 2021, Remote Sensing 13, 2833 (the data).
    """
    spectra, waves, labels, names = arrays(path, "spectra", "wavelengths_nm", "labels", "class_names")
    classes = labels.astype(np.int64)
    nm = waves.astype(np.float64).tolist()

    def fit(rows: Array, seed: int) -> Ensemble:
        return fit_chosen(
            settings, lambda f: pixel_network(f, len(names)), spectra[rows], classes[rows], members=members, seed=seed
        )

    splits = repeated_folds(classes, FOLDS)

    def examine() -> Examined:
        split = splits(1)[0]
        return Examined(fit(split.train, 0), spectra[split.test], classes[split.test], np.asarray(nm))

    return Application(
        name="crop-stress",
        title=f"stage of stem rot ({', '.join(map(str, names))}) from {len(spectra)} spectra of {len(nm)} bands",
        design=f"repeated stratified {FOLDS}-fold cross-validation; views chosen inside the training folds",
        measure="accuracy",
        higher_is_better=True,
        ours="MBConv",
        methods={
            "MBConv": lambda train, test, seed: fit(train, seed).predict(spectra[test]).argmax(axis=1),
            "SVM, tuned": lambda train, test, seed: tuned_svm(spectra[train], classes[train], spectra[test], seed),
            "SVM, not tuned": lambda train, test, seed: plain_svm(spectra[train], classes[train], spectra[test]),
            "random forest": lambda train, test, seed: random_forest(
                spectra[train], classes[train], spectra[test], seed
            ),
            "index thresholds": lambda train, test, seed: index_thresholds(
                spectra[train], classes[train], spectra[test], seed, nm
            ),
        },
        splits=splits,
        score=share_right(classes),
        train_all=lambda seed: {"model": fit(np.arange(len(spectra)), seed)},
        examine=examine,
        curves=class_means("mean reflectance", "wavelength, nm", waves, spectra, classes, names),
        note="Views are chosen inside the training folds; the rest of the recipe was fixed after a look at ten splits.",
    )
