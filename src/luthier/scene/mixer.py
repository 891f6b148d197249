"""What a network's spectral mixer has learnt: which bands matter, at which wavelengths, and which index it found.

The mixer is the first 1x1 convolution over all bands: h_m = sum_b W_mb a_b, where a_b is the band as it arrives there.
What band b does for class k of record n, s_k being the class score before the softmax, and g_b a gate on the bands:

    weights    D_nbk = a_nb * sum_m W_mb ds_k/dh_m          weights times activation, through the mixer      (1)
    occlusion  D_nbk = s_k(x_n) - s_k(x_n, band b at its mean)                                               (2)

A band matters when it speaks for the right class, a gate when it opens for some classes more than for others:

    I_b = mean_n ( D_nb,y(n) - mean_k D_nbk )                  weights, occlusion                            (3)
    I_b = std over the classes k of mean_{n: y(n) = k} g_nb    gates                                         (4)

Significance by permutation of the labels of records that the network has not seen; the network stays as it is, so the
test is exact.  z_b = (I_b - mean) / std over the permutations; the largest of all bands is compared, so that p holds
for all bands together:

    p_b = (1 + number of permutations whose largest z is at least z_b) / (1 + permutations)                  (5)
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from luthier.errors import DataError, InputError, ShapeError
from luthier.nn.attention import Gate
from luthier.nn.build import Classifier
from luthier.scene.indices import available, index

Values: TypeAlias = npt.NDArray[np.float64]
Way = Literal["weights", "occlusion", "gates"]


@dataclass(frozen=True, eq=False)
class BandImportance:
    """How much each band matters.

    Attributes:
        way: how it was found.
        wavelengths_nm: (bands,).
        importance: (bands,), equation (3) in units of class scores, or (4).
        p: (bands,), equation (5).
    """

    way: Way
    wavelengths_nm: Values
    importance: Values
    p: Values

    @property
    def peak_nm(self) -> float:
        """Wavelength of the most important band."""
        return float(self.wavelengths_nm[self.importance.argmax()])


@dataclass(frozen=True)
class IndexMatch:
    """The mixer's channel that follows an index most closely.

    Attributes:
        index: name.
        channel: of the mixer.
        correlation: Pearson's, over the records; its sign says whether the channel falls where the index rises.
    """

    index: str
    channel: int
    correlation: float


def mixer_of(module: Classifier) -> nn.Conv2d:
    """The first 1x1 convolution that reads every input channel.

    Raises:
        InputError: the network has none.
    """
    for part in module.modules():
        if isinstance(part, nn.Conv2d) and part.kernel_size == (1, 1) and part.groups == 1:
            if part.in_channels == module.network.in_channels:
                return part
            break
    raise InputError(
        f"mixer: Network({module.network.name}) has no 1x1 convolution over its {module.network.in_channels} input "
        "channels; use a scene preset, whose first 1x1 mixes the bands"
    )


def band_importance(
    members: Sequence[Classifier],
    x: torch.Tensor,
    labels: npt.NDArray[Any],
    wavelengths_nm: Sequence[float],
    *,
    way: Way = "weights",
    permutations: int = 999,
    seed: int = 0,
) -> BandImportance:
    """Importance of each band with its significance.

    Args:
        members: one network, or several whose importances are averaged; in evaluation mode.
        x: (n, C, H, W), normalised, of records that were not trained on.  C is the number of bands, or a multiple of
            it: then channel c belongs to band c mod bands (views of the same spectrum).
        labels: (n,), class numbers.
        wavelengths_nm: (bands,).
        way: equation (1), (2) or (4).
        permutations: of the labels.
        seed: of the permutations.
    Raises:
        ShapeError: C is no multiple of the bands, or labels of another length.
        DataError: fewer than two classes among the labels.
        InputError: `gates`, and the network has none on its bands.
    """
    bands, n = len(wavelengths_nm), len(x)
    if x.shape[1] % bands or len(labels) != n:
        raise ShapeError(
            f"band_importance: {x.shape[1]} channels for {bands} bands, {n} records and {len(labels)} labels"
        )
    if len(np.unique(labels)) < 2:
        raise DataError("band_importance: the labels must hold at least two classes")
    values = np.mean([_contributions(member, x, bands, way) for member in members], axis=0)
    if way != "gates":
        values -= values.mean(axis=2, keepdims=True)
    importance = _gate_spread if way == "gates" else _support
    rng = np.random.default_rng(seed)
    classes = np.unique(labels, return_inverse=True)[1] if way == "gates" else np.asarray(labels)
    found = importance(values, classes[None])[0]
    null = np.concatenate(
        [
            importance(
                values, np.stack([rng.permutation(classes) for _ in range(start, min(start + 50, permutations))])
            )
            for start in range(0, permutations, 50)
        ]
    )
    # a band that never speaks has no spread, and is never important
    spread = np.maximum(null.std(axis=0), 1e-12 * float(np.abs(values).max(initial=1e-300)))
    level, largest = (found - null.mean(axis=0)) / spread, ((null - null.mean(axis=0)) / spread).max(axis=1)
    p = (1 + (largest[:, None] >= level[None]).sum(axis=0)) / (1 + permutations)
    return BandImportance(way, np.asarray(wavelengths_nm, np.float64), found, np.asarray(p, np.float64))


def _support(contributions: Values, labels: npt.NDArray[Any]) -> Values:
    """Equation (3) for each of p ways to label the records: (n, bands, K), (p, n) -> (p, bands)."""
    n, bands, classes = contributions.shape
    chosen = _one_hot(labels, classes).transpose(0, 2, 1).reshape(len(labels), -1)
    return np.asarray(chosen @ contributions.transpose(2, 0, 1).reshape(-1, bands) / n)


def _gate_spread(gates: Values, labels: npt.NDArray[Any]) -> Values:
    """Equation (4), likewise: (n, bands, 1), (p, n) -> (p, bands)."""
    chosen = _one_hot(labels, int(labels.max()) + 1)
    means = np.einsum("pnk,nb->pkb", chosen, gates[:, :, 0], optimize=True) / chosen.sum(axis=1)[:, :, None]
    return np.asarray(means.std(axis=1))


def _one_hot(labels: npt.NDArray[Any], classes: int) -> Values:
    """(p, n) -> (p, n, K)."""
    return np.asarray((labels[:, :, None] == np.arange(classes)).astype(np.float64))


def _contributions(member: Classifier, x: torch.Tensor, bands: int, way: Way) -> Values:
    """(n, bands, K); of gates (n, bands, 1)."""
    if way != "occlusion":
        per_channel = _by_weights(member, x) if way == "weights" else _gates(member, x)
        n, channels, last = per_channel.shape
        return np.asarray(per_channel.reshape(n, channels // bands, bands, last).sum(axis=1))
    with torch.no_grad():
        whole = _scores(member, x)
        found = np.empty((len(x), bands, whole.shape[1]))
        for band in range(bands):
            hidden = x.clone()
            hidden[:, band::bands] = x[:, band::bands].mean(dim=(0, 2, 3), keepdim=True)
            found[:, band] = (whole - _scores(member, hidden)).double().numpy()
    return found


def _by_weights(member: Classifier, x: torch.Tensor) -> Values:
    """Equation (1), (n, C, K): what enters the mixer times the gradient there, about its mean, summed over pixels."""
    arrived: list[torch.Tensor] = []

    def keep(module: nn.Module, inputs: tuple[torch.Tensor]) -> tuple[torch.Tensor]:
        del module
        entering = inputs[0].detach().requires_grad_()
        arrived.append(entering)
        return (entering,)

    handle = mixer_of(member).register_forward_pre_hook(keep)
    try:
        scores = _scores(member, x)
    finally:
        handle.remove()
    entering = arrived[0]
    centred = entering.detach() - entering.detach().mean(dim=(0, 2, 3), keepdim=True)
    columns = []
    for k in range(scores.shape[1]):
        (gradient,) = torch.autograd.grad(scores[:, k].sum(), entering, retain_graph=True)
        columns.append((centred * gradient).sum(dim=(2, 3)).double().numpy())
    return np.stack(columns, axis=2)


def _gates(member: Classifier, x: torch.Tensor) -> Values:
    """(n, C, 1): the first gate that has a number for every input channel."""
    opened: list[torch.Tensor] = []

    def keep(module: nn.Module, inputs: tuple[torch.Tensor]) -> None:
        if isinstance(module, Gate) and inputs[0].shape[1] == x.shape[1] and not opened:
            opened.append(module.scale(inputs[0]).mean(dim=(2, 3)))

    handles = [part.register_forward_pre_hook(keep) for part in member.modules() if isinstance(part, Gate)]
    try:
        with torch.no_grad():
            member(x)
    finally:
        for handle in handles:
            handle.remove()
    if not opened or opened[0].shape[1] != x.shape[1]:
        raise InputError(
            f"band_importance: Network({member.network.name}) has no gate on its {x.shape[1]} input channels; use a "
            "network whose first block gates the raw bands, or way='weights'"
        )
    return np.asarray(opened[0].double().numpy()[:, :, None])


def _scores(member: Classifier, x: torch.Tensor) -> torch.Tensor:
    """(n, K); of a network that answers for every pixel, the middle one's."""
    scores: torch.Tensor = member(x)
    return _middle(scores) if scores.ndim == 4 else scores


def _middle(maps: torch.Tensor) -> torch.Tensor:
    """(n, C, H, W) -> (n, C)."""
    return maps[:, :, maps.shape[2] // 2, maps.shape[3] // 2]


def mixed(member: Classifier, x: torch.Tensor) -> Values:
    """The mixer's channels before their norm, at the middle pixel: (n, C, H, W) -> (n, M)."""
    made: list[torch.Tensor] = []

    def keep(module: nn.Module, inputs: tuple[torch.Tensor], output: torch.Tensor) -> None:
        del module, inputs
        made.append(output.detach())

    handle = mixer_of(member).register_forward_hook(keep)
    try:
        with torch.no_grad():
            member(x)
    finally:
        handle.remove()
    return np.asarray(_middle(made[0]).double().numpy())


def index_matches(
    member: Classifier, x: torch.Tensor, spectra: npt.NDArray[Any], wavelengths_nm: Sequence[float]
) -> tuple[IndexMatch, ...]:
    """For every index that the bands allow, the mixer's channel that follows it best, the closest match first.

    Args:
        member: the network.
        x: (n, C, H, W), as the network sees the records.
        spectra: (n, bands), the same records as reflectance.
        wavelengths_nm: (bands,).
    Raises:
        ShapeError: another number of spectra than inputs.
    """
    if len(x) != len(spectra):
        raise ShapeError(f"index_matches: {len(x)} inputs and {len(spectra)} spectra; they must be the same records")
    channels = mixed(member, x)
    matches = []
    for name in available(wavelengths_nm):
        values = index(name, spectra, wavelengths_nm)
        there = np.isfinite(values)
        correlation = _correlations(channels[there], values[there])
        best = int(np.abs(correlation).argmax())
        matches.append(IndexMatch(name, best, float(correlation[best])))
    return tuple(sorted(matches, key=lambda match: -abs(match.correlation)))


def _correlations(channels: Values, values: Values) -> Values:
    """Pearson's, of every column with the values: (n, M), (n,) -> (M,); 0 for a constant one."""
    c, v = channels - channels.mean(axis=0), values - values.mean()
    scale = np.sqrt((c**2).sum(axis=0) * (v**2).sum())
    return np.asarray((c * v[:, None]).sum(axis=0) / np.maximum(scale, 1e-300))
