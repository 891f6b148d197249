"""What an object file takes on a device, and what it wants from others: read from the file itself.

ELF (32 and 64 bits) by its section headers and symbol table, WebAssembly by its sections; both with the lowest byte
first.  Sections that are not loaded (symbols, notes, relocations) count nowhere.

    flash = code + constants + initial values of data          RAM = data + zeroed data               (1)

Source:
    Tool Interface Standard ELF specification 1.2, part 1; WebAssembly core specification 2.0, section 5.5.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import Final

from luthier.errors import DataError

_WRITE, _ALLOCATED, _EXECUTABLE = 1, 2, 4
_SYMBOLS, _ZEROED = 2, 8
_UNDEFINED = 0
#: of WebAssembly: numbers of sections, and of kinds of imports
_IMPORT, _CODE, _DATA = 2, 10, 11
_FUNCTION = 0
_WASM: Final = b"\0asm"
#: word size -> e_shoff, e_shentsize and e_shnum; a section header; a symbol; its name, section
_HEADERS: Final = {1: ("<I", 32, 46), 2: ("<Q", 40, 58)}
_SECTION: Final = {1: "<IIIIIIIIII", 2: "<IIQQQQIIQQ"}
_SYMBOL: Final = {1: ("<IIIBBH", 5), 2: ("<IBBHQQ", 3)}


@dataclass(frozen=True, slots=True)
class Sections:
    """Equation (1), and what a linker must find elsewhere.

    Attributes:
        code_bytes: instructions.
        constant_bytes: read-only data.
        data_bytes: that programs may write, with initial values.
        zeroed_bytes: likewise, zero at first.
        undefined: symbols that the file wants and does not have.
    """

    code_bytes: int
    constant_bytes: int
    data_bytes: int = 0
    zeroed_bytes: int = 0
    undefined: tuple[str, ...] = ()

    @property
    def flash_bytes(self) -> int:
        """What stays when the power is off."""
        return self.code_bytes + self.constant_bytes + self.data_bytes

    @property
    def ram_bytes(self) -> int:
        """Without what callers give."""
        return self.data_bytes + self.zeroed_bytes


def read_sections(data: bytes, name: str) -> Sections:
    """Sizes and wants of an object file.

    Args:
        data: the whole file.
        name: for messages.
    Raises:
        DataError: neither ELF nor WebAssembly, cut short, or with the highest byte first.
    """
    try:
        if data[:4] == b"\x7fELF" and data[4:6] in (b"\1\1", b"\2\1"):
            return _elf(data, data[4])
        if data[:4] == _WASM:
            return _wasm(data)
    except (struct.error, IndexError, ValueError) as error:
        raise DataError(f"{name}: is cut short or damaged ({error}); export the network again") from None
    raise DataError(f"{name}: is no object file of ELF (lowest byte first) or WebAssembly; its sizes are not known")


def _elf(data: bytes, words: int) -> Sections:
    form, at, counts = _HEADERS[words]
    (offset,) = struct.unpack_from(form, data, at)
    size, number = struct.unpack_from("<HH", data, counts)
    headers = [struct.unpack_from(_SECTION[words], data, offset + size * index) for index in range(number)]
    found = dict.fromkeys(("code", "constant", "data", "zeroed"), 0)
    undefined: list[str] = []
    for _, kind, flags, _, start, length, link, _, _, _ in headers:
        if kind == _SYMBOLS:
            undefined += _undefined(data, words, start, length, headers[link][4])
        if flags & _ALLOCATED:
            writable = "zeroed" if kind == _ZEROED else "data"
            found[writable if flags & _WRITE else "code" if flags & _EXECUTABLE else "constant"] += length
    return Sections(
        found["code"], found["constant"], found["data"], found["zeroed"], undefined=tuple(sorted(undefined))
    )


def _undefined(data: bytes, words: int, start: int, length: int, names: int) -> list[str]:
    form, place = _SYMBOL[words]
    found = []
    for at in range(start, start + length, struct.calcsize(form)):
        symbol = struct.unpack_from(form, data, at)
        if symbol[place] == _UNDEFINED and symbol[0]:
            begin = names + symbol[0]
            found.append(data[begin : data.index(b"\0", begin)].decode())
    return found


def _wasm(data: bytes) -> Sections:
    at, sizes, undefined = 8, dict[int, int](), tuple[str, ...]()
    while at < len(data):
        kind = data[at]
        length, begin = _leb(data, at + 1)
        at = begin + length
        if at > len(data):
            raise ValueError(f"section {kind} ends behind the file")
        sizes[kind] = length
        if kind == _IMPORT:
            undefined = _imports(data, begin)
    return Sections(sizes.get(_CODE, 0), sizes.get(_DATA, 0), undefined=undefined)


def _imports(data: bytes, at: int) -> tuple[str, ...]:
    """Functions that a module imports; memory and the stack pointer, which the linker gives, are none."""
    count, at = _leb(data, at)
    found = []
    for _ in range(count):
        names = []
        for _ in range(2):
            length, at = _leb(data, at)
            names.append(data[at : at + length].decode())
            at += length
        kind, at = data[at], at + 1
        if kind == _FUNCTION:
            found.append(names[1])
            _, at = _leb(data, at)
        elif kind == 3:  # a global: type and whether it changes
            at += 2
        else:  # a table has a type in front of its limits, a memory none
            at += kind == 1
            limits, at = data[at], at + 1
            for _ in range(1 + (limits & 1)):
                _, at = _leb(data, at)
    return tuple(sorted(found))


def _leb(data: bytes, at: int) -> tuple[int, int]:
    """An unsigned number of seven bits to a byte, and where it ends."""
    value = shift = 0
    while True:
        byte = data[at]
        value |= (byte & 127) << shift
        at, shift = at + 1, shift + 7
        if byte < 128:
            return value, at
