"""What a network does to every raw band before its first 1x1 convolution mixes them."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from torch import nn

from luthier.nn.build import Classifier


def band_filters(module: Classifier) -> npt.NDArray[np.float64] | None:
    """The filter of every band, where the first layer filters each band apart (`mbconv_scene_bandwise`).

        f_b = w_b / sum over taps |w_b|                                                              (1)

    A norm behind the layer brings all bands to one scale, so that only the shape of a filter says something: a mean of
    the neighbours where all taps have one sign, an edge where they cancel.

    Returns:
        (bands, taps), each window row by row; None = the first layer mixes bands.
    Example:
        >>> from luthier.arch.presets import get
        >>> from luthier.nn.build import build
        >>> band_filters(build(get("mbconv_scene_bandwise"))).shape, band_filters(build(get("mbconv_scene")))
        ((200, 9), None)
    """
    first = next(part for part in module.modules() if isinstance(part, nn.Conv2d))
    if not first.groups == first.in_channels == first.out_channels:
        return None
    weights = first.weight.detach().double().numpy().reshape(first.out_channels, -1)
    return np.asarray(weights / np.maximum(np.abs(weights).sum(axis=1, keepdims=True), 1e-300))
