"""The build attributes of an Arm object file, completed: LLVM leaves out how floating-point arguments are passed.

    (Tag_ABI_PCS_R9_use, 0), which is the default and says nothing -> (Tag_ABI_VFP_args, 1)          (1)

Without the second, linkers refuse to join the file with others of the same calling convention.  The functions that we
export take pointers only, so that they keep to either convention.

Source:
    Arm IHI 0045 (Addenda to, and Errata in, the ABI for the Arm Architecture), section 3.3.
"""

from __future__ import annotations

from typing import Final

import llvmlite.binding as llvm

_R9_USE, _VFP_ARGS = 14, 28
#: tags whose values are strings
_TEXTS: Final = frozenset((4, 5, 65, 67))
_COMPATIBILITY: Final = 32
#: "A", a length, "aeabi", the tag of the whole file, a length
_START: Final = 1 + 4 + 6 + 1 + 4


def with_hard_float(code: bytes) -> bytes:
    """Equation (1), in place; a file without the first pair is returned as it is."""
    sections = llvm.ObjectFileRef.from_data(code).sections()
    held = next((bytes(s.data()) for s in sections if s.name() == b".ARM.attributes"), b"")
    at = _START
    while at < len(held):
        tag = held[at]
        if tag == _R9_USE:
            start = code.index(held) + at
            return code[:start] + bytes((_VFP_ARGS, 1)) + code[start + 2 :]
        at += 1
        if tag in _TEXTS or tag == _COMPATIBILITY:
            at = held.index(b"\0", at + (tag == _COMPATIBILITY)) + 1
        else:
            while held[at] >= 128:
                at += 1
            at += 1
    return code
