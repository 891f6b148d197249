"""A study's trials, evaluated by workers: ask, evaluate somewhere, tell.

Only this process talks to the study.  A trial is finished when it is told, and then it is never evaluated again; trials
that a killed driver had begun are evaluated first by its successor, with the values that they were given.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final, TypeVar

from luthier.errors import StudyError
from luthier.search.storage import Outcome, Teller
from luthier.search.workers import Workers

S = TypeVar("S")
T = TypeVar("T")

_OWNER: Final = "driver"


def drive(
    study: Any,
    workers: Workers,
    work: Callable[[S, tuple[int, T]], Outcome],
    shared: S,
    *,
    task: Callable[[Any], T],
    trials: int,
    owner: str,
    unsaved: Path,
    told: Callable[[Outcome], None] = lambda outcome: None,
) -> None:
    """Evaluate until the study has `trials` trials that are begun or finished, and none of ours is unfinished.

    Args:
        study: an Optuna study.
        work: (shared, (number of the trial, task)) -> its outcome; see `Workers.map`.
        task: from an Optuna trial to what a worker needs; it asks the trial for its values (`trial.suggest_int`, ...).
        trials: of this study, those of other drivers included.
        owner: this run, the same after a resumption and no other's; its unfinished trials are begun again.
        unsaved: see `Teller`.
        told: hears of every outcome.
    Raises:
        StudyError: the storage was lost; what was under way is finished and kept in `unsaved`.
    """
    from optuna.trial import Trial, TrialState

    teller = Teller(study, unsaved)

    def ask() -> Iterator[tuple[int, T]]:
        running = [TrialState.RUNNING]
        orphans = [t for t in study.get_trials(deepcopy=False, states=running) if t.user_attrs.get(_OWNER) == owner]
        for orphan in orphans:
            yield orphan.number, task(Trial(study, orphan._trial_id))
        while sum(t.state != TrialState.FAIL for t in study.get_trials(deepcopy=False)) < trials:
            trial = study.ask()
            trial.set_user_attr(_OWNER, owner)
            yield trial.number, task(trial)

    def until_lost() -> Iterator[tuple[int, T]]:
        try:
            yield from ask()
        except StudyError as error:
            teller.lost = teller.lost or error

    for _, outcome in workers.map(work, shared, until_lost()):
        teller.tell(outcome)
        told(outcome)
    if teller.lost is not None:
        kept = len(unsaved.read_text("utf-8").splitlines()) if unsaved.exists() else 0
        raise StudyError(f"{teller.lost}; {kept} finished trials wait in {unsaved}") from None
