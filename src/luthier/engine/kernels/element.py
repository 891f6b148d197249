"""Number types in memory; kernels compute on vectors of fp32, whatever they read and write.

    bf16 -> fp32: the same bits and sixteen zeros behind them, exact
    fp32 -> bf16: to the nearest, ties to even; NaN stays NaN                                        (1)

| fp32 | bits | bf16 |
|---|---|---|
| 1 + 2^-8 | 3f808000 | 3f80, halfway, to even |
| 1 + 3 * 2^-8 | 3f818000 | 3f82, halfway, to even |
| 1 + 2^-8 + 2^-23 | 3f808001 | 3f81 |

Where the CPU has an instruction for (1) it counts numbers below 2^-126 as zero.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from luthier.engine.emit import BF16, I16, I32, Function, Index, Type, Value, vector
from luthier.engine.target import Target
from luthier.graph.halves import to_bf16
from luthier.graph.op import DType

Array = NDArray[Any]


@dataclass(frozen=True, slots=True)
class Element:
    """How one number lies in memory.

    Attributes:
        name: of the number type.
        bytes: of one number.
    """

    name: DType
    bytes: int

    def load(self, f: Function, kind: Type, pointer: Value, by: Index, align: int) -> Value:
        """Numbers as `kind`, fp32 in every lane."""
        if self.bytes == 4:
            return f.load(kind, pointer, by, align)
        words = f.load(vector(I16, kind.lanes) if kind.lanes > 1 else I16, pointer, by, align)
        wide = vector(I32, kind.lanes) if kind.lanes > 1 else I32
        sixteen = Value(wide, "splat (i32 16)" if kind.lanes > 1 else "16")
        bits = f.assign(wide, f"shl {f.assign(wide, f'zext {words} to {wide.text}')}, {sixteen.text}")
        return f.assign(kind, f"bitcast {bits} to {kind.text}")

    def rounded(self, f: Function, target: Target, value: Value) -> Value:
        """fp32 lanes as they lie in memory; bf16 as 16-bit words."""
        if self.bytes == 4:
            return value
        words = vector(I16, value.type.lanes) if value.type.lanes > 1 else I16
        if target.has_bf16 and value.type.lanes == 16:
            half = f.call("llvm.x86.avx512bf16.cvtneps2bf16.512", vector(BF16, 16), (value,))
            return f.assign(words, f"bitcast {half} to {words.text}")
        return _rounded(f, value)

    def store(self, f: Function, target: Target, value: Value, pointer: Value, by: Index, align: int) -> None:
        """Write fp32 lanes, rounded by equation (1)."""
        f.store(self.rounded(f, target, value), pointer, by, align)

    def pack(self, values: Array) -> Array:
        """fp32 numbers as they lie in memory; bf16 as 16-bit words."""
        return values.astype(np.float32) if self.bytes == 4 else to_bf16(values)


def _rounded(f: Function, value: Value) -> Value:
    """Equation (1) in integers: half of the last place that stays, less one if that place is even, is added first."""
    lanes = value.type.lanes
    wide, narrow = (vector(kind, lanes) if lanes > 1 else kind for kind in (I32, I16))

    def number(n: int) -> str:
        return f"splat (i32 {n})" if lanes > 1 else str(n)

    bits = f.assign(wide, f"bitcast {value} to {wide.text}")
    odd = f.assign(wide, f"and {f.assign(wide, f'lshr {bits}, {number(16)}')}, {number(1)}")
    raised = f.assign(wide, f"add {f.assign(wide, f'add {bits}, {number(0x7FFF)}')}, {odd.text}")
    nan = f.is_nan(value)
    kept = f.select(nan, Value(wide, number(0x7FC00000)), raised)
    return f.assign(narrow, f"trunc {f.assign(wide, f'lshr {kept}, {number(16)}')} to {narrow.text}")


FP32: Final = Element("fp32", 4)
BFLOAT16: Final = Element("bf16", 2)


@dataclass(frozen=True, slots=True)
class Types:
    """Number types of a kernel's operands; biases, gates and sums of channels are fp32.

    Attributes:
        x: of what is read.
        w: of the weights, or of a second operand.
        y: of what is written, and of a residual.
    """

    x: Element = FP32
    w: Element = FP32
    y: Element = FP32

    @property
    def title(self) -> str:
        """Part of a kernel's name: one word where all are the same."""
        names = [element.name for element in (self.x, self.w, self.y)]
        return names[0] if len(set(names)) == 1 else "_".join(names)


ALL_FP32: Final = Types()
#: what activations may be stored as
ELEMENTS: Final[dict[DType, Element]] = {element.name: element for element in (FP32, BFLOAT16)}
