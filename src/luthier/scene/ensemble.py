"""Small networks over single spectra or time series, a few of them from different seeds, judged by their mean.

Hundreds of records, not thousands: one network's answer depends on its seed, the mean of a few hardly.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal, TypeAlias

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F

from luthier.arch.network import Network
from luthier.errors import ShapeError
from luthier.nn.build import Classifier, build
from luthier.scene.views import Values, View, Views, fit_views
from luthier.train.recipe import Recipe
from luthier.train.schedule import learning_rate_at
from luthier.train.step import make_optimizer, set_seed

Outputs: TypeAlias = npt.NDArray[np.float64]
#: `shares`: outputs are softmax probabilities or abundances; `value`: one number
Answer = Literal["shares", "value"]
_PREDICT_ROWS: Final = 4096


@dataclass(frozen=True, kw_only=True)
class Setting:
    """How records become the networks' answers.

    Attributes:
        views: see `luthier.scene.views`.
        recipe: of each network; mixing, averaging, augmentation and precision are not used.
        noise: standard deviation of the noise on training features, in standard deviations of the feature.
        answer: what the outputs mean.
    """

    views: tuple[View, ...]
    recipe: Recipe
    noise: float = 0.1
    answer: Answer = "shares"


@dataclass(frozen=True, eq=False)
class Ensemble:
    """Trained networks of one description with the views that feed them.

    Attributes:
        network: of every member.
        setting: as trained.
        views: as fitted.
        members: in evaluation mode.
        target_mean, target_std: of a `value`; 0 and 1 for shares.
    """

    network: Network
    setting: Setting
    views: Views
    members: tuple[Classifier, ...]
    target_mean: float = 0.0
    target_std: float = 1.0

    def predict(self, records: npt.NDArray[Any]) -> Outputs:
        """Mean answer of the members.

        Args:
            records: (n, F), spectra or flattened series; NaN = missing.
        Returns:
            (n, K) shares that sum to 1, or (n, 1) values.
        """
        features = to_input(self.network, self.views(records))
        total = np.zeros((len(features), self.network.head.num_classes))
        with torch.no_grad():
            for member in self.members:
                for start in range(0, len(features), _PREDICT_ROWS):
                    scores = member(features[start : start + _PREDICT_ROWS]).double()
                    scores = scores.softmax(1) if self.setting.answer == "shares" else scores
                    total[start : start + _PREDICT_ROWS] += scores.numpy()
        return np.asarray(total / len(self.members) * self.target_std + self.target_mean)


def to_input(network: Network, features: Values) -> torch.Tensor:
    """Features (n, F) as the network's input (n, C, H, W).

    Raises:
        ShapeError: F is not C * H * W.
    """
    shape = (network.in_channels, *network.input_hw)
    if features.shape[1] != np.prod(shape):
        raise ShapeError(f"ensemble: {features.shape[1]} features for an input of {' x '.join(map(str, shape))}")
    return torch.from_numpy(features.reshape(-1, *shape))


def fit_ensemble(
    network: Network, setting: Setting, records: npt.NDArray[Any], targets: npt.NDArray[Any], seeds: Sequence[int]
) -> Ensemble:
    """Train one network per seed on the same records.

        loss = - sum_k t_k log softmax(s)_k   (shares)      or      mean (s - t)^2   (value)           (1)

    Args:
        network: its input holds the features of `setting.views`, its head K outputs.
        setting: views, recipe, noise.
        records: (n, F), n >= 2; NaN = missing.
        targets: class numbers (n,) or shares (n, K); for a `value`, numbers (n,).
        seeds: one per member.
    Raises:
        ShapeError: the network's input has no room for the features, or targets of another length.
    """
    if len(records) != len(targets) or len(records) < 2:
        raise ShapeError(f"ensemble: {len(records)} records and {len(targets)} targets; give at least 2 of each")
    views = fit_views(records, setting.views)
    x = to_input(network, views(records))
    mean, std = 0.0, 1.0
    if setting.answer == "value":
        mean, std = float(targets.mean()), float(targets.std()) or 1.0
        wanted = torch.from_numpy(((targets - mean) / std).astype(np.float32))[:, None]
    elif targets.ndim == 1:
        wanted = F.one_hot(torch.from_numpy(targets.astype(np.int64)), network.head.num_classes).float()
    else:
        wanted = torch.from_numpy(targets.astype(np.float32))
    members = tuple(_fit(network, setting, x, wanted, seed) for seed in seeds)
    return Ensemble(network, setting, views, members, mean, std)


def _fit(network: Network, setting: Setting, x: torch.Tensor, wanted: torch.Tensor, seed: int) -> Classifier:
    recipe = setting.recipe
    set_seed((recipe.seed, seed))
    module = build(network)
    if recipe.channels_last:
        module.to(memory_format=torch.channels_last)
        x = x.contiguous(memory_format=torch.channels_last)
    optimizer = make_optimizer(module, recipe)
    step, batch = 0, min(recipe.batch_size, len(x))
    per_epoch = len(x) // batch
    total = recipe.epochs * per_epoch
    for _ in range(recipe.epochs):
        for rows in _batches(len(x), batch):
            for group in optimizer.param_groups:
                warmup = recipe.warmup_epochs * per_epoch
                group["lr"] = learning_rate_at(step, total, warmup, recipe.learning_rate) * group["lr_scale"]
            scores = module(x[rows] + setting.noise * torch.randn(len(rows), *x.shape[1:]))
            if setting.answer == "shares":
                loss = F.cross_entropy(scores, wanted[rows], label_smoothing=recipe.label_smoothing)
            else:
                loss = F.mse_loss(scores, wanted[rows])
            loss.backward()  # type: ignore[no-untyped-call]  # torch has no type here
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
            step += 1
    return module.eval()


def _batches(records: int, batch: int) -> Iterator[torch.Tensor]:
    """Full batches of one shuffled pass; what is left over waits for another pass."""
    order = torch.randperm(records)
    for start in range(0, records - batch + 1, batch):
        yield order[start : start + batch]
