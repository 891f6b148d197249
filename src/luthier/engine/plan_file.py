"""A plan in one file: machine code, packed weights and the table of steps.

    luthier plan N\\n   sha256 of all that follows   length of the header   header (JSON)   code   constants     (1)

N is the format.  A file that was cut short or changed, of another format, or for another CPU is refused: machine
code is never run on trust.  Reading one needs NumPy, llvmlite and the standard library.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any, Final

import numpy as np

from luthier.engine.image import Image, Operand, Record
from luthier.engine.layout import Layout
from luthier.engine.program import Port
from luthier.engine.target import Target, runnable
from luthier.errors import PlanError
from luthier.files import replacing

#: grows with every change of the header, the driver or a kernel's operands
FORMAT: Final = 1
_NAME: Final = b"luthier plan "
_DIGEST: Final = hashlib.sha256().digest_size
_REMEDY: Final = "compile the network again"


def save_image(image: Image, path: Path) -> None:
    """Write equation (1), whole or not at all.

    Raises:
        RunFolderError: the disk is full or the folder is read-only.
    """
    plain = {f.name: getattr(image, f.name) for f in fields(image) if f.name not in ("code", "constants")}
    header = json.dumps({**plain, "code_bytes": len(image.code)}, default=asdict).encode()
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
        data = memoryview(path.read_bytes())
    except OSError as error:
        raise PlanError(f"{path}: cannot be read ({error.strerror}); {_REMEDY}") from error
    first = bytes(data[: len(_NAME) + 20]).partition(b"\n")[0]
    if not first.startswith(_NAME):
        raise PlanError(f"{path}: is not a plan; {_REMEDY}")
    if first != _NAME + b"%d" % FORMAT:
        found = first.removeprefix(_NAME).decode("ascii", "replace")
        raise PlanError(f"{path}: is of format {found}, this version reads {FORMAT}; {_REMEDY}")
    start = len(first) + 1
    body = data[start + _DIGEST :]
    if hashlib.sha256(body).digest() != data[start : start + _DIGEST]:
        raise PlanError(f"{path}: is damaged or was changed; {_REMEDY}")
    length = int.from_bytes(body[:8], "little")
    header: dict[str, Any] = json.loads(bytes(body[8 : 8 + length]))
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
            "code": bytes(body[8 + length : code_end]),
            "constants": np.frombuffer(body[code_end:], np.uint8),
        }
    )


def _record(plain: dict[str, Any]) -> Record:
    operands = tuple(Operand(**operand) for operand in plain["operands"])
    return Record(plain["function"], plain["tasks"], operands, tuple(plain["ops"]))


def _port(plain: dict[str, Any]) -> Port:
    layout = Layout(tuple(plain["layout"]["shape"]), tuple(plain["layout"]["strides"]))
    return Port(plain["name"], tuple(plain["shape"]), layout)
