"""`luthier search` with several workers: the same trainings, begun again where a worker dies."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest

from luthier.job import search as job
from luthier.job.search_task import SearchRequest, Standing
from luthier.search.workers import Processes

SPACE = """
schema = "luthier.space/1"
name = "tiny"
resolutions = [8]
channel_divisor = 4
stem = [{ kind = "conv", out_channels = 8, stride = 2 }]
head = { num_classes = 10 }
[[stages]]
name = "body"
out_channels = [8, 12]
depth = [1, 2]
kernel_size = [3, 5]
attention = ["none", "se/4", "spatial"]
"""


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("space") / "tiny.toml"
    path.write_text(SPACE)
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
