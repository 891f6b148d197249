"""`manifest.json` of an exported folder: what it holds, for which target, and what it must compute."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from luthier import documents
from luthier.arch.block import Spec
from luthier.errors import DataError, SpecError

SCHEMA: Final = "luthier.export/1"
NAME: Final = "manifest.json"


@dataclass(frozen=True, kw_only=True)
class PortDescription(Spec):
    """An input or output of the exported function.

    Attributes:
        name: of the parameter.
        shape: in the order of `axes`.
        axes: NCHW or NHWC; NK for vectors.
        bytes: of the array, float32.
        sample: file with one array of it: an input, or what the network makes of those inputs.
        scale, zero_point: of the integers that it becomes or comes from: real = scale (q - zero_point); None = it stays
            a number.
    """

    name: str
    shape: tuple[int, ...]
    axes: str
    bytes: int
    sample: str
    scale: float | None = None
    zero_point: int | None = None


@dataclass(frozen=True, kw_only=True)
class Manifest(Spec):
    """What an exported folder holds.

    Attributes:
        version: of Luthier.
        network: as the user named it.
        weights: where they come from.
        name: prefix of functions and files.
        target, triple, cpu: as the user named it, and as LLVM names it.
        precision: of weights and arithmetic.
        workers: that may share a run.
        inputs, outputs: parameters of the function, in order.
        mean, std: of the pixels in [0, 1] that the inputs were normalised by; None = not known.
        tolerance: how far an output may be from its sample, on any CPU; 0 = equal, bit for bit.
        arena_bytes, arena_alignment: of the memory that a caller gives.
        code_bytes, constant_bytes, data_bytes: of the object file's sections.
        undefined: symbols that the object file needs.
        object: name of the object file.
        files: SHA-256 of every file, by name.
    """

    version: str
    network: str
    weights: str
    name: str
    target: str
    triple: str
    cpu: str
    precision: str
    workers: int
    inputs: tuple[PortDescription, ...]
    outputs: tuple[PortDescription, ...]
    mean: tuple[float, ...] | None
    std: tuple[float, ...] | None
    tolerance: float
    arena_bytes: int
    arena_alignment: int
    code_bytes: int
    constant_bytes: int
    data_bytes: int
    undefined: tuple[str, ...]
    object: str
    files: tuple[tuple[str, str], ...]

    @property
    def flash_bytes(self) -> int:
        """Code, constants and initial values."""
        return self.code_bytes + self.constant_bytes + self.data_bytes

    @property
    def ram_bytes(self) -> int:
        """The arena, data, and the arrays of inputs and outputs, which the caller holds too."""
        return self.arena_bytes + self.data_bytes + sum(port.bytes for port in (*self.inputs, *self.outputs))

    def text(self) -> str:
        """As JSON."""
        return documents.to_text(self, SCHEMA)


def is_exported(folder: Path) -> bool:
    """Whether a folder is one that an export has written: its manifest says so."""
    try:
        with (folder / NAME).open("rb") as stream:
            return b'"luthier.' in stream.read(100)
    except OSError:
        return False


def read_manifest(folder: Path) -> Manifest:
    """The manifest of an exported folder, whose files are those that were written.

    Raises:
        DataError: it is missing or damaged, or a file was changed.
    """
    path = folder / NAME
    try:
        found = documents.from_text(Manifest, path.read_text("utf-8"), SCHEMA, str(path))
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path}: cannot be read ({error}); export the network again") from None
    except SpecError as error:
        raise DataError(f"{error}; export the network again") from None
    for name, digest in found.files:
        try:
            same = sha256((folder / name).read_bytes()) == digest
        except OSError:
            raise DataError(f"{folder / name}: is missing; export the network again") from None
        if not same:
            raise DataError(f"{folder / name}: is not what was exported; export the network again")
    return found


def sha256(data: bytes) -> str:
    """In hexadecimal digits."""
    return hashlib.sha256(data).hexdigest()
