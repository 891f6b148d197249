"""Deforestation: land cover from a Landsat scene, and from what a season's vegetation indices did over a year."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Final

import numpy as np
from sklearn.model_selection import StratifiedGroupKFold

from luthier.scene.cube import Scene
from luthier.scene.draw import colour_picture
from luthier.scene.ensemble import Ensemble, Setting, fit_ensemble
from luthier.scene.tasks.application import (
    Application,
    Array,
    Split,
    arrays,
    class_means,
    repeated_folds,
    share_right,
)
from luthier.scene.tasks.baselines import index_thresholds, random_forest, tuned_svm, tuned_tree
from luthier.scene.tasks.choose import fit_chosen
from luthier.scene.tasks.cover import Cover, class_cover, shares_of
from luthier.scene.tasks.explain import Examined
from luthier.scene.tasks.networks import pixel_network, series_network
from luthier.train.recipe import Recipe

FOLDS: Final = 5
#: centres of Landsat 5's bands, in nm; the sixth is thermal
TM_NM: Final = (485.0, 560.0, 660.0, 830.0, 1650.0, 11450.0, 2215.0)
_SERIES: Final = Recipe(
    epochs=60, batch_size=64, optimizer="adamw", learning_rate=5e-3, weight_decay=0.05, warmup_epochs=5,
    label_smoothing=0.1,
)  # fmt: skip
SERIES_SETTINGS: Final = (
    Setting(views=("raw",), recipe=_SERIES, noise=0.2),
    Setting(views=("raw",), recipe=_SERIES, noise=0.5),
)
MAP_SETTING: Final = Setting(
    views=("raw", "shape"),
    recipe=Recipe(
        epochs=10,
        batch_size=256,
        optimizer="adamw",
        learning_rate=5e-3,
        weight_decay=0.05,
        warmup_epochs=1,
        channels_last=False,
    ),
    noise=0.1,
)


def deforestation_series(
    path: Path, *, settings: tuple[Setting, ...] = SERIES_SETTINGS, members: int = 4
) -> Application:
    """Land use from a year of EVI and NDVI: an archive with `series` (n, dates, 2), `labels` (n,) and `class_names`.

    Source:
        Simoes et al. 2021, Remote Sensing 13, 2428 (the package sits, whose samples these are).
    """
    series, labels, names = arrays(path, "series", "labels", "class_names")
    n, dates = series.shape[:2]
    classes, flat = labels.astype(np.int64), np.moveaxis(series, 2, 1).reshape(n, -1).astype(np.float64)

    def fit(rows: Array, seed: int) -> Ensemble:
        return fit_chosen(
            settings, lambda f: series_network(f // dates, dates, len(names)), flat[rows], classes[rows],
            members=members, seed=seed,
        )  # fmt: skip

    # how green at most, at least, on average, and whether the year ended less green than it began
    third = dates // 3
    seasons = [np.sort(series, axis=1)[:, 2], np.sort(series, axis=1)[:, -3], series.mean(axis=1)]
    indices = np.hstack([*seasons, series[:, -third:].mean(axis=1) - series[:, :third].mean(axis=1)])

    return Application(
        name="deforestation-series",
        title=f"land use ({', '.join(map(str, names))}) from {n} series of {dates} dates of EVI and NDVI",
        design=f"repeated stratified {FOLDS}-fold cross-validation; settings chosen inside the training folds",
        measure="accuracy",
        higher_is_better=True,
        ours="MBConv",
        methods={
            "MBConv": lambda train, test, seed: fit(train, seed).predict(flat[test]).argmax(axis=1),
            "random forest": lambda train, test, seed: random_forest(flat[train], classes[train], flat[test], seed),
            "SVM, tuned": lambda train, test, seed: tuned_svm(flat[train], classes[train], flat[test], seed),
            "index thresholds": lambda train, test, seed: tuned_tree(
                indices[train], classes[train], indices[test], seed
            ),
        },
        splits=repeated_folds(classes, FOLDS),
        score=share_right(classes),
        train_all=lambda seed: {"model": fit(np.arange(n), seed)},
        curves=class_means("mean EVI", "date, of a year", np.arange(1, dates + 1), series[:, :, 0], classes, names),
    )


def deforestation_map(path: Path, *, setting: Setting = MAP_SETTING, members: int = 2) -> Application:
    """Land cover: an archive with `cube` (H, W, 7 bands of Landsat 5), `gt`, `polygon_id`, `class_names`, `bounds`.

    Whole polygons are held out, as many of every class as there can be.
    """
    cube, truth, polygons, names, bounds = arrays(path, "cube", "gt", "polygon_id", "class_names", "bounds")
    inside = truth > 0
    spectra, classes, groups = cube[inside].astype(np.float64), truth[inside].astype(np.int64) - 1, polygons[inside]

    def fit(rows: Array, seed: int) -> Ensemble:
        network = pixel_network(len(setting.views) * spectra.shape[1], len(names) - 1, width=32)
        seeds = range(seed * members, (seed + 1) * members)
        return fit_ensemble(network, setting, spectra[rows], classes[rows], seeds)

    def splits(repeats: int) -> list[Split]:
        found = []
        for repeat in range(repeats):
            folds = StratifiedGroupKFold(FOLDS, shuffle=True, random_state=repeat).split(spectra, classes, groups)
            found += [Split(train, test) for train, test in folds]
        return found

    def examine() -> Examined:
        split = splits(1)[0]
        return Examined(fit(split.train, 0), spectra[split.test], classes[split.test], np.asarray(TM_NM))

    def cover(kept: Mapping[str, Ensemble]) -> Cover:
        classes = shares_of(kept["model"], cube.astype(np.float64)).argmax(axis=2) + 1
        west, south, east, north = bounds.tolist()
        area_m2 = (east - west) * (north - south) / truth.size
        found = class_cover(classes, truth.astype(np.int64), tuple(map(str, names[1:])), area_m2)
        seen = colour_picture(Scene.of_array(cube, wavelengths_nm=TM_NM))
        return replace(found, pictures=(*found.pictures, ("the scene", seen)))

    return Application(
        name="deforestation-map",
        title=f"land cover ({', '.join(map(str, names[1:]))}) of {len(spectra)} pixels in "
        f"{len(np.unique(groups))} polygons of a Landsat 5 scene",
        design=f"repeated {FOLDS}-fold cross-validation by polygons: each is held out as a whole",
        measure="accuracy",
        higher_is_better=True,
        ours="MBConv",
        methods={
            "MBConv": lambda train, test, seed: fit(train, seed).predict(spectra[test]).argmax(axis=1),
            "random forest": lambda train, test, seed: random_forest(
                spectra[train], classes[train], spectra[test], seed
            ),
            "index thresholds": lambda train, test, seed: index_thresholds(
                spectra[train], classes[train], spectra[test], seed, TM_NM, groups[train]
            ),
        },
        splits=splits,
        score=share_right(classes),
        train_all=lambda seed: {"model": fit(np.arange(len(spectra)), seed)},
        examine=examine,
        cover=cover,
        note="The random forest is at its ceiling here: the question is whether ours is there too.",
    )
