"""`luthier search` with several workers: the same trainings, begun again where a worker dies."""

from __future__ import annotations

import io
import os
import signal
from collections.abc import Callable, Iterable, Iterator
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from small_space import BODY

from luthier.arch.encode import from_json as decode
from luthier.arch.encode import to_json as encode
from luthier.job import search as job
from luthier.job.search_task import SearchRequest, Standing
from luthier.nn.build import Classifier
from luthier.nn.elastic import Elastic
from luthier.search.space import Space, get
from luthier.search.supernet import inherit, inherited
from luthier.search.workers import Processes
from luthier.train.data import channel_mean_std, load_data
from luthier.train.defaults import default_recipe
from luthier.train.loop import train
from luthier.train.source import Splits


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("space") / "tiny.toml"
    path.write_text(BODY)
    return path


class Mortal(Processes):
    """Kills the process of the second training once."""

    def __init__(self, marks: Path) -> None:
        super().__init__(2)
        self.marks = marks

    def map(self, work: Any, shared: Any, tasks: Iterable[Any]) -> Iterator[tuple[Any, Any]]:
        return super().map(dying, (work, shared, self.marks), tasks)


def dying(shared: Any, task: Any) -> Any:
    work, session, marks = shared
    with (marks / str(task.number)).open("a") as mark:
        mark.write("x")
    if task.number == 1 and (marks / "1").read_text() == "x":
        os.kill(os.getpid(), signal.SIGKILL)
    return work(session, task)


def test_processes_train_what_this_one_would_though_one_is_killed(data: Path, tiny: Path, tmp_path: Path) -> None:
    (tmp_path / "marks").mkdir()
    request = SearchRequest(
        command="search", data=str(data), space=str(tiny), device="host", objectives="accuracy,macs", candidates=3,
        candidate_epochs=1, front_only=True, time_limit_s=1800.0,
    )  # fmt: skip
    accuracies = []
    for workers in (None, Mortal(tmp_path / "marks")):
        told: list[int] = []

        def tell(standing: Standing, told: list[int] = told) -> None:
            told.append(standing.trained)

        found, result = job.search(request, tmp_path / type(workers).__name__, print, tell, workers)
        assert result is None
        assert found.failed == 0
        assert told == [1, 2, 3]
        accuracies.append({point.network_json: point.accuracy for point in found.points})
    assert (tmp_path / "marks" / "1").read_text() == "xx"
    assert accuracies[0] == accuracies[1]


def test_a_cluster_that_is_none_is_refused(data: Path, tiny: Path, luthier: Callable[..., Any], tmp_path: Path) -> None:
    ended = luthier("search", data, "--space", tiny, "--cluster", "nowhere", "--run-dir", tmp_path / "run")
    assert ended.code == 2
    assert "--cluster: must be auto, HOST:PORT or ray://HOST:PORT, got 'nowhere'" in ended.err
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(("own", "others"), [(0, ()), (1, ()), (1, ("--jobs", 2))])
def test_candidates_begin_with_the_weights_that_they_share(
    data: Path, tiny: Path, luthier: Callable[..., Any], tmp_path: Path, own: int, others: tuple[object, ...]
) -> None:
    words = (
        "search", data, "--space", tiny, "--objectives", "accuracy,macs", "--max-macs", 30_000, "--candidates", 6,
        "--shared-epochs", 2, "--candidate-epochs", own, "--trainer", "supernet", "--front-only", "--json",
        "--run-dir", tmp_path / "run", *others,
    )  # fmt: skip
    ended = luthier(*words)
    assert ended.code == 0, ended.err
    assert ended.result["trained"] == 6
    assert f"epochs: 2 of all together, then {own} each" in ended.err
    assert "so short a shared training (2 epochs) may not tell networks apart" in ended.err
    found = job.read(tmp_path / "run" / "search.json")
    assert (found.shared_epochs, found.epochs) == (2, own)
    said = (
        "trained for 1 epoch each behind one training of 2 epochs" if own else "judged by the weights of one training"
    )
    assert said in (tmp_path / "run" / "search.html").read_text()
    assert len((tmp_path / "run" / "supernet" / "metrics.jsonl").read_text().splitlines()) == 2
    # from the checkpoint, and by the network alone: the same accuracies
    splits = load_data(str(data), seed=0)
    frame = decode(found.points[0].network_json)
    space = get(str(tiny)).for_data(splits.num_classes, 3, frame.input_mean, frame.input_std, min(splits.image_hw))
    elastic = Elastic(space.slots)
    best = torch.load(io.BytesIO(_payload(tmp_path / "run" / "supernet" / "checkpoint.pt")), weights_only=True)
    elastic.load_state_dict(best["best_state"])
    rows = {encode(space.network(row)): row for row in every_row(space)}
    for point in found.points:
        row = space.slot_rows(np.array([rows[point.network_json]]))[0]
        if own:
            assert by_hand(inherit(elastic, row.tolist(), splits), splits, tmp_path / point.name) == point.accuracy
        else:
            assert inherited(elastic, row.tolist(), splits).accuracy == point.accuracy
        assert point.costs["macs"] <= 30_000


def by_hand(module: Classifier, splits: Splits, folder: Path) -> float:
    """The validation accuracy after an epoch, as anybody would train it."""
    network = module.network
    recipe = default_recipe(len(splits.train), network.resolution, 1, pretrained=False)
    mean, std = channel_mean_std(splits.train)
    found = train(module, splits, recipe, folder=folder, resolution=network.resolution, mean=mean, std=std)
    assert found.best is not None
    return found.best.val_accuracy


def _payload(checkpoint: Path) -> bytes:
    return checkpoint.read_bytes().split(b"\n", 1)[1]


def every_row(space: Space) -> list[list[int]]:
    rows = np.array(list(product(*(range(size) for size in space.sizes))))
    return np.unique(space.canonical(rows), axis=0).tolist()


def test_another_way_to_train_is_refused(data: Path, tiny: Path, luthier: Callable[..., Any], tmp_path: Path) -> None:
    ended = luthier("search", data, "--space", tiny, "--trainer", "guess", "--run-dir", tmp_path / "run")
    assert ended.code == 2
    assert "--trainer: must be halving or supernet, got 'guess'" in ended.err
