"""Writes LLVM IR as text, from typed values: no value is a bare string, and types that do not fit fail at once."""

from __future__ import annotations

from luthier.engine.emit.function import Function, Module
from luthier.engine.emit.types import BF16, F32, I1, I8, I16, I32, I64, PTR, Index, Type, Value, vector

__all__ = [
    "BF16",
    "F32",
    "I1",
    "I8",
    "I16",
    "I32",
    "I64",
    "PTR",
    "Function",
    "Index",
    "Module",
    "Type",
    "Value",
    "vector",
]
