"""Who evaluates candidates: this process, others on this machine, or a cluster (`luthier.search.cluster`).

One method is all that a study needs: `map` takes tasks as they are asked for, keeps as many under way as there are
workers, and hands back results in the order in which they end.  A worker that dies is replaced, and what it was doing
is done again; what was handed back is never lost.
"""

from __future__ import annotations

import multiprocessing
import os
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from itertools import islice
from typing import Any, Final, TypeVar

from luthier.errors import WorkerError

S = TypeVar("S")
T = TypeVar("T")
R = TypeVar("R")

#: how often a task is begun before its deaths are blamed on it
ATTEMPTS: Final = 3


class Workers(ABC):
    """Somewhere to work.

    Attributes:
        at_once: tasks under way at a time.
    """

    at_once: int = 1

    @abstractmethod
    def map(self, work: Callable[[S, T], R], shared: S, tasks: Iterable[T]) -> Iterator[tuple[T, R]]:
        """Results with their tasks, in the order in which they end.

        Args:
            work: a function of a module: (shared, task) -> result.  What it raises is raised here, and ends the others.
            shared: what all tasks need, such as images; sent once to each worker.
            tasks: the next one is taken when there is a worker for it, after all earlier results were handed back.
        Raises:
            WorkerError: a worker died `ATTEMPTS` times on the same task.
        """

    def close(self) -> None:  # noqa: B027  # most have nothing to let go
        """Let the workers go."""

    def __enter__(self) -> Workers:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()


class Here(Workers):
    """This process, one task after the other.

    Example:
        >>> with Here() as workers:
        ...     list(workers.map(pow, 2, [3, 4]))
        [(3, 8), (4, 16)]
    """

    def map(self, work: Callable[[S, T], R], shared: S, tasks: Iterable[T]) -> Iterator[tuple[T, R]]:
        return ((task, work(shared, task)) for task in tasks)


class Processes(Workers):
    """Several processes of this machine, each with one thread for arithmetic.

    Args:
        count: of processes.
    """

    def __init__(self, count: int) -> None:
        self.at_once = count
        self._pool: ProcessPoolExecutor | None = None

    def map(self, work: Callable[[S, T], R], shared: S, tasks: Iterable[T]) -> Iterator[tuple[T, R]]:
        waiting = iter(tasks)
        running: dict[Future[Any], tuple[T, int]] = {}
        self._open(work, shared)
        try:
            while True:
                for task in islice(waiting, self.at_once - len(running)):
                    running[self._submit(task)] = task, 1
                if not running:
                    return
                ended = wait(running, return_when=FIRST_COMPLETED).done
                broken = False
                for future in ended:
                    if isinstance(future.exception(), BrokenProcessPool):
                        broken = True  # a death ends every task under way; which one it was is not known
                        continue
                    yield running.pop(future)[0], future.result()
                if broken:
                    unfinished = list(running.values())
                    if tired := [task for task, begun in unfinished if begun == ATTEMPTS]:
                        raise died(tired[0])
                    self._open(work, shared)
                    running = {self._submit(task): (task, begun + 1) for task, begun in unfinished}
        finally:
            self.close()

    def close(self) -> None:
        if self._pool is not None:
            self._pool.shutdown(wait=True, cancel_futures=True)
            self._pool = None

    def _open(self, work: Callable[..., Any], shared: Any) -> None:
        self.close()
        context = multiprocessing.get_context("spawn")
        self._pool = ProcessPoolExecutor(self.at_once, context, initializer=_begin, initargs=(work, shared))

    def _submit(self, task: Any) -> Future[Any]:
        assert self._pool is not None
        try:
            return self._pool.submit(_do, task)
        except BrokenProcessPool as gone:  # a worker died since the last look; `map` hears of it as of any other death
            failed: Future[Any] = Future()
            failed.set_exception(gone)
            return failed


def died(task: object) -> WorkerError:
    """A task that is begun no more."""
    return WorkerError(
        f"search: the worker of {task!r:.80} died {ATTEMPTS} times (out of memory?); "
        "run the same command again with fewer workers, or narrow the space"
    )


_WORK: dict[str, Any] = {}


def _begin(work: Callable[..., Any], shared: Any) -> None:
    os.environ["OMP_NUM_THREADS"] = "1"
    _WORK.update(work=work, shared=shared)


def _do(task: Any) -> Any:
    return _WORK["work"](_WORK["shared"], task)
