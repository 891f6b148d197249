"""IR text -> object file -> functions of this process."""

from __future__ import annotations

from collections.abc import Sequence

import llvmlite.binding as llvm

from luthier.engine.target import Target


def assemble(text: str, target: Target) -> bytes:
    """Machine code for IR.  The middle-end passes are left out: they take time, and hoist what should be reloaded.

    Args:
        text: of a module.
        target: CPU; need not be this one.
    Returns:
        A relocatable object file.
    """
    module = llvm.parse_assembly(text)
    code: bytes = target.machine.emit_object(module)
    return code


class Library:
    """An object file, linked into this process as long as this value lives.

    Args:
        code: from `assemble`, for a CPU that this machine is.
        names: functions to look up.

    Example:
        >>> import ctypes
        >>> from luthier.engine.emit import I64, Module
        >>> from luthier.engine.target import host
        >>> module = Module(host().lanes)
        >>> f = module.function("next", [("i", I64)], returns=I64)
        >>> f.give(f.index(f.add(f["i"], 1)))
        >>> library = Library(assemble(module.text(), host()), ["next"])
        >>> ctypes.CFUNCTYPE(ctypes.c_int64, ctypes.c_int64)(library.addresses["next"])(41)
        42
    """

    def __init__(self, code: bytes, names: Sequence[str]) -> None:
        llvm.initialize_native_target()
        llvm.initialize_native_asmprinter()
        self._linker = llvm.create_lljit_compiler()
        builder = llvm.JITLibraryBuilder().add_object_img(code)
        for name in names:
            builder.export_symbol(name)
        self._tracker = builder.link(self._linker, "luthier")
        self.addresses = {name: int(self._tracker[name]) for name in names}
