"""`luthier fit`: from images and limits to the most accurate member of a family that fits.

    data -> candidates priced and filtered -> pace of training -> successive halving -> final training
         -> export, checked -> latency measured -> tested once -> result.json

Where the time allows it (`luthier.job.fit_search`) a search in a space precedes the halving.

Each arrow leaves something on the disk, and the next start reads it instead of doing it again.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path

from luthier import files
from luthier.arch.network import Network
from luthier.errors import BudgetError, DataError
from luthier.job.candidates import Member, fixed_member, resized_members, scaled_members, within_limits
from luthier.job.conclude import conclude
from luthier.job.fit_search import any_fits, opened, rivals, time_allows
from luthier.job.folder import Clock, RunFolder, finished, open_run
from luthier.job.latencies import fast_enough, latencies_s, with_latencies
from luthier.job.race import choose, race
from luthier.job.request import Request
from luthier.job.resolve import baseline_for
from luthier.job.result import Result
from luthier.job.search import explore
from luthier.job.search_begin import learn_latency
from luthier.job.search_task import SearchTask, Told
from luthier.job.session import Say, Session
from luthier.job.study import Study
from luthier.job.target import on_target
from luthier.job.trials import finished_trials
from luthier.search.workers import Here, Workers
from luthier.train.data import load_data
from luthier.units import show


def fit(
    request: Request, run_dir: Path, say: Say, trials: Sequence[Path] = (), workers: Workers | None = None,
    told: Told = lambda standing: None,
) -> Result | None:  # fmt: skip
    """Run or resume; returns at once when the folder holds the finished result.

    With several processes all train, and only the first one writes and returns the result; the others return None.

    Args:
        request: what is asked; `command` is `fit` (a family, or a search) or `train` (the network itself).
        run_dir: kept under this path.
        say: receives lines for the user.
        trials: other run folders, whose finished trainings count where network, recipe and data are equal.
        workers: who plays the rounds of halving; None = this process.
        told: hears where a search stands, after every training.
    Raises:
        DataError, RunFolderError, BudgetError: see each; data and limits are checked before anything is written.
    """
    if (done := finished(run_dir, request)) is not None:
        return done
    folder = RunFolder(run_dir)
    clock = Clock.resume(folder.clock, request.time_limit_s)
    splits = load_data(request.data, seed=request.seed, skip_bad=request.skip_bad)
    for note in splits.notes:
        say(f"data: {note}")
    session = Session(request, splits, clock, say, finished_trials(trials))
    try:
        members, before_s = _family(session, folder)
        task = opened(session)
    except BudgetError:
        task = opened(session, anyway=True)
        if task is None:
            raise
        members, before_s = [], {}
        if any_fits(task):
            learn_latency(task)
        if request.space is None and not any_fits(task):
            raise
        task.feasible.check(task.rng)
    if members and session.follows(members[0].network):
        session.train(members[0].network, request.epochs or 1, folder.final(0), "")
        return None
    with files.explaining(run_dir), open_run(run_dir, request):
        if (done := finished(run_dir, request)) is not None:  # another process may have finished it meanwhile
            return done
        study = Study(folder.study)
        fingerprint = study.note("data", lambda: splits.fingerprint)
        if fingerprint != splits.fingerprint:
            raise DataError(f"{splits.origin}: the images changed since this run began; choose another --run-dir")
        # a run of before the search was part of it has measured the pace of its family
        if task is not None and study.note(
            "searches", lambda: not members or (not study.has("pace") and time_allows(task))
        ):
            learn_latency(task)
            if not members or study.note("space_fits", lambda: any_fits(task)):
                return _searched(task, study, folder, members, before_s, told, workers)
            say("search: no network of the space is fast enough on this machine; the family alone is tried")
        return _run(session, study, folder, members, before_s, workers)


def _family(session: Session, folder: RunFolder) -> tuple[list[Member], dict[str, float]]:
    """Members of the baseline's family with the reasons of those that cannot be, and latencies where they are limited.

    Raises:
        BudgetError: no member keeps the limits.
    """
    request = session.request
    baseline = baseline_for(request.model, request.pretrained, min(session.splits.image_hw))
    members = _priced(session, baseline)
    session.check(members[0].network)
    before_s: dict[str, float] = {}
    if request.measures_latency and not folder.run_toml.exists():
        before_s = latencies_s(session, members)
        fast_enough(request.budget, members, before_s)
    return members, before_s


def _searched(
    task: SearchTask, study: Study, folder: RunFolder, members: list[Member], before_s: dict[str, float], told: Told,
    workers: Workers | None,
) -> Result:  # fmt: skip
    """Networks of a space, and the best of the family, race for the final training."""
    session = task.session
    if members and session.request.measures_latency:
        known_s = study.note("latency_s", lambda: before_s or latencies_s(session, members))
        members = fast_enough(session.request.budget, members, known_s)
    racing = with_latencies(session, study, rivals(session, study, members))
    _, result = explore(task, folder, told, workers or Here(), racing)
    assert result is not None, "a search that does not end with its front has a result"
    return result


def _priced(session: Session, baseline: Network) -> list[Member]:
    """Candidates with costs, filtered by every limit that needs no measurement; raises before anything is written."""
    request, native = session.request, min(session.splits.image_hw)
    network = session.fitted_to_data(baseline)
    if request.command == "train":
        members = fixed_member(network)
    elif request.pretrained is not None:
        members = resized_members(network, native) if request.resolution is None else fixed_member(network)
    else:
        members = scaled_members(network, native, resolution=request.resolution)
    budget = request.budget
    if request.command == "fit":
        session.say(f"candidates: {len(members)} of {baseline.name}, limits: {budget.text or 'none'}")
    members = on_target(members, request)
    judged = dataclasses.replace(budget, max_latency_s=None) if request.measures_latency else budget
    return within_limits(members, judged, None)


def _run(
    session: Session, study: Study, folder: RunFolder, members: list[Member], before_s: dict[str, float],
    workers: Workers | None,
) -> Result:  # fmt: skip
    if session.request.measures_latency:
        known_s = study.note("latency_s", lambda: before_s or latencies_s(session, members))
        members = fast_enough(session.request.budget, members, known_s)
    members = choose(session, study, members)
    study.leave_out(members)
    racing = with_latencies(session, study, [member for member in members if not member.reason])
    session.say("training: " + ", ".join(f"{m.network.name} ({show(m.cost.macs, 'count')} MAC)" for m in racing))
    final, remark = race(session, study, folder, racing, workers)
    result = conclude(session, study, folder, final, [remark] if remark else [])
    session.clock.save()
    return result
