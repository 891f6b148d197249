"""`luthier export`: a network for a device without Python, or for another run time."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer

from luthier.cli import limits, output
from luthier.errors import InputError
from luthier.units import show

_OBJECT = "object"


def export(
    model: limits.Model,
    folder: Annotated[Path, typer.Option("--output", "-o", help="Folder to write.")],
    target: Annotated[
        str,
        typer.Option(
            "--target",
            help="host, x86-64-v3, x86-64-v4, aarch64-linux, armv7em-none (Cortex-M7), wasm32, or an LLVM triple.",
        ),
    ] = "host",
    precision: Annotated[str, typer.Option("--precision", help="fp32, bf16 or int8.")] = "fp32",
    file_format: Annotated[
        str, typer.Option("--format", help="object (code), onnx, onnx-qdq or torch-export.")
    ] = _OBJECT,
    calibrate: Annotated[
        Path | None,
        typer.Option("--calibrate", help="For int8: a .npy of images (N, C, H, W), float32, normalised."),
    ] = None,
    sample: Annotated[
        Path | None,
        typer.Option(
            "--sample", help="A .npy of images; the first is the example's input. Default: one of --calibrate."
        ),
    ] = None,
    name: Annotated[str, typer.Option("--name", help="Prefix of functions and files.")] = "net",
    order: Annotated[str, typer.Option("--order", help="Of the axes of inputs and outputs: nchw or nhwc.")] = "nchw",
    threads: Annotated[int, typer.Option("--threads", min=1, max=256, help="That may share a run.")] = 1,
    resolution: limits.Resolution = None,
    pretrained: limits.Pretrained = None,
    force: Annotated[bool, typer.Option("--force", help="Write into a folder that holds other files.")] = False,
    as_json: limits.Json = False,
) -> None:
    """Write a network as an object file with a C header; or as ONNX, or for torch."""
    from luthier.deploy.model_file import MODEL_FORMATS
    from luthier.job.export import export_file, export_model

    if file_format == _OBJECT:
        axes: Any = order
        found = export_model(
            model, folder, target=target, precision=precision, name=name, calibrate=calibrate, sample=sample,
            order=axes, threads=threads, resolution=resolution, pretrained=pretrained, force=force,
        )  # fmt: skip
        output.say(f"{folder}: written; {found.network} for {found.target} in {found.precision}")
        output.say(
            f"flash {show(found.flash_bytes, 'bytes')}: code {show(found.code_bytes, 'bytes')}, constants "
            f"{show(found.constant_bytes, 'bytes')}; arena {show(found.arena_bytes, 'bytes')}"
        )
        if found.undefined:
            output.say(f"needs {', '.join(found.undefined)} of the device's compiler")
        if as_json:
            sizes = {"flash_bytes": found.flash_bytes, "ram_bytes": found.ram_bytes}
            kinds = {"flash_bytes_kind": "measured", "ram_bytes_kind": "measured"}
            output.document("export", {"folder": str(folder), **asdict(found), **sizes, **kinds})
        return
    known = [kind for kind in MODEL_FORMATS if kind == file_format]
    if not known:
        raise InputError(f"--format {file_format}: must be one of {', '.join((_OBJECT, *MODEL_FORMATS))}")
    made = export_file(
        model, folder, known[0], calibrate=calibrate, sample=sample, resolution=resolution, pretrained=pretrained,
        force=force,
    )  # fmt: skip
    output.say(
        f"{made.path}: written, {show(made.bytes, 'bytes')}; differs from torch by {made.max_abs_error:.2g} at most, "
        f"of outputs up to {made.scale:.3g}"
    )
    if as_json:
        output.document("export", {**asdict(made), "max_abs_error_kind": "measured"})
