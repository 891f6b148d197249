"""Sizes and wants of object files: of known content, and of files that were cut."""

from __future__ import annotations

import llvmlite.binding as llvm
import pytest
from hypothesis import given
from hypothesis import strategies as st

from luthier.deploy.embedded.object_file import read_sections
from luthier.engine.cross import cross_target
from luthier.engine.hard_float import with_hard_float
from luthier.errors import DataError, InputError

TARGETS = ("x86-64-v3", "aarch64-linux", "armv7em-none", "wasm32")
#: 40 bytes of constants, 24 to write, 100 zeroed, and two calls of others
TEXT = """
@constant = constant [40 x i8] c"{}", align 8
@data = global [3 x i64] [i64 1, i64 2, i64 3], align 8
@zeroed = global [100 x i8] zeroinitializer, align 4
declare i32 @somebody(ptr) nounwind
declare void @else() nounwind
define i32 @f() nounwind {{
  call void @else()
  %v = call i32 @somebody(ptr @data)
  ret i32 %v
}}
""".format("a" * 40)


def made(name: str) -> bytes:
    code: bytes = cross_target(name).machine.emit_object(llvm.parse_assembly(TEXT))
    return code


@pytest.mark.parametrize("name", TARGETS[:3])
def test_elf(name: str) -> None:
    found = read_sections(made(name), "f.o")
    assert (found.data_bytes, found.zeroed_bytes) == (24, 100)
    assert 40 <= found.constant_bytes < 40 + 128, "unwind tables count too"
    assert 8 <= found.code_bytes < 64
    assert found.undefined == ("else", "somebody")
    assert found.flash_bytes == found.code_bytes + found.constant_bytes + 24
    assert found.ram_bytes == 124


def test_wasm() -> None:
    """Segments of data carry some bytes of their own; zeroed ones are written out."""
    found = read_sections(made("wasm32"), "f.o")
    assert 40 + 24 + 100 <= found.constant_bytes < 200
    assert found.undefined == ("else", "somebody")
    assert found.code_bytes > 10


@pytest.mark.parametrize("name", TARGETS)
@given(share=st.floats(0, 1, exclude_max=True))
def test_a_cut_file_is_told_in_one_line(name: str, share: float) -> None:
    whole = _WHOLE.setdefault(name, made(name))
    cut = whole[: int(share * len(whole))]
    try:
        said = str(read_sections(cut, "f.o"))
    except DataError as error:
        said = str(error)
        cut = b""
    assert said.startswith("Sections(" if cut else "f.o: ")
    assert "\n" not in said


_WHOLE: dict[str, bytes] = {}


def test_what_is_no_object_file() -> None:
    with pytest.raises(DataError, match=r"f\.o: is no object file of ELF \(lowest byte first\) or WebAssembly"):
        read_sections(b"MZ" + bytes(100), "f.o")
    with pytest.raises(DataError, match="cut short or damaged"):
        read_sections(made("x86-64-v3")[:40], "f.o")


def test_hard_float_is_stated_once() -> None:
    """Same length, one pair changed; another file stays as it is."""
    before = made("armv7em-none")
    after = with_hard_float(before)
    changed = [index for index, (a, b) in enumerate(zip(before, after, strict=True)) if a != b]
    assert len(changed) == 2
    assert after[changed[0] : changed[0] + 2] == bytes((28, 1))
    assert with_hard_float(after) == after
    assert with_hard_float(made("x86-64-v3")) == made("x86-64-v3")


@pytest.mark.parametrize(("name", "lanes", "narrow", "hosted"), [
    ("aarch64-unknown-linux-musl", 4, False, True), ("wasm32-wasi", 4, True, False),
    ("thumbv7em-none-eabihf", 4, True, False), ("x86_64-unknown-freebsd", 4, False, True),
])  # fmt: skip
def test_triples(name: str, lanes: int, narrow: bool, hosted: bool) -> None:
    found = cross_target(name)
    assert (found.target.lanes, found.narrow, found.hosted) == (lanes, narrow, hosted)


@pytest.mark.parametrize("name", ["", "host ", "x86", "no-such-cpu"])
def test_unknown_targets_are_listed(name: str) -> None:
    with pytest.raises(InputError, match="must be one of host, x86-64-v3, x86-64-v4, aarch64-linux"):
        cross_target(name)
