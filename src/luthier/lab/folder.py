"""A lab's folder: one small file per finished training, written whole; what it holds is never trained again.

lab.json                    whose records these are: name, size, settings, facts of the arms
records/ARM/SEED.json       one training
training/ARM/SEED/          checkpoints of a training in flight
result.json, report.html, NAME.md, NAME-*.svg
"""

from __future__ import annotations

import contextlib
import json
import shutil
from collections.abc import Iterator
from pathlib import Path

from luthier import documents, files
from luthier.errors import RunFolderError
from luthier.job.hold import hold as one_at_a_time
from luthier.lab.experiment import Experiment
from luthier.lab.result import RECORD_SCHEMA, RUN_SCHEMA, Record

IDENTITY = "lab.json"


def identity(experiment: Experiment) -> dict[str, object]:
    """What two runs must agree on to share records; the number of seeds may grow."""
    return {
        "schema": RUN_SCHEMA,
        "name": experiment.name,
        "size": experiment.size,
        "settings": dict(experiment.settings),
        "arms": {arm.name: dict(arm.facts) for arm in experiment.arms},
    }


@contextlib.contextmanager
def hold(folder: Path, experiment: Experiment) -> Iterator[None]:
    """Create the folder or go on in it, and keep other processes out until the block ends.

    Raises:
        RunFolderError: it holds another experiment, or something else; another process works in it; not writable.
    """
    with one_at_a_time(folder, IDENTITY):
        if (folder / IDENTITY).exists():
            refuse_other(folder, experiment)
        else:
            files.write_text(folder / IDENTITY, json.dumps(identity(experiment), indent=1) + "\n")
        yield


def refuse_other(folder: Path, experiment: Experiment) -> None:
    """Records of other arms or settings are never mixed.

    Raises:
        RunFolderError: names the first thing that differs.
    """
    try:
        theirs = json.loads((folder / IDENTITY).read_text("utf-8"))
    except (OSError, ValueError) as error:
        raise RunFolderError(f"{folder / IDENTITY}: cannot be read ({error}); choose another --run-dir") from None
    for key, value in identity(experiment).items():
        found = theirs.get(key) if isinstance(theirs, dict) else None
        if found != value:
            raise RunFolderError(f"{folder}: holds a lab of another {key}; choose another --run-dir")


def record_path(folder: Path, arm: str, seed: int) -> Path:
    """Where a training's record is."""
    return folder / "records" / arm.replace(" ", "_") / f"{seed}.json"


def training_path(folder: Path, arm: str, seed: int) -> Path:
    """Where a training in flight keeps its checkpoint."""
    return folder / "training" / arm.replace(" ", "_") / str(seed)


def write(folder: Path, record: Record) -> None:
    """Store a record, then forget the checkpoints that led to it."""
    files.write_text(record_path(folder, record.arm, record.seed), documents.to_text(record, RECORD_SCHEMA))
    shutil.rmtree(training_path(folder, record.arm, record.seed), ignore_errors=True)


def read(folder: Path, experiment: Experiment) -> list[Record]:
    """The records that there are, by seed, then arm.

    Raises:
        SpecError: a record that another program wrote.
    """
    found = []
    for seed in range(experiment.seeds):
        for arm in experiment.arms:
            path = record_path(folder, arm.name, seed)
            if path.exists():
                found.append(documents.from_text(Record, path.read_text("utf-8"), RECORD_SCHEMA, str(path)))
    return found
