"""`luthier search`: hardware-aware search in a space of networks, under hard limits."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from luthier import __version__
from luthier.cli import limits, output
from luthier.cli.commands import run_name, summary
from luthier.device.registry import get as get_device
from luthier.files import write_text
from luthier.units import show

if TYPE_CHECKING:
    from luthier.job.search_task import SearchRequest, Standing, Told
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
        int | None, typer.Option("--candidate-epochs", min=1, help="Of each (of the supernet); default: by the time.")
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
    with open_workers(cluster, jobs) as workers, _live(request) as told:
        found, result = run_search(request, folder, output.say, told, workers)
    _show(found, result, folder, as_json)


def _show(found: Searched, result: Any, folder: Path, as_json: bool) -> None:
    from luthier.report import lines, write
    from luthier.report import search as page

    console = output.console()
    write_text(folder / "search.html", page.render(found, __version__))
    console.print(page.lines(found))
    output.say(f"{folder / 'front'}: the front's networks; {folder / 'search.html'}: what was learnt")
    document: dict[str, Any] = {
        "run_dir": str(folder),
        "space": found.space,
        "networks": found.count,
        "trained": len(found.points),
        "front": [_point(point, folder) for point in found.points if point.on_front],
        "attention": found.verdict,
        "wall_s": found.wall_s,
    }
    if result is not None:
        write(result, folder / "report.html")
        console.print(lines(result, folder))
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


@contextlib.contextmanager
def _live(request: SearchRequest) -> Iterator[Told]:
    """A table of the front that stays up to date on a terminal; elsewhere a line whenever the front changes."""
    from rich.live import Live

    console = output.console()
    if console.is_terminal:
        with Live(console=console, refresh_per_second=2) as live:
            yield lambda standing: live.update(table(standing))
        return
    last: list[tuple[str, ...]] = [()]

    def line(standing: Standing) -> None:
        names = tuple(name for name, _, _ in standing.front)
        if names != last[0]:
            last[0] = names
            best = max(standing.front, key=lambda one: one[1])
            output.say(
                f"front after {standing.trained}: {len(names)} networks, best {best[0]} {best[1]:.1%}; "
                f"about {show(max(1.0, standing.eta_s), 'duration')} left"
            )

    yield line


def table(standing: Standing) -> Any:
    """The front as it is, and how long the search still takes."""
    from rich.table import Table

    from luthier.search.price import COSTS

    keys = list(standing.front[0][2]) if standing.front else []
    found = Table(
        title=f"{standing.trained} trained, {standing.share:.0%} of the search, "
        f"about {show(max(1.0, standing.eta_s), 'duration')} left"
    )
    found.add_column("network")
    found.add_column("accuracy", justify="right")
    for key in keys:
        found.add_column(key, justify="right")
    for name, accuracy, costs in standing.front:
        found.add_row(name, f"{accuracy:.1%}", *(show(costs[key], COSTS[key]) for key in keys))
    return found
