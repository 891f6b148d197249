"""Other people's methods on the same splits: support vectors and forests on spectra, a 3-D/2-D network on patches.

Each learns from the split's training pixels alone, is tuned inside the training squares alone, and answers for the
test pixels.  All spectra are standardised with the training ground's mean and deviation.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from luthier.scene.crops import standardisation
from luthier.scene.cube import Classes, Scene, Values
from luthier.scene.split import Split

#: folds of the cross-validation by squares
_FOLDS: Final = 4
_SVM_GRID: Final = {"svc__C": [1, 10, 100, 1000], "svc__gamma": [1e-4, 1e-3, 1e-2, "scale"]}
_FOREST_GRID: Final = {"max_depth": [5, 10, 20, None]}


@dataclass(frozen=True, eq=False)
class Answer:
    """What a method said of the test pixels.

    Attributes:
        found: (n,), a class number for every test pixel, in the order of `np.nonzero(split.test)`.
        radius: of the window that it looks at, in px; decides its leakage index.
        settings: what its tuning chose, for people.
    """

    found: Classes
    radius: int
    settings: str


def svm(scene: Scene, split: Split, seed: int = 0) -> Answer:
    """Support vectors with a radial kernel; C and gamma by grouped cross-validation inside the training squares.

    Source:
        Melgani & Bruzzone 2004, doi 10.1109/TGRS.2004.831865.
    """
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler
    from sklearn.svm import SVC

    del seed  # nothing is drawn
    return _searched(scene, split, make_pipeline(StandardScaler(), SVC(cache_size=500)), _SVM_GRID)


def forest(scene: Scene, split: Split, seed: int = 0) -> Answer:
    """Random forest of 300 trees; depth by grouped cross-validation inside the training squares."""
    from sklearn.ensemble import RandomForestClassifier

    return _searched(scene, split, RandomForestClassifier(300, random_state=seed), _FOREST_GRID)


def _searched(scene: Scene, split: Split, model: Any, grid: Mapping[str, Any]) -> Answer:
    from sklearn.model_selection import GridSearchCV, GroupKFold

    mean, std = standardisation(scene, split)
    spectra = [np.nan_to_num((scene.spectra(*np.nonzero(mask)) - mean) / std) for mask in (split.train, split.test)]
    assert scene.labels is not None
    groups = split.groups[split.train]
    folds = GroupKFold(min(_FOLDS, len(np.unique(groups))))
    search = GridSearchCV(model, grid, cv=folds).fit(spectra[0], scene.labels.classes[split.train], groups=groups)
    chosen = ", ".join(f"{key.rpartition('__')[2]} {value}" for key, value in search.best_params_.items())
    return Answer(search.predict(spectra[1]).astype(np.int64), 0, chosen)


#: of the published network
HYBRID_PATCH: Final = 25
HYBRID_COMPONENTS: Final = 30
_HYBRID_RATE: Final = 1e-3
#: of starts; epochs after which one that knows less than this share of its patches is given up
_HYBRID_STARTS: Final = 3
_HYBRID_PATIENCE: Final = 10
_HYBRID_HOPEFUL: Final = 0.5


def hybrid_network(num_classes: int, components: int = HYBRID_COMPONENTS, patch: int = HYBRID_PATCH) -> Any:
    """Three 3-D convolutions, one 2-D, three linear layers: (N, 1, components, patch, patch) -> (N, K).

    Source:
        Roy et al. 2020, arXiv:1902.06701, table I.
    Example:
        >>> sum(p.numel() for p in hybrid_network(16).parameters())
        5122176
    """
    from torch import nn

    depth, side = components - 12, patch - 8
    return nn.Sequential(
        nn.Conv3d(1, 8, (7, 3, 3)), nn.ReLU(), nn.Conv3d(8, 16, (5, 3, 3)), nn.ReLU(),
        nn.Conv3d(16, 32, (3, 3, 3)), nn.ReLU(), nn.Flatten(1, 2), nn.Conv2d(32 * depth, 64, 3), nn.ReLU(),
        nn.Flatten(), nn.Linear(64 * side * side, 256), nn.ReLU(), nn.Dropout(0.4), nn.Linear(256, 128), nn.ReLU(),
        nn.Dropout(0.4), nn.Linear(128, num_classes),
    )  # fmt: skip


def hybrid(
    scene: Scene, split: Split, seed: int = 0, *, most_epochs: int = 60, patch: int = HYBRID_PATCH,
    batch: int = 64, say: Callable[[float, str], None] | None = None,
) -> Answer:  # fmt: skip
    """A HybridSN trained to its plateau: until it knows 99.5 % of its training patches in three epochs in a row.

    Principal components come from the training ground.  Products are of bf16 where the CPU is faster so; Adam with
    the paper's learning rate, 1e-3.  Without norms, some starts end with dead units and one answer for every patch:
    a network that knows less than half of its patches after ten epochs is given up for that of the next seed, at a
    third of the learning rate.
    """
    import torch

    patches, labels = _patches(scene, split, patch), scene.labels
    assert labels is not None
    table = np.full(max(split.classes) + 1, -1)
    table[list(split.classes)] = np.arange(len(split.classes))
    where, truth = np.argwhere(split.train), table[labels.classes[split.train]]
    for start in range(seed, seed + _HYBRID_STARTS):
        torch.manual_seed(start)
        model = hybrid_network(len(split.classes), patches.components, patch)
        rate = _HYBRID_RATE / 3 ** (start - seed)
        epochs, share = _taught(model, patches, where, truth, start, rate, most_epochs, batch, say)
        if share >= _HYBRID_HOPEFUL:
            break
    model.eval()
    found = []
    with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16):
        for some in np.array_split(np.argwhere(split.test), -(-int(split.test.sum()) // 256)):
            found.append(model(torch.from_numpy(patches.at(some))).argmax(1).numpy())
    answer = np.array(split.classes)[np.concatenate(found)]
    settings = f"{patch} px, {epochs} epochs" + (f", start {start - seed + 1}" if start > seed else "")
    return Answer(answer.astype(np.int64), patch // 2, settings)


def _taught(
    model: Any, patches: _Patches, where: npt.NDArray[np.int64], truth: npt.NDArray[np.int64], seed: int, rate: float,
    most_epochs: int, batch: int, say: Callable[[float, str], None] | None,
) -> tuple[int, float]:  # fmt: skip
    """Train in place until the plateau, or until it is hopeless; epochs, and the share of its patches it knows."""
    import torch
    import torch.nn.functional as F

    labels, rng = torch.from_numpy(truth), np.random.default_rng(seed)
    optimizer = torch.optim.Adam(model.parameters(), lr=rate)
    epochs, known, share = 0, 0, 0.0
    model.train()
    while epochs < most_epochs and known < 3 and not (epochs == _HYBRID_PATIENCE and share < _HYBRID_HOPEFUL):
        right = 0
        for chosen in np.array_split(rng.permutation(len(where)), -(-len(where) // batch)):
            with torch.autocast("cpu", torch.bfloat16):
                scores = model(torch.from_numpy(patches.at(where[chosen])))
            loss = F.cross_entropy(scores.float(), labels[chosen])
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            right += int((scores.argmax(1) == labels[chosen]).sum())
        epochs, share = epochs + 1, right / len(where)
        known = known + 1 if share >= 0.995 else 0
        if say is not None:
            say(epochs / most_epochs, f"HybridSN: epoch {epochs}, {share:.1%} of its training patches")
    return epochs, share


@dataclass(frozen=True, eq=False)
class _Patches:
    """Windows of a scene's first components, zeros beyond it."""

    padded: Values
    patch: int

    @property
    def components(self) -> int:
        return int(self.padded.shape[0])

    def at(self, where: npt.NDArray[np.int64]) -> Values:
        """(n, 2) rows and columns -> (n, 1, components, patch, patch)."""
        return np.stack([self.padded[:, r : r + self.patch, c : c + self.patch] for r, c in where])[:, None]


def _patches(scene: Scene, split: Split, patch: int) -> _Patches:
    from sklearn.decomposition import PCA

    mean, std = standardisation(scene, split)
    cube = np.nan_to_num((scene.window() - mean) / std)
    pca = PCA(min(HYBRID_COMPONENTS, cube.shape[2]), whiten=True, random_state=0).fit(cube[split.ground])
    parts = pca.transform(cube.reshape(-1, cube.shape[2])).reshape(*scene.hw, -1).astype(np.float32)
    rim = patch // 2
    return _Patches(np.pad(parts.transpose(2, 0, 1), ((0, 0), (rim, rim), (rim, rim))), patch)
