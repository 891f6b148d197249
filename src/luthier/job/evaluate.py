"""One candidate's training as a task that any process can do, here, beside this one or on a cluster."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from luthier.arch.network import Network
from luthier.job.folder import Clock
from luthier.job.session import Session
from luthier.job.study import Round
from luthier.job.trials import play_round
from luthier.search.workers import Here, Workers


@dataclass(frozen=True)
class Training:
    """What is to be trained.

    Attributes:
        number: tells the trainings under way apart.
        row: of the network, in the space's `Slots`.
        epochs: length of the schedule.
        folder: of the checkpoint; on another machine a folder of that machine, unless they share it.
        label: in the progress display.
        begin_s, deadline_s: elapsed time of the run when it is asked for, and when no further step is begun.
    """

    number: int
    row: tuple[int, ...]
    network: Network
    epochs: int
    folder: Path
    label: str
    begin_s: float
    deadline_s: float


def train_here(session: Session, asked: Training) -> Round:
    """In the process of the run, on its clock and in front of its user."""
    return play_round(
        session, asked.network, asked.epochs, asked.folder, asked.label, begin_s=asked.begin_s,
        deadline_s=asked.deadline_s,
    )  # fmt: skip


def train_elsewhere(session: Session, asked: Training) -> Round:
    """In another process: on a clock of its own, what it says goes to `log` beside the checkpoint."""
    asked.folder.mkdir(parents=True, exist_ok=True)
    clock = Clock(asked.folder / "clock.json", session.clock.limit_s, _before_s=asked.begin_s)
    with (asked.folder / "log").open("a") as log, contextlib.redirect_stderr(log):
        return train_here(replace(session, clock=clock), asked)


def train_all(session: Session, workers: Workers, asked: Iterable[Training]) -> Iterator[tuple[Training, Round]]:
    """Trainings as they end; with one worker, in the process of the run."""
    if isinstance(workers, Here):
        return workers.map(train_here, session, asked)
    return workers.map(train_elsewhere, _portable(session), asked)


def _portable(session: Session) -> Session:
    """The session without what belongs to one process."""
    return replace(session, say=_quiet)


def _quiet(line: str) -> None:
    pass
