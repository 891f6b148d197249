"""The commands of this version: `fit`, `train`, `run`, `report`, `data convert`."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer

from luthier.cli import limits, output
from luthier.cli.front import live, show_found
from luthier.device.registry import get as get_device
from luthier.errors import InputError
from luthier.job.folder import finished
from luthier.job.request import Request
from luthier.job.result import Result
from luthier.job.result import read as read_result

#: `luthier fit` without DATA: handwritten digits under limits of a small microcontroller's kind
DIGITS_LIMITS = {"macs": "1.2M", "params": "130k", "memory": "32KiB"}
DIGITS_TIME_S = 120.0


def fit(
    data: Annotated[
        str | None,
        typer.Argument(
            metavar="[DATA]",
            help="A folder of class folders, an .npz with x and y, torchvision:NAME, or digits, the default.",
        ),
    ] = None,
    model: Annotated[
        str | None, typer.Option("--model", help="Baseline whose compound-scaled family is tried.")
    ] = None,
    device: limits.Device = "host",
    max_latency: limits.MaxLatency = None,
    max_memory: limits.MaxMemory = None,
    max_size: limits.MaxSize = None,
    max_macs: limits.MaxMacs = None,
    max_params: limits.MaxParams = None,
    max_energy: limits.MaxEnergy = None,
    time_limit: limits.TimeLimit = None,
    pretrained: limits.Pretrained = None,
    resolution: Annotated[
        int | None, typer.Option("--resolution", min=1, help="Fix the input's side, in pixels.")
    ] = None,
    space: Annotated[
        str,
        typer.Option(
            "--space",
            help="Search among networks: auto (where the time allows it), none, or a space as for luthier search.",
        ),
    ] = "auto",
    run_dir: limits.RunDir = None,
    seed: limits.Seed = 0,
    skip_bad: limits.SkipBad = False,
    threads: limits.Threads = 1,
    accelerator: limits.Accelerator = "auto",
    trials: limits.Trials = None,
    cluster: limits.Cluster = None,
    jobs: limits.Jobs = 1,
    as_json: limits.Json = False,
) -> None:
    """Find, train, export and measure the most accurate network of a family that fits every limit."""
    given = {
        "latency": max_latency, "memory": max_memory, "size": max_size, "macs": max_macs, "params": max_params,
        "energy": max_energy,
    }  # fmt: skip
    if data is None and not any(given.values()) and device == "host":
        given |= DIGITS_LIMITS
    budget = limits.read_limits(**given)
    if device != "host":
        # here and not in the job, so that the run's own file says which limits held
        budget = budget.with_memories(get_device(device))
    request = Request(
        command="fit",
        model=limits.absolute(model),
        data=limits.absolute(data),
        device=limits.absolute(device) or "host",
        time_limit_s=limits.read_time(time_limit, DIGITS_TIME_S if data is None else 600.0),
        pretrained=limits.absolute(pretrained),
        resolution=resolution,
        seed=seed,
        skip_bad=skip_bad,
        threads=threads,
        accelerator=accelerator,
        space=None if space == "auto" else limits.absolute(space),
        **asdict(budget),
    )
    _start(request, run_dir, as_json, trials or [], cluster, jobs)


def train(
    model: Annotated[str, typer.Argument(metavar="MODEL", help="A preset, a run folder, or a network.json.")],
    data: Annotated[str, typer.Argument(metavar="DATA", help="As for `luthier fit`.")],
    epochs: Annotated[
        int | None, typer.Option("--epochs", min=1, help="Length; default: what the time limit allows.")
    ] = None,
    time_limit: limits.TimeLimit = None,
    pretrained: limits.Pretrained = None,
    resolution: limits.Resolution = None,
    run_dir: limits.RunDir = None,
    seed: limits.Seed = 0,
    skip_bad: limits.SkipBad = False,
    threads: limits.Threads = 1,
    accelerator: limits.Accelerator = "auto",
    devices: Annotated[int, typer.Option("--devices", min=1, help="Processes per machine; needs --epochs.")] = 1,
    num_nodes: Annotated[int, typer.Option("--num-nodes", min=1, help="Machines; needs --epochs.")] = 1,
    as_json: limits.Json = False,
) -> None:
    """Train one network as it is, export and measure it."""
    request = Request(
        command="train",
        model=limits.absolute(model),
        data=limits.absolute(data),
        epochs=epochs,
        time_limit_s=limits.read_time(time_limit, 600.0 if epochs is None else 7 * 86400.0),
        pretrained=limits.absolute(pretrained),
        resolution=resolution,
        seed=seed,
        skip_bad=skip_bad,
        threads=threads,
        accelerator=accelerator,
        devices=devices,
        num_nodes=num_nodes,
    )
    _start(request, run_dir, as_json)


def run(
    run_dir: Annotated[Path, typer.Argument(metavar="RUN", help="A finished run folder.")],
    images: Annotated[list[Path], typer.Argument(metavar="IMAGES...", help="Image files, or folders of them.")],
    threads: limits.Threads = 1,
    as_json: limits.Json = False,
) -> None:
    """Classify images with a finished run: class and probability of each."""
    from luthier.job.classify import classify

    answers = []
    for answer in classify(run_dir, images, threads):
        if as_json:
            answers.append(asdict(answer))
        else:
            typer.echo(f"{answer.image}\t{answer.label}\t{answer.probability:.4f}")
    if as_json:
        output.document("run", {"run_dir": str(run_dir), "images": answers})


def report(
    run_dir: Annotated[Path, typer.Argument(metavar="RUN", help="A finished run folder.")],
    as_json: limits.Json = False,
) -> None:
    """Rebuild report.html from the run folder alone."""
    from luthier.report import write

    result = read_result(run_dir / "result.json")
    write(result, run_dir / "report.html")
    output.say(f"{run_dir / 'report.html'}: written")
    if as_json:
        output.document("report", summary(result, run_dir))


def convert(
    source: Annotated[Path, typer.Argument(metavar="STORE", help="An .npz with jpeg, offsets and labels.")],
    out: Annotated[Path | None, typer.Argument(metavar="[OUT.npz]", help="A plain .npz with x, y and split.")] = None,
    tree: Annotated[Path | None, typer.Option("--tree", help="A folder to fill with one folder per class.")] = None,
    as_json: limits.Json = False,
) -> None:
    """Turn a store of JPEG bytes into a plain .npz, a class-per-folder tree, or both."""
    from luthier.train.convert import read_store, store_to_npz, store_to_tree

    if out is None and tree is None:
        raise InputError("data convert: name OUT.npz, --tree FOLDER, or both")
    store = read_store(source)
    written: dict[str, Any] = {}
    if out is not None:
        written |= {"npz": str(out), "shape": list(store_to_npz(store, out))}
    if tree is not None:
        written |= {"tree": str(tree), "images": store_to_tree(store, tree)}
    made = ", ".join(str(path) for path in (out, tree) if path is not None)
    output.say(f"written: {made}")
    if as_json:
        output.document("data convert", written)


def _start(
    request: Request, run_dir: Path | None, as_json: bool, trials: Sequence[Path] = (), cluster: str | None = None,
    jobs: int = 1,
) -> None:  # fmt: skip
    from luthier.report import lines, write

    console = output.console()
    folder = run_dir or Path("runs") / run_name(request)

    def say(line: str) -> None:
        if os.environ.get("LOCAL_RANK", "0") == "0":  # of several processes the first speaks
            output.say(line)

    result = finished(folder, request)
    if result is not None:
        say(f"{folder}: finished before; nothing to do (choose another --run-dir to run again)")
    else:
        # here and not above: torch takes seconds to import
        from luthier.job.fit import fit as run_fit
        from luthier.search.cluster import open_workers

        with open_workers(cluster, jobs) as workers, live() as told:
            result = run_fit(request, folder, say, trials, workers, told)
    if result is None:
        return
    page, source = folder / "report.html", folder / "result.json"
    if not page.exists() or page.stat().st_mtime_ns < source.stat().st_mtime_ns:
        write(result, page)
    if (searched := folder / "search.json").exists():
        from luthier.search.result import read as read_search

        show_found(read_search(searched), folder)
    console.print(lines(result, folder))
    if as_json:
        output.document(request.command, summary(result, folder))


def run_name(request: Request) -> str:
    """Readable and the same for the same request, so that the same command finds its own run."""
    stem = Path(request.data or "digits").stem.replace(":", "-") or "run"
    return f"{request.command}-{stem}-{hashlib.sha256(repr(request).encode()).hexdigest()[:8]}"


def summary(result: Result, run_dir: Path) -> dict[str, Any]:
    """The JSON document of a finished run, in the words all commands share."""
    best = result.winner
    return {
        "run_dir": str(run_dir),
        "network": best.name,
        "accuracy": best.test_accuracy,
        "accuracy_kind": "measured",
        "accuracy_interval": list(best.test_interval),
        "params": best.params,
        "macs": best.macs,
        "peak_activation_bytes": best.peak_activation_bytes,
        "peak_activation_bytes_kind": "modelled",
        "size_bytes": best.size_bytes,
        "size_bytes_kind": "measured",
        "latency_s": best.latency_s,
        "latency_s_kind": "measured",
        "latency_spread_s": best.latency_spread_s,
        "latency_runtime": best.latency_runtime,
        "wall_s": result.wall_s,
        "epochs": len(best.history),
        "limits": [{**asdict(limit), "holds": limit.holds} for limit in result.limits],
        "candidates": [asdict(candidate) for candidate in result.candidates],
        "data": asdict(result.data),
        "remarks": list(result.remarks),
    }
