"""`luthier compile`: a network as one file of machine code and weights for this CPU."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from luthier.cli import limits, output
from luthier.units import show


def compile_model(
    model: limits.Model,
    path: Annotated[
        Path | None, typer.Option("--output", help="File to write; default: the model's name with .plan, here.")
    ] = None,
    threads: limits.Threads = 1,
    batch: limits.Batch = None,
    resolution: limits.Resolution = None,
    dtype: limits.DType = "fp32",
    calibrate: Annotated[
        Path | None, typer.Option("--calibrate", help="For int8: a .npy of images (N, C, H, W), float32, normalised.")
    ] = None,
    pretrained: limits.Pretrained = None,
    fallback: Annotated[
        str | None, typer.Option("--fallback", help="onnxruntime: run networks with an op that the engine lacks there.")
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Write over a file that exists.")] = False,
    as_json: limits.Json = False,
) -> None:
    """Compile a network to machine code for this CPU: one file, which runs without torch."""
    from luthier.deploy.precision import parse_dtype
    from luthier.job.compile import compile_model as run

    found = run(
        model, path, dtype=parse_dtype(dtype), calibrate=calibrate, threads=threads, batch=batch,
        resolution=resolution, pretrained=pretrained, fallback=fallback, force=force,
    )  # fmt: skip
    console = output.console()

    def say(line: str) -> None:
        console.print(line, markup=False, soft_wrap=True)

    shape = "x".join(map(str, found.input_shape))
    count = f"{found.threads} thread{'' if found.threads == 1 else 's'}"
    say(f"{found.path}: written; runs in {found.runtime}; input {shape}, {count}, weights: {found.weights}")
    if found.reason:
        say(f"fallback: {found.reason}")
    else:
        say(
            f"{found.ops} ops in {found.steps} steps, {found.fused_groups} of them fuse convolutions; "
            f"compiled in {show(found.compile_s, 'latency')}"
        )
        say(
            f"memory of a run {show(found.peak_bytes or 0, 'bytes')} (arena and scratch), "
            f"weights {show(found.weight_bytes, 'bytes')}, code {show(found.code_bytes, 'bytes')}"
        )
    if as_json:
        plain = {**asdict(found), "path": str(found.path), "peak_bytes_kind": "measured", "compile_s_kind": "measured"}
        output.document("compile", plain)
