"""The budget as it is typed: `--max-latency 2ms --max-memory 512KiB`, and what this version can check."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated, Final

import typer

from luthier.cost.budget import Budget
from luthier.errors import InputError
from luthier.units import parse

MaxLatency = Annotated[str | None, typer.Option("--max-latency", help="Time of one image on the device, e.g. 2ms.")]
MaxMemory = Annotated[
    str | None,
    typer.Option("--max-memory", help="Peak activation bytes at batch 1, input and output included, e.g. 512KiB."),
]
MaxSize = Annotated[str | None, typer.Option("--max-size", help="Bytes of the weights, e.g. 2MiB.")]
MaxMacs = Annotated[str | None, typer.Option("--max-macs", help="Multiply-accumulates of one image, e.g. 20M.")]
MaxParams = Annotated[str | None, typer.Option("--max-params", help="Parameters, e.g. 1M.")]
MaxEnergy = Annotated[str | None, typer.Option("--max-energy", help="Energy of one image on the device, e.g. 3mJ.")]
Device = Annotated[
    str, typer.Option("--device", help="The target: host, one of `luthier device list`, or a .toml file.")
]
TimeLimit = Annotated[str | None, typer.Option("--time-limit", help="Wall time of the whole run, e.g. 10m.")]
RunDir = Annotated[Path | None, typer.Option("--run-dir", help="Where the run is kept; the same command resumes it.")]
Json = Annotated[bool, typer.Option("--json", help="One JSON document on stdout, all else on stderr.")]
Seed = Annotated[int, typer.Option("--seed", min=0, help="Of the split, the initialisation and the order of images.")]
Trials = Annotated[
    list[Path] | None,
    typer.Option("--trials", help="Another run folder whose finished trainings count where they are the same."),
]
SkipBad = Annotated[bool, typer.Option("--skip-bad", help="Skip images that cannot be read, and list them.")]
Threads = Annotated[int, typer.Option("--threads", min=1, max=256, help="Of the run time that latency is measured on.")]
Accelerator = Annotated[str, typer.Option("--accelerator", help="The hardware that trains: auto, cpu or cuda.")]
Cluster = Annotated[
    str | None,
    typer.Option("--cluster", metavar="ADDRESS", help="Train candidates on a Ray cluster: auto, or ray://HOST:PORT."),
]
Jobs = Annotated[int, typer.Option("--jobs", min=1, help="Train so many candidates at a time on this machine.")]
Pretrained = Annotated[
    str | None,
    typer.Option("--pretrained", help="Weights to start from: a .safetensors file, timm:NAME or torchvision:NAME."),
]

_MODEL: Final = "Presets, run folders, network.json, .onnx, timm:NAME, package.module:callable."
Model = Annotated[str, typer.Argument(metavar="MODEL", help=_MODEL)]
Models = Annotated[list[str], typer.Argument(metavar="MODEL...", help=_MODEL)]
Batch = Annotated[
    int | None, typer.Option("--batch", min=1, help="Images of one run; default: what an ONNX file says, else 1.")
]
Resolution = Annotated[int | None, typer.Option("--resolution", min=1, help="Side of the input, in pixels.")]
DType = Annotated[
    str, typer.Option("--dtype", help="Number type of the engine's arithmetic: fp32, bf16, int8 or int8_bf16.")
]

#: limit -> dimension
_OPTIONS: Final = {
    "latency": "latency", "memory": "bytes", "size": "bytes", "macs": "count", "params": "count", "energy": "energy",
}  # fmt: skip
_SUFFIX: Final = {"latency": "_s", "bytes": "_bytes", "count": "", "energy": "_j"}


def read_limits(
    latency: str | None, memory: str | None, size: str | None, macs: str | None, params: str | None,
    energy: str | None,
) -> Budget:  # fmt: skip
    """Parse the limits.

    Raises:
        UnitError: an unknown unit, or a value that is not above zero.
    """
    given = {"latency": latency, "memory": memory, "size": size, "macs": macs, "params": params, "energy": energy}
    return Budget(**{
        f"max_{name}{_SUFFIX[_OPTIONS[name]]}": parse(text, _OPTIONS[name], f"--max-{name}")
        for name, text in given.items()
        if text is not None
    })  # type: ignore[arg-type]  # fmt: skip  # counts and bytes are whole numbers


def read_time(text: str | None, default_s: float) -> float:
    """Parse `--time-limit`.

    Raises:
        UnitError: an unknown unit, or less than ten seconds.
    """
    seconds = default_s if text is None else parse(text, "duration", "--time-limit")
    if seconds < 10:
        raise InputError(f"--time-limit {text}: at least 10s are needed to train anything, got {seconds:g} s")
    return seconds


def absolute(path: str | None) -> str | None:
    """A path that does not depend on the current folder."""
    # a resumed run may be started from another folder; names of data sets, presets and weights stay names
    return os.path.abspath(path) if path is not None and os.path.exists(path) else path
