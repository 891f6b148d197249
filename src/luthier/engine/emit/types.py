"""Types and values of LLVM IR, as far as kernels need them."""

from __future__ import annotations

import struct
from typing import Final, NamedTuple


class Type(NamedTuple):
    """One LLVM type.

    Attributes:
        text: as LLVM writes it.
        bytes: in memory.
        lanes: 1 = scalar.
        element: text of one lane's type.
    """

    text: str
    bytes: int
    lanes: int
    element: str

    @property
    def is_float(self) -> bool:
        """Whether floating-point instructions take it."""
        return self.element == "float"


class Value(NamedTuple):
    """An SSA value or a constant."""

    type: Type
    text: str

    def __str__(self) -> str:
        return f"{self.type.text} {self.text}"


#: a 64-bit integer: known now, or computed by the kernel
Index = int | Value

I1: Final = Type("i1", 1, 1, "i1")
I8: Final = Type("i8", 1, 1, "i8")
I16: Final = Type("i16", 2, 1, "i16")
I32: Final = Type("i32", 4, 1, "i32")
I64: Final = Type("i64", 8, 1, "i64")
F32: Final = Type("float", 4, 1, "float")
BF16: Final = Type("bfloat", 2, 1, "bfloat")
PTR: Final = Type("ptr", 8, 1, "ptr")


def vector(element: Type, lanes: int) -> Type:
    """`lanes` values of one type.

    Example:
        >>> vector(F32, 8).text, vector(F32, 8).bytes
        ('<8 x float>', 32)
    """
    return Type(f"<{lanes} x {element.text}>", element.bytes * lanes, lanes, element.text)


def float_text(number: float) -> str:
    """A single-precision constant as LLVM reads it: the bits of the same number in double precision.

    Example:
        >>> float_text(1.0)
        '0x3FF0000000000000'
    """
    (rounded,) = struct.unpack("<f", struct.pack("<f", number))
    (bits,) = struct.unpack("<Q", struct.pack("<d", rounded))
    return f"0x{bits:016X}"
