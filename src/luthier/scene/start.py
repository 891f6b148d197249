"""How a network for scenes starts: its spectral mixer with the directions in which signal stands above noise."""

from __future__ import annotations

from typing import Final, TypeAlias

import numpy as np
import numpy.typing as npt
import torch
from scipy.linalg import eigh
from torch import nn

from luthier.nn.build import Classifier
from luthier.nn.conv import ConvNorm
from luthier.scene.cube import Mask, Scene

Floats: TypeAlias = npt.NDArray[np.float32]
#: noise that every direction is taken to have at least, over the mean of all bands
_LEAST_NOISE: Final = 1e-3


def signal_directions(spectra: Floats, mask: Mask) -> Floats:
    """The directions of a scene's spectra ordered by how far their signal stands above their noise.

        v_1 = argmax (v . S v) / (v . N v),   v_2 the same among all v with v . N v_1 = 0, and so on          (1)
        S = covariance of the spectra
        N = sum over pairs of neighbours of (x_i - x_j)(x_i - x_j)^T / (2 pairs) + 1e-3 trace / bands * I

    What differs from one pixel to the next is mostly noise, what a field has in common is signal.  Directions of large
    variance come first only where their noise is small; without neighbours in the mask they are the principal ones.

    Args:
        spectra: (n, bands), finite, of the mask's pixels in row order; in standard deviations of each band.
        mask: (H, W), n of them true.
    Returns:
        (bands, bands), a direction of norm 1 a row, the best first.
    Source:
        Green et al. 1988, IEEE Transactions on Geoscience and Remote Sensing 26 (1), 65-74 (minimum noise fraction).
    Example:
        Band 0 is large and noisy, band 1 small and smooth:

        >>> rows, columns = np.indices((8, 8))
        >>> noisy, smooth = 3.0 * (-1.0) ** (rows + columns), np.where(rows < 4, -0.5, 0.5)
        >>> spectra = np.stack([noisy, smooth], axis=-1).reshape(64, 2).astype(np.float32)
        >>> np.abs(signal_directions(spectra, np.ones((8, 8), bool))).round(2)
        array([[0., 1.],
               [1., 0.]], dtype=float32)
    """
    at = np.full(mask.shape, -1)
    at[mask] = np.arange(len(spectra))
    neighbours = [(at[:, :-1].ravel(), at[:, 1:].ravel()), (at[:-1].ravel(), at[1:].ravel())]
    first, second = (np.concatenate(side) for side in zip(*neighbours, strict=True))
    both = (first >= 0) & (second >= 0)
    x = spectra.astype(np.float64)
    steps, centred = x[first[both]] - x[second[both]], x - x.mean(axis=0)
    noise = steps.T @ steps / max(1, 2 * len(steps))
    least = _LEAST_NOISE * float(np.trace(noise)) / len(noise)
    noise += (least or 1.0) * np.eye(len(noise))
    found = eigh(centred.T @ centred / len(x), noise)[1].T[::-1]
    directions: Floats = (found / np.linalg.norm(found, axis=1, keepdims=True)).astype(np.float32)
    return directions


def begin_with_signal(module: Classifier, scene: Scene, train: Mask, mean: Floats, std: Floats) -> None:
    """Let the first 1x1 convolution start as `signal_directions` of the training pixels, the best first.

    The norm behind it brings all of them to one scale, so that directions of little variance count from the start;
    random directions are all dominated by the few largest ones.  Depthwise filters that no activation parts from the
    bands start as the pixel itself, 1 in the middle and 0 around it, and so do not scramble what is mixed.

    Args:
        module: changed in place; left alone behind the first activation.
        scene: whose training pixels are read, and no other.
        train: (H, W).
        mean, std: (bands,), what the network standardises by.
    """
    mixed = False
    blocks = [block for stage in module.stages.values() for block in stage.children()]
    for block, placed in zip(blocks, module.network.walk(), strict=True):
        for part in block.modules():
            if not isinstance(part, ConvNorm):
                continue
            conv = part.conv
            if conv.groups == conv.in_channels > 1:
                nn.init.dirac_(conv.weight, conv.groups)
            elif mixed or conv.kernel_size != (1, 1):
                return
            else:
                spectra = np.nan_to_num((scene.spectra(*np.nonzero(train)) - mean) / std)
                directions = signal_directions(spectra, train)[: conv.out_channels]
                with torch.no_grad():
                    conv.weight[: len(directions), :, 0, 0] = torch.from_numpy(directions)
                mixed = True
        if placed.activation != "identity":
            return
