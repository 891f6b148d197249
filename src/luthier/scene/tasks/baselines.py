"""Methods to beat that know nothing of an application: tuned SVM, random forest, index thresholds."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final, TypeAlias

import numpy as np
import numpy.typing as npt
from sklearn.ensemble import RandomForestClassifier
from sklearn.model_selection import GridSearchCV, StratifiedGroupKFold, StratifiedKFold
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVC
from sklearn.tree import DecisionTreeClassifier

from luthier.scene.indices import available, index

Array: TypeAlias = npt.NDArray[Any]
_C: Final = (1.0, 10.0, 100.0, 1000.0)
#: gamma times the number of features: scikit-learn's "scale" is 1
_GAMMA: Final = (0.1, 0.3, 1.0, 3.0)
_DEPTHS: Final = (1, 2, 3, 4, 6, 8)
_INNER_FOLDS: Final = 3
_TREES: Final = 500


def tuned_svm(x: Array, y: Array, test: Array, seed: int, groups: Array | None = None) -> Array:
    """SVM with RBF kernel on standardised features; C and gamma by folds inside the training records.

    Args:
        x, y: training features (n, F) and classes (n,).
        test: features (m, F).
        seed: of the inner folds.
        groups: records that must not be apart in the inner folds.
    Returns:
        Classes (m,).
    """
    grid = {"svc__C": _C, "svc__gamma": [g / x.shape[1] for g in _GAMMA]}
    return _search(make_pipeline(StandardScaler(), SVC()), grid, x, y, test, seed, groups)


def plain_svm(x: Array, y: Array, test: Array) -> Array:
    """The same with scikit-learn's own C and gamma: classes (m,)."""
    return np.asarray(make_pipeline(StandardScaler(), SVC()).fit(x, y).predict(test))


def random_forest(x: Array, y: Array, test: Array, seed: int) -> Array:
    """Random forest of 500 whole trees: classes (m,)."""
    return np.asarray(RandomForestClassifier(_TREES, random_state=seed).fit(x, y).predict(test))


def index_thresholds(
    spectra: Array, y: Array, test: Array, seed: int, wavelengths_nm: Sequence[float], groups: Array | None = None
) -> Array:
    """Thresholds on the known indices: `tuned_tree` on their values: classes (m,)."""
    names = available(wavelengths_nm)
    x, z = (np.stack([np.nan_to_num(index(n, s, wavelengths_nm)) for n in names], axis=1) for s in (spectra, test))
    return tuned_tree(x, y, z, seed, groups)


def tuned_tree(x: Array, y: Array, test: Array, seed: int, groups: Array | None = None) -> Array:
    """A decision tree whose depth is chosen inside the training records: classes (m,)."""
    tree = DecisionTreeClassifier(random_state=seed)
    return _search(tree, {"max_depth": _DEPTHS}, x, y, test, seed, groups)


def _search(
    model: Any, grid: dict[str, Any], x: Array, y: Array, test: Array, seed: int, groups: Array | None
) -> Array:
    kind = StratifiedKFold if groups is None else StratifiedGroupKFold
    folds = list(kind(_INNER_FOLDS, shuffle=True, random_state=seed).split(x, y, groups))
    return np.asarray(GridSearchCV(model, grid, cv=folds).fit(x, y).predict(test))
