"""A stem that learnt red, green and blue, for cubes of any bands: a band gets the filters of its nearest colours."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Final

import numpy as np
import torch
from torch import Tensor

from luthier.arch.network import Network
from luthier.errors import ShapeError

#: middle of what a camera's channels see, in the order of RGB, in nm
RGB_NM: Final = (640.0, 550.0, 460.0)


def shares_of_colours(wavelengths_nm: Sequence[float]) -> np.ndarray[tuple[int, int], np.dtype[np.float64]]:
    """How much of each colour's filter every band gets: (bands, 3), in the order of RGB; each column sums to 1.

    Between two colours a band's share is linear in its wavelength, outside it belongs to the nearest; a colour that no
    band is near is spread evenly.  So a grey picture, alike in all bands, is answered as before:

        sum over bands of share_bc = 1 for every colour c                                            (1)

    Example:
        >>> shares_of_colours((460.0, 505.0, 550.0, 640.0)).round(2).tolist()
        [[0.0, 0.0, 0.67], [0.0, 0.33, 0.33], [0.0, 0.67, 0.0], [1.0, 0.0, 0.0]]
    """
    near = np.stack([np.interp(wavelengths_nm, RGB_NM[::-1], np.eye(3)[::-1][:, c]) for c in range(3)], axis=1)
    total = near.sum(axis=0)
    return np.where(total > 0, near / np.where(total > 0, total, 1), 1 / len(wavelengths_nm))


def with_bands(
    network: Network, state: Mapping[str, Tensor], wavelengths_nm: Sequence[float]
) -> tuple[Network, dict[str, Tensor]]:
    """The network with a stem for these bands, and its weights.

        weight_b = sum over colours c of share_bc * weight_c * std_b' / std_c                        (2)

    Each band is to be standardised with the mean and deviation that it gets here: those of its colours, mixed.

    Args:
        network: for RGB.
        state: its state dict.
        wavelengths_nm: of the bands, in nm.
    Raises:
        ShapeError: the network is not for three channels, or its first convolution is not in `state`.
    Example:
        >>> from luthier.arch import presets
        >>> from luthier.nn import build
        >>> net = presets.get("mbconv_thumbnail")
        >>> wider, weights = with_bands(net, build(net).state_dict(), (450.0, 550.0, 650.0, 850.0))
        >>> wider.in_channels, weights["stages.stem.0.conv.conv.weight"].shape
        (4, torch.Size([16, 4, 3, 3]))
    """
    key = next((k for k, value in state.items() if value.ndim == 4), "")
    if network.in_channels != 3 or not key or state[key].shape[1] != 3:
        raise ShapeError(
            f"Network({network.name}): only a stem of three channels can be extended, got {network.in_channels}"
        )
    shares = shares_of_colours(wavelengths_nm)
    mixed = shares / shares.sum(axis=1, keepdims=True)
    mean, std = (mixed @ np.array(values) for values in (network.input_mean, network.input_std))
    factors = shares * std[:, None] / np.array(network.input_std)[None]
    weight = torch.einsum("oc...,bc->ob...", state[key], torch.from_numpy(factors).to(state[key].dtype))
    wider = replace(
        network, in_channels=len(mean), input_mean=tuple(mean.tolist()), input_std=tuple(std.tolist()),
        name=f"{network.name}-{len(mean)}bands",
    )  # fmt: skip
    return wider, {**state, key: weight}
