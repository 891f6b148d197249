"""A quantised graph and its integers in one file: safetensors with the graph in its header.

    int4      two to a byte, the earlier one in the lower half, as q + 8                              (1)
    int8      one to a byte;  int32, fp32: four bytes;  fp16, bf16: two bytes
    scales    fp32, beside what they belong to; a bias has that of its weight times its input's

Reading needs NumPy and safetensors; nothing in the file is executed.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, Final, get_args

import numpy as np
from numpy.typing import NDArray

from luthier import files
from luthier.errors import DataError
from luthier.graph import attrs as kinds
from luthier.graph.halves import from_bf16, to_bf16
from luthier.graph.op import Graph, Op, Tensor

Array = NDArray[Any]
_SCHEMA: Final = "luthier.quantized/1"
_KINDS: Final[dict[str, Any]] = {cls.kind: cls for cls in get_args(kinds.Attrs)}


def pack_int4(q: Array) -> Array:
    """Equation (1).

    Example:
        >>> pack_int4(np.array([-7, 7, 0], np.int8)).tolist()
        [241, 8]
    """
    raised = (q.ravel().astype(np.int16) + 8).astype(np.uint8)
    raised = np.append(raised, np.zeros(-raised.size % 2, np.uint8))
    return np.asarray(raised[::2] | raised[1::2] << 4)


def unpack_int4(packed: Array, shape: tuple[int, ...]) -> Array:
    """What `pack_int4` packed.

    Example:
        >>> unpack_int4(np.array([241, 8], np.uint8), (3,)).tolist()
        [-7, 7, 0]
    """
    both = np.stack([packed & 15, packed >> 4], 1).ravel()[: int(np.prod(shape))]
    return (both.astype(np.int8) - 8).reshape(shape)


def save(path: Path, graph: Graph, values: Mapping[str, Array]) -> int:
    """Write a graph with its constants, whole or not at all.

    Returns:
        Bytes of the file.
    """
    from safetensors.numpy import save as serialise

    arrays: dict[str, Array] = {}
    for name, tensor in graph.constants.items():
        arrays[name] = np.ascontiguousarray(_packed(tensor, values[name]))
        if tensor.scale is not None and tensor.dtype != "int32":
            arrays[f"{name}|scale"] = np.array(tensor.scale, np.float32)
    data = serialise(arrays, {"schema": _SCHEMA, "graph": json.dumps(_described(graph))})
    files.write_bytes(path, data)
    return len(data)


def load(path: Path) -> tuple[Graph, dict[str, Array]]:
    """Read what `save` wrote; fp16 and bf16 come back as float32.

    Raises:
        DataError: the file cannot be read, is damaged, or is another version's.
    """
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, "np") as opened:
            header = opened.metadata() or {}
            if header.get("schema") != _SCHEMA:
                raise DataError(f"{path}: expected schema {_SCHEMA!r}, got {header.get('schema')!r}; quantise it again")
            held = {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118  # no mapping
        graph = _graph(json.loads(header["graph"]), held)
        return graph, {name: _unpacked(tensor, held[name]) for name, tensor in graph.constants.items()}
    except DataError:
        raise
    except (OSError, SafetensorError, ValueError, KeyError, TypeError, AttributeError) as error:
        reason = (str(error).splitlines() or [""])[0][:120]
        raise DataError(f"{path}: cannot be read as a quantised network ({reason}); quantise it again") from None


def _packed(tensor: Tensor, value: Array) -> Array:
    match tensor.dtype:
        case "int4":
            return pack_int4(value)
        case "bf16":
            return to_bf16(value)
        case "fp16":
            return value.astype(np.float16)
        case _:
            return value


def _unpacked(tensor: Tensor, stored: Array) -> Array:
    match tensor.dtype:
        case "int4":
            return unpack_int4(stored, tensor.shape)
        case "bf16":
            return from_bf16(stored)
        case "fp16":
            return stored.astype(np.float32)
        case _:
            return stored


def _described(graph: Graph) -> dict[str, Any]:
    """The graph without the scales of its constants, which stand in arrays."""
    return {
        "inputs": graph.inputs,
        "outputs": graph.outputs,
        "ops": [{**asdict(op), "kind": op.kind} for op in graph.ops],
        "tensors": [asdict(tensor) for tensor in graph.tensors.values()],
        "constants": [asdict(replace(tensor, scale=None)) for tensor in graph.constants.values()],
    }


def _graph(document: dict[str, Any], held: Mapping[str, Array]) -> Graph:
    ops = []
    for one in document["ops"]:
        attrs = _KINDS[one["kind"]](**{key: _frozen(value) for key, value in one["attrs"].items()})
        inputs, outputs = tuple(one["inputs"]), tuple(one["outputs"])
        ops.append(Op(one["name"], attrs, inputs, outputs, one["constants"], one["block"]))
    constants = {}
    for one in document["constants"]:
        scale = held.get(f"{one['name']}|scale")
        numbers = None if scale is None else tuple(scale.astype(np.float64).tolist())
        constants[one["name"]] = Tensor(**{**one, "shape": tuple(one["shape"]), "scale": numbers})
    tensors = {one["name"]: Tensor(**{**one, "shape": tuple(one["shape"])}) for one in document["tensors"]}
    for op in ops:
        bias = constants.get(op.constants.get("bias", ""))
        if bias is not None and bias.dtype == "int32":
            source, weight = tensors[op.inputs[0]].scale, constants[op.constants["weight"]].scale
            assert isinstance(source, float)
            constants[bias.name] = replace(bias, scale=tuple((source * np.array(weight)).tolist()))
    return Graph(tuple(document["inputs"]), tuple(document["outputs"]), tuple(ops), tensors, constants)


def _frozen(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value
