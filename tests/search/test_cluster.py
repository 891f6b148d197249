"""Searches on a Ray cluster of two nodes, with a study in PostgreSQL: workers are killed, the database goes away.

Run by `make cluster-test`, which installs what these tests need.
"""

from __future__ import annotations

import json
import os
import signal
import tempfile
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from luthier.arch import Block, Head, Network, Stage
from luthier.cost.tables import Slot, Slots
from luthier.errors import DataError, WorkerError
from luthier.job import search as job
from luthier.job.search_task import SearchRequest
from luthier.search.cluster import Cluster, connect, train_replicas

VARIABLE = "LUTHIER_CLUSTER"
pytestmark = [
    pytest.mark.skipif(not os.environ.get(VARIABLE), reason=f"{VARIABLE} is not set (make cluster-test sets it)"),
    pytest.mark.xdist_group("cluster"),
    pytest.mark.filterwarnings("ignore"),  # Ray's own
]

BLOCKS = tuple(Block(kind="mbconv", out_channels=8, expand_ratio=e, kernel_size=k) for e in (1, 2, 4) for k in (3, 5))
STEM = Stage(name="stem", blocks=(Block(kind="conv", out_channels=8, stride=2),))
SPACE = Slots(
    frame=Network(name="tiny", stages=(STEM,), head=Head(num_classes=4), resolution=16),
    slots=tuple(Slot(stage="body", choices=(None, *BLOCKS)) for _ in range(3)),
    resolutions=(12, 16),
)
# written out, since a cluster's workers import this file and no other of the tests
TOML = """
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
TRIALS = 6


class Watched(Cluster):
    """A cluster whose trainings leave a line behind when they begin: process and node."""

    marks: Path

    def map(self, work: Any, shared: Any, tasks: Iterable[Any]) -> Iterator[tuple[Any, Any]]:
        return super().map(watched, (work, shared, self.marks), tasks)


def watched(shared: Any, task: Any) -> Any:
    import ray

    work, session, marks = shared
    with (marks / str(task.number)).open("a") as mark:
        mark.write(f"{os.getpid()} {ray.get_runtime_context().get_node_id()}\n")
    time.sleep(0.4)
    return work(session, task)


def begun(marks: Path) -> dict[int, int]:
    return {int(mark.name): len(mark.read_text().splitlines()) for mark in marks.iterdir()}


@pytest.fixture
def marks(tmp_path: Path) -> Path:
    folder = tmp_path / "marks"
    folder.mkdir()
    return folder


@pytest.fixture(scope="module")
def nodes() -> Iterator[Any]:
    """Two nodes of one CPU, each with its own processes, as on two machines."""
    # a node starts half a dozen Python processes, which takes a busy machine more than Ray's 30 s
    patience = {"RAY_agent_register_timeout_ms": "240000", "RAY_raylet_start_wait_time_s": "240"}
    os.environ |= {name: value for name, value in patience.items() if name not in os.environ}
    from ray.cluster_utils import Cluster as LocalCluster

    local = LocalCluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
    local.add_node(num_cpus=1)
    local.wait_for_nodes(timeout=240)
    yield local
    import ray

    ray.shutdown()  # the driver first
    local.shutdown()


@pytest.fixture(scope="module")
def connected(nodes: Any) -> Iterator[Watched]:
    """One driver for all tests, so that Ray's processes import torch once."""
    with Watched(nodes.address) as opened:
        yield opened


@pytest.fixture
def workers(connected: Watched, marks: Path) -> Watched:
    connected.marks = marks
    return connected


@pytest.fixture(scope="module")
def database() -> Iterator[Any]:
    from postgres import Postgres, programs

    if programs() is None:
        pytest.skip("no PostgreSQL server is installed")
    with tempfile.TemporaryDirectory(prefix="luthier-pg-") as folder:
        server = Postgres(Path(folder))
        yield server
        server.stop()


Search = Callable[..., tuple[Any, list[str]]]


@pytest.fixture
def search(workers: Watched, database: Any, tmp_path: Path, request: pytest.FixtureRequest) -> Search:
    """A search of six networks on real digits, its study in the database; what it said comes back with it."""
    (tmp_path / "tiny.toml").write_text(TOML)
    name = str(request.node.name)[:60]

    def run(told: Callable[[Any], None] = lambda standing: None, trials: int = TRIALS) -> tuple[Any, list[str]]:
        asked = SearchRequest(
            command="search", data=None, space=str(tmp_path / "tiny.toml"), device="host", objectives="accuracy,macs",
            candidates=trials, candidate_epochs=1, front_only=True, time_limit_s=3600.0, storage=database.url,
            study=name,
        )  # fmt: skip
        said: list[str] = []
        found, _ = job.search(asked, tmp_path / f"run{trials}", said.append, told, workers)
        return found, said

    return run


def stored(database: Any, request: pytest.FixtureRequest) -> list[str]:
    """States of all trials in the database, asked by another connection."""
    import psycopg

    with psycopg.connect(database.url.replace("+psycopg", "")) as connection:
        rows = connection.execute(
            "select state from trials join studies using (study_id) where study_name = %s", [request.node.name[:60]]
        ).fetchall()
    return [str(row[0]) for row in rows]


def test_both_nodes_train_and_the_study_is_in_the_database(
    workers: Watched, search: Search, database: Any, marks: Path, request: pytest.FixtureRequest
) -> None:
    assert workers.at_once == 2
    found, _ = search()
    assert len(found.points) == TRIALS
    assert begun(marks) == dict.fromkeys(range(TRIALS), 1)
    assert len({line.split()[1] for mark in marks.iterdir() for line in mark.read_text().splitlines()}) == 2
    assert stored(database, request) == ["COMPLETE"] * TRIALS


def test_a_killed_worker_loses_no_finished_trial_and_its_trial_is_begun_again(
    search: Search, database: Any, marks: Path, request: pytest.FixtureRequest
) -> None:
    finished: list[int] = []
    before: list[int] = []

    def kill() -> None:
        while not ((marks / "3").exists() and (marks / "3").read_text()):
            time.sleep(0.01)
        before.append(len(finished))
        os.kill(int((marks / "3").read_text().split()[0]), signal.SIGKILL)

    killer = threading.Thread(target=kill)
    killer.start()
    found, _ = search(lambda standing: finished.append(standing.trained))
    killer.join()
    assert len(found.points) == TRIALS
    assert before[0] >= 2
    assert begun(marks) == {**dict.fromkeys(range(TRIALS), 1), 3: 2}  # what was finished was not done again
    assert stored(database, request) == ["COMPLETE"] * TRIALS


def test_a_machine_that_leaves_takes_no_trial_with_it(
    nodes: Any, search: Search, database: Any, request: pytest.FixtureRequest
) -> None:
    leaving = nodes.add_node(num_cpus=1)
    nodes.wait_for_nodes(timeout=240)

    def leave(standing: Any) -> None:
        if standing.trained == 2:
            nodes.remove_node(leaving, allow_graceful=False)

    found, _ = search(leave)
    assert len(found.points) == TRIALS
    assert stored(database, request) == ["COMPLETE"] * TRIALS


def test_a_database_that_restarts_in_mid_run_loses_nothing(
    search: Search, database: Any, marks: Path, request: pytest.FixtureRequest
) -> None:
    def restart(standing: Any) -> None:
        if standing.trained == 2:
            database.stop()
            database.start()

    found, said = search(restart)
    assert len(found.points) == TRIALS
    assert begun(marks) == dict.fromkeys(range(TRIALS), 1)
    assert stored(database, request) == ["COMPLETE"] * TRIALS
    assert not any("is lost" in line for line in said)


def test_a_search_outlives_its_database(
    search: Search, database: Any, marks: Path, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    def stop(standing: Any) -> None:
        if standing.trained == 2:
            database.stop()

    found, said = search(stop)
    database.start()
    assert len(found.points) == TRIALS
    assert begun(marks) == dict.fromkeys(range(TRIALS), 1)
    assert any("is lost" in line and "evaluations.jsonl keeps what it finds" in line for line in said)
    kept = (tmp_path / f"run{TRIALS}" / "evaluations.jsonl").read_text().splitlines()
    assert len(kept) == TRIALS
    assert stored(database, request).count("COMPLETE") == 2
    # the next command on this folder and study hands in what the database lacks
    again, _ = search()
    assert len(again.points) == TRIALS
    assert stored(database, request).count("COMPLETE") == TRIALS
    assert begun(marks) == dict.fromkeys(range(TRIALS), 1)


def refuse(_: None, task: int) -> int:
    raise DataError(f"task {task}: no images")


def test_an_exception_of_a_task_is_the_callers(connected: Watched) -> None:
    with pytest.raises(DataError, match="task 1: no images"):
        list(Cluster.map(connected, refuse, None, [1]))


def replica(shared: tuple[Any, Path, bool]) -> None:
    """Trains a supernet on its share; the second replica kills itself once, after the first epoch."""
    splits, folder, dies = shared
    import torch

    from luthier.nn.elastic import Elastic
    from luthier.search.supernet import train_supernet
    from luthier.train.hardware import Hardware
    from luthier.train.recipe import Recipe

    torch.manual_seed(0)
    rank = int(os.environ["RANK"])
    with (folder / f"rank{rank}").open("a") as mark:
        mark.write("x")
    if dies and rank == 1 and (folder / "rank1").read_text() == "x":
        threading.Thread(target=_die_after, args=(folder / "metrics.jsonl",), daemon=True).start()
    hardware = Hardware(accelerator="cpu", num_nodes=2, strategy="ddp_find_unused_parameters_true")
    recipe = Recipe(epochs=4, batch_size=16, learning_rate=0.1, augment="none")
    train_supernet(Elastic(SPACE), splits, recipe, folder=folder, hardware=hardware, show_progress=False)


def _die_after(path: Path) -> None:
    while not (path.exists() and path.read_text().count("\n")):
        time.sleep(0.01)
    os.kill(os.getpid(), signal.SIGKILL)


def test_replicas_train_one_supernet_and_survive_a_death(nodes: Any, connected: Watched, tmp_path: Path) -> None:
    from luthier.train.source import Splits, fingerprint, in_memory

    rng = np.random.default_rng(0)
    labels = np.arange(480) % 4
    pixels = rng.integers(0, 100, (480, 16, 16, 3))
    pixels[:, :, :, 0] += 40 * labels[:, None, None]
    whole = in_memory(pixels.astype(np.uint8), labels)
    parts = [whole.take(np.arange(a, b)) for a, b in ((0, 320), (320, 400), (400, 480))]
    names = ("a", "b", "c", "d")
    splits = Splits(*parts, names, (16, 16), 3, "shades", (), (), fingerprint(names, *parts))
    folder = tmp_path / "supernet"
    folder.mkdir()
    train_replicas(replica, (splits, folder, True), address=nodes.address, replicas=2, folder=tmp_path / "ray")
    assert (folder / "rank0").read_text() == (folder / "rank1").read_text() == "xx"
    epochs = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    assert [epoch["epoch"] for epoch in epochs] == [1, 2, 3, 4]
    assert epochs[-1]["train_loss"] < epochs[0]["train_loss"]


def test_a_cluster_that_does_not_answer_is_refused_in_one_line() -> None:
    import ray

    ray.shutdown()
    with pytest.raises(WorkerError, match=r"--cluster ray://127\.0\.0\.1:1: no Ray cluster answers") as refused:
        connect("ray://127.0.0.1:1")
    assert "\n" not in str(refused.value)
