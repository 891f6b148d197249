"""Where a study lives: a journal file, or a database that may be away for a while.

A connection that drops is tried again with growing pauses.  If the database stays away, what was finished meanwhile is
kept in a file beside the run, and told when the study is opened next.
"""

from __future__ import annotations

import json
import time
import warnings
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from functools import lru_cache, wraps
from pathlib import Path
from typing import Any, Final

from luthier import files
from luthier.errors import StudyError

#: how long a database may be away
PATIENCE_S: Final = 120.0
_PAUSES_S: Final = (0.1, 5.0)


@dataclass(frozen=True)
class Outcome:
    """What became of a trial.

    Attributes:
        number: of the trial in its study.
        values: one per objective; empty = it failed.
        attrs: kept with the trial, JSON.
    """

    number: int
    values: tuple[float, ...]
    attrs: Mapping[str, Any] = field(default_factory=dict)


def open_storage(where: Path | str, *, patience_s: float = PATIENCE_S) -> Any:
    """An Optuna storage.

    Args:
        where: a journal file, or the URL of a database, such as `postgresql+psycopg://USER:PASSWORD@HOST/NAME`.
        patience_s: how long a database that does not answer is asked again.
    Raises:
        StudyError: the URL is none, its driver is not installed, or the database does not answer.
        RunFolderError: the journal cannot be written.
    """
    import optuna

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    if isinstance(where, Path):
        from optuna.storages import JournalStorage
        from optuna.storages.journal import JournalFileBackend

        with files.explaining(where), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # parts of the journal API are marked experimental
            return JournalStorage(JournalFileBackend(str(where)))
    try:
        return _patient()(where, patience_s)
    except Exception as error:  # SQLAlchemy's, the driver's, or a missing driver
        reason = str(error.__cause__ or error).strip().partition("\n")[0]
        raise StudyError(f"--storage {_without_password(where)}: no database answers ({reason:.200})") from None


def close(study: Any) -> None:
    """Give back the connections of a study's database; a journal has none."""
    engine = getattr(getattr(study._storage, "_backend", None), "engine", None)
    if engine is not None:
        engine.dispose()


@lru_cache(maxsize=1)
def _patient() -> type:
    from optuna.exceptions import StorageInternalError, UpdateFinishedTrialError
    from optuna.storages import BaseStorage, RDBStorage

    class Patient(RDBStorage):
        """A database that is asked again when its connection drops."""

        def __init__(self, url: str, patience_s: float) -> None:
            self.where, self.patience_s = _without_password(url), patience_s
            # a connection that died while it was not needed is replaced without anybody noticing
            super().__init__(url, engine_kwargs={"pool_pre_ping": True})

    def patient(method: Callable[..., Any]) -> Callable[..., Any]:
        @wraps(method)
        def ask(self: Patient, *args: Any, **kwargs: Any) -> Any:
            began, pause = time.monotonic(), _PAUSES_S[0]
            repeated = False
            while True:
                try:
                    return method(self, *args, **kwargs)
                except UpdateFinishedTrialError:
                    if repeated:  # the answer was lost, not the question
                        return True
                    raise
                except StorageInternalError as error:
                    if not _connection_lost(error):
                        raise
                    if time.monotonic() - began > self.patience_s:
                        raise StudyError(
                            f"--storage {self.where}: the database has been away for {self.patience_s:g} s; "
                            "start it, then run the same command again"
                        ) from None
                time.sleep(pause)
                pause, repeated = min(2 * pause, _PAUSES_S[1]), True

        return ask

    asked = {*BaseStorage.__abstractmethods__, "_create_new_trial", "_set_trial_param", "_get_trials"}
    for name in asked & vars(RDBStorage).keys():
        setattr(Patient, name, patient(vars(RDBStorage)[name]))
    return Patient


def _connection_lost(error: Exception) -> bool:
    from sqlalchemy.exc import DBAPIError, InterfaceError, OperationalError

    cause = error.__cause__
    return isinstance(cause, OperationalError | InterfaceError) or (
        isinstance(cause, DBAPIError) and cause.connection_invalidated
    )


def _without_password(url: str) -> str:
    """The URL for people to read.

    Example:
        >>> _without_password("postgresql://me:secret@host:5432/studies")
        'postgresql://me:***@host:5432/studies'
    """
    head, at, tail = url.rpartition("@")
    scheme, slashes, user = head.partition("://")
    return f"{scheme}{slashes}{user.partition(':')[0]}:***@{tail}" if at and ":" in user else url


class Teller:
    """Tells outcomes to a study; what it cannot tell, it keeps.

    Args:
        study: an Optuna study.
        unsaved: the file of outcomes that wait, a line each; told first, and removed, when there is one.
    Attributes:
        lost: why nothing is told any more; None = all is well.
    Raises:
        StudyError: the database is away.
    """

    def __init__(self, study: Any, unsaved: Path) -> None:
        self.study, self.unsaved = study, unsaved
        self.lost: StudyError | None = None
        if unsaved.exists():
            for line in unsaved.read_text("utf-8").splitlines():
                document = json.loads(line)
                self._tell(Outcome(document["number"], tuple(document["values"]), document["attrs"]))
            unsaved.unlink()

    def tell(self, outcome: Outcome) -> None:
        """To the study, or to the file once the study is lost."""
        if self.lost is None:
            try:
                return self._tell(outcome)
            except StudyError as error:
                self.lost = error
        files.append_line(self.unsaved, json.dumps(asdict(outcome)))

    def _tell(self, outcome: Outcome) -> None:
        from optuna.trial import Trial, TrialState

        trial_id = self.study._storage.get_trial_id_from_study_id_trial_number(self.study._study_id, outcome.number)
        trial = Trial(self.study, trial_id)
        if self.study._storage.get_trial(trial_id).state.is_finished():
            return
        for key, value in outcome.attrs.items():
            trial.set_user_attr(key, value)
        if outcome.values:
            self.study.tell(trial, outcome.values)
        else:
            self.study.tell(trial, state=TrialState.FAIL)
