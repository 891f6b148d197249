"""What a network makes of its receptive fields and its widths, on real images.

The effective receptive field of a block is where the gradient of the middle pixel of its map comes from; its side is
that of the smallest square about the field's middle that holds 95 % of the gradient's mass.  Luo et al. count the
pixels above a share of the peak instead; mass needs no peak, and a uniform field of n px gives 0.95 n in one dimension.

The effective rank of a block is how many directions its channels vary in:

    p_i = lambda_i / sum lambda,    effective rank = exp(-sum p_i ln p_i)                            (1)
    participation ratio = (sum lambda)^2 / sum lambda^2                                              (2)

with the eigenvalues lambda of the covariance of the C channels over images and pixels; both lie in [1, C].

Source:
    Luo et al. 2016, arXiv:1701.04128 (effective fields); Roy & Vetterli 2007, EUSIPCO, pp. 606-610 (effective rank,
    there of singular values); Gao et al. 2017, doi:10.1101/214262 (participation ratio).
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator, Mapping
from typing import Final

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from luthier.errors import DataError
from luthier.nn.build import Classifier
from luthier.nn.results import BlockUse

#: of the gradient's mass within the effective field
SHARE: Final = 0.95
Array = npt.NDArray[np.float64]


def block_uses(
    module: Classifier, batches: Iterable[Tensor], centres: Mapping[str, tuple[float, float]], *, seed: int = 0
) -> tuple[BlockUse, ...]:
    """Run images through a network, and gradients back from the middle of every block's map.

    The gradient is that of a sum over the map's channels with random signs, so that channels do not cancel.

    Args:
        module: its weights and mode are left as they are.
        batches: images (N, C, H, W), normalised, all of one size.
        centres: of every block the middle of the field of its map's middle pixel (H // 2, W // 2), as (row, column).
        seed: of the signs.
    Raises:
        DataError: no image, or the network is not finite on them.
    """
    generator = torch.Generator().manual_seed(seed)
    mass: dict[str, Array] = {}
    spread: dict[str, _Moments] = {}
    with _frozen(module):
        for images in batches:
            image = images.detach().clone().requires_grad_()
            for name, block_map in _maps(module, image):
                middle = block_map[:, :, block_map.shape[2] // 2, block_map.shape[3] // 2]
                signs = torch.randint(0, 2, middle.shape, generator=generator) * 2.0 - 1
                (gradient,) = torch.autograd.grad((middle * signs).sum(), image, retain_graph=True)
                mass[name] = mass.get(name, 0.0) + gradient.abs().sum((0, 1)).double().numpy()
                spread.setdefault(name, _Moments(block_map.shape[1])).add(block_map.detach())
    if not mass:
        raise DataError("block_uses: expected at least 1 image, got 0")
    uses = []
    for name, moments in spread.items():
        eigenvalues = moments.eigenvalues()
        if not (np.isfinite(eigenvalues).all() and np.isfinite(mass[name]).all()):
            raise DataError(f"block_uses: block {name} is not finite on these images; check weights and normalisation")
        uses.append(
            BlockUse(
                name, moments.channels, holding_side(mass[name], centres[name]), effective_rank(eigenvalues),
                participation_ratio(eigenvalues),
            )
        )  # fmt: skip
    return tuple(uses)


def holding_side(mass: Array, centre: tuple[float, float], share: float = SHARE) -> int:
    """Side of the smallest square about `centre` that holds a share of the mass; what lies outside the map counts too.

    Args:
        mass: (H, W), not negative.
        centre: (row, column), where (0, 0) is the middle of the first pixel.
        share: in (0, 1].
    Returns:
        Pixels, at least 1; 1 where there is no mass at all.
    Example:
        >>> holding_side(np.ones((5, 5)), (2, 2), share=0.36), holding_side(np.ones((5, 5)), (2, 2), share=0.37)
        (3, 5)
    """
    rows, columns = (np.abs(np.arange(n) - at) for n, at in zip(mass.shape, centre, strict=True))
    side = 2 * np.maximum(rows[:, None], columns[None, :]).ravel() + 1
    order = np.argsort(side, kind="stable")
    held = np.cumsum(mass.ravel()[order])
    if held[-1] <= 0:
        return 1
    # rounding must not ask for one pixel more
    return int(np.ceil(side[order][np.searchsorted(held, share * held[-1] * (1 - 1e-12))]))


def effective_rank(eigenvalues: Array) -> float:
    """Equation (1); 1 where nothing varies.

    Example:
        >>> round(effective_rank(np.ones(8)), 6), effective_rank(np.array([3.0, 0.0]))
        (8.0, 1.0)
    """
    total = eigenvalues.sum()
    if total <= 0:
        return 1.0
    shares = eigenvalues[eigenvalues > 0] / total
    return float(np.exp(-(shares * np.log(shares)).sum()))


def participation_ratio(eigenvalues: Array) -> float:
    """Equation (2); 1 where nothing varies.

    Example:
        >>> participation_ratio(np.array([2.0, 2.0, 0.0])), participation_ratio(np.zeros(3))
        (2.0, 1.0)
    """
    total = eigenvalues.sum()
    return float(total**2 / (eigenvalues**2).sum()) if total > 0 else 1.0


class _Moments:
    """Mean and covariance of C channels over images and pixels, batch by batch."""

    def __init__(self, channels: int) -> None:
        self.channels, self.count = channels, 0
        self.first: Array = np.zeros(channels)
        self.second: Array = np.zeros((channels, channels))
        self.origin: Array | None = None

    def add(self, block_map: Tensor) -> None:
        """Take a map (N, C, H, W)."""
        rows = block_map.movedim(1, -1).reshape(-1, self.channels).double().numpy()
        if self.origin is None:
            self.origin = rows.mean(0)  # sums about a point near the mean lose nothing to cancellation
        rows = rows - self.origin
        self.count += len(rows)
        self.first += rows.sum(0)
        self.second += rows.T @ rows

    def eigenvalues(self) -> Array:
        """Of the covariance, none below zero."""
        mean = self.first / self.count
        covariance = self.second / self.count - np.outer(mean, mean)
        if not np.isfinite(covariance).all():
            return np.full(self.channels, np.nan)
        values: Array = np.maximum(np.linalg.eigvalsh(covariance), 0)
        # what rounding leaves of a direction that does not vary
        return np.where(values > values.max() * self.channels * np.finfo(np.float32).eps ** 2, values, 0.0)


def _maps(module: Classifier, image: Tensor) -> Iterator[tuple[str, Tensor]]:
    x = image
    for stage_name, stage in module.stages.items():
        assert isinstance(stage, nn.Sequential)
        for index, block in enumerate(stage):
            x = block(x)
            yield f"{stage_name}.{index}", x


@contextlib.contextmanager
def _frozen(module: nn.Module) -> Iterator[None]:
    """Evaluation mode without gradients of weights, and afterwards all as it was."""
    modes = [(part, part.training) for part in module.modules()]
    wants = [(weight, weight.requires_grad) for weight in module.parameters()]
    module.eval().requires_grad_(False)
    try:
        yield
    finally:
        for part, training in modes:
            part.training = training
        for weight, wanted in wants:
            weight.requires_grad_(wanted)
