"""A plan in one file: machine code, packed weights and the table of steps.

    luthier plan N\\n   sha256 of all that follows   length of the header   header (JSON)   code   constants     (1)

N is the format.  The header ends in so many blanks that the constants begin on a whole vector of any CPU.  A file that
was cut short or changed, of another format, or for another CPU is refused: machine code is never run on trust.  Reading
one needs NumPy, llvmlite and the standard library.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from luthier.engine.arena import ALIGNMENT
from luthier.engine.image import Image, Operand, Record
from luthier.engine.layout import Layout
from luthier.engine.memory import Buffer
from luthier.engine.program import Port
from luthier.engine.target import Target, runnable
from luthier.errors import PlanError
from luthier.files import replacing

#: grows with every change of the header, the driver or a kernel's operands
FORMAT: Final = 1
_NAME: Final = b"luthier plan "
_DIGEST: Final = hashlib.sha256().digest_size
_CHUNK: Final = 2 << 20
_REMEDY: Final = "compile the network again"


def save_image(image: Image, path: Path) -> None:
    """Write equation (1), whole or not at all.

    Raises:
        RunFolderError: the disk is full or the folder is read-only.
    """
    plain = {f.name: getattr(image, f.name) for f in fields(image) if f.name not in ("code", "constants")}
    header = json.dumps({**plain, "code_bytes": len(image.code)}, default=asdict).encode()
    header += b" " * (-(8 + len(header) + len(image.code)) % ALIGNMENT)
    parts = (len(header).to_bytes(8, "little"), header, image.code, image.constants.data)
    digest = hashlib.sha256()
    for part in parts:
        digest.update(part)
    with replacing(path) as temporary, temporary.open("wb") as stream:
        stream.write(_NAME + b"%d\n" % FORMAT + digest.digest())
        for part in parts:
            stream.write(part)


def load_image(path: Path) -> Image:
    """Read equation (1).

    Raises:
        PlanError: missing, damaged, of another format, or for a CPU that this machine is not.
    """
    try:
        with path.open("rb") as stream:
            body = _body(stream, path)
    except OSError as error:
        raise PlanError(f"{path}: cannot be read ({error.strerror}); {_REMEDY}") from error
    length = int.from_bytes(body[:8], "little")
    header: dict[str, Any] = json.loads(body[8 : 8 + length].tobytes())
    target = Target(**header["target"])
    if target.fingerprint not in {known.fingerprint for known in runnable()}:
        raise PlanError(f"{path}: is for the CPU {target.cpu} ({target.isa}), this is {runnable()[0].cpu}; {_REMEDY}")
    code_end = 8 + length + header.pop("code_bytes")
    return Image(
        **{
            **header,
            "target": target,
            "records": tuple(_record(record) for record in header["records"]),
            "buffers": {name: (offset, size) for name, (offset, size) in header["buffers"].items()},
            "inputs": tuple(_port(port) for port in header["inputs"]),
            "outputs": tuple(_port(port) for port in header["outputs"]),
            "output_buffers": tuple(header["output_buffers"]),
            "code": body[8 + length : code_end].tobytes(),
            "constants": body[code_end:],
        }
    )


def _body(stream: io.BufferedReader, path: Path) -> NDArray[np.uint8]:
    """All behind the digest, checked; read and hashed at the same time, since a plan should start at once."""
    first = stream.readline(len(_NAME) + 20).rstrip(b"\n")
    if not first.startswith(_NAME):
        raise PlanError(f"{path}: is not a plan; {_REMEDY}")
    if first != _NAME + b"%d" % FORMAT:
        found = first.removeprefix(_NAME).decode("ascii", "replace")
        raise PlanError(f"{path}: is of format {found}, this version reads {FORMAT}; {_REMEDY}")
    wanted, digest = stream.read(_DIGEST), hashlib.sha256()
    size = os.fstat(stream.fileno()).st_size - stream.tell()
    body = Buffer(size, "the plan").array(np.uint8)
    with ThreadPoolExecutor(1) as other:
        hashed = []
        for start in range(0, size, _CHUNK):
            part = body[start : start + _CHUNK].data
            stream.readinto(part)
            hashed.append(other.submit(digest.update, part))
        for one in hashed:
            one.result()
    if size < 8 or digest.digest() != wanted:
        raise PlanError(f"{path}: is damaged or was changed; {_REMEDY}")
    return body


def _record(plain: dict[str, Any]) -> Record:
    operands = tuple(Operand(**operand) for operand in plain["operands"])
    return Record(plain["function"], plain["tasks"], operands, tuple(plain["ops"]))


def _port(plain: dict[str, Any]) -> Port:
    layout = Layout(tuple(plain["layout"]["shape"]), tuple(plain["layout"]["strides"]))
    return Port(plain["name"], tuple(plain["shape"]), layout)
