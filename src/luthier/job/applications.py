"""`luthier scene train --task`: from a file of records to a model that is judged and explained."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final, get_args

import numpy as np

from luthier import documents, files
from luthier.cost.summary import cost
from luthier.errors import InputError
from luthier.job.folder import open_run
from luthier.job.request import Stored
from luthier.scene.draw import as_base64, with_legend, write_png
from luthier.scene.result import Explained, Outcome, Size
from luthier.scene.tasks.application import judge
from luthier.scene.tasks.cover import Cover
from luthier.scene.tasks.explain import explain
from luthier.scene.tasks.registry import Design, TaskName, find
from luthier.scene.tasks.store import run_trials, save_ensemble

Say = Callable[[float, str], None]
SCHEMA: Final = "luthier.application/1"


@dataclass(frozen=True, kw_only=True)
class TaskRequest(Stored):
    """What was asked.

    Attributes:
        task: one of the four.
        data: file or folder, absolute.
        repeats: of the held-out splits; None = each data set's own number.
        seed: of the model that is kept.
    """

    task: str
    data: str
    repeats: int | None = None
    seed: int = 0


def run_task(request: TaskRequest, path: Path, say: Say) -> tuple[Outcome, ...]:
    """Judge our method and its rivals on held-out records, then train on all of them; what is finished is only read.

    The folder holds, for each data set, `trials.jsonl`, `outcome.json`, the trained ensembles, and `map.png` where the
    records are from one scene.

    Raises:
        InputError: an unknown task, or data that it cannot use.
    """
    if request.task not in get_args(TaskName):
        raise InputError(f"--task {request.task}: must be one of {', '.join(get_args(TaskName))}")
    found = find(request.task, Path(request.data))  # type: ignore[arg-type]  # just checked
    with open_run(path, request):
        return tuple(
            _outcome(design, file, request, path / design.name, _part(say, number, len(found)))
            for number, (design, file) in enumerate(found)
        )


def _part(say: Say, number: int, count: int) -> Say:
    return lambda share, what: say((number + share) / count, what)


def _draw(cover: Cover, path: Path) -> None:
    """The map beside what is known of the ground, with its legend and hectares."""
    areas = ["" if one.area_ha is None else f"{one.area_ha:.1f} ha" for one in cover.mapped]
    beside = np.concatenate([picture for _, picture in cover.pictures[:2]], axis=1)
    write_png(with_legend(beside, [one.name for one in cover.mapped], areas), path)


def _outcome(design: Design, file: Path, request: TaskRequest, folder: Path, say: Say) -> Outcome:
    stored = folder / "outcome.json"
    if stored.exists():
        return documents.from_text(Outcome, stored.read_text("utf-8"), SCHEMA, str(stored))
    application = design.make(file)
    with files.explaining(folder):
        folder.mkdir(parents=True, exist_ok=True)
    say(0.0, f"{design.name}: held-out splits")
    trials = run_trials(application, request.repeats or design.repeats, folder / "trials.jsonl")
    judged = judge(application, trials)
    say(0.7, f"{design.name}: on all records")
    ensembles = application.train_all(request.seed) if application.train_all is not None else {}
    for name, ensemble in ensembles.items():
        save_ensemble(ensemble, folder / name)
    say(0.9, f"{design.name}: what the mixer learnt")
    explained = explain(application.examine(), request.seed) if application.examine is not None else Explained()
    bills = {name: (cost(ensemble.network), len(ensemble.members)) for name, ensemble in ensembles.items()}
    cover = application.cover(ensembles) if application.cover is not None else Cover((), ())
    if cover.pictures:
        _draw(cover, folder / "map.png")
    outcome = Outcome(
        judged=judged, trials=tuple(trials), explained=explained, data=str(file),
        sizes={name: Size(members=n, params=bill.params, macs=bill.macs) for name, (bill, n) in bills.items()},
        curves=application.curves, mapped=cover.mapped,
        pictures=tuple((title, as_base64(picture)) for title, picture in cover.pictures),
    )  # fmt: skip
    files.write_text(stored, documents.to_text(outcome, SCHEMA))
    return outcome
