"""One candidate's training as a task that any process can do, here, beside this one or on a cluster."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeAlias

from luthier.arch.network import Network
from luthier.job.folder import Clock
from luthier.job.session import Session
from luthier.job.study import Round
from luthier.job.trials import play_round
from luthier.nn.build import Classifier
from luthier.search.workers import Here, Workers


@dataclass(frozen=True)
class Training:
    """What is to be trained.

    Attributes:
        number: tells the trainings under way apart.
        row: of the network, in the space's `Slots`.
        epochs: length of the schedule; 0 where the network is judged by weights that it inherits.
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


#: judges one network; a function of a module, or a `functools.partial` of one
Play: TypeAlias = Callable[[Session, Training], Round]


def train_here(session: Session, asked: Training, module: Classifier | None = None) -> Round:
    """In the process of the run, on its clock and in front of its user.

    Args:
        module: see `Session.train`.
    """
    return play_round(
        session, asked.network, asked.epochs, asked.folder, asked.label, module=module, begin_s=asked.begin_s,
        deadline_s=asked.deadline_s,
    )  # fmt: skip


def play_elsewhere(shared: tuple[Play, Session], asked: Training) -> Round:
    """In another process: on a clock of its own, what it says goes to `log` beside the checkpoint."""
    play, session = shared
    asked.folder.mkdir(parents=True, exist_ok=True)
    clock = Clock(asked.folder / "clock.json", session.clock.limit_s, _before_s=asked.begin_s)
    with (asked.folder / "log").open("a") as log, contextlib.redirect_stderr(log):
        return play(replace(session, clock=clock), asked)


def train_all(
    session: Session, workers: Workers, asked: Iterable[Training], play: Play = train_here
) -> Iterator[tuple[Training, Round]]:
    """Trainings as they end; with one worker, in the process of the run."""
    if isinstance(workers, Here):
        return workers.map(play, session, asked)
    return workers.map(play_elsewhere, (play, _portable(session)), asked)


def _portable(session: Session) -> Session:
    """The session without what belongs to one process."""
    return replace(session, say=_quiet)


def _quiet(line: str) -> None:
    pass
