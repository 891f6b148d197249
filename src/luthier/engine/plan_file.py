"""A plan in one file: machine code, packed weights and the table of steps.

    luthier plan N\\n   sha256 of head and code   head   header (JSON)   code   constants                     (1)

N is the format; the head is the lengths of header, code and constants, in bytes.  The header ends in so many blanks
that the constants begin on a whole vector of any CPU.  A file that was cut short or changed, of another format, or for
another CPU is refused before any of its code runs.  This finds damage, not malice: whoever may write the file decides
what runs, as with any program.

The constants are not read: the file is mapped, and its pages serve every process that loads it.  Their checksum, in the
header, is one of 64-bit words w_ij in rows of 4096, with odd random keys k_j:

    sha256(s_0 s_1 ...),     s_i = sum_j k_j w_ij mod 2^64                                           (2)

k_j is odd, so a change of one word changes s_i; any other damage is missed once in 2^63 times.  It takes a tenth of the
time of SHA-256 of everything.  Loading needs NumPy, llvmlite and the standard library.
"""

from __future__ import annotations

import hashlib
import json
import mmap
from dataclasses import asdict, fields
from functools import cache
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from luthier.engine.arena import ALIGNMENT
from luthier.engine.image import Image, Operand, Record
from luthier.engine.layout import Layout
from luthier.engine.program import Port
from luthier.engine.target import Target, runnable
from luthier.errors import PlanError
from luthier.files import replacing

#: grows with every change of the header, the driver or a kernel's operands
FORMAT: Final = 2
_NAME: Final = b"luthier plan "
_DIGEST: Final = hashlib.sha256().digest_size
_LENGTHS: Final = np.dtype("<u8")
_HEAD: Final = 3 * _LENGTHS.itemsize
_ROW_WORDS: Final = 4096
_REMEDY: Final = "compile the network again"


def save_image(image: Image, path: Path) -> None:
    """Write equation (1), whole or not at all.

    Raises:
        RunFolderError: the disk is full or the folder is read-only.
    """
    plain = {f.name: getattr(image, f.name) for f in fields(image) if f.name not in ("code", "constants", "records")}
    plain["records"] = [
        (r.function, r.tasks, [(o.space, o.offset, o.name) for o in r.operands], r.ops) for r in image.records
    ]
    header = json.dumps({**plain, "checksum": checksum(image.constants)}, default=asdict).encode()
    name = _NAME + b"%d\n" % FORMAT
    header += b" " * (-(len(name) + _DIGEST + _HEAD + len(header) + len(image.code)) % ALIGNMENT)
    lengths = np.array([len(header), len(image.code), image.constants.nbytes], _LENGTHS)
    checked = lengths.tobytes() + header + image.code
    with replacing(path) as temporary, temporary.open("wb") as stream:
        stream.write(name + hashlib.sha256(checked).digest() + checked)
        stream.write(image.constants.data)


def load_image(path: Path) -> Image:
    """Read equation (1), and map its constants: the file must not be written to while they are in use.

    `save_image` puts a new file in the place of an old one, which lives on for those who have mapped it.

    Raises:
        PlanError: missing, damaged, of another format, or for a CPU that this machine is not.
    """
    data = _mapped(path)
    start = data.find(b"\n", 0, len(_NAME) + 20) + 1
    first = data[:start].rstrip(b"\n")
    if not first.startswith(_NAME):
        raise PlanError(f"{path}: is not a plan; {_REMEDY}")
    if first != _NAME + b"%d" % FORMAT:
        found = first.removeprefix(_NAME).decode("ascii", "replace")
        raise PlanError(f"{path}: is of format {found}, this version reads {FORMAT}; {_REMEDY}")
    start += _DIGEST
    lengths = [int.from_bytes(data[at : at + 8], "little") for at in range(start, start + _HEAD, 8)]
    code_start = start + _HEAD + lengths[0]
    end = code_start + lengths[1]
    checked = data[start:end]
    header: dict[str, Any] = {}
    if len(data) == end + lengths[2] and hashlib.sha256(checked).digest() == data[start - _DIGEST : start]:
        header = json.loads(checked[_HEAD : _HEAD + lengths[0]])
    constants = np.frombuffer(data, np.uint8)[end:]
    if not header or header.pop("checksum") != checksum(constants):
        raise PlanError(f"{path}: is damaged or was changed; {_REMEDY}")
    target = Target(**header["target"])
    if target.fingerprint not in {known.fingerprint for known in runnable()}:
        raise PlanError(f"{path}: is for the CPU {target.cpu} ({target.isa}), this is {runnable()[0].cpu}; {_REMEDY}")
    return Image(
        **{
            **header,
            "target": target,
            "records": tuple(_record(*record) for record in header["records"]),
            "buffers": {name: (offset, size) for name, (offset, size) in header["buffers"].items()},
            "inputs": tuple(_port(port) for port in header["inputs"]),
            "outputs": tuple(_port(port) for port in header["outputs"]),
            "output_buffers": tuple(header["output_buffers"]),
            "code": checked[_HEAD + lengths[0] :],
            "constants": constants,
        }
    )


def _mapped(path: Path) -> mmap.mmap | bytes:
    """The whole file; only what is looked at is read."""
    try:
        with path.open("rb") as stream:
            if not stream.seek(0, 2):
                return b""
            return mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_COPY)
    except OSError as error:
        raise PlanError(f"{path}: cannot be read ({error.strerror}); {_REMEDY}") from error


def checksum(values: NDArray[np.uint8]) -> str:
    """Equation (2), in hexadecimal digits; the last row is filled up with zeros.

    Example:
        >>> zeros = np.zeros(1 << 16, np.uint8)
        >>> checksum(zeros) == checksum(zeros), checksum(zeros) == checksum(zeros[1:])
        (True, False)
    """
    row = 8 * _ROW_WORDS
    whole, rest = np.split(values, [values.nbytes // row * row])
    tail = np.zeros(row, np.uint8)
    tail[: rest.nbytes] = rest
    sums = [np.einsum("ij,j->i", part.view("<u8").reshape(-1, _ROW_WORDS), _keys()) for part in (whole, tail)]
    return hashlib.sha256(b"%d " % values.nbytes + b"".join(part.tobytes() for part in sums)).hexdigest()


@cache
def _keys() -> NDArray[np.uint64]:
    """Odd numbers of 64 bits, by SplitMix64.

    Source:
        Steele, Lea, Flood 2014, doi:10.1145/2660193.2660195, figures 14 and 18.
    """
    z = np.arange(1, _ROW_WORDS + 1, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15)
    for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB)):
        z = (z ^ (z >> np.uint64(shift))) * np.uint64(factor)
    return z ^ (z >> np.uint64(31)) | np.uint64(1)


def _record(function: str, tasks: int, operands: list[list[Any]], ops: list[str]) -> Record:
    return Record(function, tasks, tuple(Operand(*operand) for operand in operands), tuple(ops))


def _port(plain: dict[str, Any]) -> Port:
    layout = Layout(tuple(plain["layout"]["shape"]), tuple(plain["layout"]["strides"]))
    return Port(plain["name"], tuple(plain["shape"]), layout)
