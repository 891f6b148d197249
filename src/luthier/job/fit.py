"""`luthier fit`: from images and limits to the most accurate member of a family that fits.

    data -> candidates priced and filtered -> pace of training -> successive halving -> final training
         -> export, checked -> latency measured -> tested once -> result.json

Each arrow leaves something on the disk, and the next start reads it instead of doing it again.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from luthier import __version__, files
from luthier.arch.network import Network
from luthier.errors import BudgetError, DataError
from luthier.job import finish
from luthier.job.candidates import Member, fixed_member, resized_members, scaled_members, within_limits
from luthier.job.classify import preprocess_document
from luthier.job.final import train_to_the_end
from luthier.job.folder import Clock, RunFolder, environment, finished, open_run
from luthier.job.latencies import fast_enough, latencies_s, with_latencies
from luthier.job.race import choose, race
from luthier.job.request import Request
from luthier.job.resolve import baseline_for
from luthier.job.result import SCHEMA, Result, write
from luthier.job.session import Say, Session
from luthier.job.study import Study
from luthier.job.target import on_target
from luthier.job.trials import finished_trials
from luthier.nn.build import Classifier
from luthier.search.workers import Workers
from luthier.train.data import load_data
from luthier.train.loader import loader
from luthier.train.metrics import evaluate, write_epochs
from luthier.train.results import Trained
from luthier.units import show


def fit(
    request: Request, run_dir: Path, say: Say, trials: Sequence[Path] = (), workers: Workers | None = None
) -> Result | None:
    """Run or resume; returns at once when the folder holds the finished result.

    With several processes all train, and only the first one writes and returns the result; the others return None.

    Args:
        request: what is asked; `command` is `fit` (a family) or `train` (the network itself).
        run_dir: kept under this path.
        say: receives lines for the user.
        trials: other run folders, whose finished trainings count where network, recipe and data are equal.
        workers: who plays the rounds of halving; None = this process.
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
    baseline = baseline_for(request.model, request.pretrained, min(splits.image_hw))
    session = Session(request, splits, clock, say, finished_trials(trials))
    members = _priced(session, baseline)
    session.check(members[0].network)
    before_s: dict[str, float] = {}
    if request.measures_latency and not folder.run_toml.exists():
        before_s = latencies_s(session, members)
        fast_enough(request.budget, members, before_s)
    if session.follows(members[0].network):
        session.train(members[0].network, request.epochs or 1, folder.final(0), "")
        return None
    with files.explaining(run_dir), open_run(run_dir, request):
        # another process may have finished it meanwhile
        return finished(run_dir, request) or _run(session, folder, members, before_s, workers)


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
    session: Session, folder: RunFolder, members: list[Member], before_s: dict[str, float], workers: Workers | None
) -> Result:
    splits, clock = session.splits, session.clock
    study = Study(folder.study)
    fingerprint = study.note("data", lambda: splits.fingerprint)
    if fingerprint != splits.fingerprint:
        raise DataError(f"{splits.origin}: the images changed since this run began; choose another --run-dir")
    if session.request.measures_latency:
        known_s = study.note("latency_s", lambda: before_s or latencies_s(session, members))
        members = fast_enough(session.request.budget, members, known_s)
    members = choose(session, study, members)
    study.leave_out(members)
    racing = with_latencies(session, study, [member for member in members if not member.reason])
    session.say("training: " + ", ".join(f"{m.network.name} ({show(m.cost.macs, 'count')} MAC)" for m in racing))
    final, remark = race(session, study, folder, racing, workers)
    result = conclude(session, study, folder, final, [remark] if remark else [])
    clock.save()
    return result


def conclude(session: Session, study: Study, folder: RunFolder, final: Member, remarks: list[str]) -> Result:
    """Train the chosen candidate to the end; export, check, measure and test it; write `result.json`.

    Raises:
        BudgetError: its training diverged.
    """
    module, trained = train_to_the_end(session, study, folder, final)
    if trained.best is None:
        study.close(final, "failed", "the final training diverged", None)
        raise BudgetError(f"fit: the final training of {final.network.name} diverged; {trained.diverged}")
    module.load_state_dict(trained.state)
    module = module.cpu().eval()
    result = _finished(session, study, folder, final, module, trained, remarks)
    write(result, folder.result)
    return result


def _finished(
    session: Session,
    study: Study,
    folder: RunFolder,
    final: Member,
    module: Classifier,
    trained: Trained,
    remarks: list[str],
) -> Result:
    """Export, measure, and look at the test images for the first and only time."""
    request, splits, network = session.request, session.splits, final.network
    transform = session.transform(network)
    some = next(iter(loader(splits.val, transform, 16, shuffle=False, seed=0, epoch=0)))[0]
    asked = preprocess_document(session.preprocess(network), splits.class_names)
    write_epochs(folder.metrics, trained.history)
    check = finish.export(folder, network, module, asked, some)
    latency = finish.measure(folder, request.threads)
    tested = evaluate(module, splits.test, transform=transform, num_classes=splits.num_classes)
    winner = finish.winner(folder, network, check, latency, trained.history, np.array(tested.confusion))
    study.close(final, "winner", "trained to the end", winner.val_accuracy)
    limits = finish.limits(request.budget, final, latency)
    remarks += [
        f"{limit.name} does not hold: it came to {show(limit.value, limit.dimension)}, {limit.kind}"
        for limit in limits
        if not limit.holds
    ]
    if study.has("round_is_final") and study.note("round_is_final", bool):
        remarks.append("the time limit left no final training longer than the round that chose the network")
    if trained.stopped == "deadline":
        remarks.append(
            f"the machine became slower than planned: {len(trained.history)} epochs were run, and the learning rate "
            "followed the time"
        )
    return Result(
        schema=SCHEMA,
        version=__version__,
        command=request.command,
        title=f"{Path(splits.origin).name}: {winner.name}",
        device=request.device,
        seed=request.seed,
        time_limit_s=request.time_limit_s,
        wall_s=session.clock.elapsed_s,
        pretrained=request.pretrained,
        data=finish.describe(splits),
        limits=limits,
        candidates=study.candidates(),
        winner=winner,
        remarks=tuple(remarks),
        environment=tuple(environment().items()),
    )
