"""What an ONNX file declares, checked before anything is allocated or another file is opened.

Weights outside the file are read only from plain files below the model's own folder: no absolute path, no `..`, no
symbolic link, no second hard link, and never more bytes than the file has.
"""

from __future__ import annotations

import math
import os
import stat
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from luthier.errors import GraphError

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from onnx import ModelProto, TensorProto

    Array = NDArray[Any]
#: a protobuf message cannot be longer
MAX_BYTES: Final = 1 << 31
#: Squeeze, Clip and Pad have their present form since then
MIN_OPSET: Final = 11
#: number types that weights and shapes may have, and the field that holds them where raw_data does not
_FIELDS: Final = {
    "FLOAT": "float_data", "DOUBLE": "double_data", "INT64": "int64_data", "INT32": "int32_data", "INT16": "int32_data",
    "INT8": "int32_data", "UINT8": "int32_data", "UINT16": "int32_data", "UINT32": "uint64_data",
    "UINT64": "uint64_data", "BOOL": "int32_data", "FLOAT16": "int32_data", "BFLOAT16": "int32_data",
}  # fmt: skip


def parse(source: str | Path | bytes) -> tuple[str, ModelProto]:
    """The name for messages, and the message; nothing but its outer form has been checked.

    Raises:
        GraphError: no such file, not ONNX, truncated, too large, or of an opset that is not read.
    """
    from google.protobuf.message import DecodeError
    from onnx import ModelProto, defs

    who, content = ("ONNX model", source) if isinstance(source, bytes) else (str(source), _content(Path(source)))
    try:
        model = ModelProto.FromString(content)
    except DecodeError:
        raise GraphError(f"{who}: not an ONNX file, or truncated; copy or export it again") from None
    if model.ir_version < 1 or not model.graph.node:
        raise GraphError(f"{who}: not an ONNX model, or truncated: it holds no nodes")
    version = next((o.version for o in model.opset_import if o.domain in ("", "ai.onnx")), 0)
    newest = defs.onnx_opset_version()
    if not MIN_OPSET <= version <= newest:
        raise GraphError(
            f"{who}: opset {version or 'not stated'}; {MIN_OPSET} to {newest} are read, 13 and later preferred: "
            "export it again, or convert it with onnx.version_converter"
        )
    if model.functions:
        raise GraphError(f"{who}: holds functions of its own; inline them with onnx.inliner.inline_local_functions")
    return who, model


def _content(path: Path) -> bytes:
    try:
        if not path.is_file():
            raise GraphError(f"{path}: no such file")
        if path.stat().st_size >= MAX_BYTES:
            raise GraphError(f"{path}: {path.stat().st_size} bytes; an ONNX file is smaller than 2 GiB")
        return path.read_bytes()
    except OSError as error:
        raise GraphError(f"{path}: cannot be read: {error.strerror or error}") from None


def check_names(who: str, model: ModelProto) -> None:
    """Every tensor is made once, and no name can garble a message.

    Raises:
        GraphError: a name is used twice or holds control characters; or there are sparse weights.
    """
    graph = model.graph
    if graph.sparse_initializer:
        raise GraphError(f"{who}: {graph.sparse_initializer[0].values.name!r}: sparse weights are not read")
    weights = [t.name for t in graph.initializer]
    inputs = [v.name for v in graph.input if v.name not in set(weights)]  # old files list weights as inputs too
    made = [*weights, *inputs, *(name for node in graph.node for name in node.output if name)]
    seen: set[str] = set()
    for name in (*made, *(node.name for node in graph.node), *(node.op_type for node in graph.node)):
        if not name.isprintable():
            raise GraphError(f"{who}: the name {name[:80]!r} holds control characters")
    for name in made:
        if name in seen:
            raise GraphError(f"{who}: {name!r} is made twice; names of tensors must be unique")
        seen.add(name)
    for node in graph.node:
        for name in node.input:
            if name and name not in seen:
                raise GraphError(f"{who}: {node.name or node.op_type}: its input {name!r} is made by nothing")


def array_of(who: str, tensor: TensorProto, folder: Path | None) -> Array:
    """The numbers of a weight.

    Args:
        who: opens every message.
        tensor: as the file declares it.
        folder: where the file lies; None = weights of other files are refused.
    Raises:
        GraphError: the declared shape, the number type and the bytes that are there do not fit together.
    """
    from onnx import TensorProto, helper, numpy_helper

    place = f"{who}: weight {tensor.name[:200]!r}"
    kind = TensorProto.DataType.Name(tensor.data_type) if tensor.data_type in TensorProto.DataType.values() else "?"
    if kind not in _FIELDS:
        raise GraphError(f"{place}: number type {kind} is not read; {', '.join(_FIELDS)} are")
    dims = tuple(tensor.dims)
    if min(dims, default=0) < 0:
        raise GraphError(f"{place}: a negative size in its shape {dims}")
    elements = math.prod(dims)
    dtype = np.dtype(helper.tensor_dtype_to_np_dtype(tensor.data_type))
    wanted = elements * dtype.itemsize
    if tensor.data_location == TensorProto.EXTERNAL:
        return np.frombuffer(_external(place, tensor, folder, wanted), dtype.newbyteorder("<")).reshape(dims)
    there = len(tensor.raw_data) if tensor.HasField("raw_data") else len(getattr(tensor, _FIELDS[kind]))
    want = wanted if tensor.HasField("raw_data") else elements
    if there != want:
        unit = "bytes" if tensor.HasField("raw_data") else "numbers"
        raise GraphError(f"{place}: its shape {dims} needs {want} {unit}, the file holds {there}")
    array: Array = numpy_helper.to_array(tensor)
    return array


def _external(place: str, tensor: TensorProto, folder: Path | None, wanted: int) -> bytes:
    entries = {entry.key: entry.value for entry in tensor.external_data}
    location = entries.get("location", "")
    parts = location.replace("\\", "/").split("/")
    if folder is None:
        raise GraphError(f"{place}: lies in the file {location!r}, but this model has no folder")
    if not location.isprintable() or not all(parts) or {".", ".."} & set(parts) or ":" in location:
        raise GraphError(
            f"{place}: lies in {location!r}; weights must lie inside the model's own folder: no .., no absolute path"
        )
    try:
        offset, length = int(entries.get("offset") or 0), int(entries.get("length") or wanted)
    except ValueError:
        raise GraphError(f"{place}: its offset or length in {location!r} is not a number") from None
    if length != wanted or offset < 0:
        raise GraphError(f"{place}: needs {wanted} bytes, {location!r} is said to hold {length} at {offset}")
    descriptor = _open_inside(place, folder, parts)
    with os.fdopen(descriptor, "rb") as file:
        size = os.fstat(descriptor).st_size
        if offset + length > size:
            raise GraphError(f"{place}: ends at byte {offset + length}, but {location!r} has {size}")
        file.seek(offset)
        return file.read(length)


def _open_inside(place: str, folder: Path, parts: list[str]) -> int:
    """A plain file below a folder, opened component by component, so that no link can be slipped in between."""
    opened = [os.open(folder, os.O_RDONLY | os.O_DIRECTORY)]
    try:
        for part in parts[:-1]:
            opened.append(os.open(part, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW, dir_fd=opened[-1]))
        descriptor = os.open(parts[-1], os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK, dir_fd=opened[-1])
    except OSError as error:
        reason = "is a link" if error.errno in (40, 20) else error.strerror
        raise GraphError(
            f"{place}: lies in {'/'.join(parts)!r}, which cannot be used: {reason}; weights must lie in plain files "
            "inside the model's own folder"
        ) from None
    finally:
        for directory in opened:
            os.close(directory)
    status = os.fstat(descriptor)
    if not stat.S_ISREG(status.st_mode) or status.st_nlink != 1:
        os.close(descriptor)
        raise GraphError(f"{place}: lies in {'/'.join(parts)!r}, which is a link or no plain file; copy it")
    return descriptor
