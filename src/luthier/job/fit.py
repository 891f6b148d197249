"""`luthier fit`: from images and limits to the most accurate member of a family that fits.

    data -> candidates priced and filtered -> pace of training -> successive halving -> final training
         -> export, checked -> latency measured -> tested once -> result.json

Each arrow leaves something on the disk, and the next start reads it instead of doing it again.
"""

from __future__ import annotations

import dataclasses
import gc
import math
from pathlib import Path
from typing import Final

import numpy as np

from luthier import __version__, files
from luthier.arch.network import Network
from luthier.cost.budget import Budget
from luthier.cost.summary import cost
from luthier.deploy.latency import measure_latency
from luthier.deploy.onnx_file import to_onnx
from luthier.errors import BudgetError, DataError
from luthier.graph.fold import fold_norm_into_conv
from luthier.graph.from_network import from_network
from luthier.job import finish
from luthier.job.candidates import Member, fixed_member, most_promising, resized_members, scaled_members, within_limits
from luthier.job.classify import preprocess_document
from luthier.job.folder import Clock, RunFolder, environment, finished, open_run
from luthier.job.halving import Play, halve
from luthier.job.plan import LEAST_EPOCHS, MOST_EPOCHS, Pace, Plan, candidates_for, probes, whole_epochs
from luthier.job.request import Request
from luthier.job.resolve import baseline_for
from luthier.job.result import SCHEMA, Result, Rung, write
from luthier.job.session import Say, Session, points
from luthier.job.study import Round, Study, rounds
from luthier.nn.build import Classifier
from luthier.train.data import load_data
from luthier.train.loader import loader
from luthier.train.loop import METRICS
from luthier.train.metrics import evaluate, read_epochs, write_epochs
from luthier.train.results import Epoch, Trained
from luthier.units import show

#: a misjudged pace is mended so often, then lived with
ATTEMPTS: Final = 3


def budget_of(request: Request) -> Budget:
    """The five limits of a request."""
    return Budget(
        max_macs=request.max_macs,
        max_params=request.max_params,
        max_memory_bytes=request.max_memory_bytes,
        max_size_bytes=request.max_size_bytes,
        max_latency_s=request.max_latency_s,
    )


def fit(request: Request, run_dir: Path, say: Say) -> Result:
    """Run or resume; returns at once when the folder holds the finished result.

    Args:
        request: what is asked; `command` is `fit` (a family) or `train` (the network itself).
        run_dir: kept under this path.
        say: receives lines for the user.
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
    session = Session(request, splits, clock, say)
    members = _priced(session, baseline)
    session.check(members[0].network)
    latencies_s: dict[str, float] = {}
    if request.max_latency_s is not None and not folder.run_toml.exists():
        latencies_s = _latencies_s(session, members)
        _fast_enough(session, members, latencies_s)
    with files.explaining(run_dir), open_run(run_dir, request):
        # another process may have finished it meanwhile
        return finished(run_dir, request) or _run(session, folder, members, latencies_s)


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
    budget = budget_of(request)
    session.say(f"candidates: {len(members)} of {baseline.name}, limits: {budget.text or 'none'}")
    return within_limits(members, dataclasses.replace(budget, max_latency_s=None), None)


def _run(session: Session, folder: RunFolder, members: list[Member], latencies_s: dict[str, float]) -> Result:
    splits, clock = session.splits, session.clock
    study = Study(folder.study)
    fingerprint = study.note("data", lambda: splits.fingerprint)
    if fingerprint != splits.fingerprint:
        raise DataError(f"{splits.origin}: the images changed since this run began; choose another --run-dir")
    if session.request.max_latency_s is not None:
        known_s = study.note("latency_s", lambda: latencies_s or _latencies_s(session, members))
        members = _fast_enough(session, members, known_s)
    members = _chosen(session, study, members)
    study.leave_out(members)
    racing = [member for member in members if not member.reason]
    session.say("training: " + ", ".join(f"{m.network.name} ({show(m.cost.macs, 'count')} MAC)" for m in racing))
    final, remark = _search(session, study, folder, racing)
    module, trained = _final(session, study, folder, final)
    if trained.best is None:
        study.close(final, "failed", "the final training diverged", None)
        raise BudgetError(f"fit: the final training of {final.network.name} diverged; {trained.diverged}")
    module.load_state_dict(trained.state)
    module = module.cpu().eval()
    result = _finished(session, study, folder, final, module, trained, [remark] if remark else [])
    write(result, folder.result)
    clock.save()
    return result


def _latencies_s(session: Session, members: list[Member]) -> dict[str, float]:
    """Run each candidate that keeps the other limits, untrained, on this machine; measured once per run."""
    fitting = [m for m in members if not m.reason]
    session.say(f"latency: running {len(fitting)} candidates on this machine")
    each_s = min(0.3, 0.1 * session.request.time_limit_s / len(fitting))
    return {str(m.number): untrained_latency_s(m.network, session.request.threads, each_s) for m in fitting}


def _fast_enough(session: Session, members: list[Member], latencies_s: dict[str, float]) -> list[Member]:
    """Apply all limits, `--max-latency` by what was measured."""
    by_name = {m.network.name: latencies_s[str(m.number)] for m in members if not m.reason}
    return within_limits(members, budget_of(session.request), lambda network: by_name[network.name])


def untrained_latency_s(network: Network, threads: int, budget_s: float = 0.3) -> float:
    """Median latency of a network with random weights in ONNX Runtime on this machine."""
    graph = fold_norm_into_conv(from_network(network))
    generator = np.random.default_rng(0)
    # as an initialisation would be: activations neither overflow nor become subnormal, which would change the time
    weights = {
        name: (generator.standard_normal(tensor.shape) * math.sqrt(2 / max(1, math.prod(tensor.shape[1:])))).astype(
            "f4"
        )
        for name, tensor in graph.constants.items()
    }
    return measure_latency(to_onnx(graph, weights), threads=threads, budget_s=budget_s).median_s


def _chosen(session: Session, study: Study, members: list[Member]) -> list[Member]:
    """Mark those that are not trained; the choice is made once per run."""
    request = session.request
    fitting = [m for m in members if not m.reason]

    def paced() -> dict[str, list[float]]:
        picks = [fitting[i] for i in probes([m.cost.macs for m in fitting])]
        rates = [session.rate(m.network) for m in picks]
        return {"macs": [float(m.cost.macs) for m in picks], "images_per_s": rates}

    stored = study.note("pace", paced)
    pace = Pace(tuple(stored["macs"]), tuple(stored["images_per_s"]))
    pretrained = request.pretrained is not None
    count = candidates_for(request.time_limit_s)
    images = len(session.splits.train)

    def chosen() -> dict[str, str]:
        plan = Plan.of(request.time_limit_s, session.clock.elapsed_s, min(count, len(fitting)))
        marked = most_promising(
            members, count, lambda m: plan.final_s / pace.epoch_s(m.cost.macs, images), LEAST_EPOCHS[pretrained]
        )
        return {str(m.number): m.reason for m in marked if m.reason}

    reasons: dict[str, str] = study.note("left_out", chosen)
    return [m if m.reason or str(m.number) not in reasons else m.left_out(reasons[str(m.number)]) for m in members]


def _search(session: Session, study: Study, folder: RunFolder, racing: list[Member]) -> tuple[Member, str]:
    """Successive halving over the chosen candidates."""
    request, images = session.request, len(session.splits.train)
    stored = study.note("pace", dict)
    pace = Pace(tuple(stored["macs"]), tuple(stored["images_per_s"]))
    plan = Plan.of(request.time_limit_s, 0.0, len(racing))
    most = MOST_EPOCHS[request.pretrained is not None]

    def epochs(member: Member, rung: int, rungs: int) -> int:
        seconds = plan.rung_s(rounds(len(racing))[rung], rungs)
        return whole_epochs(seconds, pace.epoch_s(member.cost.macs, images), most)

    def play(asked: Play) -> Round:
        label = f"round {asked.rung + 1} {asked.member.network.name}"
        where = folder.trial(asked.member.number, asked.rung)
        before_s = session.clock.elapsed_s
        # a misjudged pace must not eat the final training's time
        late_s = before_s + 1.5 * plan.rung_s(rounds(len(racing))[asked.rung], len(rounds(len(racing))))
        _, trained = session.train(
            asked.member.network, asked.epochs, where, label, begin_s=before_s, deadline_s=late_s
        )
        gc.collect()
        accuracy = None if trained.stopped == "diverged" or trained.best is None else trained.best.val_accuracy
        # a resumed round has spent less than its epochs took
        spent_s = max(session.clock.elapsed_s - before_s, sum(epoch.wall_s for epoch in trained.history))
        return Round(asked.epochs, accuracy, round(spent_s, 3))

    decision = halve(study, racing, epochs=epochs, play=play, val_images=len(session.splits.val))
    return decision.order[0], decision.remark


def _final(session: Session, study: Study, folder: RunFolder, final: Member) -> tuple[Classifier, Trained]:
    """Train the winner to the end of the time.

    The length is planned from the pace so far; where it would not be longer than the round that chose the winner, that
    round is the final training.  If the first epoch shows that the machine now runs at quite another
    pace, the training starts again with a length that fits: a cosine cut short, or ended early, wastes more than an
    epoch does.
    """
    request, clock = session.request, session.clock
    most = MOST_EPOCHS[request.pretrained is not None]
    epoch_s = _epoch_s(study, folder, final, len(session.splits.train))
    deadline_s = request.time_limit_s - Plan.of(request.time_limit_s, 0.0, 1).reserve_s
    played = _last_round(study, final)
    if played is not None and request.epochs is None:
        fits = whole_epochs(deadline_s - clock.elapsed_s, epoch_s, most)
        if study.note("round_is_final", lambda: fits <= played.epochs):
            session.say(
                f"final training: no time for more than the {played.epochs} epochs of the last round; it counts"
            )
            return session.train(
                final.network, played.epochs, folder.trial(final.number, played.rung), final.network.name,
                deadline_s=deadline_s,
            )  # fmt: skip
    begun = sum(study.has(f"final_epochs{attempt}") for attempt in range(ATTEMPTS))
    for attempt in range(max(0, begun - 1), ATTEMPTS):
        planned = whole_epochs(deadline_s - clock.elapsed_s, epoch_s, most)
        epochs: int = study.note(f"final_epochs{attempt}", lambda n=planned: request.epochs or n)  # type: ignore[misc]
        begin_s: float = study.note(f"final_begin{attempt}", lambda: round(clock.elapsed_s, 3))
        session.say(
            f"final training: {final.network.name}, {epochs} epochs, {show(max(clock.left_s, 0), 'duration')} left"
        )
        last = attempt == ATTEMPTS - 1 or request.epochs is not None

        def off_pace(epoch: Epoch, epochs: int = epochs, last: bool = last) -> bool:
            if last or epoch.epoch != 1:
                return False
            fits = whole_epochs(deadline_s - clock.elapsed_s, epoch.wall_s, most)
            return not 0.75 <= fits / max(1, epochs - 1) <= 1.5

        module, trained = session.train(
            final.network, epochs, folder.final(attempt), final.network.name,
            begin_s=begin_s, deadline_s=None if request.epochs is not None else deadline_s, give_up=off_pace,
        )  # fmt: skip
        if trained.stopped != "paused":
            break
        epoch_s = trained.history[0].wall_s
    return module, trained


def _last_round(study: Study, member: Member) -> Rung | None:
    return next((c.rungs[-1] for c in study.candidates() if c.number == member.number and c.rungs), None)


def _epoch_s(study: Study, folder: RunFolder, member: Member, images: int) -> float:
    """Seconds of an epoch: from the candidate's own rounds (validation included), else from the measured pace."""
    played = _last_round(study, member)
    if played is not None:
        # a late round ends before its schedule
        done = len(read_epochs(folder.trial(member.number, played.rung) / METRICS)) or played.epochs
        return played.wall_s / done
    stored = study.note("pace", dict)
    return Pace(tuple(stored["macs"]), tuple(stored["images_per_s"])).epoch_s(member.cost.macs, images) * 1.1


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
    winner = finish.winner(folder, network, check, latency, points(trained), np.array(tested.confusion))
    study.close(final, "winner", "trained to the end", winner.val_accuracy)
    limits = finish.limits(budget_of(request), cost(network), latency)
    remarks += [
        f"{limit.name} does not hold: it came to {show(limit.value, limit.dimension)} when measured"
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
        title=f"{splits.origin}: {winner.name}",
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
