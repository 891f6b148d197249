"""`luthier lab`: the textbook's claims, re-run on real data."""

from __future__ import annotations

import os
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Final

import typer

from luthier import __version__
from luthier.cli import limits, output
from luthier.errors import InputError

#: what tests and benchmarks read too
DATA_VARIABLE: Final = "LUTHIER_DATA"


def lab(
    name: Annotated[str | None, typer.Argument(metavar="[NAME]", help="Which lab; without it, all are listed.")] = None,
    data: Annotated[
        Path | None, typer.Option("--data", help=f"Folder of the real data; default: what {DATA_VARIABLE} names.")
    ] = None,
    standard: Annotated[
        bool, typer.Option("--standard", help="The size of docs/labs: within 90 minutes on two cores.")
    ] = False,
    full: Annotated[bool, typer.Option("--full", help="All images and longer trainings: for a GPU.")] = False,
    seeds: Annotated[int | None, typer.Option("--seeds", help="Trainings of each arm; default: the size's.")] = None,
    jobs: Annotated[int, typer.Option("--jobs", help="Trainings at a time, one thread each; 0 = one a core.")] = 0,
    render: Annotated[
        bool, typer.Option("--render", help="Train nothing: write the pages from the records that there are.")
    ] = False,
    out: Annotated[
        Path | None,
        typer.Option("--out", "-o", help="Folder for the pages, figures and JSON; default: the run's own."),
    ] = None,
    run_dir: limits.RunDir = None,
    accelerator: limits.Accelerator = "auto",
    as_json: limits.Json = False,
) -> None:
    """Run an experiment of the textbook again; without a size, a smoke run that is too small for a verdict."""
    from luthier.lab.registry import LABS

    console = output.console()
    if name is None:
        for each, (_, question) in LABS.items():
            output.say(f"{each:12} {question}")
        if as_json:
            output.document("lab", {"labs": {each: question for each, (_, question) in LABS.items()}})
        return
    if standard and full:
        raise InputError("--standard, --full: choose one size")

    from luthier.job.folder import environment
    from luthier.lab import folder as store
    from luthier.lab import page
    from luthier.lab.experiment import Order
    from luthier.lab.judge import judge
    from luthier.lab.progress import LabProgress
    from luthier.lab.registry import build
    from luthier.lab.run import run

    named = data or (Path(os.environ[DATA_VARIABLE]) if os.environ.get(DATA_VARIABLE) else None)
    if jobs < 0:
        raise InputError(f"--jobs: must be at least 0, got {jobs}")
    size = "full" if full else "standard" if standard else "quick"
    order = Order(name, size, None if named is None else named.absolute(), seeds, accelerator)  # type: ignore[arg-type]
    experiment = build(order)
    run_folder = run_dir or Path("runs") / f"lab-{name}-{size}"
    if render:  # also while another process trains
        store.refuse_other(run_folder, experiment)
    else:
        with (
            store.hold(run_folder, experiment),
            LabProgress(console, experiment, store.read(run_folder, experiment)) as bar,
        ):
            run(experiment, order, run_folder, jobs=jobs or os.cpu_count() or 1, told=bar.told)
    found = judge(experiment, store.read(run_folder, experiment), environment())
    written = page.write(found, __version__, out or run_folder)
    console.print(page.lines(found))
    output.say(f"{written[1]}: written")
    if as_json:
        output.document("lab", {**asdict(found), "run_dir": str(run_folder)})
