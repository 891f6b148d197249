"""A study that several processes share, and a storage that goes away in mid-run."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import optuna
import pytest
from sqlalchemy.exc import OperationalError
from tests.search.test_strategy import OBJECTIVES, PRICES, ROWS, SMALL

from luthier.errors import RunFolderError
from luthier.job import search_store
from luthier.job.search_store import SearchStore
from luthier.search.strategy import GENES, CostAwareSampler, Listed

IDENTITY = {"space": "a" * 64, "data": "d"}


def opened(folder: Path, storage: str | None, say: Any = lambda line: None) -> SearchStore:
    folder.mkdir(exist_ok=True)
    store = SearchStore(folder, storage, "study", OBJECTIVES, IDENTITY, say)
    store.hand_over(CostAwareSampler(Listed(SMALL, ROWS, PRICES), OBJECTIVES, seed=1, startup=4))
    return store


def evaluate(store: SearchStore, count: int) -> list[tuple[int, ...]]:
    candidates, rng, seen = Listed(SMALL, ROWS, PRICES), np.random.default_rng(0), []
    for number in range(count):
        trial, row = store.next(candidates, rng)
        seen.append(tuple(row.tolist()))
        store.tell(trial, row, [0.3 + 0.01 * number, float(row.sum() + 1)], {"epochs": 1})
    return seen


def complete(store: SearchStore) -> list[tuple[int, ...]]:
    done = (trial for trial in store.trials() if trial.state == optuna.trial.TrialState.COMPLETE)
    return [tuple(trial.user_attrs[GENES]) for trial in done]


@pytest.mark.parametrize("kind", ["journal", "sqlite"])
def test_two_processes_share_a_study_without_training_a_network_twice(tmp_path: Path, kind: str) -> None:
    where = str(tmp_path / "both.journal") if kind == "journal" else f"sqlite:///{tmp_path}/both.db"
    first, second = opened(tmp_path / "a", where), opened(tmp_path / "b", where)
    seen = evaluate(first, 2) + evaluate(second, 2) + evaluate(first, 1)
    assert len(set(seen)) == 5
    assert sorted(complete(first)) == sorted(complete(second)) == sorted(seen)


def test_what_a_killed_process_left_is_run_by_its_own_folder_only(tmp_path: Path) -> None:
    where = str(tmp_path / "both.journal")
    candidates, rng = Listed(SMALL, ROWS, PRICES), np.random.default_rng(0)
    _, left = opened(tmp_path / "a", where).next(candidates, rng)
    _, other = opened(tmp_path / "b", where).next(candidates, rng)
    _, again = opened(tmp_path / "a", where).next(candidates, rng)
    assert again.tolist() == left.tolist()
    assert other.tolist() != left.tolist()


def test_a_lost_storage_costs_no_evaluation(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(search_store, "RETRIES_S", (0.0, 0.0))
    where, said = f"sqlite:///{tmp_path}/base.db", []
    store = opened(tmp_path / "run", where, said.append)
    before = evaluate(store, 2)
    asked = store.next(Listed(SMALL, ROWS, PRICES), np.random.default_rng(5))

    def gone(*words: Any, **more: Any) -> Any:
        raise OperationalError("SELECT 1", {}, Exception("server closed the connection unexpectedly"))

    storage = store.study._storage
    with monkeypatch.context() as dropped:
        for name in ("set_trial_user_attr", "set_trial_state_values", "get_all_trials", "create_new_trial"):
            dropped.setattr(type(storage), name, gone)
        store.tell(asked[0], asked[1], [0.5, 3.0], {})
        after = [tuple(asked[1].tolist()), *evaluate(store, 2)]
        assert sorted(complete(store)) == sorted(before + after)
    assert store.lost
    assert len(said) == 1
    assert "is lost (" in said[0]
    assert "the same command hands it in later" in said[0]
    # the connection is back: the next start hands in what is missing, once
    for _ in range(2):
        again = opened(tmp_path / "run", where)
        assert sorted(complete(again)) == sorted(before + after)


def test_a_short_drop_is_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(search_store, "RETRIES_S", (0.0, 0.0))
    store, calls = opened(tmp_path / "run", f"sqlite:///{tmp_path}/base.db"), []
    real = store.study._storage.get_all_trials

    def once(*words: Any, **more: Any) -> Any:
        calls.append(1)
        if len(calls) == 1:
            raise OSError("connection reset by peer")
        return real(*words, **more)

    monkeypatch.setattr(store.study._storage, "get_all_trials", once)
    evaluate(store, 1)
    assert len(complete(store)) == 1
    assert not store.lost


def test_a_half_written_line_is_left_out(tmp_path: Path) -> None:
    store = opened(tmp_path / "run", None)
    evaluate(store, 1)
    with store.mirror.open("a") as file:
        file.write('{"genes": [0')
    (tmp_path / "run" / "search.journal").unlink()
    assert len(complete(opened(tmp_path / "run", None))) == 1
    assert json.loads(store.mirror.read_text().splitlines()[0])["values"] is not None


def test_a_study_of_another_space_is_refused(tmp_path: Path) -> None:
    opened(tmp_path / "run", None)
    with pytest.raises(RunFolderError, match=r"one of another space .*choose another --study or --run-dir"):
        SearchStore(tmp_path / "run", None, "study", OBJECTIVES, {**IDENTITY, "space": "b"}, lambda line: None)
