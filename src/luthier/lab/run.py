"""Trains arms x seeds, seed by seed, in one process or several; every finished training is a record on the disk.

A killed lab loses at most the trainings in flight, and of those only what came after their last checkpoint.  Since
seeds are the outer loop, an interrupted lab holds whole pairs.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
import time
import traceback
from collections import deque
from collections.abc import Callable, Sequence
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from pathlib import Path

from luthier.errors import InputError, LuthierError
from luthier.lab import folder as store
from luthier.lab.experiment import Arm, Experiment, Order, Place
from luthier.lab.registry import build
from luthier.lab.result import Record

#: hears of every training as it is finished
Told = Callable[[Record], None]
#: seconds that trainings get to save themselves after Ctrl-C, before they are asked again
_PATIENCE_S = 5.0


def run(experiment: Experiment, order: Order, folder: Path, *, jobs: int, told: Told) -> None:
    """Train what has no record yet.

    Args:
        experiment: as `build(order)` makes it.
        order: what the processes build it from.
        folder: held by the caller, see `luthier.lab.folder.hold`.
        jobs: trainings at a time; 1 = in this process.
        told: called with every record as it is finished.
    Raises:
        InputError: `jobs` below 1, or a training process that was killed.
        KeyboardInterrupt: Ctrl-C, after the trainings in flight are saved.
    """
    if jobs < 1:
        raise InputError(f"lab {experiment.name}: --jobs must be at least 1, got {jobs}")
    done = {(record.arm, record.seed) for record in store.read(folder, experiment)}
    waiting = deque(
        (arm.name, seed) for seed in range(experiment.seeds) for arm in experiment.arms if (arm.name, seed) not in done
    )
    if jobs == 1 or len(waiting) < 2:
        for arm, seed in waiting:
            told(train_one(experiment.arm(arm), seed, folder, order.accelerator))
    else:
        _in_parallel(order, folder, waiting, min(jobs, len(waiting)), told)


def train_one(arm: Arm, seed: int, folder: Path, accelerator: str = "auto") -> Record:
    """One training, recorded."""
    began = time.perf_counter()
    place = Place(seed, store.training_path(folder, arm.name, seed), accelerator)
    numbers = {key: float(value) for key, value in arm.measure(place).items()}
    record = Record(arm.name, seed, numbers, round(time.perf_counter() - began, 3))
    store.write(folder, record)
    return record


def _in_parallel(order: Order, folder: Path, waiting: deque[tuple[str, int]], jobs: int, told: Told) -> None:
    context = multiprocessing.get_context("spawn")
    workers: dict[Connection, BaseProcess] = {}
    try:
        for _ in range(jobs):
            mine, theirs = context.Pipe()
            process = context.Process(target=_worker, args=(theirs, order, folder), daemon=True)
            process.start()
            theirs.close()
            workers[mine] = process
            mine.send(waiting.popleft())
        busy = set(workers)
        while busy:
            for pipe in wait(list(busy)):
                assert isinstance(pipe, Connection)
                told(_answer(pipe))
                if waiting:
                    pipe.send(waiting.popleft())
                else:
                    pipe.send(None)
                    busy.discard(pipe)
    except BaseException:
        _stop(list(workers.values()))
        raise
    for worker in workers.values():
        worker.join()


def _answer(pipe: Connection) -> Record:
    try:
        answer = pipe.recv()
    except EOFError:
        raise InputError(
            "lab: a training process was killed (out of memory?); run the same command again with fewer --jobs"
        ) from None
    if isinstance(answer, BaseException):
        raise answer
    assert isinstance(answer, Record)
    return answer


def _stop(processes: Sequence[BaseProcess]) -> None:
    """Ctrl-C at a terminal has reached them already; a signal to this process alone has not."""
    patience = time.monotonic() + _PATIENCE_S
    for process in processes:
        process.join(max(0.0, patience - time.monotonic()))
    for process in processes:
        if process.is_alive() and process.pid is not None:
            os.kill(process.pid, signal.SIGINT)
    for process in processes:
        process.join(_PATIENCE_S)
        process.terminate()


def _worker(pipe: Connection, order: Order, folder: Path) -> None:
    """A process that trains what it is told until it is told None."""
    # a training notices Ctrl-C itself and saves; between trainings the parent decides
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_die_with_parent, daemon=True).start()
    try:
        experiment = build(order)
        while (task := pipe.recv()) is not None:
            arm, seed = task
            pipe.send(train_one(experiment.arm(arm), seed, folder, order.accelerator))
    except (LuthierError, KeyboardInterrupt) as error:
        pipe.send(error)
    except Exception as error:
        traceback.print_exc()  # what went where is lost on the way to the parent
        pipe.send(error)


def _die_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)
