"""Ray as a place to work: candidates as tasks, supernet replicas as data-parallel processes.

`auto` is the cluster that this machine belongs to (one with the default number of CPUs is started where there is none);
`ray://HOST:PORT` is one elsewhere, reached through its client server.  Every machine needs the same Python with
`luthier[train,cluster]`; data and results travel through Ray, so no folder has to be shared.
"""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any, Final, TypeVar

from luthier.errors import LuthierError, WorkerError
from luthier.search.workers import ATTEMPTS, Here, Processes, Workers, died

S = TypeVar("S")
T = TypeVar("T")
R = TypeVar("R")

_ADDRESS: Final = re.compile(r"auto|(ray://)?[\w.\-\[\]:]+:\d+")


def open_workers(cluster: str | None = None, count: int = 1) -> Workers:
    """Where to work: on a cluster, in `count` processes of this machine, or here.

    Raises:
        WorkerError: no such cluster, or Ray is not installed.
    """
    if cluster is not None:
        return Cluster(cluster)
    return Processes(count) if count > 1 else Here()


def connect(address: str) -> Any:
    """The module `ray`, connected.

    Raises:
        WorkerError: an address of another form, no cluster there, or Ray is not installed.
    """
    if not _ADDRESS.fullmatch(address):
        raise WorkerError(f"--cluster: must be auto, HOST:PORT or ray://HOST:PORT, got {address!r}")
    try:
        import ray
    except ImportError:
        raise WorkerError("--cluster: Ray is not installed; pip install 'luthier[cluster]'") from None
    if ray.is_initialized():
        return ray
    # threads of a task follow its CPUs; a driver's own variables are not the workers'
    quiet: dict[str, Any] = {"logging_level": logging.ERROR, "log_to_driver": False}
    try:
        ray.init(None if address == "auto" and not _is_running(ray) else address, **quiet)
    except (ConnectionError, RuntimeError, ValueError, ImportError, OSError) as error:
        reason = str(error).partition("\n")[0]
        raise WorkerError(f"--cluster {address}: no Ray cluster answers ({reason}); `ray start` one") from None
    return ray


def _is_running(ray: Any) -> bool:
    if os.environ.get("RAY_ADDRESS"):
        return True
    found: bool = bool(ray._private.services.find_gcs_addresses())
    return found


class Cluster(Workers):
    """Ray tasks of one CPU each, as many at a time as the cluster has CPUs.

    A task whose process or machine dies is begun again by Ray, `ATTEMPTS` times in all; an exception of the task itself
    is not.  Machines that join later are used from the next task on.
    """

    def __init__(self, address: str) -> None:
        self.address = address
        self._ray = connect(address)

    @property
    def at_once(self) -> int:  # type: ignore[override]  # the others' is fixed
        """CPUs of the cluster, now."""
        return max(1, int(self._ray.cluster_resources().get("CPU", 1)))

    def map(self, work: Callable[[S, T], R], shared: S, tasks: Iterable[T]) -> Iterator[tuple[T, R]]:
        ray = self._ray
        remote = ray.remote(num_cpus=1, max_retries=ATTEMPTS - 1, retry_exceptions=False)(work)
        common = ray.put(shared)
        waiting = iter(tasks)
        running: dict[Any, T] = {}
        try:
            while True:
                for task in islice(waiting, max(0, self.at_once - len(running))):
                    running[remote.remote(common, task)] = task
                if not running:
                    return
                ended, _ = ray.wait(list(running), num_returns=1)
                for reference in ended:
                    task = running.pop(reference)
                    yield task, self._get(reference, task)
        finally:
            for reference in running:
                ray.cancel(reference, force=True)

    def _get(self, reference: Any, task: object) -> Any:
        errors = self._ray.exceptions
        try:
            return self._ray.get(reference)
        except errors.RayTaskError as error:
            cause = error.cause if isinstance(error.cause, Exception) else error
            raise cause from (None if isinstance(cause, LuthierError) else error)
        except (errors.WorkerCrashedError, errors.NodeDiedError, errors.OutOfMemoryError, errors.RaySystemError):
            raise died(task) from None

    def close(self) -> None:
        self._ray.shutdown()


def train_replicas(train: Callable[[S], R], shared: S, *, address: str, replicas: int, folder: Path) -> None:
    """Run `train(shared)` in several processes of a cluster that Ray Train has joined for torch.distributed.

    Inside, `Hardware(num_nodes=replicas, strategy="ddp_find_unused_parameters_true")` finds the others.  A replica that
    dies ends the attempt; all begin again, up to `ATTEMPTS` times, and `luthier.train.loop.train` goes on from its
    checkpoint.

    Args:
        train: a function of a module; what it returns is dropped, its files stay.
        shared: sent to every replica.
        replicas: processes, of one CPU each.
        folder: where Ray keeps its own notes; all machines must see it.
    Raises:
        WorkerError: see `connect`; or all attempts failed.
    """
    connect(address)
    from ray.train import FailureConfig, RunConfig, ScalingConfig
    from ray.train.torch import TorchConfig, TorchTrainer

    trainer = TorchTrainer(
        _replica, train_loop_config={"train": train, "shared": shared},
        scaling_config=ScalingConfig(num_workers=replicas, use_gpu=False, resources_per_worker={"CPU": 1}),
        run_config=RunConfig(
            name="supernet", storage_path=str(folder.resolve()), failure_config=FailureConfig(max_failures=ATTEMPTS - 1)
        ),
        torch_config=TorchConfig(backend="gloo"),
    )  # fmt: skip
    try:
        trainer.fit()
    except Exception as error:  # Ray wraps whatever a replica raised in errors of its own
        failures = list(getattr(error, "worker_failures", {}).values()) or [error]
        reason = str(failures[0]).strip().rpartition("\n")[2]
        raise WorkerError(f"--cluster {address}: the replicas' training failed ({reason:.200})") from error


def _replica(config: dict[str, Any]) -> None:
    # Lightning Fabric takes its place from these, and finds the process group that Ray Train has opened; every replica
    # counts as a machine of its own, however many share one
    os.environ |= {
        "TORCHELASTIC_RUN_ID": "ray", "GROUP_RANK": os.environ["RANK"], "LOCAL_RANK": "0", "LOCAL_WORLD_SIZE": "1",
    }  # fmt: skip
    config["train"](config["shared"])
