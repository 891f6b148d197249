"""The embedded default: scikit-learn's handwritten digits, real images that arrive as a package.

1,797 greyscale images of 8 x 8 pixels with 17 levels, ten classes.
Source: Alpaydin and Kaynak 1998, Optical Recognition of Handwritten Digits, UCI; doi 10.24432/C50P49.
"""

from __future__ import annotations

import numpy as np

from luthier.train.parts import Parts
from luthier.train.source import in_memory


def read_digits() -> Parts:
    """All 1,797 digits, not yet divided.  No network is needed, and they must not be mirrored.

    Example:
        >>> parts = read_digits()
        >>> len(parts.train), parts.train.image(0).shape
        (1797, torch.Size([3, 8, 8]))
    """
    from sklearn.datasets import load_digits

    digits = load_digits()
    grey = np.rint(digits.images * (255 / 16)).astype(np.uint8)
    rgb = np.repeat(grey[..., None], 3, axis=-1)
    source = in_memory(rgb, digits.target.astype(np.int64))
    notes = (f"{len(source):,} greyscale images read as RGB by repeating the channel",)
    return Parts(source, None, None, tuple(str(digit) for digit in range(10)), notes, augment="crop")
