"""LLVM IR text -> object files -> functions of this process, which ctypes calls without Python's lock."""

from __future__ import annotations

import ctypes
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache
from typing import Any


@dataclass(frozen=True)
class Cpu:
    """What LLVM knows of a CPU.

    Attributes:
        name: in LLVM's words, such as `znver4`.
        features: that the CPU has, such as `avx512f`.
    """

    name: str
    features: frozenset[str]

    @property
    def attributes(self) -> str:
        """The features as LLVM takes them."""
        return ",".join(f"+{feature}" for feature in sorted(self.features))


@cache
def host_cpu() -> Cpu:
    """The CPU that this process runs on."""
    from llvmlite import binding

    features = binding.get_host_cpu_features()
    return Cpu(binding.get_host_cpu_name(), frozenset(name for name, has in features.items() if has))


def assemble(text: str, machine: Any) -> bytes:
    """A relocatable object file of a module of LLVM IR, as llvmlite's target machine makes it.

    The middle-end passes are left out: they take time, and hoist what should be reloaded.
    """
    from llvmlite import binding

    code: bytes = machine.emit_object(binding.parse_assembly(text))
    return code


class Library:
    """An object file, linked into this process as long as this value lives.

    Args:
        code: from `assemble`, for a CPU that this machine is.
        names: functions to look up.
    Attributes:
        addresses: of the functions.
    """

    def __init__(self, code: bytes, names: Iterable[str]) -> None:
        from llvmlite import binding

        _initialise()
        self._linker = binding.create_lljit_compiler()
        builder = binding.JITLibraryBuilder().add_object_img(code)
        names = tuple(names)
        for name in names:
            builder.export_symbol(name)
        self._tracker = builder.link(self._linker, "luthier")
        self.addresses = {name: int(self._tracker[name]) for name in names}


@dataclass(frozen=True)
class Compiled:
    """Machine code of one module; it lives as long as this object or one of its functions.

    Attributes:
        library: its functions.
        assembly: what was emitted, to be looked through.
    """

    library: Library
    assembly: str

    def function(self, name: str, result: Any, *arguments: Any) -> Any:
        """The function `name` with this C signature; a call of it releases Python's lock."""
        function: Any = ctypes.CFUNCTYPE(result, *arguments)(self.library.addresses[name])
        function.compiled = self
        return function


def compile_ir(text: str, cpu: Cpu | None = None, opt: int = 2) -> Compiled:
    """Compile a module of LLVM IR for `cpu`, this one by default; no middle-end pass runs.

    Args:
        text: the module.  It may use no intrinsic that `cpu` lacks: LLVM ends the process over those.
        opt: effort of code generation, 0 to 3.
    Raises:
        RuntimeError: the text is not valid IR; this is a fault of the caller, not of a user.
    Example:
        >>> compiled = compile_ir("define i64 @twice(i64 %x) {\\n %y = add i64 %x, %x\\n ret i64 %y\\n}")
        >>> compiled.function("twice", ctypes.c_int64, ctypes.c_int64)(21)
        42
    """
    from llvmlite import binding

    _initialise()
    cpu = cpu or host_cpu()
    target = binding.Target.from_default_triple()
    machine = target.create_target_machine(cpu=cpu.name, features=cpu.attributes, opt=opt, jit=True)
    module = binding.parse_assembly(text)
    module.verify()
    names = [function.name for function in module.functions if not function.is_declaration]
    return Compiled(Library(assemble(text, machine), names), machine.emit_assembly(module))


def assembly(text: str, cpu: Cpu, triple: str) -> str:
    """What a module of LLVM IR becomes on another kind of machine, such as `aarch64-unknown-linux-gnu`."""
    from llvmlite import binding

    binding.initialize_all_targets()
    binding.initialize_all_asmprinters()
    machine = binding.Target.from_triple(triple).create_target_machine(cpu=cpu.name, features=cpu.attributes, opt=2)
    return str(machine.emit_assembly(binding.parse_assembly(text)))


@cache
def _initialise() -> None:
    from llvmlite import binding

    binding.initialize_native_target()
    binding.initialize_native_asmprinter()
