"""Trials of a study by workers: resumed, begun again, kept while the storage is away."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from luthier.errors import StudyError
from luthier.search import storage
from luthier.search.drive import drive
from luthier.search.storage import Outcome, Teller, close, open_storage
from luthier.search.workers import Here

Studies = Callable[..., Any]


@pytest.fixture
def study_in() -> Iterator[Studies]:
    """A study of a storage; opened anew each time, closed at the end."""
    import optuna

    opened = []

    def open_study(where: Path | str, patience_s: float = 1.0) -> Any:
        found = open_storage(where, patience_s=patience_s)
        sampler = optuna.samplers.RandomSampler(seed=0)
        study = optuna.create_study(study_name="s", storage=found, sampler=sampler, load_if_exists=True)
        opened.append(study)
        return study

    yield open_study
    for study in opened:
        close(study)


def ask_x(trial: Any) -> int:
    return int(trial.suggest_int("x", 0, 99))


def score(evaluated: list[int], task: tuple[int, int]) -> Outcome:
    number, x = task
    evaluated.append(number)
    return Outcome(number, (float(x),) if x != 13 else (), {"tenfold": 10 * x})


def go(study: Any, folder: Path, trials: int, evaluated: list[int] | None = None, **more: Any) -> None:
    drive(
        study, Here(), score, [] if evaluated is None else evaluated, task=ask_x, trials=trials, owner="me",
        unsaved=folder / "unsaved.jsonl", **more,
    )  # fmt: skip


@pytest.fixture(params=["journal", "sqlite"])
def where(request: pytest.FixtureRequest, tmp_path: Path) -> Path | str:
    return tmp_path / "study.journal" if request.param == "journal" else f"sqlite:///{tmp_path}/study.db"


def test_all_trials_are_told_and_none_twice(study_in: Studies, where: Path | str, tmp_path: Path) -> None:
    evaluated: list[int] = []
    go(study_in(where), tmp_path, 5, evaluated)
    go(study_in(where), tmp_path, 5, evaluated)
    go(study_in(where), tmp_path, 8, evaluated)
    assert evaluated == list(range(8))
    for trial in study_in(where).get_trials():
        assert trial.values == [trial.params["x"]]
        assert trial.user_attrs == {"driver": "me", "tenfold": 10 * trial.params["x"]}


def test_what_a_killed_driver_had_begun_is_begun_again_with_its_values(
    study_in: Studies, where: Path | str, tmp_path: Path
) -> None:
    study = study_in(where)
    for owner in ("me", "another"):
        begun = study.ask()
        begun.set_user_attr("driver", owner)
        begun.suggest_int("x", 0, 99)
    given = study.get_trials()[0].params
    evaluated: list[int] = []
    go(study_in(where), tmp_path, 4, evaluated)
    assert evaluated == [0, 2, 3]  # 1 is another driver's
    mine, other, *_ = study_in(where).get_trials()
    assert mine.params == given
    assert mine.state.name == "COMPLETE"
    assert other.state.name == "RUNNING"


def test_a_failed_trial_makes_room_for_another(study_in: Studies, tmp_path: Path) -> None:
    study = study_in(tmp_path / "study.journal")
    study.enqueue_trial({"x": 13})
    go(study, tmp_path, 3)
    assert [trial.state.name for trial in study.get_trials()] == ["FAIL", "COMPLETE", "COMPLETE", "COMPLETE"]


class Away:
    """Makes a database fail: each call of a method, `times` times, as if its connection had dropped."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, study: Any) -> None:
        import sqlalchemy.exc
        from optuna.exceptions import StorageInternalError

        self.times, self.calls = 0, 0
        engine = study._storage._backend.scoped_session

        def session() -> Any:
            self.calls += 1
            if self.times > 0:
                self.times -= 1
                raise StorageInternalError("x") from sqlalchemy.exc.OperationalError("select", {}, Exception("gone"))
            return engine()

        monkeypatch.setattr(study._storage._backend, "scoped_session", session)
        monkeypatch.setattr(storage, "_PAUSES_S", (0.001, 0.002))


def test_a_connection_that_drops_for_a_moment_is_tried_again(
    study_in: Studies, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    study = study_in(f"sqlite:///{tmp_path}/study.db", patience_s=30)
    away = Away(monkeypatch, study)

    def drop(outcome: Outcome) -> None:
        away.times = 3

    go(study, tmp_path, 4, told=drop)
    assert [trial.state.name for trial in study_in(f"sqlite:///{tmp_path}/study.db").get_trials()] == ["COMPLETE"] * 4
    assert not (tmp_path / "unsaved.jsonl").exists()


def test_results_are_kept_while_the_database_stays_away(
    study_in: Studies, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = f"sqlite:///{tmp_path}/study.db"
    study = study_in(url, patience_s=0.05)
    away = Away(monkeypatch, study)
    evaluated: list[int] = []

    def lost(shared: list[int], task: tuple[int, int]) -> Outcome:
        away.times = 10**9 if task[0] == 2 else 0
        return score(shared, task)

    with pytest.raises(StudyError, match=r"away for 0.05 s.*1 finished trials wait in .*unsaved.jsonl"):
        drive(study, Here(), lost, evaluated, task=ask_x, trials=5, owner="me", unsaved=tmp_path / "unsaved.jsonl")
    (line,) = (tmp_path / "unsaved.jsonl").read_text().splitlines()
    assert json.loads(line)["number"] == 2
    go(study_in(url), tmp_path, 5, evaluated)
    assert evaluated == [0, 1, 2, 3, 4]
    assert not (tmp_path / "unsaved.jsonl").exists()
    assert all(trial.state.name == "COMPLETE" for trial in study_in(url).get_trials())


def test_an_outcome_that_was_told_after_all_is_not_told_twice(study_in: Studies, tmp_path: Path) -> None:
    study = study_in(tmp_path / "study.journal")
    go(study, tmp_path, 1)
    (tmp_path / "unsaved.jsonl").write_text('{"number": 0, "values": [-1.0], "attrs": {}}\n')
    Teller(study, tmp_path / "unsaved.jsonl")
    assert study.get_trials()[0].values != [-1.0]


@pytest.mark.parametrize(
    "url", ["postgresql+psycopg://me:secret@127.0.0.1:1/none", "nonsense", "oracle+cx_oracle://host/x"]
)
def test_a_database_that_never_answers_is_refused_without_its_password(url: str) -> None:
    with pytest.raises(StudyError, match="no database answers") as refused:
        open_storage(url)
    assert "secret" not in str(refused.value)
    assert "\n" not in str(refused.value)
