"""Where a convolution on bytes finds the rows of its product, and its weights in that order.

Output pixel (image, line, column) reads, of every tap, `depth` bytes from

    x + image * image_bytes + line * line_bytes + column * pixel_bytes + the tap's offset            (1)

Taps side by side in a row of the map are one tap of several pixels' depth.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from luthier.engine.kernels.int8.units import UNIT
from luthier.engine.layout import Layout, round_up
from luthier.graph.attrs import Conv, Pair

Array = NDArray[Any]


@dataclass(frozen=True, slots=True)
class Geometry:
    """Equation (1).

    Attributes:
        images, lines, columns: of outputs.
        image_bytes, line_bytes, pixel_bytes: steps in x from one output to the next.
        taps: bytes to each.
        depth: bytes of x that a tap takes, from its beginning; multiples of 4.
    """

    images: int
    lines: int
    columns: int
    image_bytes: int
    line_bytes: int
    pixel_bytes: int
    taps: tuple[int, ...] = (0,)
    depth: int = 4

    @property
    def rows(self) -> int:
        """Outputs, each of all channels."""
        return self.images * self.lines * self.columns

    @property
    def is_run(self) -> bool:
        """Whether a line begins where the one before it ends."""
        return self.line_bytes == self.columns * self.pixel_bytes

    def flat(self, *, images: bool = True) -> Geometry:
        """All lines of an image as one, and all images as one, where they lie side by side.

        Example:
            >>> Geometry(2, 3, 4, 96, 32, 8).flat()
            Geometry(images=1, lines=1, columns=24, image_bytes=0, line_bytes=0, pixel_bytes=8, taps=(0,), depth=4)
        """
        if not self.is_run:
            return self
        flat = replace(self, lines=1, columns=self.lines * self.columns, line_bytes=0)
        if not images or self.image_bytes != self.lines * self.line_bytes:
            return flat
        return replace(flat, images=1, columns=self.images * flat.columns, image_bytes=0)


def geometry_of(
    attrs: Conv, weight: tuple[int, int, int, int], x: Layout, out_hw: Pair
) -> tuple[Geometry, Array]:  # fmt: skip
    """A convolution without padding as equation (1), line by line.

    Args:
        attrs: stride, dilation and groups.
        weight: (C_out, C_in / groups, K_H, K_W).
        x: of the map, borders and all, in bytes.
        out_hw: of the output.
    Returns:
        The geometry; and of several groups, for every unit of output channels, the input channel at which its taps
        begin.
    """
    (image, _, row, pixel), (n, depth) = x.strides, x.shape[:2]
    channels, per_in, kernel_h, kernel_w = weight
    (down, right), (far_down, far_right), per_out = attrs.stride, attrs.dilation, channels // attrs.groups
    starts = np.zeros(0, np.int64)
    if attrs.groups > 1:
        first = range(0, channels, UNIT)
        lows = [c // per_out * per_in for c in first]
        highs = [((min(channels, c + UNIT) - 1) // per_out + 1) * per_in for c in first]
        depth = max(b - a for a, b in zip(lows, highs, strict=True))
        starts = np.minimum(lows, pixel - round_up(depth, 4))
    depth = round_up(depth, 4)
    if far_right == 1 and attrs.groups == 1 and depth == pixel:
        depth, kernel_w = kernel_w * pixel, 1  # neighbours lie side by side
    taps = tuple(i * far_down * row + j * far_right * pixel for i in range(kernel_h) for j in range(kernel_w))
    return Geometry(n, *out_hw, image, down * row, right * pixel, taps, depth), starts


def arranged(attrs: Conv, weight: Array, geometry: Geometry, starts: Array) -> Array:
    """Weights (C_out, C_in / groups, K_H, K_W) as (taps, bytes of x that a tap takes, C_out); see `geometry_of`."""
    channels, per_in, kernel_h, kernel_w = weight.shape
    taps, per_out = len(geometry.taps), channels // attrs.groups
    depth = geometry.depth * taps // (kernel_h * kernel_w)
    full = np.zeros((kernel_h, kernel_w, depth, channels), np.int8)
    if attrs.groups == 1:
        full[:, :, :per_in] = weight.transpose(2, 3, 1, 0)
    for channel in range(channels) if attrs.groups > 1 else ():
        low = channel // per_out * per_in - starts[channel // UNIT]
        full[:, :, low : low + per_in, channel] = weight[channel].transpose(1, 2, 0)
    return full.reshape(taps, geometry.depth, channels)
