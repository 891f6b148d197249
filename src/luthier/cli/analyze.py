"""`luthier analyze`: what a network costs on a device, and what to change so that it fits."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, get_args

import typer

from luthier import __version__
from luthier.arch.block import Precision
from luthier.cli import limits, output
from luthier.errors import InputError, SpecError

if TYPE_CHECKING:
    from luthier.job.results import Examination


def analyze(
    models: limits.Models,
    device: Annotated[
        str, typer.Option("--device", help="A device of `luthier device list`, or a .toml file.")
    ] = "host",
    batch: limits.Batch = None,
    resolution: limits.Resolution = None,
    precision: Annotated[
        str | None, typer.Option("--precision", help="fp32, bf16, fp16, int8, W8A16, ...; default: the model's own.")
    ] = None,
    schedule: Annotated[str, typer.Option("--schedule", help="fused, unfused or tuned.")] = "fused",
    rows: Annotated[
        int | None, typer.Option("--rows", min=1, help="Output rows per tile of fused groups; default: what fits.")
    ] = None,
    threads: Annotated[int, typer.Option("--threads", min=1, help="That share the work.")] = 1,
    max_latency: limits.MaxLatency = None,
    max_memory: limits.MaxMemory = None,
    max_size: limits.MaxSize = None,
    max_macs: limits.MaxMacs = None,
    max_params: limits.MaxParams = None,
    max_energy: limits.MaxEnergy = None,
    lenient: Annotated[
        bool, typer.Option("--lenient", help="Count ops that have no meaning here as unknown instead of refusing them.")
    ] = False,
    measure: Annotated[
        bool, typer.Option("--measure", help="Run it in ONNX Runtime on this machine too; needs --device host.")
    ] = False,
    layers: Annotated[bool, typer.Option("--layers", help="Print every group of layers, not only the stages.")] = False,
    html: Annotated[
        Path | None, typer.Option("--html", help="Write a page with interactive charts to this file.")
    ] = None,
    as_json: limits.Json = False,
) -> None:
    """Work, peak memory, roofline, energy and time of networks on a device; several are compared side by side."""
    from luthier.cli.footprint import show_footprints
    from luthier.deploy.embedded.manifest import is_exported
    from luthier.device.registry import get
    from luthier.job.examine import Question, ScheduleName, examine

    if schedule not in get_args(ScheduleName):
        raise InputError(f"--schedule {schedule}: must be one of {', '.join(get_args(ScheduleName))}")
    if html is not None and len(models) > 1:
        raise InputError(f"--html {html}: shows one model, got {len(models)}; analyze them one by one")
    exports = [model for model in models if is_exported(Path(model))]
    if exports:
        if len(exports) < len(models):
            raise InputError(f"{exports[0]}: is an export, the others are networks; analyze them one by one")
        budget = limits.read_limits(max_latency, max_memory, max_size, max_macs, max_params, max_energy)
        show_footprints(exports, get(device), budget, as_json=as_json)
        return
    question = Question(
        batch=batch,
        resolution=resolution,
        precision=None if precision is None else _precision(precision),
        schedule=schedule,  # type: ignore[arg-type]  # membership was just checked
        rows=rows,
        threads=threads,
        budget=limits.read_limits(max_latency, max_memory, max_size, max_macs, max_params, max_energy),
        lenient=lenient,
        measure=measure,
    )
    target = get(device)
    found = [examine(model, target, question) for model in models]
    _show(found, layers)
    if html is not None:
        from luthier.report.analysis import write

        write(found[0], __version__, html)
        output.say(f"{html}: written")
    if as_json:
        documents = [document(one) for one in found]
        output.document("analyze", documents[0] if len(documents) == 1 else {"models": documents})


def _precision(text: str) -> Precision:
    try:
        return Precision.parse(text)
    except SpecError as error:
        raise InputError(f"--precision {text}: {str(error).partition(': ')[2]}") from None


def _show(found: list[Examination], layers: bool) -> None:
    from luthier.report.analysis import comparison, lines

    console = output.console()
    console.print(lines(found[0], layers=layers) if len(found) == 1 else comparison([one.analysis for one in found]))


def document(found: Examination) -> dict[str, Any]:
    """The JSON document of one network, in the words all commands share; every number beside its kind."""
    analysis, prediction = found.analysis, found.prediction
    totals = analysis.totals
    return {
        "model": analysis.model,
        "device": analysis.device,
        "precision": analysis.precision,
        "batch": analysis.batch,
        "resolution": analysis.resolution,
        "schedule": analysis.schedule,
        "threads": analysis.threads,
        "params": totals.params,
        "macs": totals.macs,
        "elementwise_ops": totals.elementwise_ops,
        "weight_bytes": totals.weight_bytes,
        "peak_activation_bytes": totals.peak_activation_bytes,
        "peak_activation_bytes_kind": totals.peak_activation_bytes_kind,
        "peak_group": totals.peak_group,
        "latency_s": totals.image_latency_s,
        "latency_s_kind": totals.image_latency_s_kind,
        "predicted_latency_s": None if prediction is None else prediction.latency_s,
        "predicted_latency_s_kind": "predicted",
        "predicted_latency_s_interval": None if prediction is None else list(prediction.interval_s),
        "runtimes": [
            {"runtime": known.runtime, "latency_s": known.latency_s, "latency_s_kind": "modelled"}
            for known in found.calibrated
        ],
        "measured_latency_s": None if found.profile is None else found.profile.whole_s,
        "measured_latency_s_kind": "measured",
        "measured_runtime": None if found.profile is None else found.profile.runtime,
        "measured_by_op_s": None if found.profile is None else found.profile.by_op(),
        "energy_j": totals.image_energy_j,
        "energy_j_kind": totals.image_energy_j_kind,
        "measured_energy_j": None if found.profile is None else found.profile.energy_j,
        "measured_energy_j_kind": "measured",
        "images_per_battery": totals.images_per_battery,
        "fits": analysis.fits,
        "verdict": analysis.verdict,
        "violations": [violation.text for violation in analysis.violations],
        "crossings": [crossing.text for crossing in analysis.crossings],
        "sides": [asdict(side) for side in analysis.sides],
        "stages": [asdict(stage) for stage in analysis.stages],
        "groups": [asdict(group) for group in analysis.groups],
        "ops": [asdict(op) for op in analysis.ops],
        "memory": [asdict(step) for step in analysis.memory],
        "ceilings": [asdict(ceiling) for ceiling in analysis.ceilings],
        "changes": [] if found.advice is None else [change.text for change in found.advice.changes],
        "advice": [] if found.advice is None else list(found.advice.lines),
        "bottlenecks": asdict(analysis.bottlenecks),
        "saving": None if analysis.saving is None else asdict(analysis.saving),
        "unknown_ops": list(analysis.unknown_ops),
        "remarks": list(analysis.remarks),
    }
