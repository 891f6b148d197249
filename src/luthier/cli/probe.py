"""`luthier probe`: what attention does in a network, on images."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, get_args

import typer

from luthier import __version__
from luthier.cli import limits, output
from luthier.errors import InputError

if TYPE_CHECKING:
    from luthier.probe.results import DetectorSuite, Probe


def probe(
    model: Annotated[
        str | None,
        typer.Argument(metavar="MODEL", help="Run folder, .onnx, package.module:callable, or a preset with weights."),
    ] = None,
    images: Annotated[
        list[str] | None,
        typer.Argument(metavar="IMAGES...", help="A folder of class folders, an .npz, image files or folders of them."),
    ] = None,
    pretrained: limits.Pretrained = None,
    resolution: limits.Resolution = None,
    mean: Annotated[
        str | None, typer.Option("--mean", help="R,G,B of the normalisation, e.g. 0.5,0.5,0.5; default: the model's.")
    ] = None,
    std: Annotated[str | None, typer.Option("--std", help="The same, of the deviation.")] = None,
    max_images: Annotated[int, typer.Option("--max-images", min=1, help="That gates are watched on.")] = 500,
    skip_bad: limits.SkipBad = False,
    covered: Annotated[int, typer.Option("--covered", min=0, help="Images that a window is moved over.")] = 6,
    window: Annotated[
        int | None, typer.Option("--window", min=1, help="Its side in pixels; default: a seventh of the image's.")
    ] = None,
    stride: Annotated[int | None, typer.Option("--stride", min=1, help="Its steps; default: half of it.")] = None,
    fill: Annotated[str, typer.Option("--fill", help="What it is covered with: grey, mean or blur.")] = "mean",
    tolerance: Annotated[
        float, typer.Option("--tolerance", help="Largest loss of accuracy that is called none, in points.")
    ] = 1.0,
    maps: Annotated[
        Path | None, typer.Option("--maps", help="Write the falls of all channels of the covered images, .npz.")
    ] = None,
    detectors: Annotated[
        bool, typer.Option("--detectors", help="Instead: networks with known detectors on generated pictures.")
    ] = False,
    threads: limits.Threads = 1,
    html: Annotated[Path | None, typer.Option("--html", help="Write a page with maps and charts to this file.")] = None,
    as_json: limits.Json = False,
) -> None:
    """Look at a network's gates: per image and class, where they listen, and which can be removed."""
    if detectors:
        if model is not None:
            raise InputError("--detectors: brings its own networks and pictures; leave MODEL and IMAGES out")
        _detectors(as_json)
        return
    if model is None or not images:
        raise InputError("probe: name MODEL and IMAGES, or --detectors; see luthier probe --help")
    from luthier.job.probe import ProbeRequest
    from luthier.job.probe import probe as run
    from luthier.probe.results import Fill
    from luthier.report import probe as page

    if fill not in get_args(Fill):
        raise InputError(f"--fill {fill}: must be one of {', '.join(get_args(Fill))}")
    request = ProbeRequest(
        resolution=resolution, pretrained=pretrained, mean=_three("--mean", mean), std=_three("--std", std),
        max_images=max_images, skip_bad=skip_bad, covered=covered, window=window, stride=stride,
        fill=fill,  # type: ignore[arg-type]  # membership was just checked
        tolerance=tolerance / 100, threads=threads,
    )  # fmt: skip
    console = output.console()
    with output.progress(console) as progress:
        found = run(model, images, request, maps=maps, say=progress)
    console.print(page.lines(found))
    if html is not None:
        page.write(found, __version__, html)
    for path in (maps, html):
        if path is not None:
            output.say(f"{path}: written")
    if as_json:
        output.document("probe", document(found))


def _three(option: str, text: str | None) -> tuple[float, float, float] | None:
    if text is None:
        return None
    try:
        r, g, b = (float(part) for part in text.split(","))
    except ValueError:
        raise InputError(
            f"{option} {text}: must be three numbers with commas between, e.g. 0.485,0.456,0.406"
        ) from None
    if option == "--std" and not min(r, g, b) > 0:
        raise InputError(f"{option} {text}: must be above 0")
    return r, g, b


def document(found: Probe) -> dict[str, Any]:
    """The JSON document: all of the findings but the pictures."""
    plain = asdict(found) | {"accuracy_kind": "measured"}
    for image in plain["covered"]:
        del image["picture"]
    return plain


def _detectors(as_json: bool) -> None:
    from luthier.probe.detectors import run_suite
    from luthier.report.analysis.terminal import grid
    from luthier.report.probe import suite_table

    console = output.console()
    with output.progress(console) as progress:
        suite = run_suite(progress)
    console.print(grid(suite_table(suite)))
    console.print("all claims hold" if suite.holds else "a claim does not hold")
    if as_json:
        output.document("probe", suite_document(suite))


def suite_document(suite: DetectorSuite) -> dict[str, Any]:
    """The JSON document of `--detectors`."""
    return asdict(suite) | {"holds": suite.holds}
