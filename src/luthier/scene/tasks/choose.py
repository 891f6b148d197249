"""Settings of a network chosen inside the training records, never on those that judge."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Final, TypeAlias

import numpy as np
import numpy.typing as npt
from sklearn.model_selection import StratifiedGroupKFold, StratifiedKFold

from luthier.arch.network import Network
from luthier.scene.ensemble import Ensemble, Setting, fit_ensemble
from luthier.scene.views import fit_views

Array: TypeAlias = npt.NDArray[Any]
_INNER_FOLDS: Final = 3


def fit_chosen(
    settings: Sequence[Setting], network_of: Callable[[int], Network], records: Array, classes: Array, *, members: int,
    seed: int, groups: Array | None = None,
) -> Ensemble:  # fmt: skip
    """Train an ensemble with the setting that names the most classes right in inner folds, one network per fold.

    Args:
        settings: candidates; of equals the first.  One alone is taken as it is.
        network_of: number of features -> network.
        records: (n, F), for training.
        classes: (n,).
        members: of the ensemble.
        seed: of folds and networks.
        groups: records that must not be apart in the inner folds.
    """

    def fit(setting: Setting, rows: Array, seeds: Sequence[int]) -> Ensemble:
        features = fit_views(records[rows], setting.views).num_features
        return fit_ensemble(network_of(features), setting, records[rows], classes[rows], seeds)

    chosen = settings[0]
    if len(settings) > 1:
        kind = StratifiedKFold if groups is None else StratifiedGroupKFold
        folds = list(kind(_INNER_FOLDS, shuffle=True, random_state=seed).split(records, classes, groups))
        right = [
            sum(int((fit(s, a, (seed,)).predict(records[b]).argmax(1) == classes[b]).sum()) for a, b in folds)
            for s in settings
        ]
        chosen = settings[int(np.argmax(right))]
    return fit(chosen, np.arange(len(records)), range(seed * members, (seed + 1) * members))
