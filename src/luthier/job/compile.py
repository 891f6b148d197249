"""`luthier compile`: a network as one file that runs; in our engine, or where that lacks an op, in ONNX Runtime."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

import numpy as np

from luthier.deploy.precision import DType, in_number_type
from luthier.engine import Plan
from luthier.engine import compile as compile_graph
from luthier.engine.results import TileCurve, Tuning
from luthier.engine.tiles import tile_curves
from luthier.engine.tune import Progress
from luthier.engine.tune import tune as search
from luthier.errors import DataError, GraphError, InputError, UnsupportedError
from luthier.files import write_bytes
from luthier.graph.op import Graph
from luthier.job.weighted import Weighted, weighted
from luthier.units import parse

Array = np.ndarray[Any, Any]

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
        compile_s: from the graph to a plan that is ready to run, without the search for better schedules.
        tuning: what that search found; None = it was not asked for.
        curves: time against the size of the tile, of every group that runs band by band; empty = not asked for.
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
    tuning: Tuning | None = None
    curves: tuple[TileCurve, ...] = ()


def compile_model(
    model: str, path: Path | None = None, *, dtype: DType = "fp32", calibrate: Path | None = None, threads: int = 1,
    batch: int | None = None, resolution: int | None = None, pretrained: str | None = None,
    fallback: str | None = None, force: bool = False, tune: str | None = None, with_curves: bool = False,
    say: Callable[[float, str], None] | None = None,
) -> Compiled:  # fmt: skip
    """Compile a network and write it.

    Args:
        model, batch, resolution, pretrained: see `luthier.job.weighted.weighted`.
        dtype: of weights and arithmetic; calls pass and get float32 all the same.
        calibrate: a `.npy` of normalised images (N, C, H, W) for int8 and int8_bf16.
        path: to write; None = the model's name with `.plan` (`.onnx` in the fallback) in this folder.
        threads: that a run uses.
        fallback: run time for networks with an op that the engine lacks; None = refuse them.
        force: write over a file that exists.
        tune: time to search for better schedules first, such as `30s`; what is found is kept for later compilations
            too.  Ctrl-C ends the search, not the command.
        with_curves: measure time against the size of the tile, behind the search.
        say: called with the share of a piece of work that is done, and what it is.
    Raises:
        UnsupportedError: an op that the engine lacks, and no fallback; names it.
        InputError: the model cannot be read, or the file exists.
    """
    if with_curves and tune is None:
        raise InputError("--html: shows what tuning has found; give --tune 30s too")
    if fallback is not None and fallback not in FALLBACKS:
        raise InputError(f"--fallback {fallback}: must be {' or '.join(FALLBACKS)}")
    stem = Path(model.removeprefix("timm:").rpartition(":")[2]).stem
    _check_absent(path or Path(f"{stem}.plan"), force)
    try:
        net = weighted(model, batch=batch, resolution=resolution, pretrained=pretrained)
        graph, constants = in_number_type(net.graph, net.constants, dtype, _calibration(calibrate))
        tuning, curves = _tuned(graph, constants, threads, tune, with_curves, say)
        begin = time.perf_counter()
        plan = compile_graph(graph, constants, threads=threads)
        compile_s = time.perf_counter() - begin
    except (GraphError, UnsupportedError) as error:
        return _fall_back(model, error, path or Path(f"{stem}.onnx"), threads, batch, resolution, fallback, force)
    path = path or Path(f"{stem}.plan")
    plan.save(path)
    return replace(_described(net, plan, path, compile_s), tuning=tuning, curves=curves)


def _tuned(
    graph: Graph, constants: Mapping[str, Array], threads: int, limit: str | None, with_curves: bool,
    say: Callable[[float, str], None] | None,
) -> tuple[Tuning | None, tuple[TileCurve, ...]]:  # fmt: skip
    """Search for better schedules; they are kept where the next compilation finds them."""
    if limit is None:
        return None, ()
    limit_s = parse(limit, "duration", "--tune")

    def searched(step: Progress) -> None:
        if say is not None:
            text = f"tuning: {step.candidates} candidates, {step.candidates_per_s:.1f} per s, {step.better} better"
            say(min(1.0, step.spent_s / limit_s), text)

    def drawn(done: int, count: int) -> None:
        if say is not None:
            say(done / count, "timing tiles")

    tuning = search(graph, constants, threads=threads, limit=limit_s, progress=searched)
    curves: tuple[TileCurve, ...] = ()
    if with_curves:
        # a network without bands has no tiles to show
        with contextlib.suppress(InputError):
            curves = tile_curves(graph, constants, threads=threads, progress=drawn)
    return tuning, curves


def _calibration(path: Path | None) -> Array | None:
    return None if path is None else read_npy("--calibrate", path)


def read_npy(option: str, path: Path) -> Array:
    """Images (N, C, H, W) float32 of a `.npy`.

    Raises:
        DataError: the file is not one; the message begins with `option`.
    """
    try:
        images = np.load(path, allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise DataError(f"{option} {path}: cannot be read ({str(error).splitlines()[0][:120]})") from None
    if not isinstance(images, np.ndarray) or images.dtype != np.float32 or images.ndim != 4:
        raise DataError(f"{option} {path}: must be one float32 array (N, C, H, W), normalised")
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
