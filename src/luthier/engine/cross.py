"""CPUs that code is exported for, by name or by LLVM triple; this machine need not be able to run it.

| name | CPU | vectors of fp32 | number types |
|---|---|---|---|
| host | this one | its widest | fp32, bf16, int8 |
| x86-64-v4 | any with AVX-512 | 16 | fp32, bf16, int8 |
| x86-64-v3 | any with AVX2 and FMA | 8 | fp32, bf16, int8 |
| aarch64-linux | any 64-bit Arm | 4 (NEON) | fp32, bf16, int8 |
| armv7em-none | Cortex-M7 with its FPU, no system | 4, one by one | fp32, int8 |
| wasm32 | WebAssembly with SIMD | 4 | fp32, int8 |

A triple takes the row of its architecture; one of another architecture gets code without vectors.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Final, Literal, get_args

import llvmlite.binding as llvm

from luthier.engine.target import Target, host, neon
from luthier.errors import InputError

ExportPrecision = Literal["fp32", "bf16", "int8"]
PRECISIONS: Final[tuple[ExportPrecision, ...]] = get_args(ExportPrecision)
_BYTES_FIRST: Final[tuple[ExportPrecision, ...]] = ("fp32", "int8")


@dataclass(frozen=True)
class CrossTarget:
    """What object files are made for.

    Attributes:
        name: as the user gave it.
        target: as the emitters know it.
        precisions: number types that it has instructions for, or loses nothing without.
        hosted: whether programs there have an operating system.
    """

    name: str
    target: Target
    precisions: tuple[ExportPrecision, ...] = PRECISIONS
    hosted: bool = True

    @cached_property
    def machine(self) -> llvm.TargetMachine:
        """LLVM's code generator for object files that a linker takes."""
        target = self.target
        return llvm.Target.from_triple(target.triple).create_target_machine(
            cpu=target.cpu, features=target.features, opt=3, reloc="pic" if self.hosted else "static",
            codemodel="default",
        )  # fmt: skip

    @property
    def data_layout(self) -> str:
        """How LLVM lays out memory there."""
        return str(self.machine.target_data)

    @property
    def narrow(self) -> bool:
        """Whether pointers have 32 bits."""
        return "p:32:" in self.data_layout


def _x86(version: int) -> Target:
    isa, lanes, registers = {2: ("sse4", 4, 16), 3: ("avx2", 8, 16), 4: ("avx512", 16, 32)}[version]
    return Target(
        isa=isa, triple="x86_64-unknown-linux-gnu", cpu=f"x86-64-v{version}", features="", lanes=lanes,
        registers=registers,
    )  # fmt: skip


def _scalar(triple: str, cpu: str) -> Target:
    """Vectors of four are spread over the 32 registers of a floating-point unit; integers over the others."""
    return Target(
        isa="scalar", triple=triple, cpu=cpu, features="", lanes=4, registers=8, l1_bytes=4 << 10, l2_bytes=64 << 10
    )


_WASM: Final = Target(
    isa="wasm", triple="wasm32-unknown-unknown", cpu="generic", lanes=4, registers=16,
    features="+simd128,+bulk-memory,+nontrapping-fptoint,+sign-ext",
)  # fmt: skip
#: all but `host`, which asks this machine
_NAMED: Final = {
    "x86-64-v3": CrossTarget("x86-64-v3", _x86(3)),
    "x86-64-v4": CrossTarget("x86-64-v4", _x86(4)),
    "aarch64-linux": CrossTarget("aarch64-linux", neon()),
    "armv7em-none": CrossTarget(
        "armv7em-none", _scalar("thumbv7em-none-eabihf", "cortex-m7"), _BYTES_FIRST, hosted=False
    ),
    "wasm32": CrossTarget("wasm32", _WASM, _BYTES_FIRST, hosted=False),
}
NAMES: Final = ("host", *_NAMED)
#: architecture of a triple -> what code for all its CPUs may use
_ARCHITECTURES: Final = {
    "x86_64": CrossTarget("", _x86(2)),
    "aarch64": _NAMED["aarch64-linux"],
    "arm64": _NAMED["aarch64-linux"],
    "wasm32": _NAMED["wasm32"],
    "thumbv7em": CrossTarget("", _scalar("", "cortex-m4"), _BYTES_FIRST, hosted=False),
}


def cross_target(name: str) -> CrossTarget:
    """The target that a user named.

    Args:
        name: one of `NAMES`, or an LLVM triple.
    Raises:
        InputError: no target of that name, or an architecture that LLVM lacks, or whose highest bytes come first; a
            system whose object files are not ELF.
    Example:
        >>> cross_target("armv7em-none").narrow, cross_target("aarch64-linux").target.lanes
        (True, 4)
        >>> cross_target("riscv64-unknown-linux-gnu").target.isa
        'scalar'
    """
    llvm.initialize_all_targets()
    llvm.initialize_all_asmprinters()
    if name == "host":
        return CrossTarget("host", host())
    if name in _NAMED:
        return _NAMED[name]
    unknown = f"--target {name}: must be one of {', '.join(NAMES)}, or an LLVM triple"
    architecture, dash, rest = name.partition("-")
    if not dash:
        raise InputError(unknown)
    try:
        llvm.Target.from_triple(name)
    except RuntimeError:
        raise InputError(f"{unknown}; LLVM has no {architecture!r}") from None
    if re.search(r"darwin|macos|ios|windows|mingw", rest):
        raise InputError(f"--target {name}: its object files are not ELF, which is all that this version checks")
    bare = rest.startswith("none") or "-none" in rest or architecture == "wasm32"
    row = _ARCHITECTURES.get(architecture, CrossTarget("", _scalar("", ""), _BYTES_FIRST))
    made = replace(row, name=name, target=replace(row.target, triple=name), hosted=not bare)
    if made.data_layout.startswith("E"):
        raise InputError(f"--target {name}: its numbers begin with the highest byte; weights are written for others")
    return made


def check_precision(target: CrossTarget, precision: str) -> ExportPrecision:
    """The number type, if code for the target is made in it.

    Raises:
        InputError: it is not.
    Example:
        >>> check_precision(cross_target("x86-64-v3"), "bf16")
        'bf16'
    """
    for known in target.precisions:
        if known == precision:
            return known
    if precision in PRECISIONS:
        raise InputError(
            f"--precision {precision}: {target.name} has no instructions for it; "
            f"it takes {', '.join(target.precisions)}"
        )
    raise InputError(f"--precision {precision}: must be one of {', '.join(PRECISIONS)}")
