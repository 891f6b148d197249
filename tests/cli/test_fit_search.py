"""`luthier fit` with a search inside: networks of a space race with the compound-scaled family."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from small_space import BODY

from luthier.job import fit_search, search_begin
from luthier.job import search as searching
from luthier.job.candidates import Member
from luthier.job.fit_search import search_request
from luthier.job.request import Request


@pytest.fixture(scope="module")
def space(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("space") / "tiny.toml"
    path.write_text(BODY)
    return path


@pytest.fixture(scope="module")
def run(
    data: Path, space: Path, luthier: Callable[..., Any], tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, Any, tuple[object, ...]]:
    folder = tmp_path_factory.mktemp("fit") / "run"
    words = ("fit", data, "--space", space, "--max-macs", "1M", "--time-limit", "12s", "--run-dir", folder, "--json")
    ended = luthier(*words)
    assert ended.code == 0, ended.err
    return folder, ended, words


def test_the_fronts_best_race_with_the_family(run: Any) -> None:
    folder, ended, _ = run
    (finalists,) = (line for line in ended.err.splitlines() if line.startswith("finalists: "))
    assert "tiny_" in finalists
    assert "mbconv_thumbnail" in finalists
    assert ended.result["macs"] <= 1_000_000
    found = json.loads((folder / "search.json").read_text())
    assert found["objectives"] == ["accuracy", "macs"]
    assert found["deployed"]["latency_s"] > 0
    for name in ("result.json", "report.html", "search.html", "model.onnx", "model.plan"):
        assert (folder / name).exists()


def test_the_same_command_again_only_reads(run: Any, luthier: Callable[..., Any]) -> None:
    _, ended, words = run
    again = luthier(*words)
    assert again.code == 0, again.err
    assert "finished before" in again.err
    assert again.result == ended.result


def test_without_a_member_that_fits_the_space_alone_is_searched(
    data: Path, space: Path, luthier: Callable[..., Any], tmp_path: Path
) -> None:
    asked = ("fit", data, "--max-macs", "30k", "--time-limit", "10s", "--json")
    alone = luthier(*asked, "--space", "none", "--run-dir", tmp_path / "a")
    assert alone.code == 3
    both = luthier(*asked, "--space", space, "--run-dir", tmp_path / "b")
    assert both.code == 0, both.err
    assert both.result["macs"] <= 30_000
    assert both.result["network"].startswith("tiny_")
    neither = luthier("fit", data, "--max-macs", "9", "--space", space, "--run-dir", tmp_path / "c")
    assert neither.code == 3
    assert "--max-macs" in neither.err
    assert not (tmp_path / "c").exists()


def test_a_space_that_does_not_exist(data: Path, luthier: Callable[..., Any], tmp_path: Path) -> None:
    ended = luthier("fit", data, "--space", "mobil", "--run-dir", tmp_path / "bad")
    assert ended.code == 2
    assert "known are micro, mobile, scene, thumbnail" in ended.err
    assert not (tmp_path / "bad").exists()


def test_what_is_limited_is_traded() -> None:
    wishes = {
        "max_latency_s": "latency", "max_energy_j": "energy", "max_macs": "macs", "max_memory_bytes": "memory",
        "max_size_bytes": "size", "max_params": "params",
    }  # fmt: skip
    for limit, cost in wishes.items():
        request = Request(command="fit", seed=3, **{limit: 7})  # type: ignore[arg-type]
        made = search_request(request, "micro")
        assert (made.objectives, made.space, made.seed, made.budget) == (
            f"accuracy,{cost}", "micro", 3, request.budget
        )  # fmt: skip
    assert search_request(Request(command="fit"), "micro").objectives == "accuracy,macs"


def test_where_time_does_not_allow_it_the_family_is_tried(
    data: Path, luthier: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def none(*_: object, **__: object) -> list[Member]:
        raise AssertionError("nothing is to be searched")

    monkeypatch.setattr(searching, "explore", none)
    ended = luthier("fit", data, "--max-macs", "1M", "--time-limit", "10s", "--run-dir", tmp_path / "run")
    assert ended.code == 0, ended.err
    assert not (tmp_path / "run" / "search.json").exists()


@pytest.mark.parametrize(("limit_s", "epochs", "enough"), [(1_100, 10, True), (1_000, 10, False), (1_100, 9, False)])
def test_the_time_must_hold_32_trainings_that_are_long_enough(
    monkeypatch: pytest.MonkeyPatch, limit_s: float, epochs: int, enough: bool
) -> None:
    monkeypatch.setattr(fit_search, "any_fits", lambda task: True)
    monkeypatch.setattr(fit_search, "epochs_each", lambda task: epochs)
    request = search_request(Request(command="fit", time_limit_s=limit_s), "thumbnail")
    asked = Request(command="fit", time_limit_s=limit_s)
    task = SimpleNamespace(request=request, session=SimpleNamespace(request=asked))
    assert fit_search.time_allows(task) == enough  # type: ignore[arg-type]
    asked = Request(command="fit", time_limit_s=limit_s, space="micro")
    task = SimpleNamespace(request=request, session=SimpleNamespace(request=asked))
    assert fit_search.time_allows(task)  # type: ignore[arg-type]  # a space that is named is searched


def test_where_the_space_is_too_slow_on_this_machine_the_family_is_tried(
    data: Path, space: Path, luthier: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(search_begin, "untrained_latency_s", lambda network, threads, budget_s: 9.0)
    ended = luthier(
        "fit", data, "--space", space, "--max-macs", "1M", "--max-latency", "1s", "--time-limit", "10s",
        "--run-dir", tmp_path / "run", "--json",
    )  # fmt: skip
    assert ended.code == 0, ended.err
    assert "the family alone is tried" in ended.err
    assert "mbconv_thumbnail" in ended.result["network"]
    assert not (tmp_path / "run" / "search.json").exists()
