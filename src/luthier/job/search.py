"""`luthier search`: from a space, hard limits and a device to a front of trained networks, and its best.

    data -> feasible set -> latency learnt (this machine) -> trainings that the sampler proposes -> front
         -> measured -> successive halving of its best -> final training, export, test, as `luthier fit` ends
         -> quantised where its number types say so, compiled, timed

A network that breaks a modelled limit is never trained.  Whose latency may lie beyond the limit is measured first, and
the measurement teaches the model.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from functools import partial
from itertools import count
from pathlib import Path

import numpy as np
from optuna.trial import Trial, TrialState

from luthier import files
from luthier.device.host import fingerprint
from luthier.job.candidates import Member
from luthier.job.evaluate import Play, Training, train_all, train_here
from luthier.job.folder import Clock, RunFolder, finished, open_run
from luthier.job.result import Result
from luthier.job.search_begin import SHARE, check, epochs_each, learn_latency, prepare
from luthier.job.search_final import to_the_end
from luthier.job.search_found import searched, standing, write_found
from luthier.job.search_store import SearchStore
from luthier.job.search_task import SearchRequest, SearchTask, Told, trainable
from luthier.job.session import Say, Session
from luthier.job.supernet import inherit, shared_epochs, shared_weights
from luthier.search.feasible import Rows
from luthier.search.result import Searched, read
from luthier.search.space import get as get_space
from luthier.search.strategy import CostAwareSampler, Within
from luthier.search.workers import Here, Workers
from luthier.train.data import load_data
from luthier.units import show


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
    check(request)
    clock = Clock.resume(folder.clock, request.time_limit_s)
    splits = load_data(request.data, seed=request.seed, skip_bad=request.skip_bad)
    for note in splits.notes:
        say(f"data: {note}")
    task = prepare(request, Session(request, splits, clock, say))
    learn_latency(task)
    task.feasible.check(task.rng)
    with files.explaining(run_dir), open_run(run_dir, request):
        return explore(task, folder, told, workers or Here())


def explore(
    task: SearchTask, folder: RunFolder, told: Told, workers: Workers, rivals: Sequence[Member] = ()
) -> tuple[Searched, Result | None]:
    """Search, in a folder that the caller holds; end with the front, or with its best trained to the end.

    Args:
        rivals: networks that race against the front's best.
    """
    request, session, space = task.request, task.session, task.space
    identity = {
        "data": session.splits.fingerprint, "space": get_space(request.space).fingerprint,
        "objectives": ",".join(task.objectives), "device": request.device, "limits": request.budget.text,
        "trainer": request.trainer,
    }  # fmt: skip
    if task.learnt is not None:  # latencies of two machines are two objectives
        identity["machine"] = fingerprint()
    name = request.study or f"{space.name}-{Path(request.data or 'digits').stem}"
    store = SearchStore(folder.path, request.storage, name, task.objectives, identity, session.say)
    with contextlib.closing(store):
        return _with_store(task, store, folder, told, workers, rivals)


def _with_store(
    task: SearchTask, store: SearchStore, folder: RunFolder, told: Told, workers: Workers, rivals: Sequence[Member]
) -> tuple[Searched, Result | None]:
    request, session, space = task.request, task.session, task.space
    _share_latencies(task, store)
    candidates = Within(task.feasible)
    sampler = CostAwareSampler(candidates, task.objectives, seed=request.seed)
    store.hand_over(sampler)
    together: int = 0
    if request.trainer == "supernet":
        limit_s = SHARE * request.time_limit_s
        together = store.note("shared_epochs", lambda: request.shared_epochs or shared_epochs(task, limit_s))
    asked = request.candidate_epochs
    epochs: int = store.note("epochs", lambda: epochs_each(task) if asked is None else asked)
    session.say(f"search: {space.name}, {space.count:.3g} networks, limits: {request.budget.text or 'none'}; "
                f"epochs: {f'{together} of all together, then ' if together else ''}{epochs} each")  # fmt: skip
    play: Play = train_here
    if together:
        play = partial(inherit, shared_weights(task, together, folder.path / "supernet", workers))
    session.clock.save()
    _train_candidates(task, store, candidates, epochs, folder, told, workers, play)
    found = searched(task, store, candidates, epochs, together)
    write_found(found, folder.path)
    session.clock.save()
    if request.front_only:
        return found, None
    return to_the_end(task, store, found, folder, workers, rivals)


def _share_latencies(task: SearchTask, store: SearchStore) -> None:
    """One set of first measurements for all resumptions, so that a network keeps its predicted latency."""
    learnt = task.learnt
    if learnt is not None:
        mine = [[list(row), seconds] for row, seconds in learnt.measured.items()]
        first = store.note("latencies", lambda: mine)
        learnt.measured.clear()
        learnt.learn(np.array([row for row, _ in first]), [seconds for _, seconds in first])


def _train_candidates(
    task: SearchTask,
    store: SearchStore,
    within: Within,
    epochs: int,
    folder: RunFolder,
    told: Told,
    workers: Workers,
    play: Play,
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

    while _used(task, store, until_s) < 1:  # a training that diverged leaves room for another
        for asked, played in train_all(session, workers, trainings(), play):
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
