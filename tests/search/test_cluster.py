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
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from luthier.arch import Block, Head, Network, Stage
from luthier.cost.tables import CostTables, Slot, Slots
from luthier.errors import DataError, StudyError, WorkerError
from luthier.search.cluster import Cluster, connect, train_replicas
from luthier.search.drive import drive
from luthier.search.storage import Outcome, close, open_storage

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
TRIALS = 10


def ask_genes(trial: Any) -> tuple[int, ...]:
    return tuple(trial.suggest_int(f"gene{i}", 0, size - 1) for i, size in enumerate(SPACE.sizes))


def priced(shared: tuple[Slots, Path], task: tuple[int, tuple[int, ...]]) -> Outcome:
    """Leaves its process and node behind, takes a while, and prices the network."""
    import ray

    slots, marks = shared
    number, genes = task
    with (marks / f"{number}").open("a") as mark:
        mark.write(f"{os.getpid()} {ray.get_runtime_context().get_node_id()}\n")
    time.sleep(0.4)
    macs = int(CostTables(slots).costs(np.array([genes])).macs[0])
    return Outcome(number, (macs / 1e6,), {"macs": macs})


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
    local.shutdown()


@pytest.fixture
def workers(nodes: Any) -> Iterator[Cluster]:
    with Cluster(nodes.address) as opened:
        yield opened


@pytest.fixture(scope="module")
def database() -> Iterator[Any]:
    from postgres import Postgres, programs

    if programs() is None:
        pytest.skip("no PostgreSQL server is installed")
    with tempfile.TemporaryDirectory(prefix="luthier-pg-") as folder:
        server = Postgres(Path(folder))
        yield server
        server.stop()


Studies = Callable[..., Any]


@pytest.fixture
def study_in(database: Any) -> Iterator[Studies]:
    """A study of the database by its name; opened anew each time, closed at the end."""
    import optuna

    opened = []

    def open_study(name: str, patience_s: float = 60.0) -> Any:
        sampler = optuna.samplers.RandomSampler(seed=1)
        storage = open_storage(database.url, patience_s=patience_s)
        study = optuna.create_study(study_name=name, storage=storage, sampler=sampler, load_if_exists=True)
        opened.append(study)
        return study

    yield open_study
    for study in opened:
        close(study)


def search(study: Any, workers: Cluster, marks: Path, told: Callable[[Outcome], None] = lambda outcome: None) -> None:
    drive(
        study, workers, priced, (SPACE, marks), task=ask_genes, trials=TRIALS, owner="test",
        unsaved=marks.parent / "unsaved.jsonl", told=told,
    )  # fmt: skip


def check(study: Any) -> None:
    """Every trial is finished and has the value that its genes have."""
    tables = CostTables(SPACE)
    trials = study.get_trials()
    assert [trial.state.name for trial in trials] == ["COMPLETE"] * TRIALS
    for trial in trials:
        genes = [trial.params[f"gene{i}"] for i in range(len(SPACE.sizes))]
        assert trial.user_attrs["macs"] == tables.costs(np.array([genes])).macs[0]
        assert trial.values == [trial.user_attrs["macs"] / 1e6]


def test_both_nodes_work_and_the_study_is_in_the_database(workers: Cluster, study_in: Studies, marks: Path) -> None:
    assert workers.at_once == 2
    search(study_in("plain"), workers, marks)
    check(study_in("plain"))
    assert begun(marks) == dict.fromkeys(range(TRIALS), 1)
    assert len({line.split()[1] for mark in marks.iterdir() for line in mark.read_text().splitlines()}) == 2


def test_a_killed_worker_loses_no_finished_trial_and_its_trial_is_begun_again(
    workers: Cluster, study_in: Studies, marks: Path
) -> None:
    study = study_in("killed")
    told: list[int] = []
    before: list[int] = []

    def kill() -> None:
        while not ((marks / "5").exists() and (marks / "5").read_text()):
            time.sleep(0.01)
        os.kill(int((marks / "5").read_text().split()[0]), signal.SIGKILL)
        before.extend(told)

    killer = threading.Thread(target=kill)
    killer.start()
    search(study, workers, marks, lambda outcome: told.append(outcome.number))
    killer.join()
    check(study_in("killed"))
    counts = begun(marks)
    assert len(before) >= 3
    assert all(counts[number] == 1 for number in before)  # what was finished was not done again
    assert counts[5] == 2


def test_a_machine_that_leaves_takes_no_trial_with_it(
    nodes: Any, workers: Cluster, study_in: Studies, marks: Path
) -> None:
    leaving = nodes.add_node(num_cpus=2)
    nodes.wait_for_nodes(timeout=240)

    def leave(outcome: Outcome) -> None:
        if outcome.number == 3:
            nodes.remove_node(leaving, allow_graceful=False)

    search(study_in("left"), workers, marks, leave)
    check(study_in("left"))
    nodes.wait_for_nodes(timeout=240)


def test_a_database_that_restarts_in_mid_run_is_waited_for(
    workers: Cluster, database: Any, study_in: Studies, marks: Path
) -> None:
    again: list[threading.Timer] = []

    def restart(outcome: Outcome) -> None:
        if outcome.number == 3:
            database.stop()
            again.append(threading.Timer(2.0, database.start))
            again[0].start()

    search(study_in("restarted"), workers, marks, restart)
    again[0].join()
    check(study_in("restarted"))
    assert begun(marks) == dict.fromkeys(range(TRIALS), 1)
    assert not (marks.parent / "unsaved.jsonl").exists()


def test_results_outlive_a_database_that_stays_away(
    workers: Cluster, database: Any, study_in: Studies, marks: Path
) -> None:
    def stop(outcome: Outcome) -> None:
        if outcome.number == 4:
            database.stop()

    with pytest.raises(StudyError, match=r"\*\*\*@.* away for 1 s.* finished trials wait in"):
        search(study_in("lost", patience_s=1.0), workers, marks, stop)
    kept = [json.loads(line)["number"] for line in (marks.parent / "unsaved.jsonl").read_text().splitlines()]
    assert kept  # what was under way when the connection dropped
    database.start()
    finished = [trial.number for trial in study_in("lost").get_trials() if trial.state.is_finished()]
    assert 4 in finished
    assert not set(kept) & set(finished)
    search(study_in("lost"), workers, marks)
    check(study_in("lost"))
    assert not (marks.parent / "unsaved.jsonl").exists()
    assert all(begun(marks)[number] == 1 for number in (*finished, *kept))


def refuse(_: None, task: int) -> int:
    raise DataError(f"task {task}: no images")


def test_an_exception_of_a_task_is_the_callers(workers: Cluster) -> None:
    with pytest.raises(DataError, match="task 1: no images"):
        list(workers.map(refuse, None, [1]))


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


def test_replicas_train_one_supernet_and_survive_a_death(nodes: Any, tmp_path: Path) -> None:
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
