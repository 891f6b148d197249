"""`luthier scene explain`: what the mixer of a finished `luthier scene train` learnt, on pixels that judged it."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from luthier.errors import DataError
from luthier.job.scene_request import SceneRequest, load, split_of
from luthier.scene.cube import Scene
from luthier.scene.model import read_model
from luthier.scene.result import Explained

#: pixels that are looked at, at most
_MOST_PIXELS: Final = 600


def explain_scene(run: Path, seed: int = 0) -> Explained:
    """Bands that matter, at p < 0.05 for all bands together, and indices that a channel of the mixer follows.

    Args:
        run: folder of a finished `luthier scene train`.
        seed: of the draw of test pixels, as many of each class as there are, and of the permutations.
    Raises:
        DataError: no such run, or a scene without wavelengths.
        InputError: a network whose first 1x1 does not mix the bands.
    """
    import torch

    from luthier.nn.build import build
    from luthier.scene.filters import band_filters
    from luthier.scene.mixer import band_importance, index_matches
    from luthier.scene.tasks.explain import said

    model, network, state = read_model(run)
    request = SceneRequest.read(run / "run.toml")
    scene = load(request)
    labels, nm = scene.labels, scene.wavelengths_nm
    if nm is None:
        raise DataError(f"{scene.name}: its wavelengths are unknown; train with --wavelengths, and explain that run")
    assert labels is not None
    split = split_of(request, labels, model.radius, request.split_seed)
    rows, columns = _drawn(labels.classes, split.test, np.random.default_rng(seed))
    mean, std = (np.asarray(values, np.float32) for values in (network.input_mean, network.input_std))
    windows = (_windows(scene, rows, columns, model.radius) - mean) / std
    x = torch.from_numpy(np.nan_to_num(windows).transpose(0, 3, 1, 2).copy())
    module = build(network).eval()
    module.load_state_dict({name: torch.from_numpy(value) for name, value in state.items()})
    numbers = np.searchsorted(model.classes, labels.classes[rows, columns])
    found = band_importance([module], x, numbers, nm, seed=seed)
    return said(found, index_matches(module, x, scene.spectra(rows, columns), nm), band_filters(module))


def _drawn(
    classes: npt.NDArray[np.int64], test: npt.NDArray[np.bool_], rng: np.random.Generator
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Test pixels, no class more often than it must: (n,) rows and (n,) columns."""
    rows, columns = np.nonzero(test)
    order = rng.permutation(len(rows))
    turn = np.empty(len(rows), np.int64)
    for number in np.unique(classes[test]):
        mine = order[classes[rows[order], columns[order]] == number]
        turn[mine] = np.arange(len(mine))
    chosen = np.sort(np.lexsort((order, turn))[:_MOST_PIXELS])
    return rows[chosen], columns[chosen]


def _windows(
    scene: Scene, rows: npt.NDArray[np.int64], columns: npt.NDArray[np.int64], radius: int
) -> npt.NDArray[Any]:
    """What the network sees about each pixel, NaN beyond the scene: (n, 2 radius + 1, 2 radius + 1, bands)."""
    side = 2 * radius + 1
    found = np.full((len(rows), side, side, scene.shape[2]), np.nan, np.float32)
    for number, (row, column) in enumerate(zip(rows.tolist(), columns.tolist(), strict=True)):
        top, left = max(0, row - radius), max(0, column - radius)
        part = scene.window(slice(top, row + radius + 1), slice(left, column + radius + 1))
        down, right = top - row + radius, left - column + radius
        found[number, down : down + part.shape[0], right : right + part.shape[1]] = part
    return found
