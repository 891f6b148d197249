"""A network as one file for other run times, checked against torch before it is written.

| format | file | what reads it |
|---|---|---|
| onnx | model.onnx | ONNX run times; fp32 |
| onnx-qdq | model_qdq.onnx | ONNX run times; integers between QuantizeLinear pairs |
| torch-export | model.pt2 | torch.export.load; fp32 |
"""

from __future__ import annotations

import io
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from luthier import files
from luthier.deploy.embedded.manifest import sha256
from luthier.errors import ExportError
from luthier.graph.op import Graph

Array = NDArray[Any]
ModelFormat = Literal["onnx", "onnx-qdq", "torch-export"]
MODEL_FORMATS: Final[tuple[ModelFormat, ...]] = get_args(ModelFormat)
_FILES: Final[dict[ModelFormat, str]] = {
    "onnx": "model.onnx", "onnx-qdq": "model_qdq.onnx", "torch-export": "model.pt2",
}  # fmt: skip
#: of the largest output: float32 sums in another order; and integers, some of which lie one level apart
_TOLERANCE: Final[dict[ModelFormat, float]] = {"onnx": 1e-4, "onnx-qdq": 0.1, "torch-export": 1e-6}


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelFile:
    """What was written and how it was checked.

    Attributes:
        path: of the file.
        bytes: of it.
        sha256: of it.
        max_abs_error: largest difference from torch on the sample.
        scale: largest absolute output of torch.
        images: of the sample.
    """

    path: str
    format: str
    bytes: int
    sha256: str
    max_abs_error: float
    scale: float
    images: int


def write_model_file(
    graph: Graph, constants: Mapping[str, Array], kind: ModelFormat, folder: Path, sample: Array
) -> ModelFile:
    """Write the network in a format, and `manifest.json` beside it.

    Args:
        graph, constants: of numbers; of integers for onnx-qdq.
        kind: the format.
        folder: to write into.
        sample: (N, C, H, W) float32 to compare on; N is that of the graph.
    Raises:
        ExportError: the file computes something else than torch; nothing is written.
    """
    document, found = _DOCUMENTS[kind](graph, constants, sample)
    want = _in_torch(graph, constants, sample, integers=kind == "onnx-qdq")
    error, scale = float(np.abs(found - want).max()), float(np.abs(want).max())
    if not error <= _TOLERANCE[kind] * max(scale, 1e-6):
        raise ExportError(f"{_FILES[kind]}: differs from torch by {error:g}, of outputs up to {scale:g}; not written")
    path = folder / _FILES[kind]
    made = ModelFile(
        path=str(path), format=kind, bytes=len(document), sha256=sha256(document), max_abs_error=error, scale=scale,
        images=len(sample),
    )  # fmt: skip
    files.write_bytes(path, document)
    plain = {"schema": "luthier.model_file/1", **asdict(made), "path": path.name}
    files.write_text(
        folder / "manifest.json", json.dumps({**plain, "files": [[path.name, made.sha256]]}, indent=1) + "\n"
    )
    return made


def _in_torch(graph: Graph, constants: Mapping[str, Array], sample: Array, *, integers: bool) -> Array:
    import torch

    from luthier.nn.graph_module import GraphModule

    module: torch.nn.Module
    if integers:
        from luthier.train.qat import Quantized

        module = Quantized(graph, constants)
    else:
        module = GraphModule(graph, constants)
    with torch.no_grad():
        found = module.eval()(torch.from_numpy(sample))
    first: torch.Tensor = found[0] if isinstance(found, tuple) else found
    return first.numpy()


def _onnx(graph: Graph, constants: Mapping[str, Array], sample: Array) -> tuple[bytes, Array]:
    from luthier.deploy.onnx_file import to_onnx

    document = to_onnx(graph, constants)
    return document, _run_onnx(document, sample)


def _qdq(graph: Graph, constants: Mapping[str, Array], sample: Array) -> tuple[bytes, Array]:
    from luthier.deploy.qdq_file import to_qdq

    document = to_qdq(graph, constants)
    return document, _run_onnx(document, sample)


def _run_onnx(document: bytes, sample: Array) -> Array:
    from luthier.deploy.latency import open_session

    session = open_session(document, 1)
    (spec,) = session.get_inputs()
    return np.asarray(session.run(None, {spec.name: sample})[0])


def _exported(graph: Graph, constants: Mapping[str, Array], sample: Array) -> tuple[bytes, Array]:
    import torch

    from luthier.nn.graph_module import GraphModule

    stream = io.BytesIO()
    x = torch.from_numpy(sample)
    torch.export.save(torch.export.export(GraphModule(graph, constants).eval(), (x,)), stream)
    document = stream.getvalue()
    with torch.no_grad():
        found = torch.export.load(io.BytesIO(document)).module()(x)
    return document, found[0].numpy()


_DOCUMENTS: Final = {"onnx": _onnx, "onnx-qdq": _qdq, "torch-export": _exported}
