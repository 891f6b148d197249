"""`luthier scene train|map|split`: hyperspectral scenes from a cube to an honest map."""

from __future__ import annotations

import hashlib
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from luthier import __version__
from luthier.cli import limits, output

if TYPE_CHECKING:
    from luthier.scene.results import SceneReport

app = typer.Typer(
    help="Hyperspectral scenes: train, map, and split without leakage.", no_args_is_help=True, rich_markup_mode=None
)

SceneFile = Annotated[
    str,
    typer.Argument(metavar="[SCENE]", help="A .mat, .npz, .npy, .hdr (ENVI) or .tif file; default: Indian Pines."),
]
Labels = Annotated[str | None, typer.Option("--labels", help="Label map (H, W): 0 = not labelled, 1 .. K.")]
ClassNames = Annotated[str | None, typer.Option("--class-names", help="Of the classes 1 .. K, with commas between.")]
Wavelengths = Annotated[str | None, typer.Option("--wavelengths", help="A text file with one wavelength per band.")]
Model = Annotated[str, typer.Option("--model", help="A dense preset such as mbconv_scene, or a network.json.")]
SplitKind = Annotated[str, typer.Option("--split", help="blocks (guarded), random (leaks), or given (masks).")]
TrainMask = Annotated[str | None, typer.Option("--train-mask", help="With --split given: a map, not 0 = trains.")]
TestMask = Annotated[str | None, typer.Option("--test-mask", help="With --split given: a map, not 0 = judges.")]
Guard = Annotated[
    int | None, typer.Option("--guard", min=0, help="Pixels between training squares and test; default: the field's.")
]
Block = Annotated[int | None, typer.Option("--block", min=1, help="Side of the squares; default: the field's.")]
TrainShare = Annotated[float, typer.Option("--train-share", help="Of every class's pixels that train.")]
SplitSeed = Annotated[int, typer.Option("--split-seed", min=0, help="Of the shuffle of the squares.")]
OutFormat = Annotated[str, typer.Option("--format", help="Of the maps: geotiff or envi.")]


@app.command("train")
def train(
    scene: SceneFile = "indian_pines", labels: Labels = None, class_names: ClassNames = None,
    wavelengths: Wavelengths = None, model: Model = "mbconv_scene", split: SplitKind = "blocks",
    train_mask: TrainMask = None, test_mask: TestMask = None, guard: Guard = None, block: Block = None,
    train_share: TrainShare = 0.1, split_seed: SplitSeed = 0,
    splits: Annotated[int, typer.Option("--splits", min=1, help="Train on so many splits; the first is kept.")] = 1,
    epochs: Annotated[int | None, typer.Option("--epochs", min=1, help="Passes over the training squares.")] = None,
    peers: Annotated[
        str, typer.Option("--peers", help="Others on the same split, with commas between: svm, forest, hybridsn.")
    ] = "",
    task: Annotated[
        str | None,
        typer.Option("--task", help="crop-stress, water-quality, deforestation or minerals; its records by --data."),
    ] = None,
    data: Annotated[
        Path | None, typer.Option("--data", help="With --task: an .npz archive of records, or a folder that holds one.")
    ] = None,
    repeats: Annotated[
        int | None, typer.Option("--repeats", min=1, help="With --task: repetitions of the held-out splits.")
    ] = None,
    form: OutFormat = "geotiff", max_latency: limits.MaxLatency = None, max_memory: limits.MaxMemory = None,
    max_size: limits.MaxSize = None, max_macs: limits.MaxMacs = None, max_params: limits.MaxParams = None,
    max_energy: limits.MaxEnergy = None, device: limits.Device = "host", run_dir: limits.RunDir = None,
    seed: limits.Seed = 0, threads: limits.Threads = 1, as_json: limits.Json = False,
) -> None:  # fmt: skip
    """Train on a scene's labelled squares, judge on ground that was never seen, and map the whole scene.

    With --task, train on single spectra or time series instead, and judge on held-out records beside the baselines.
    """
    if task is not None:
        from luthier.cli.scene_task import train_task

        return train_task(task, data, repeats, run_dir, seed, as_json=as_json)
    from luthier.job.scene import run_train
    from luthier.job.scene_request import SceneRequest
    from luthier.report import scene as page

    budget = limits.read_limits(max_latency, max_memory, max_size, max_macs, max_params, max_energy)
    request = SceneRequest(
        command="scene train", scene=limits.absolute(scene) or scene, labels=limits.absolute(labels),
        class_names=class_names, wavelengths=limits.absolute(wavelengths), model=limits.absolute(model) or model,
        split=split, train_mask=limits.absolute(train_mask), test_mask=limits.absolute(test_mask), guard=guard,
        block=block, train_share=train_share, split_seed=split_seed, splits=splits, epochs=epochs, seed=seed,
        peers=peers, format=form, threads=threads, device=limits.absolute(device) or "host", **asdict(budget),
    )  # fmt: skip
    name = hashlib.sha256(repr(request).encode()).hexdigest()[:8]
    folder = run_dir or Path("runs") / f"scene-{Path(scene).stem}-{name}"
    console = output.console()
    with output.progress(console) as progress:
        report = run_train(request, folder, progress)
    page.write(report, __version__, folder / "report.html")
    console.print(page.lines(report))
    output.say(f"{folder}: map.png, classes and probability, report.html")
    if as_json:
        output.document("scene train", summary(report, folder))


def summary(report: SceneReport, folder: Path) -> dict[str, Any]:
    """The JSON document of a training: all of the report but its pictures and spectra."""
    plain = asdict(report)
    accuracy = plain.pop("accuracy")
    for key in ("pictures", "wavelengths_nm", "losses"):
        del plain[key]
    for one in plain["classes"]:
        del one["spectrum"], one["spread"]
    kinds = {
        "overall_accuracy_kind": "measured", "average_accuracy_kind": "measured", "kappa_kind": "measured",
        "latency_s_kind": "measured", "peak_activation_bytes_kind": "modelled",
    }  # fmt: skip
    accuracy["judged_classes"] = accuracy.pop("classes")
    return {"run_dir": str(folder), **accuracy, **kinds, **plain}


@app.command("map")
def map_scene(
    model: Annotated[Path, typer.Option("--model", help="The run folder of a finished luthier scene train.")],
    scene: SceneFile = "indian_pines",
    wavelengths: Wavelengths = None,
    tolerance: Annotated[
        float | None,
        typer.Option("--band-tolerance", min=0, help="How far a band may be from the model's, in nm."),
    ] = None,
    out: Annotated[Path | None, typer.Option("--out", "-o", help="Folder of the maps; default: SCENE-map.")] = None,
    form: OutFormat = "geotiff", threads: limits.Threads = 1, as_json: limits.Json = False,
) -> None:  # fmt: skip
    """Map a scene with a trained model: classes, probabilities, a picture, hectares."""
    from luthier.job.map_scene import run_map
    from luthier.report import scene as page

    console = output.console()
    folder = out or Path(f"{Path(scene).stem}-map")
    with output.progress(console) as progress:
        report = run_map(scene, model, folder, form, wavelengths, tolerance, threads, progress)
    console.print(page.map_lines(report))
    for path in report.paths:
        output.say(f"{path}: written")
    if as_json:
        output.document("scene map", asdict(report) | {"latency_s_kind": "measured"})


@app.command("explain")
def explain(
    model: Annotated[Path, typer.Option("--model", help="The run folder of a finished luthier scene train.")],
    html: Annotated[Path | None, typer.Option("--html", help="Write a page with charts to this file.")] = None,
    seed: limits.Seed = 0, as_json: limits.Json = False,
) -> None:  # fmt: skip
    """What the spectral mixer learnt: bands that matter on the test pixels, and known indices that it follows."""
    from luthier.cli.scene_task import explained
    from luthier.job.explain_scene import explain_scene
    from luthier.report import mixer as page
    from luthier.report.applications import explained_lines

    found = explain_scene(model, seed)
    output.say("\n".join([*explained_lines(found)[1:], *filter(None, [page.filters_sentence(found)])]))
    if html is not None:
        page.write(found, model.name, __version__, html)
        output.say(f"{html}: written")
    if as_json:
        output.document("scene explain", explained(found))


@app.command("split")
def split_scene(
    scene: SceneFile = "indian_pines", labels: Labels = None, class_names: ClassNames = None,
    model: Model = "mbconv_scene", split: SplitKind = "blocks", train_mask: TrainMask = None,
    test_mask: TestMask = None, guard: Guard = None, block: Block = None, train_share: TrainShare = 0.1,
    split_seed: SplitSeed = 0,
    out: Annotated[Path | None, typer.Option("--out", "-o", help="Write the masks train and test, .npz.")] = None,
    as_json: limits.Json = False,
) -> None:  # fmt: skip
    """Show how a scene would be split: pixels of every class on either side, and how far the split leaks."""
    from luthier.job.scene_request import SceneRequest, run_split
    from luthier.report import scene as page

    request = SceneRequest(
        command="scene split", scene=scene, labels=labels, class_names=class_names, model=model, split=split,
        train_mask=train_mask, test_mask=test_mask, guard=guard, block=block, train_share=train_share,
        split_seed=split_seed,
    )  # fmt: skip
    report = run_split(request, out)
    output.console().print(page.split_lines(report))
    if out is not None:
        output.say(f"{out}: written")
    if as_json:
        output.document("scene split", asdict(report))
