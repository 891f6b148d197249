"""Numbers of 16 bits in NumPy: fp16, which NumPy has, and bf16, which it has not.

bf16 = the upper half of fp32, rounded to nearest, halves to even; NaN stays NaN                 (1)
"""

from __future__ import annotations

from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from luthier.graph.op import DType

Array = NDArray[Any]
_LARGEST_FP16: Final = 65504.0


def to_bf16(values: Array) -> Array:
    """Equation (1): 16-bit words.

    Example:
        >>> [hex(word) for word in to_bf16(np.array([1.0, 1 + 2**-8, 1 + 3 * 2**-8, 1 + 2**-8 + 2**-23]))]
        ['0x3f80', '0x3f80', '0x3f82', '0x3f81']
    """
    wide = np.ascontiguousarray(values, np.float32)
    bits = wide.view(np.uint32)
    raised = (bits + np.uint32(0x7FFF) + (bits >> 16 & 1)) >> 16
    return np.where(np.isnan(wide), 0x7FC0, raised).astype(np.uint16)


def from_bf16(words: Array) -> Array:
    """16-bit words as fp32.

    Example:
        >>> from_bf16(np.array([0x3F80, 0xC040], np.uint16)).tolist()
        [1.0, -3.0]
    """
    return (words.astype(np.uint32) << 16).view(np.float32)


def as_stored(values: Array, dtype: DType) -> Array:
    """The numbers that memory of a type holds, in fp32 for fp16 and bf16; beyond fp16's range its largest.

    Example:
        >>> [as_stored(np.array([1 + 2**-9, 1e6], np.float32), kind).tolist() for kind in ("bf16", "fp16", "fp32")]
        [[1.0, 999424.0], [1.001953125, 65504.0], [1.001953125, 1000000.0]]
    """
    match dtype:
        case "bf16":
            return from_bf16(to_bf16(values))
        case "fp16":
            return np.clip(values, -_LARGEST_FP16, _LARGEST_FP16).astype(np.float16).astype(np.float32)
        case _:
            return np.asarray(values)
