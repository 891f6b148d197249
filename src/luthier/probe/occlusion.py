"""Where a gate listens: how far it falls when a window of the image is covered, for all channels of all gates at once.

Every covered copy of the image is one row of a batch; one pass through the network gives the gates of all blocks and
channels, so that a network of ten thousand gated channels costs no more than one of ten.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final, get_args

import numpy as np
from numpy.typing import NDArray

from luthier.errors import InputError
from luthier.probe.results import Fill
from luthier.probe.watch import Watch

Array = NDArray[Any]
#: of the Gaussian, in standard deviations
_REACH: Final = 3
#: covered copies that are made at a time
_COPIES: Final = 64


@dataclass(frozen=True)
class Windows:
    """A square window moved over an image: from the top left in steps of `stride`, cut off at the other edges.

        count along an axis of length L = ceil((L - window) / stride) + 1                                (1)

    Attributes:
        image_hw: of the image, in pixels.
        window: side, in pixels, at most both sides of the image.
        stride: between 1 and `window`, so that every pixel is covered.
    Raises:
        InputError: a window or stride outside its range.
    Source:
        Zeiler & Fergus 2014, arXiv:1311.2901, section 4.2.
    Example:
        >>> Windows((32, 32), window=8, stride=4).grid_hw, list(Windows((5, 5), 4, 2))[1]
        ((7, 7), (slice(0, 4, None), slice(2, 6, None)))
    """

    image_hw: tuple[int, int]
    window: int
    stride: int

    def __post_init__(self) -> None:
        if not 1 <= self.window <= min(self.image_hw):
            raise InputError(
                f"probe: window must lie between 1 and the image's side {min(self.image_hw)}, got {self.window}"
            )
        if not 1 <= self.stride <= self.window:
            raise InputError(f"probe: stride must lie between 1 and the window {self.window}, got {self.stride}")

    @property
    def grid_hw(self) -> tuple[int, int]:
        """Number of windows down and across, equation (1)."""
        down, across = (-(-(side - self.window) // self.stride) + 1 for side in self.image_hw)
        return down, across

    def __iter__(self) -> Any:
        down, across = self.grid_hw
        for row in range(down):
            for column in range(across):
                top, left = row * self.stride, column * self.stride
                yield slice(top, top + self.window), slice(left, left + self.window)

    def __len__(self) -> int:
        return self.grid_hw[0] * self.grid_hw[1]

    def pixels(self, falls: Array) -> Array:
        """Maps on the grid as maps of the image: each pixel the mean of the windows that cover it.

        Args:
            falls: (..., rows, columns).
        Returns:
            (..., H, W).
        """
        total, weight = np.zeros((*falls.shape[:-2], *self.image_hw)), np.zeros(self.image_hw)
        flat = falls.reshape(*falls.shape[:-2], -1)
        for index, (rows, columns) in enumerate(self):
            total[..., rows, columns] += flat[..., index, None, None]
            weight[rows, columns] += 1
        return total / weight


def cover(image: Array, fill: Fill, *, window: int, mean: Sequence[float], std: Sequence[float]) -> Array:
    """What a window of an image is replaced by, as a whole image.

    fill      pixels
    grey      128 of 255 in every channel, as the network sees it
    mean      the image's own mean colour
    blur      the image, blurred by a Gaussian of standard deviation window / 2

    Args:
        image: (C, H, W), normalised.
        mean, std: of the normalisation, per channel, of pixels in [0, 1].
    Returns:
        (C, H, W).
    Raises:
        InputError: another fill.
    Example:
        >>> image = np.arange(8.0).reshape(2, 2, 2)
        >>> cover(image, "mean", window=1, mean=(0.5, 0.5), std=(1, 1))[:, 0, 0].tolist()
        [1.5, 5.5]
    """
    match fill:
        case "grey":
            level = (128 / 255 - np.asarray(mean, np.float32)) / np.asarray(std, np.float32)
            return np.broadcast_to(level.astype(image.dtype)[:, None, None], image.shape)
        case "mean":
            return np.broadcast_to(image.mean((1, 2), keepdims=True), image.shape)
        case "blur":
            return _blurred(image, window / 2)
    raise InputError(f"probe: fill must be one of {', '.join(get_args(Fill))}, got {fill!r}")


def _blurred(image: Array, sigma: float) -> Array:
    reach = max(1, round(_REACH * sigma))
    bell = np.exp(-0.5 * np.square(np.arange(-reach, reach + 1) / sigma))
    bell /= bell.sum()
    for axis in (1, 2):
        around = np.pad(image, [(reach, reach) if a == axis else (0, 0) for a in range(3)], mode="symmetric")
        windows = np.lib.stride_tricks.sliding_window_view(around, len(bell), axis)
        image = (windows @ bell).astype(image.dtype)
    return image


def gate_falls(watch: Watch, image: Array, windows: Windows, filling: Array) -> dict[str, tuple[Array, Array]]:
    """How far every channel of every gate falls under every window.

        fall = mean over the map of g(x) - mean over the map of g(x with the window covered)             (2)

    Args:
        watch: of the gates' tensors.
        image: (C, H, W), normalised.
        windows: of the image.
        filling: (C, H, W) what is seen in covered windows.
    Returns:
        Per tensor its value (C,), and the falls (C, rows, columns).
    Source:
        captum's `Occlusion` with the same windows gives `Windows.pixels` of a channel's falls.
    """
    falls: dict[str, list[Array]] = {name: [] for name in watch.names}
    (values,) = watch.batches(image[None])
    value = {name: gate[0].astype(np.float64).mean((1, 2)) for name, gate in values.items()}
    places = list(windows)
    for start in range(0, len(places), _COPIES):
        chosen = places[start : start + _COPIES]
        copies = np.repeat(image[None], len(chosen), 0)
        for copy, (rows, columns) in zip(copies, chosen, strict=True):
            copy[:, rows, columns] = filling[:, rows, columns]
        for part in watch.batches(copies):
            for name, gate in part.items():
                falls[name].append(value[name] - gate.astype(np.float64).mean((2, 3)))
    return {
        name: (value[name], np.concatenate(falls[name]).T.reshape(len(value[name]), *windows.grid_hw))
        for name in watch.names
    }
