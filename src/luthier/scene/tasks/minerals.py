"""Minerals: what the ground is made of, by specimens that the method has never seen; and how much of each."""

from __future__ import annotations

import functools
from collections import defaultdict
from dataclasses import replace
from pathlib import Path
from typing import Final

import numpy as np

from luthier.errors import DataError
from luthier.scene.ensemble import Ensemble, Setting, fit_ensemble
from luthier.scene.tasks.application import Application, Array, Split, arrays, class_means
from luthier.scene.tasks.cover import share_cover, shares_of
from luthier.scene.tasks.explain import Examined
from luthier.scene.tasks.networks import pixel_network
from luthier.scene.unmix import fcls, spectral_angles
from luthier.scene.views import fit_views
from luthier.train.recipe import Recipe

#: bands in which the air's water leaves no light, in nm
_DARK_NM: Final = ((1340.0, 1450.0), (1790.0, 1960.0))
FOLDS: Final = 3
_LEAST_SAMPLES: Final = 3
_TEST_PIXELS: Final = 500
#: standard deviation of the simulated sensor's noise, as reflectance
_NOISE: Final = 0.005
SETTING: Final = Setting(
    views=("shape", "slope"),
    recipe=Recipe(
        epochs=12,
        batch_size=256,
        optimizer="adamw",
        learning_rate=3e-3,
        weight_decay=0.05,
        warmup_epochs=1,
        channels_last=False,
    ),
    noise=0.05,
)
SAMSON_SETTING: Final = Setting(
    views=("raw",), recipe=replace(SETTING.recipe, epochs=10, weight_decay=0.01), noise=0.02
)


def samples_of(names: list[str]) -> tuple[list[str], list[str]]:
    """The mineral and the piece of rock of each spectrum, from names such as `Hematite GDS69.a 150-250u`.

    Grain sizes of one piece (GDS69.a, GDS69.b) are one sample.

    Example:
        >>> samples_of(["Hematite GDS69.a 150-250u", "Hematite GDS69.b", "Topaz HS184.3B"])
        (['Hematite', 'Hematite', 'Topaz'], ['GDS69', 'GDS69', 'HS184'])
    """
    words = [name.split() for name in names]
    return [w[0] for w in words], [(w[1] if len(w) > 1 else "?").split(".")[0] for w in words]


def mixtures(
    spectra: Array, minerals: Array, count: int, rng: np.random.Generator, *, noise: float = _NOISE
) -> tuple[Array, Array]:
    """Pixels of a simulated scene: each of three minerals, one of which is at least half of it.

        x = brightness * sum_j a_j e_j + noise,   a_1 in [0.5, 0.9],   brightness in [0.5, 1]          (1)

    e_j is a specimen of mineral j, drawn anew for every pixel.

    Args:
        spectra: (n, bands), of the specimens.
        minerals: (n,), their mineral's number; every number below the largest occurs.
        count: pixels.
        rng: of all draws.
        noise: its standard deviation, as reflectance.
    Returns:
        Pixels (count, bands) and the shares of the K minerals (count, K).
    """
    kinds = int(minerals.max()) + 1
    rows_of = [np.flatnonzero(minerals == k) for k in range(kinds)]
    largest = rng.uniform(0.5, 0.9, count)
    second = (1 - largest) * rng.uniform(size=count)
    parts = np.stack([largest, second, 1 - largest - second], axis=1)
    pixels, shares = np.zeros((count, spectra.shape[1])), np.zeros((count, kinds))
    for pixel in range(count):
        for part, kind in zip(parts[pixel], rng.choice(kinds, 3, replace=False), strict=True):
            pixels[pixel] += part * spectra[rng.choice(rows_of[kind])]
            shares[pixel, kind] = part
    pixels = pixels * rng.uniform(0.5, 1, (count, 1)) + noise * rng.standard_normal(pixels.shape)
    return pixels, shares


def minerals(
    path: Path, *, setting: Setting = SETTING, members: int = 2, pixels: int = 12_000, test_pixels: int = _TEST_PIXELS
) -> Application:
    """The application on an archive with `spectra` (n, bands), `wavelengths_um` and `names` (mineral, sample, rest).

    Source:
        Clark et al. 1993, USGS Open-File Report 93-592 (the library).
    """
    stored, micrometres, names = arrays(path, "spectra", "wavelengths_um", "names")
    nm = 1e3 * micrometres.astype(np.float64)
    seen = ~np.any([(nm >= low) & (nm <= high) for low, high in _DARK_NM], axis=0)
    kind, sample = samples_of([str(name) for name in names])
    pieces: dict[str, list[str]] = defaultdict(list)
    for k, s in zip(kind, sample, strict=True):
        if s not in pieces[k]:
            pieces[k].append(s)
    known = sorted(k for k, found in pieces.items() if len(found) >= _LEAST_SAMPLES)
    if len(known) < 3:
        raise DataError(f"{path}: minerals needs 3 minerals of {_LEAST_SAMPLES} samples or more, got {len(known)}")
    chosen = np.array([k in known for k in kind])
    spectra = stored[chosen][:, seen].astype(np.float64)
    number = np.array([known.index(k) for k in np.array(kind)[chosen]])
    piece = np.array(sample)[chosen]

    def splits(repeats: int) -> list[Split]:
        found = []
        for repeat in range(repeats):
            rng = np.random.default_rng(repeat)
            order = {k: rng.permutation(pieces[k]) for k in known}
            for fold in range(FOLDS):
                held = np.array([p == order[known[m]][fold] for p, m in zip(piece, number, strict=True)])
                found.append(Split(np.flatnonzero(~held), np.flatnonzero(held)))
        return found

    def scene(test: Array, seed: int) -> tuple[Array, Array]:
        return mixtures(spectra[test], number[test], test_pixels, np.random.default_rng((1, seed)))

    def fit(rows: Array, seed: int) -> Ensemble:
        x, shares = mixtures(spectra[rows], number[rows], pixels, np.random.default_rng((2, seed)))
        network = pixel_network(fit_views(x, setting.views).num_features, len(known), width=128, blocks=2, dropout=0.1)
        return fit_ensemble(network, setting, x, shares, range(seed * members, (seed + 1) * members))

    def examine() -> Examined:
        split = splits(1)[0]
        x, shares = scene(split.test, 0)
        return Examined(fit(split.train, 0), x, shares.argmax(axis=1), nm[seen])

    def by_mineral(abundances: Array, train: Array) -> Array:
        return np.asarray(abundances @ np.eye(len(known))[number[train]])

    def angle(train: Array, test: Array, seed: int) -> Array:
        return np.asarray(number[train][spectral_angles(scene(test, seed)[0], spectra[train]).argmin(axis=1)])

    def score(test: Array, answer: Array, seed: int) -> dict[str, float]:
        truth = scene(test, seed)[1]
        if answer.ndim == 1:
            return {"accuracy": float((answer == truth.argmax(axis=1)).mean())}
        right = float((answer.argmax(axis=1) == truth.argmax(axis=1)).mean())
        return {"accuracy": right, "abundance_rmse": float(np.sqrt(((answer - truth) ** 2).mean()))}

    return Application(
        name="minerals",
        title=f"the main one of {len(known)} minerals in simulated pixels, from {len(spectra)} specimens",
        design=f"repeated {FOLDS} folds of specimens: one piece of rock of every mineral is held out, and the pixels "
        f"that judge ({test_pixels} a fold) are mixed from held-out pieces alone",
        measure="accuracy",
        higher_is_better=True,
        ours="MBConv",
        methods={
            "MBConv": lambda train, test, seed: fit(train, seed).predict(scene(test, seed)[0]),
            "spectral angle": angle,
            "FCLS with shade": lambda train, test, seed: by_mineral(
                fcls(scene(test, seed)[0], spectra[train], shade=True), train
            ),
        },
        splits=splits,
        score=score,
        train_all=lambda seed: {"model": fit(np.arange(len(spectra)), seed)},
        examine=examine,
        note="Brightness varies from pixel to pixel, so FCLS is given a black endmember.",
    )


def abundance(path: Path, *, setting: Setting = SAMSON_SETTING, members: int = 2, pixels: int = 12_000) -> Application:
    """How much of each endmember: an archive with `cube` (H, W, bands), `endmembers` (bands, m), `abundance` (H, W, m).

    The network learns from simulated mixtures of the endmembers, FCLS uses the same endmembers; the scene's abundances
    only judge.
    """
    cube, columns, truth, names = arrays(path, "cube", "endmembers", "abundance", "class_names")
    spectra, wanted = cube.reshape(-1, cube.shape[2]).astype(np.float64), truth.reshape(-1, truth.shape[2])
    endmembers = columns.T.astype(np.float64)
    noise = 0.01 * float(endmembers.mean())

    @functools.cache
    def fit(seed: int) -> Ensemble:
        rng = np.random.default_rng(seed)
        shares = rng.dirichlet(np.full(len(endmembers), 0.7), pixels)
        x = shares @ endmembers + noise * rng.standard_normal((pixels, endmembers.shape[1]))
        network = pixel_network(fit_views(x, setting.views).num_features, len(endmembers), dropout=0.0)
        return fit_ensemble(network, setting, x, shares, range(members))

    def splits(repeats: int) -> list[Split]:
        del repeats
        height, width = truth.shape[:2]
        block = (np.arange(height)[:, None] * 5 // height * 5 + np.arange(width)[None] * 5 // width).ravel()
        return [Split(np.flatnonzero(block != b), np.flatnonzero(block == b)) for b in range(25)]

    def score(test: Array, answer: Array, seed: int) -> dict[str, float]:
        del seed
        return {
            "abundance_rmse": float(np.sqrt(((answer - wanted[test]) ** 2).mean())),
            "accuracy": float((answer.argmax(axis=1) == wanted[test].argmax(axis=1)).mean()),
        }

    return Application(
        name="minerals-abundance",
        title=f"abundance of {', '.join(map(str, names))} in {len(spectra)} pixels of a real scene",
        design="25 blocks of the scene, nothing of which trains: every method knows the endmembers and no more",
        measure="abundance_rmse",
        higher_is_better=False,
        ours="MBConv",
        methods={
            "MBConv": lambda train, test, seed: fit(0).predict(spectra[test]),
            "FCLS": lambda train, test, seed: fcls(spectra[test], endmembers),
        },
        splits=splits,
        score=score,
        train_all=lambda seed: {"model": fit(seed)},
        cover=lambda kept: share_cover(
            shares_of(kept["model"], cube.astype(np.float64)), truth, tuple(map(str, names))
        ),
        curves=class_means(
            "the endmembers", "band", np.arange(cube.shape[2]), endmembers, np.arange(len(names)), names
        ),
    )
