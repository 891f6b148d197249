"""The CPU that code is made for: vector width, registers, instructions and caches, read from the host."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cache, cached_property
from typing import Final

import llvmlite.binding as llvm

from luthier.device.host import caches
from luthier.device.matrix_unit import permitted
from luthier.errors import InputError

#: instruction set -> (LLVM's CPU where it is not the host's, features that the host must have, lanes, registers)
_X86: Final = {
    "avx512": ("x86-64-v4", ("avx512f", "avx512dq", "avx512bw", "avx512vl"), 16, 32),
    "avx2": ("x86-64-v3", ("avx2", "fma"), 8, 16),
    "sse4": ("x86-64-v2", ("sse4.2",), 4, 16),
}
_NEON: Final = ("generic", ("neon",), 4, 32)
#: CPUs on which dividing a 512-bit vector takes 16 cycles or more; 10 on Intel's since Sapphire Rapids (measured), 5 on
#: AMD's since Zen 4
_SLOW_DIVISION: Final = frozenset(
    ("knl", "knm", "skylake-avx512", "cascadelake", "cooperlake", "cannonlake", "icelake-client", "icelake-server",
     "tigerlake", "rocketlake")
)  # fmt: skip
_L1_BYTES: Final = 32 << 10
_L2_BYTES: Final = 512 << 10


@dataclass(frozen=True, kw_only=True)
class Target:
    """What the emitters and the block chooser know about a CPU.

    Attributes:
        isa: `avx512`, `avx2`, `sse4` or `neon`; for exports also `wasm` and `scalar`.
        triple, cpu, features: as LLVM names them; `features` empty = those of `cpu`.
        lanes: fp32 numbers in a vector.
        registers: vectors that the CPU can name.
        has_bf16: whether it has instructions for products of bf16 pairs and for rounding to bf16.
        has_matrix: whether it has a unit for products of bf16 tiles, and this process may use it.
        true_division: whether a / b costs less than an estimate of 1 / b and a Newton step.
        l1_bytes, l2_bytes: caches of one core.
    """

    isa: str
    triple: str
    cpu: str
    features: str
    lanes: int
    registers: int
    has_bf16: bool = False
    has_matrix: bool = False
    true_division: bool = True
    l1_bytes: int = _L1_BYTES
    l2_bytes: int = _L2_BYTES

    @property
    def vector_bytes(self) -> int:
        """Bytes of a vector."""
        return 4 * self.lanes

    @property
    def is_narrow(self) -> bool:
        """Whether integer kernels take four channels at a time in short loops, without vectors of bytes."""
        return self.isa in ("scalar", "wasm")

    @property
    def is_x86(self) -> bool:
        """Whether it is an x86-64 CPU."""
        return self.isa in _X86

    @cached_property
    def machine(self) -> llvm.TargetMachine:
        """LLVM's code generator for this CPU."""
        llvm.initialize_all_targets()
        llvm.initialize_all_asmprinters()
        return llvm.Target.from_triple(self.triple).create_target_machine(
            cpu=self.cpu, features=self.features, opt=3, reloc="pic", codemodel="jitdefault", jit=True
        )

    @property
    def fingerprint(self) -> str:
        """Everything that decides whether machine code may run here."""
        return f"{self.triple}/{self.cpu}/{self.features}/{self.isa}{'/tiles' if self.has_matrix else ''}"


@cache
def runnable() -> tuple[Target, ...]:
    """One target per vector width that this machine can run, the widest first.

    Raises:
        InputError: a CPU without any of the instruction sets.
    Example:
        >>> runnable()[0] == host(), all(t.lanes in (4, 8, 16) for t in runnable())
        (True, True)
    """
    triple = llvm.get_process_triple()
    features = llvm.get_host_cpu_features()
    name = llvm.get_host_cpu_name()
    sizes = {found.level: found.size_bytes for found in caches()}
    common = {"triple": triple, "l1_bytes": sizes.get(1, _L1_BYTES), "l2_bytes": sizes.get(2, _L2_BYTES)}
    table = _X86 if triple.startswith("x86_64") else {"neon": _NEON} if triple.startswith(("aarch64", "arm64")) else {}
    found = [
        Target(isa=isa, cpu=cpu, features="", lanes=lanes, registers=registers, **common)
        for isa, (cpu, needed, lanes, registers) in table.items()
        if all(features.get(feature) for feature in needed)
    ]
    if not found:
        raise InputError(f"engine: needs AVX-512, AVX2, SSE4.2 or NEON, this CPU ({name}, {triple}) has none of them")
    slow = found[0].isa == "avx512" and name in _SLOW_DIVISION
    has_bf16 = found[0].isa == "avx512" and bool(features.get("avx512bf16"))
    has_matrix = has_bf16 and all(features.get(name) for name in ("amx-tile", "amx-bf16")) and permitted()
    widest = replace(
        found[0],
        cpu=name,
        features=features.flatten(),
        true_division=not slow,
        has_bf16=has_bf16,
        has_matrix=has_matrix,
    )
    return (widest, *found[1:])


def host() -> Target:
    """The widest target of this machine."""
    return runnable()[0]


def neon() -> Target:
    """A 64-bit Arm CPU of any kind, for emitting code that this machine may not be able to run."""
    cpu, _, lanes, registers = _NEON
    return Target(
        isa="neon", triple="aarch64-unknown-linux-gnu", cpu=cpu, features="", lanes=lanes, registers=registers
    )
