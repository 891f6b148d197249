"""`luthier search`: from a space, hard limits and a device to a front of trained networks, and its best.

    data -> feasible set -> latency learnt (this machine) -> trainings that the sampler proposes -> front
         -> measured -> successive halving of its best -> final training, export, test, as `luthier fit` ends

A network that breaks a modelled limit is never trained.  Whose latency may lie beyond the limit is measured first, and
the measurement teaches the model.
"""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Iterator
from itertools import count
from pathlib import Path
from typing import Final

import numpy as np
from optuna.trial import Trial, TrialState

from luthier import files
from luthier.device.registry import get as get_device
from luthier.errors import InputError
from luthier.job.evaluate import Training, train_all
from luthier.job.folder import Clock, RunFolder, finished, open_run
from luthier.job.latencies import untrained_latency_s
from luthier.job.plan import whole_epochs
from luthier.job.result import Result
from luthier.job.search_final import to_the_end
from luthier.job.search_found import read, searched, standing, write_found
from luthier.job.search_store import SearchStore
from luthier.job.search_task import TIMING_S, TRAINERS, SearchRequest, SearchTask, Told, trainable
from luthier.job.session import Say, Session
from luthier.job.study import Round
from luthier.job.supernet import inherit, shared_epochs, shared_weights
from luthier.nn.elastic import Elastic
from luthier.search.feasible import Feasible, Rows
from luthier.search.latency import FIRST, LearntLatency
from luthier.search.price import Pricer, on_device
from luthier.search.result import Searched
from luthier.search.space import Space
from luthier.search.space import get as get_space
from luthier.search.strategy import CostAwareSampler, Within, objectives_of
from luthier.search.workers import Here, Workers
from luthier.train.data import channel_mean_std, load_data
from luthier.units import show

#: part of the time limit for trainings of candidates, and how many of them it should hold
SHARE: Final = 0.45
WISHED: Final = 32
#: a candidate's training is at most so long: a quarter of the longest final one
MOST_EPOCHS: Final = 30


def search(
    request: SearchRequest, run_dir: Path, say: Say, told: Told, workers: Workers | None = None
) -> tuple[Searched, Result | None]:
    """Run or resume a search.

    Args:
        request: what is asked.
        run_dir: kept under this path.
        say: receives lines for the user.
        told: hears where the search stands, after every training.
        workers: who trains candidates; None = this process.
    Raises:
        InputError: data, space, objectives, device or storage that cannot be used.
        BudgetError: no network of the space keeps the limits; nothing is written.
    """
    folder = RunFolder(run_dir)
    # a storage elsewhere may lack what was found while it was away: such a front is handed in before it is read again
    known = request.front_only and request.storage is None and (run_dir / "search.json").exists()
    if known or finished(run_dir, request) is not None:
        return read(run_dir / "search.json"), finished(run_dir, request)
    if request.trainer not in TRAINERS:
        raise InputError(f"--trainer: must be {' or '.join(TRAINERS)}, got {request.trainer!r}")
    objectives = objectives_of(request.objectives)
    space = get_space(request.space)
    clock = Clock.resume(folder.clock, request.time_limit_s)
    splits = load_data(request.data, seed=request.seed, skip_bad=request.skip_bad)
    for note in splits.notes:
        say(f"data: {note}")
    session = Session(request, splits, clock, say)
    mean, std = channel_mean_std(splits.train)
    space = space.for_data(splits.num_classes, splits.in_channels, mean, std, min(splits.image_hw))
    task = _task(request, session, space, objectives)
    task.feasible.check(task.rng)
    with files.explaining(run_dir), open_run(run_dir, request):
        return _run(task, folder, told, workers or Here())


def _task(request: SearchRequest, session: Session, space: Space, objectives: tuple[str, ...]) -> SearchTask:
    """Prices and limits; latency of this machine is learnt first, since limits and objectives need it."""
    rng, budget, device = np.random.default_rng(request.seed), request.budget, get_device(request.device)
    needed = {*objectives, *(name for name, limit in (
        ("latency_s", budget.max_latency_s), ("energy_j", budget.max_energy_j)) if limit is not None)}  # fmt: skip
    host = request.device == "host"
    modelled = {
        k: v for k, v in on_device(device, request.threads).items() if k in needed and not (host and k == "latency_s")
    }
    latency = LearntLatency(space, request.device) if host and "latency_s" in needed else None
    pricer = Pricer(space, modelled)
    feasible = Feasible(space, pricer, dataclasses.replace(budget, max_latency_s=None) if latency else budget)
    zeros = pricer(np.zeros((1, len(space.genes)), np.int64))
    for key in modelled:
        if not np.isfinite(zeros[key][0]):
            what = "peak or bandwidth" if key == "latency_s" else "energy"
            raise InputError(
                f"--device {request.device}: its file states no {what} that {key} of {space.precision} needs; "
                f"add it to a copy of the file, see luthier device show {request.device}"
            )
    if latency is not None:
        first = feasible.draw(rng, FIRST)
        session.say(f"latency: {len(first)} untrained networks of the space are run on this machine")
        first = np.unique(np.concatenate([first, feasible.draw(rng, FIRST // 2)]), axis=0)
        latency.learn(first, [untrained_latency_s(space.network(row), request.threads, TIMING_S) for row in first])
        pricer.latency = latency
        feasible = Feasible(space, pricer, budget)
    return SearchTask(request, session, space, objectives, pricer, feasible, latency, rng)


def _run(task: SearchTask, folder: RunFolder, told: Told, workers: Workers) -> tuple[Searched, Result | None]:
    request, session, space = task.request, task.session, task.space
    identity = {
        "data": session.splits.fingerprint, "space": get_space(request.space).fingerprint,
        "objectives": ",".join(task.objectives), "device": request.device, "limits": request.budget.text,
        "trainer": request.trainer,
    }  # fmt: skip
    name = request.study or f"{space.name}-{Path(request.data or 'digits').stem}"
    store = SearchStore(folder.path, request.storage, name, task.objectives, identity, session.say)
    with contextlib.closing(store):
        return _with_store(task, store, folder, told, workers)


def _with_store(
    task: SearchTask, store: SearchStore, folder: RunFolder, told: Told, workers: Workers
) -> tuple[Searched, Result | None]:
    request, session, space = task.request, task.session, task.space
    _share_latencies(task, store)
    candidates = Within(task.feasible)
    sampler = CostAwareSampler(candidates, task.objectives, seed=request.seed)
    store.hand_over(sampler)
    inherits = request.trainer == "supernet"
    epochs: int = store.note("epochs", lambda: request.candidate_epochs or _epochs(task, inherits))
    session.say(f"search: {space.name}, {space.count:.3g} networks, limits: {request.budget.text or 'none'}; "
                f"{epochs} epochs {'of all together' if inherits else 'each'}")  # fmt: skip
    weights = shared_weights(task, epochs, folder.path / "supernet", workers) if inherits else None
    session.clock.save()
    _explore(task, store, candidates, epochs, folder, told, workers, weights)
    found = searched(task, store, candidates, epochs)
    write_found(found, folder.path)
    session.clock.save()
    if request.front_only:
        return found, None
    return found, to_the_end(task, store, folder, workers)


def _share_latencies(task: SearchTask, store: SearchStore) -> None:
    """One set of first measurements for all resumptions, so that a network keeps its predicted latency."""
    learnt = task.learnt
    if learnt is not None:
        mine = [[list(row), seconds] for row, seconds in learnt.measured.items()]
        first = store.note("latencies", lambda: mine)
        learnt.measured.clear()
        learnt.learn(np.array([row for row, _ in first]), [seconds for _, seconds in first])


def _explore(
    task: SearchTask,
    store: SearchStore,
    within: Within,
    epochs: int,
    folder: RunFolder,
    told: Told,
    workers: Workers,
    weights: Elastic | None,
) -> None:
    """Train what the sampler proposes until time or number are used up."""
    session, clock = task.session, task.session.clock
    until_s = SHARE * task.request.time_limit_s
    under_way: dict[int, tuple[Trial, Rows]] = {}
    numbers = count()

    def trainings() -> Iterator[Training]:
        while _used(task, store, until_s, len(under_way)) < 1:
            trial, row = store.next(within, task.rng, under_way.values())
            late = _beyond(task, row)
            if late:
                task.dropped += 1
                store.tell(trial, row, None, {"dropped": late})
                continue
            network, number, now_s = trainable(task.space.network(row)), next(numbers), clock.elapsed_s
            under_way[number] = trial, row
            yield Training(
                number, task.slot_row(row), network, epochs, folder.path / "candidates" / task.space.key(row)[:16],
                f"{trial.number + 1} {network.name}", now_s, max(until_s, now_s + 1.0),
            )  # fmt: skip

    def results() -> Iterator[tuple[Training, Round]]:
        if weights is not None:
            return workers.map(inherit, (weights, session.splits), trainings())
        return train_all(session, workers, trainings())

    while _used(task, store, until_s) < 1:  # a training that diverged leaves room for another
        for asked, played in results():
            trial, row = under_way.pop(asked.number)
            costs = task.costs(row)
            values = None
            if played.val_accuracy is not None:
                values = [played.val_accuracy, *(costs[key] for key in task.objectives[1:])]
            store.tell(trial, row, values, {"epochs": played.epochs, "wall_s": played.wall_s})
            clock.save()
            told(standing(task, store, _used(task, store, until_s)))


def _used(task: SearchTask, store: SearchStore, until_s: float, under_way: int = 0) -> float:
    """Share of the time or of the number of trainings, those included that are under way."""
    states = [trial.state for trial in store.trials()]
    done, by_time = states.count(TrialState.COMPLETE) + under_way, task.session.clock.elapsed_s / until_s
    by_number = 0.0 if task.request.candidates is None else done / task.request.candidates
    # one network is looked at however short the time
    begun = under_way or any(state.is_finished() for state in states)
    return max(by_number, by_time if begun else 0.0)


def _beyond(task: SearchTask, row: Rows) -> str:
    """Why a proposal is not trained: its measured latency; empty = it is."""
    limit = task.request.max_latency_s
    if task.learnt is None or limit is None:
        return ""
    seconds, half = task.learnt.interval(row[None])
    if seconds[0] + half[0] > limit:
        measured = task.measure(row)
        if measured > limit:
            return f"latency {show(measured, 'latency')}, measured"
    return ""


def _epochs(task: SearchTask, inherits: bool) -> int:
    """So many that the search's time holds about `WISHED` trainings of middling size, or one of the supernet."""
    if inherits:
        return shared_epochs(task, SHARE * task.request.time_limit_s)
    rows = task.feasible.draw(task.rng, 16)
    macs = task.pricer(rows)["macs"]
    middle = trainable(task.space.network(rows[int(np.argsort(macs)[len(macs) // 2])]))
    epoch_s = len(task.session.splits.train) / task.session.rate(middle)
    return whole_epochs(SHARE * task.request.time_limit_s / WISHED, epoch_s, MOST_EPOCHS)
