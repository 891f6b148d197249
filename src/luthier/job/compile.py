"""`luthier compile`: a network as one file that runs; in our engine, or where that lacks an op, in ONNX Runtime."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np

from luthier.deploy.precision import DType, in_number_type
from luthier.engine import Plan
from luthier.engine import compile as compile_graph
from luthier.errors import DataError, GraphError, InputError, UnsupportedError
from luthier.files import write_bytes
from luthier.job.weighted import Weighted, weighted

#: run times that `--fallback` may name
FALLBACKS: Final = ("onnxruntime",)


@dataclass(frozen=True, slots=True, kw_only=True)
class Compiled:
    """What was written, and what it needs.

    Attributes:
        path: a plan, see `luthier.engine.load`; in the fallback an ONNX file.
        runtime: what runs it.
        reason: why it is not our engine; empty = it is.
        weights: where they come from, see `luthier.job.weighted`.
        input_shape: (N, C, H, W).
        threads: of a run.
        ops: of the graph, norms folded.
        steps: kernels that a run calls; fewer than ops, since epilogues, gates and pairs are fused.
        fused_groups: steps that do two convolutions or more, whose tensor between them never exists.
        peak_bytes: arena and the scratch of all threads; None in the fallback, which does not say.
        code_bytes: of the object file.
        weight_bytes: packed.
        compile_s: from the graph to a plan that is ready to run.
    """

    path: Path
    runtime: str
    reason: str
    weights: str
    input_shape: tuple[int, ...]
    threads: int
    ops: int
    steps: int
    fused_groups: int
    peak_bytes: int | None
    code_bytes: int
    weight_bytes: int
    compile_s: float


def compile_model(
    model: str, path: Path | None = None, *, dtype: DType = "fp32", calibrate: Path | None = None, threads: int = 1,
    batch: int | None = None, resolution: int | None = None, pretrained: str | None = None,
    fallback: str | None = None, force: bool = False,
) -> Compiled:  # fmt: skip
    """Compile a network and write it.

    Args:
        model, batch, resolution, pretrained: see `luthier.job.weighted.weighted`.
        dtype: of weights and arithmetic; calls pass and get float32 all the same.
        calibrate: a `.npy` of normalised images (N, C, H, W) for int8.
        path: to write; None = the model's name with `.plan` (`.onnx` in the fallback) in this folder.
        threads: that a run uses.
        fallback: run time for networks with an op that the engine lacks; None = refuse them.
        force: write over a file that exists.
    Raises:
        UnsupportedError: an op that the engine lacks, and no fallback; names it.
        InputError: the model cannot be read, or the file exists.
    """
    if fallback is not None and fallback not in FALLBACKS:
        raise InputError(f"--fallback {fallback}: must be {' or '.join(FALLBACKS)}")
    stem = Path(model.removeprefix("timm:").rpartition(":")[2]).stem
    _check_absent(path or Path(f"{stem}.plan"), force)
    try:
        net = weighted(model, batch=batch, resolution=resolution, pretrained=pretrained)
        begin = time.perf_counter()
        plan = compile_graph(*in_number_type(net.graph, net.constants, dtype, _images(calibrate)), threads=threads)
        compile_s = time.perf_counter() - begin
    except (GraphError, UnsupportedError) as error:
        return _fall_back(model, error, path or Path(f"{stem}.onnx"), threads, batch, resolution, fallback, force)
    path = path or Path(f"{stem}.plan")
    plan.save(path)
    return _described(net, plan, path, compile_s)


def _images(path: Path | None) -> np.ndarray[Any, Any] | None:
    if path is None:
        return None
    try:
        images = np.load(path, allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise DataError(f"--calibrate {path}: cannot be read ({str(error).splitlines()[0][:120]})") from None
    if not isinstance(images, np.ndarray) or images.dtype != np.float32 or images.ndim != 4:
        raise DataError(f"--calibrate {path}: must be one float32 array (N, C, H, W), normalised")
    return images


def _check_absent(path: Path, force: bool) -> None:
    if path.exists() and not force:
        raise InputError(f"{path}: exists, nothing is written over; give --force or another --output")


def _described(net: Weighted, plan: Plan, path: Path, compile_s: float) -> Compiled:
    image, kinds = plan.image, {op.name: op.kind for op in net.graph.ops}
    fused = [sum(kinds.get(name) == "conv" for name in record.ops) > 1 for record in image.records]
    return Compiled(
        path=path, runtime=f"Luthier, {image.target.isa}", reason="", weights=net.weights,
        input_shape=plan.inputs[0].shape, threads=image.threads, ops=len(net.graph.ops), steps=len(image.records),
        fused_groups=sum(fused), peak_bytes=plan.peak_bytes, code_bytes=len(image.code),
        weight_bytes=image.constants.nbytes, compile_s=compile_s,
    )  # fmt: skip


def _fall_back(
    model: str, error: InputError, path: Path, threads: int, batch: int | None, resolution: int | None,
    fallback: str | None, force: bool,
) -> Compiled:  # fmt: skip
    """The network as an ONNX file, opened and run once in ONNX Runtime."""
    readable = isinstance(error, UnsupportedError)
    if fallback is None or not (readable or Path(model).suffix == ".onnx"):
        remedy = "; --fallback onnxruntime runs the network there" if readable or Path(model).suffix == ".onnx" else ""
        raise type(error)(f"{error}{remedy}")
    from luthier.deploy.latency import open_session, runtime_name

    _check_absent(path, force)
    ops, weights = 0, "its own"
    if readable:
        from luthier.deploy.onnx_file import to_onnx

        net = weighted(model, batch=batch, resolution=resolution)
        document, ops, weights = to_onnx(net.graph, net.constants), len(net.graph.ops), net.weights
    else:
        document = Path(model).read_bytes()
    begin = time.perf_counter()
    session = open_session(document, threads)
    feeds = {spec.name: _zeros(spec, model, batch, resolution) for spec in session.get_inputs()}
    session.run(None, feeds)
    compile_s = time.perf_counter() - begin
    write_bytes(path, document)
    return Compiled(
        path=path, runtime=runtime_name(threads), reason=str(error), weights=weights,
        input_shape=next(iter(feeds.values())).shape, threads=threads, ops=ops, steps=0, fused_groups=0,
        peak_bytes=None, code_bytes=0, weight_bytes=len(document), compile_s=compile_s,
    )  # fmt: skip


def _zeros(spec: Any, model: str, batch: int | None, resolution: int | None) -> np.ndarray[Any, Any]:
    given = [batch or 1, None, resolution, resolution]
    shape = [
        side if isinstance(side, int) else given[axis] if axis < 4 else None for axis, side in enumerate(spec.shape)
    ]
    if None in shape:
        raise GraphError(f"{model}: input {spec.name!r} has open axes {spec.shape}; give --batch and --resolution")
    kinds = {"tensor(float)": np.float32, "tensor(int64)": np.int64, "tensor(uint8)": np.uint8, "tensor(int8)": np.int8}
    if spec.type not in kinds:
        raise GraphError(f"{model}: input {spec.name!r} is {spec.type}; the fallback takes {', '.join(kinds)}")
    return np.zeros(shape, kinds[spec.type])
