"""`luthier quantize`: a trained network in numbers of few bits, and what they cost."""

from __future__ import annotations

from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, get_args

import typer

from luthier.cli import limits, noise, output
from luthier.errors import InputError
from luthier.units import show

if TYPE_CHECKING:
    from luthier.quant.results import QuantizedModel


def quantize(
    model: limits.Model,
    data: Annotated[
        str, typer.Option("--data", help="Labelled images as for fit, or a .npy (N, C, H, W), float32, normalised.")
    ],
    numbers: Annotated[
        str, typer.Option("--numbers", help="fp32, bf16, fp16, W8A8, W8A16, W4A8, W4A16 or W4A4.")
    ] = "W8A8",
    folder: Annotated[
        Path | None, typer.Option("--output", "-o", help="Folder of the run; the same command resumes it.")
    ] = None,
    observer: Annotated[
        str, typer.Option("--observer", help="How ranges are chosen: minmax, percentile, mse or entropy.")
    ] = "mse",
    images: Annotated[int, typer.Option("--images", min=1, help="Images to calibrate on, at most.")] = 256,
    no_equalize: Annotated[
        bool, typer.Option("--no-equalize", help="Leave the ranges of channels as they are.")
    ] = False,
    round_to_sums: Annotated[
        bool, typer.Option("--round-to-sums", help="Round weights so that sums keep their values; for 4 bits.")
    ] = False,
    between: Annotated[
        str, typer.Option("--between", help="What values are that no product reads: integers or bf16.")
    ] = "integers",
    qat: Annotated[bool, typer.Option("--qat", help="Train on labels with the rounding in place.")] = False,
    distil: Annotated[
        bool, typer.Option("--distil", help="Learn fp32's answers on the calibration images; needs no labels.")
    ] = False,
    epochs: Annotated[int, typer.Option("--epochs", min=1, help="Of --qat or --distil.")] = 5,
    analyze: Annotated[
        bool, typer.Option("--analyze", help="Tell where the noise comes from and what mends it; writes no network.")
    ] = False,
    html: Annotated[Path | None, typer.Option("--html", help="With --analyze: a page of it.")] = None,
    device: limits.Device = "host",
    max_energy: limits.MaxEnergy = None,
    max_size: limits.MaxSize = None,
    max_latency: limits.MaxLatency = None,
    max_loss: Annotated[
        float | None, typer.Option("--max-loss", help="Accuracy that mixed number types may lose, in points.")
    ] = None,
    candidates: Annotated[
        str, typer.Option("--candidates", help="Number types to choose from under a limit, the widest first.")
    ] = "W8A16,W8A8,W4A8",
    pretrained: limits.Pretrained = None,
    resolution: limits.Resolution = None,
    seed: limits.Seed = 0,
    skip_bad: limits.SkipBad = False,
    as_json: limits.Json = False,
) -> None:
    """Quantise a trained network on a few hundred images; judge it on others; write it packed and as ONNX."""
    from luthier.job.quantize import Between, Options, quantize_model
    from luthier.quant.numbers import parse_numbers
    from luthier.quant.observe import OBSERVERS

    known = [name for name in OBSERVERS if name == observer]
    if not known:
        raise InputError(f"--observer {observer}: must be one of {', '.join(OBSERVERS)}")
    values = [name for name in get_args(Between) if name == between]
    if not values:
        raise InputError(f"--between {between}: must be one of {', '.join(get_args(Between))}")
    if qat and distil:
        raise InputError("--distil: learns from fp32 and --qat from labels; leave one out")
    options = Options(
        numbers=parse_numbers(numbers), observer=known[0], equalize=not no_equalize, round_to_sums=round_to_sums,
        images=images, qat_epochs=epochs if qat else 0, distil_epochs=epochs if distil else 0,
        between=values[0],
    )  # fmt: skip
    given = {"energy": max_energy, "size": max_size, "latency": max_latency, "loss": max_loss}
    source = noise.Asked(model, data, options, pretrained, resolution, seed, skip_bad)
    if html is not None and not analyze:
        raise InputError(f"--html {html}: shows an analysis; give --analyze too")
    if between != "integers" and (analyze or any(value is not None for value in given.values())):
        raise InputError(f"--between {between}: analysis and limits know integers only; leave one out")
    if analyze:
        noise.analysis(source, numbers, html, as_json=as_json)
        return
    if any(value is not None for value in given.values()):
        options = replace(options, by_op=noise.assigned(source, device, given, candidates.split(",")))
        numbers = "mixed"
    stem = Path(model.removeprefix("timm:").rpartition(":")[2]).stem
    console = output.console()
    with output.progress(console) as progress:
        found = quantize_model(
            model, data, options, folder or Path(f"{stem}-{numbers.lower()}"), pretrained=pretrained,
            resolution=resolution, seed=seed, skip_bad=skip_bad, say=progress,
        )  # fmt: skip
    for line in lines(found):
        console.print(line, markup=False, soft_wrap=True)
    if as_json:
        kinds = ("accuracy_before", "accuracy_after", "agreement", "sqnr_db")
        output.document("quantize", {**asdict(found), **{f"{key}_kind": "measured" for key in kinds}})


def lines(found: QuantizedModel) -> list[str]:
    """What was found, for people."""
    said = [
        f"{found.folder}: written; {found.numbers}, calibrated on {found.calibration_images} images"
        + (f", trained for {found.qat_epochs} epochs" if found.qat_epochs else "")
        + (f", taught fp32's answers for {found.distil_epochs} epochs" if found.distil_epochs else "")
    ]
    where = f"on {found.judged_images} other images ({found.runtime})"
    if found.accuracy_before is not None and found.accuracy_after is not None and found.change_interval is not None:
        low, high = (100 * end for end in found.change_interval)
        said.append(
            f"accuracy {100 * found.accuracy_before:.2f} % before, {100 * found.accuracy_after:.2f} % after: "
            f"{100 * (found.change or 0.0):+.2f} points (95 %: {low:+.2f} to {high:+.2f}) {where}"
        )
    said.append(f"same answer as fp32 on {found.agreement:.1%}, noise {found.sqnr_db:.1f} dB below the scores, {where}")
    said.append(
        f"weights {show(found.weight_bytes_before, 'bytes')} before, {show(found.weight_bytes_after, 'bytes')} after; "
        f"on disk {show(found.file_bytes, 'bytes')}"
        + (f", ONNX {show(found.onnx_bytes, 'bytes')}" if found.onnx_bytes else "")
    )
    if found.real_ops:
        named = ", ".join(found.real_ops[:5]) + (", ..." if len(found.real_ops) > 5 else "")
        said.append(f"{len(found.real_ops)} ops stay in float: {named}")
    return said
