"""Weights rounded so that a layer's sums keep their values, not each weight its own.

For the weights w of one output channel, their integers q and the covariance H of what they meet,

    E[(sum (w - s q) (x - E[x]))^2] = e^T H e,   e = w - s q                                          (1)

Rounding to nearest takes every e[k] as if it stood alone.  Here q starts there and moves by coordinate descent: with
the others held, the best integer for weight k is

    q[k] + rint((H e)[k] / (H[k, k] s)), clamped                                                      (2)

which never makes (1) larger.  The mean of x is left to the bias (`luthier.quant.correct`).  All output channels move
together; a depthwise channel has a matrix of its own.  No gradient and no random number: NumPy is enough.

Source: the objective is AdaRound's, Nagel et al. 2020, arXiv:2004.10568, equation (13), solved directly.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

from luthier.graph.attrs import Conv, Linear
from luthier.quant.affine import S8, IntegerType

Array = NDArray[Any]
_SWEEPS: Final = 8
#: of the mean variance, added to each: directions that were never seen are not free
_DAMPING: Final = 1e-2
#: places of a map that are looked at, per batch
_PLACES: Final = 4096


def covariances(batches: Iterable[Array], attrs: Conv | Linear, kernel: tuple[int, ...]) -> Array:
    """H of each group of channels, (G, K, K) with K = C_in / G * K_H * K_W.

    Args:
        batches: real inputs (N, C, H, W), or (N, K).
        attrs, kernel: of the op that reads them.
    """
    total = mean = None
    count = 0
    for batch in batches:
        rows = _rows(batch, attrs, kernel)
        squares, sums = rows.transpose(0, 2, 1) @ rows, rows.sum(1)
        total, mean = (squares, sums) if total is None or mean is None else (total + squares, mean + sums)
        count += rows.shape[1]
    assert total is not None
    assert mean is not None
    centred = total / count - mean[:, :, None] * mean[:, None, :] / count**2
    size = centred.shape[1]
    damping = _DAMPING * np.trace(centred, axis1=1, axis2=2) / size
    return np.asarray(centred + np.maximum(damping, 1e-12)[:, None, None] * np.eye(size))


def _rows(batch: Array, attrs: Conv | Linear, kernel: tuple[int, ...]) -> Array:
    """What the weights of each group meet at some places, (G, places, K) float64; evenly spread."""
    if isinstance(attrs, Linear):
        return batch[None].astype(np.float64)
    top, left, bottom, right = attrs.pads
    padded = np.pad(batch, ((0, 0), (0, 0), (top, bottom), (left, right)))
    reach = tuple(d * (k - 1) + 1 for k, d in zip(kernel, attrs.dilation, strict=True))
    view = sliding_window_view(padded, reach, axis=(2, 3))
    view = view[:, :, :: attrs.stride[0], :: attrs.stride[1], :: attrs.dilation[0], :: attrs.dilation[1]]
    n, _, h, w = view.shape[:4]
    chosen = np.linspace(0, n * h * w - 1, min(n * h * w, _PLACES)).astype(np.int64)
    image, row, column = np.unravel_index(chosen, (n, h, w))
    met = view[image, :, row, column].reshape(len(chosen), attrs.groups, -1)
    return met.transpose(1, 0, 2).astype(np.float64)


def round_to_sums(weight: Array, scales: Array, covariance: Array, kind: IntegerType = S8) -> Array:
    """Integers of a weight by equation (2).

    Args:
        weight: (C_out, C_in / G, ...).
        scales: (C_out,).
        covariance: (G, K, K).
    Returns:
        int8, in the weight's shape.
    Example:
        >>> together = np.array([[[1.0, 0.99], [0.99, 1.0]]])
        >>> round_to_sums(np.array([[0.4, 0.4]]), np.ones(1), together).tolist()  # the sum is 0.8
        [[1, 0]]
    """
    groups, size = covariance.shape[:2]
    w = weight.reshape(groups, -1, size).astype(np.float64)
    s = scales.reshape(groups, -1)
    q = np.clip(np.rint(w / s[:, :, None]), kind.qmin, kind.qmax)
    slope = (w - s[:, :, None] * q) @ covariance
    for _ in range(_SWEEPS):
        moved = False
        for k in range(size):
            step = np.rint(slope[:, :, k] / (covariance[:, k, k][:, None] * s))
            step = np.clip(q[:, :, k] + step, kind.qmin, kind.qmax) - q[:, :, k]
            if step.any():
                moved = True
                q[:, :, k] += step
                slope -= (s * step)[:, :, None] * covariance[:, k][:, None, :]
        if not moved:
            break
    return q.reshape(weight.shape).astype(np.int8)
