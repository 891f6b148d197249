"""Where the elements of a tensor lie in memory.

Inside a plan a feature map (N, C, H, W) is stored pixel by pixel with its channels side by side, and every pixel begins
at a whole vector:

    address(n, c, h, w) = 4 (c + ld (w + W (h + H n))),     ld = C rounded up to a multiple of the lanes     (1)

so that kernels read and write whole vectors only.  The lanes between C and ld hold anything at all: no kernel lets a
lane influence another one there.  A caller's arrays keep the order in which they come, NCHW or NHWC.
"""

from __future__ import annotations

from dataclasses import dataclass

from luthier.graph.shapes import Shape


def round_up(number: int, multiple: int) -> int:
    """The smallest multiple that is not below a number.

    Example:
        >>> round_up(24, 16), round_up(32, 16)
        (32, 32)
    """
    return -(-number // multiple) * multiple


@dataclass(frozen=True, slots=True)
class Layout:
    """Shape and strides of a tensor of rank 4; (N, K) counts as (N, K, 1, 1).

    Attributes:
        shape: (N, C, H, W).
        strides: steps along N, C, H, W, in elements.
    """

    shape: tuple[int, int, int, int]
    strides: tuple[int, int, int, int]

    @classmethod
    def padded(cls, shape: Shape, lanes: int) -> Layout:
        """Equation (1).

        Example:
            >>> Layout.padded((2, 24, 5, 7), lanes=16).strides
            (1120, 1, 224, 32)
        """
        n, c, h, w = rank4(shape)
        ld = round_up(c, lanes)
        return cls((n, c, h, w), (h * w * ld, 1, w * ld, ld))

    @classmethod
    def nchw(cls, shape: Shape) -> Layout:
        """As NumPy and torch keep (N, C, H, W)."""
        n, c, h, w = rank4(shape)
        return cls((n, c, h, w), (c * h * w, h * w, w, 1))

    @classmethod
    def nhwc(cls, shape: Shape) -> Layout:
        """Channels side by side, without gaps."""
        return cls.padded(shape, 1)

    @property
    def extent(self) -> int:
        """Elements from the first to the last, gaps included; for equation (1) the whole last pixel."""
        reach = 1 + sum((size - 1) * stride for size, stride in zip(self.shape, self.strides, strict=True))
        return max(reach, self.shape[0] * self.strides[0]) if self.strides[1] == 1 else reach

    @property
    def pixels(self) -> int:
        """N * H * W."""
        return self.shape[0] * self.shape[2] * self.shape[3]

    def is_padded(self, lanes: int) -> bool:
        """Whether it is equation (1)."""
        return self == Layout.padded(self.shape, lanes)


def rank4(shape: Shape) -> tuple[int, int, int, int]:
    """(N, K) as (N, K, 1, 1); (N, C, H, W) as it is."""
    full = (*shape, 1, 1, 1)[:4]
    return full[0], full[1], full[2], full[3]
