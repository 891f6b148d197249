"""Settings of a training chosen inside the training squares: some squares judge what the others taught."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final

import numpy as np
import torch

from luthier.arch.network import Network
from luthier.errors import DataError
from luthier.scene.cube import Classes, Mask, Scene
from luthier.scene.recipe import SceneRecipe
from luthier.scene.split import Split, given_split, widened
from luthier.scene.train import Trained, train

_FOLDS: Final = 2


def inner_splits(scene: Scene, split: Split, folds: int = _FOLDS) -> list[Split]:
    """The training squares, dealt out: each fold judges once, guarded as the split itself is.

    No test pixel of the split is in any of them.

    Raises:
        DataError: fewer squares than folds.
    """
    assert scene.labels is not None
    squares = np.unique(split.groups[split.train])
    if len(squares) < folds:
        raise DataError(f"split: {len(squares)} training squares cannot be dealt to {folds} folds; use smaller blocks")
    dealt = np.random.default_rng(split.seed).permutation(squares)
    found = []
    for fold in range(folds):
        judges = np.isin(split.groups, dealt[fold::folds])
        ground = split.ground & ~judges
        train_mask, test_mask = split.train & ~judges, split.train & judges & ~widened(ground, split.guard)
        inner = given_split(scene.labels, train_mask, test_mask, split.guard, split.block)
        found.append(inner)
    return found


def choose(
    scene: Scene,
    split: Split,
    network: Network,
    recipes: Sequence[SceneRecipe],
    *,
    say: Callable[[float, str], None] | None = None,
) -> tuple[SceneRecipe, tuple[float, ...]]:
    """The recipe that is right most often on the training squares that it was not taught.

    Returns:
        The best recipe (the first of equals), and the right share of every one, over all folds.
    """
    inner = inner_splits(scene, split)
    shares = []
    for number, recipe in enumerate(recipes):
        right = total = 0
        for fold in inner:
            right += int((answers(train(scene, fold, network, recipe), scene, fold) == _truth(scene, fold)).sum())
            total += int(fold.test.sum())
        shares.append(right / total)
        if say is not None:
            say((number + 1) / len(recipes), f"choosing: {shares[-1]:.1%} with noise {recipe.noise:g}")
    return recipes[int(np.argmax(shares))], tuple(shares)


def answers(trained: Trained, scene: Scene, split: Split, where: Mask | None = None) -> Classes:
    """Class numbers that torch gives the test pixels (or others), the whole scene at once: it must fit in memory."""
    network = trained.network
    mean, std = (np.array(numbers, np.float32) for numbers in (network.input_mean, network.input_std))
    values = np.nan_to_num((scene.window() - mean) / std).transpose(2, 0, 1)
    with torch.inference_mode():
        best = trained.module(torch.from_numpy(values)[None])[0].argmax(0).numpy()
    named: Classes = np.array(split.classes)[best]
    return named[split.test if where is None else where]


def _truth(scene: Scene, split: Split) -> Classes:
    assert scene.labels is not None
    return scene.labels.classes[split.test]
