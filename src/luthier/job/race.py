"""Who is trained, and who of them wins: the pace of training, the choice, successive halving."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from luthier.job.candidates import Member, most_promising
from luthier.job.evaluate import Training, train_all
from luthier.job.folder import RunFolder
from luthier.job.halving import Play, halve
from luthier.job.plan import LEAST_EPOCHS, MOST_EPOCHS, Pace, Plan, candidates_for, probes, whole_epochs
from luthier.job.session import Session
from luthier.job.study import Round, Study, rounds
from luthier.search.workers import Here, Workers


def stored_pace(study: Study) -> Pace:
    """The pace of training that `choose` measured."""
    stored = study.note("pace", dict)
    return Pace(tuple(stored["macs"]), tuple(stored["images_per_s"]))


def choose(session: Session, study: Study, members: list[Member]) -> list[Member]:
    """Mark those that are not trained; the choice is made once per run."""
    request = session.request
    fitting = [m for m in members if not m.reason]
    if request.epochs is not None:  # the length is given: nothing to plan, nothing to measure
        return members

    def paced() -> dict[str, list[float]]:
        picks = [fitting[i] for i in probes([m.cost.macs for m in fitting])]
        rates = [session.rate(m.network) for m in picks]
        return {"macs": [float(m.cost.macs) for m in picks], "images_per_s": rates}

    study.note("pace", paced)
    pace = stored_pace(study)
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


def race(
    session: Session, study: Study, folder: RunFolder, racing: list[Member], workers: Workers | None = None
) -> tuple[Member, str]:
    """Successive halving over the chosen candidates, a round's trainings by several workers where there are any."""
    request, images = session.request, len(session.splits.train)
    if len(racing) == 1:
        return racing[0], ""
    pace = stored_pace(study)
    plan = Plan.of(request.time_limit_s, 0.0, len(racing))
    # a round that is as long as the longest final training would leave nothing to train
    most = MOST_EPOCHS[request.pretrained is not None] // 4

    def epochs(member: Member, rung: int, rungs: int) -> int:
        seconds = plan.rung_s(rounds(len(racing))[rung], rungs)
        return whole_epochs(seconds, pace.epoch_s(member.cost.macs, images), most)

    def training(number: int, asked: Play) -> Training:
        before_s = session.clock.elapsed_s
        # a misjudged pace must not eat the final training's time
        late_s = before_s + 1.5 * plan.rung_s(rounds(len(racing))[asked.rung], len(rounds(len(racing))))
        network, where = asked.member.network, folder.trial(asked.member.number, asked.rung)
        return Training(
            number, (), network, asked.epochs, where, f"round {asked.rung + 1} {network.name}", before_s, late_s
        )

    def play(plays: Iterable[Play]) -> Iterator[tuple[Play, Round]]:
        asked = list(plays)
        tasks = (training(number, one) for number, one in enumerate(asked))
        for done, outcome in train_all(session, workers or Here(), tasks):
            yield asked[done.number], outcome

    decision = halve(study, racing, epochs=epochs, play=play, val_images=len(session.splits.val))
    return decision.order[0], decision.remark
