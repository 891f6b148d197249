"""The study of a search: in the run folder, in a file, or in a data base that may go away in mid-run.

What this process finds out is written to `evaluations.jsonl` first.  A storage that fails is asked again a few times;
then the search goes on with the study in memory, and the next start hands the lines in that the storage lacks.
"""

from __future__ import annotations

import json
import os
import platform
import time
import warnings
from collections.abc import Callable, Collection, Sequence
from pathlib import Path
from typing import Any, Final, TypeVar

import numpy as np
import optuna
from optuna.trial import FrozenTrial, Trial, TrialState

from luthier import files
from luthier.errors import InputError, RunFolderError
from luthier.job.study import mend
from luthier.search.feasible import Rows
from luthier.search.strategy import GENES, Candidates, directions, suggested

T = TypeVar("T")
#: seconds before a storage that failed is asked again
RETRIES_S: Final = (0.5, 1.0, 2.0)
#: user attributes of trials: which process runs it, and which evaluation it is
_RUN, _UID = "run", "uid"


class SearchStore:
    """One study, whatever holds it.

    Args:
        folder: of the run, held by the caller.
        storage: None = a journal in the folder; a path = a journal there; `postgresql://...` = a data base.
        name: of the study.
        objectives: accuracy first.
        identity: what trials must share to be mixed: space, data, objectives, limits, device.
        say: one line for the user.
    Raises:
        InputError: the storage cannot be opened.
        RunFolderError: its study is one of another space, of other data, or of other limits.
    """

    def __init__(
        self, folder: Path, storage: str | None, name: str, objectives: Sequence[str], identity: dict[str, str],
        say: Callable[[str], None],
    ) -> None:  # fmt: skip
        optuna.logging.set_verbosity(optuna.logging.ERROR)
        self.where = storage or str(folder / "search.journal")
        self.mirror = folder / "evaluations.jsonl"
        self.run = f"{platform.node()}:{folder.resolve()}"
        self._directions, self._say, self.lost = directions(objectives), say, False
        self._known: list[FrozenTrial] = []
        self._noted: dict[str, Any] = {}
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # parts of the journal API are marked experimental
                self._opened = _open(self.where, mine=storage is None)
                self.study = optuna.create_study(
                    study_name=name, storage=self._opened, directions=self._directions, load_if_exists=True
                )
            stored = self.study.user_attrs
            for key, value in identity.items():
                if key not in stored:
                    self.study.set_user_attr(key, value)
                elif stored[key] != value:
                    raise RunFolderError(
                        f"{self.where}: study {name!r} is one of another {key.replace('_', ' ')} "
                        f"({_short(stored[key])}, not {_short(value)}); choose another --study or --run-dir"
                    )
        except (InputError, KeyboardInterrupt):
            raise
        except Exception as error:  # every data base has errors of its own
            reason = (str(error) or type(error).__name__).splitlines()[0]
            raise InputError(f"--storage {self.where}: cannot be opened ({reason})") from None
        self._hand_in()

    def close(self) -> None:
        """Give back the connections of a data base."""
        engine = getattr(self._opened, "engine", None)
        if engine is not None:
            engine.dispose()

    def note(self, key: str, make: Callable[[], Any]) -> Any:
        """A decision that all processes of the study share: made once."""

        def shared() -> Any:
            if key not in self.study.user_attrs:
                self.study.set_user_attr(key, make())
            return self.study.user_attrs[key]

        self._noted[key] = self._do(shared)
        return self._noted[key]

    def trials(self) -> list[FrozenTrial]:
        """All that are known."""
        self._known = list(self._do(lambda: self.study.get_trials(deepcopy=False)))
        return self._known

    def next(
        self, candidates: Candidates, rng: np.random.Generator, busy: Collection[tuple[Trial, Rows]] = ()
    ) -> tuple[Trial, Rows]:
        """A trial to run: one that this run folder left unfinished, else a new one.

        Args:
            busy: trials that are under way, and so not left, with what they train.
        """
        here = [trial._trial_id for trial, _ in busy if trial.study is self.study]
        # of a storage that was lost: this study does not know what they train
        elsewhere = [row.tolist() for trial, row in busy if trial.study is not self.study]

        def asked() -> tuple[Trial, Rows]:
            for frozen in self.study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
                if frozen._trial_id in here:
                    continue
                if frozen.user_attrs.get(_RUN) == self.run and GENES in frozen.user_attrs:
                    return Trial(self.study, frozen._trial_id), np.array(frozen.user_attrs[GENES])
            trial = self.study.ask()
            row = candidates.nearest(rng, suggested(candidates.space, trial))
            for other in candidates.draw(rng, 2 * len(elsewhere)) if row.tolist() in elsewhere else ():
                row = other if row.tolist() in elsewhere else row
            trial.set_user_attr(_RUN, self.run)
            trial.set_user_attr(GENES, row.tolist())
            return trial, row

        return self._do(asked)

    def tell(self, trial: Trial, row: Rows, values: Sequence[float] | None, attrs: dict[str, Any]) -> None:
        """Record an evaluation; no values = its training diverged, or it was dropped before."""
        line = {"genes": row.tolist(), "values": None if values is None else list(values), "attrs": attrs}
        line["uid"] = f"{self.run}:{time.time_ns()}"
        with self.mirror.open("a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")
            file.flush()
            os.fsync(file.fileno())

        def told() -> None:
            for key, value in {**attrs, _UID: line["uid"]}.items():
                trial.set_user_attr(key, value)
            self.study.tell(trial, None if values is None else list(values), state=_state(values))

        def mirrored() -> None:
            self._add_mirrored({known.user_attrs.get(_UID) for known in self.study.get_trials(deepcopy=False)})

        if trial.study is self.study:
            self._do(told, mirrored)
        else:  # it was asked of a storage that was lost since
            mirrored()

    def hand_over(self, sampler: optuna.samplers.BaseSampler) -> None:
        """Who proposes from now on."""
        self.study.sampler = sampler

    def _do(self, work: Callable[[], T], instead: Callable[[], T] | None = None) -> T:
        """Work with the storage; after some failures, again with a study in memory (or `instead`)."""
        for wait_s in (*RETRIES_S, None):
            try:
                return work()
            except (InputError, KeyboardInterrupt):
                raise
            except _failures() as error:
                if self.lost or wait_s is not None:
                    time.sleep(wait_s or 0)
                    continue
                self._say(
                    f"storage {self.where} is lost ({(str(error) or type(error).__name__).splitlines()[0][:120]}); the "
                    f"search goes on, and {self.mirror} keeps what it finds; the same command hands it in later"
                )
                self._go_on_alone()
        return (instead or work)()

    def _go_on_alone(self) -> None:
        sampler, self.lost = self.study.sampler, True
        self.study = optuna.create_study(directions=self._directions, sampler=sampler)
        for key, value in self._noted.items():
            self.study.set_user_attr(key, value)
        known = {trial.user_attrs.get(_UID) for trial in self._known if trial.state.is_finished()}
        for trial in self._known:
            if trial.state.is_finished():
                self.study.add_trial(trial)
        self._add_mirrored(known)

    def _hand_in(self) -> None:
        self.trials()
        self._add_mirrored({trial.user_attrs.get(_UID) for trial in self._known})

    def _add_mirrored(self, known: set[Any]) -> None:
        """Add what the mirror holds and the study lacks."""
        for line in self._mirrored():
            if line["uid"] not in known:
                attrs = {**line["attrs"], GENES: line["genes"], _UID: line["uid"], _RUN: self.run}
                self.study.add_trial(
                    optuna.trial.create_trial(state=_state(line["values"]), values=line["values"], user_attrs=attrs)
                )

    def _mirrored(self) -> list[dict[str, Any]]:
        if not self.mirror.exists():
            return []
        found = []
        for text in self.mirror.read_text("utf-8").splitlines():
            try:
                found.append(json.loads(text))
            except ValueError:  # half a line of a killed process
                continue
        return found


def _state(values: Sequence[float] | None) -> TrialState:
    return TrialState.FAIL if values is None else TrialState.COMPLETE


def _short(value: object) -> str:
    return str(value)[:60]


def _failures() -> tuple[type[Exception], ...]:
    """What a storage raises when it is gone."""
    from sqlalchemy.exc import SQLAlchemyError

    return (OSError, SQLAlchemyError, optuna.exceptions.StorageInternalError)


def _open(where: str, *, mine: bool) -> optuna.storages.BaseStorage:
    from optuna.storages import JournalStorage, RDBStorage
    from optuna.storages.journal import JournalFileBackend

    if "://" in where:
        return RDBStorage(where, engine_kwargs={"pool_pre_ping": True})
    path = Path(where)
    try:
        if mine:
            mend(path)
        elif not path.parent.is_dir():
            raise InputError(f"--storage {where}: no such folder; name a file, or a data base such as postgresql://...")
        return JournalStorage(JournalFileBackend(where))
    except OSError as error:
        raise files.explain(error, path) from None
