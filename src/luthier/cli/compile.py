"""`luthier compile`: a network as one file of machine code and weights for this CPU."""

from __future__ import annotations

from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from luthier import __version__
from luthier.cli import limits, output
from luthier.units import show

if TYPE_CHECKING:
    from luthier.engine.results import Tuning


def compile_model(
    model: limits.Model,
    path: Annotated[
        Path | None, typer.Option("--output", "-o", help="File to write; default: the model's name with .plan, here.")
    ] = None,
    threads: limits.Threads = 1,
    batch: limits.Batch = None,
    resolution: limits.Resolution = None,
    dtype: limits.DType = "fp32",
    calibrate: Annotated[
        Path | None,
        typer.Option("--calibrate", help="For int8 and int8_bf16: a .npy of images (N, C, H, W), float32, normalised."),
    ] = None,
    pretrained: limits.Pretrained = None,
    fallback: Annotated[
        str | None, typer.Option("--fallback", help="onnxruntime: run networks with an op that the engine lacks there.")
    ] = None,
    tune: Annotated[
        str | None, typer.Option("--tune", help="Search so long for better schedules on this machine first, e.g. 30s.")
    ] = None,
    html: Annotated[
        Path | None, typer.Option("--html", help="Write a page of what tuning found, with time against tile size.")
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Write over a file that exists.")] = False,
    as_json: limits.Json = False,
) -> None:
    """Compile a network to machine code for this CPU: one file, which runs without torch."""
    from luthier.deploy.precision import parse_dtype
    from luthier.job.compile import compile_model as run

    console = output.console()
    with output.progress(console) as progress:
        found = run(
            model, path, dtype=parse_dtype(dtype), calibrate=calibrate, threads=threads, batch=batch,
            resolution=resolution, pretrained=pretrained, fallback=fallback, force=force, tune=tune,
            with_curves=html is not None, say=progress,
        )  # fmt: skip

    shape = "x".join(map(str, found.input_shape))
    count = f"{found.threads} thread{'' if found.threads == 1 else 's'}"
    output.say(f"{found.path}: written; runs in {found.runtime}; input {shape}, {count}, weights: {found.weights}")
    if found.reason:
        output.say(f"fallback: {found.reason}")
    else:
        output.say(
            f"{found.ops} ops in {found.steps} steps, {found.fused_groups} of them fuse convolutions; "
            f"compiled in {show(found.compile_s, 'latency')}"
        )
        output.say(
            f"memory of a run {show(found.peak_bytes or 0, 'bytes')} (arena and scratch), "
            f"weights {show(found.weight_bytes, 'bytes')}, code {show(found.code_bytes, 'bytes')}"
        )
    if found.tuning is not None:
        from luthier.report.tuning import sentence, write

        output.say(sentence(found.tuning))
        if html is not None:
            write(model, found.tuning, found.curves, __version__, html)
            output.say(f"{html}: written")
    if as_json:
        plain = {
            **asdict(replace(found, tuning=None, curves=())),
            "path": str(found.path),
            "peak_bytes_kind": "measured",
            "compile_s_kind": "measured",
        }
        del plain["curves"]
        plain["tuning"] = None if found.tuning is None else _tuning(found.tuning)
        output.document("compile", plain)


def _tuning(found: Tuning) -> dict[str, Any]:
    return {
        "before_s": found.before_s, "after_s": found.after_s, "after_s_kind": "measured", "ratio": found.ratio,
        "rounds": found.rounds, "candidates": found.candidates, "spent_s": found.spent_s, "ended": found.ended,
        "changed": [one.said for one in found.retimed if one.changed],
    }  # fmt: skip
