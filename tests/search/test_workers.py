"""Places to work: order, a worker that dies, an exception, and that tasks are asked for one by one."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from luthier.errors import DataError, WorkerError
from luthier.search.cluster import connect, open_workers
from luthier.search.workers import ATTEMPTS, Here, Processes, Workers


def square(offset: int, task: int) -> int:
    return offset + task * task


def die(folder: Path, task: int) -> int:
    """Kills its process: task 3 once, task 7 always; every beginning leaves a mark."""
    with (folder / str(task)).open("a") as marks:
        marks.write("x")
    if task == 7 or (task == 3 and (folder / "3").read_text() == "x"):
        os.kill(os.getpid(), signal.SIGKILL)
    return -task


def refuse(_: None, task: int) -> int:
    raise DataError(f"task {task}: no images")


@pytest.fixture(params=["here", "processes"])
def workers(request: pytest.FixtureRequest) -> Iterator[Workers]:
    with open_workers(None, 2 if request.param == "processes" else 1) as opened:
        assert isinstance(opened, Processes if request.param == "processes" else Here)
        yield opened


def test_every_task_has_its_result(workers: Workers) -> None:
    found = list(workers.map(square, 10, range(7)))
    assert sorted(found) == [(task, 10 + task * task) for task in range(7)]


def test_no_task_is_taken_before_there_is_a_worker_for_it(workers: Workers) -> None:
    taken: list[int] = []

    def tasks() -> Iterator[int]:
        for task in range(6):
            taken.append(task)
            yield task

    done = 0
    for _ in workers.map(square, 0, tasks()):
        done += 1
        assert len(taken) <= done + workers.at_once - 1  # asked for with all earlier results known
    assert done == 6


def test_an_exception_of_the_task_is_the_callers(workers: Workers) -> None:
    with pytest.raises(DataError, match="task 0: no images"):
        list(workers.map(refuse, None, [0]))


def test_a_worker_that_dies_once_loses_nothing(tmp_path: Path) -> None:
    with Processes(2) as workers:
        assert sorted(task for task, _ in workers.map(die, tmp_path, range(6))) == [0, 1, 2, 3, 4, 5]
    assert (tmp_path / "3").read_text() == "xx"
    assert (tmp_path / "0").read_text() == "x"


def test_a_task_that_always_kills_is_given_up_with_its_name(tmp_path: Path) -> None:
    with Processes(1) as workers, pytest.raises(WorkerError, match=f"worker of 7 died {ATTEMPTS} times"):
        list(workers.map(die, tmp_path, [1, 7, 2]))
    assert (tmp_path / "7").read_text() == "x" * ATTEMPTS
    assert (tmp_path / "1").read_text() == "x"


@pytest.mark.parametrize("address", ["", "ray://", "somewhere", "ray://host:port"])
def test_an_address_of_another_form_is_refused(address: str) -> None:
    with pytest.raises(WorkerError, match="--cluster: must be auto, HOST:PORT or ray://HOST:PORT"):
        connect(address)


def dies_at_first(mark: Path, task: int) -> int:
    if task == 0 and not mark.exists():
        mark.touch()
        os._exit(1)
    return task


def test_a_task_that_comes_after_a_death_and_before_it_is_noticed(tmp_path: Path) -> None:
    workers = Processes(2)

    def tasks() -> Iterator[int]:
        yield 0
        for _ in range(6000):
            if workers._pool is not None and workers._pool._broken:
                break
            time.sleep(0.01)
        yield 1

    assert sorted(workers.map(dies_at_first, tmp_path / "mark", tasks())) == [(0, 0), (1, 1)]
