"""`luthier search`: hardware-aware search in a space of networks, under hard limits."""

from __future__ import annotations

import os
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from luthier.cli import limits, output
from luthier.cli.commands import run_name, summary
from luthier.cli.front import live, show_found
from luthier.device.registry import get as get_device

if TYPE_CHECKING:
    from luthier.search.result import Searched


def search(
    data: Annotated[str, typer.Argument(metavar="DATA", help="As for `luthier fit`.")],
    space: Annotated[str, typer.Option("--space", help="thumbnail, mobile, micro, scene, or a .toml file.")] = "mobile",
    device: limits.Device = "host",
    max_latency: limits.MaxLatency = None,
    max_memory: limits.MaxMemory = None,
    max_size: limits.MaxSize = None,
    max_macs: limits.MaxMacs = None,
    max_params: limits.MaxParams = None,
    max_energy: limits.MaxEnergy = None,
    objectives: Annotated[
        str, typer.Option("--objectives", help="accuracy, then of latency, energy, memory, size, macs, params.")
    ] = "accuracy,latency",
    time_limit: limits.TimeLimit = None,
    candidates: Annotated[
        int | None, typer.Option("--candidates", min=1, help="Train at most so many; default: what the time allows.")
    ] = None,
    candidate_epochs: Annotated[
        int | None,
        typer.Option("--candidate-epochs", min=0, help="Of each; 0: as inherited. Default: by the time."),
    ] = None,
    shared_epochs: Annotated[
        int | None,
        typer.Option("--shared-epochs", min=1, help="Of the supernet; default: by the time, up to 30."),
    ] = None,
    trainer: Annotated[
        str, typer.Option("--trainer", help="halving: candidates trained apart; supernet: they share weights.")
    ] = "halving",
    storage: Annotated[
        str | None,
        typer.Option(
            "--storage",
            help="Of the study: a journal file, or a data base (postgresql://...).",
        ),
    ] = None,
    study: Annotated[
        str | None, typer.Option("--study", help="Name of the study; processes that name one share it.")
    ] = None,
    front_only: Annotated[
        bool, typer.Option("--front-only", help="End with the front: train no network to the end.")
    ] = False,
    cluster: limits.Cluster = None,
    jobs: limits.Jobs = 1,
    run_dir: limits.RunDir = None,
    seed: limits.Seed = 0,
    skip_bad: limits.SkipBad = False,
    threads: limits.Threads = 1,
    accelerator: limits.Accelerator = "auto",
    as_json: limits.Json = False,
) -> None:
    """Search a space of networks for those that nobody beats within the limits, and train the best one to the end."""
    from luthier.job.search import search as run_search
    from luthier.job.search_task import SearchRequest
    from luthier.search.cluster import open_workers

    budget = limits.read_limits(max_latency, max_memory, max_size, max_macs, max_params, max_energy)
    if device != "host":
        budget = budget.with_memories(get_device(device))
    request = SearchRequest(
        command="search",
        data=limits.absolute(data),
        space=limits.absolute(space) or space,
        device=limits.absolute(device) or "host",
        objectives=objectives,
        time_limit_s=limits.read_time(time_limit, 1800.0),
        candidates=candidates,
        candidate_epochs=candidate_epochs,
        shared_epochs=shared_epochs,
        trainer=trainer,
        storage=storage if storage is None or "://" in storage else os.path.abspath(storage),
        study=study,
        front_only=front_only,
        seed=seed,
        skip_bad=skip_bad,
        threads=threads,
        accelerator=accelerator,
        **asdict(budget),
    )
    folder = run_dir or Path("runs") / run_name(request)
    with open_workers(cluster, jobs) as workers, live() as told:
        found, result = run_search(request, folder, output.say, told, workers)
    _show(found, result, folder, as_json)


def _show(found: Searched, result: Any, folder: Path, as_json: bool) -> None:
    show_found(found, folder)
    document: dict[str, Any] = {
        "run_dir": str(folder),
        "space": found.space,
        "networks": found.count,
        "trained": len(found.points),
        "front": [_point(point, folder) for point in found.points if point.on_front],
        "attention": found.verdict,
        "wall_s": found.wall_s,
        "deployed": None if found.deployed is None else asdict(found.deployed),
    }
    if result is not None:
        from luthier.report import lines, write

        write(result, folder / "report.html")
        output.console().print(lines(result, folder))
        document = {**summary(result, folder), **document}
    if as_json:
        output.document("search", document)


def _point(point: Any, folder: Path) -> dict[str, Any]:
    costs: dict[str, Any] = {}
    for key, value in point.costs.items():
        costs |= {key: value, f"{key}_kind": point.kinds[key]}
    return {
        "network": str(folder / "front" / f"{point.name}.json"), "accuracy": point.accuracy,
        "accuracy_kind": "measured", **costs,
    }  # fmt: skip
