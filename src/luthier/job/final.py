"""The final training: the chosen network, from the start, with all the time that is left."""

from __future__ import annotations

from typing import Final

from luthier.job.candidates import Member
from luthier.job.folder import RunFolder
from luthier.job.plan import MOST_EPOCHS, Plan, whole_epochs
from luthier.job.race import stored_pace
from luthier.job.result import Rung
from luthier.job.session import Session
from luthier.job.study import Study
from luthier.nn.build import Classifier
from luthier.train.loop import METRICS
from luthier.train.metrics import read_epochs
from luthier.train.results import Epoch, Trained
from luthier.units import show

#: a misjudged pace is mended so often, then lived with
ATTEMPTS: Final = 3


def train_to_the_end(session: Session, study: Study, folder: RunFolder, final: Member) -> tuple[Classifier, Trained]:
    """Train the winner to the end of the time.

    The length is planned from the pace so far; where it would not be longer than the round that chose the winner, that
    round is the final training.  If the first epoch shows that the machine has become much faster, the training starts
    again with a length that fits: it would end early and waste more than an epoch.  On a machine that has become slower
    nothing starts again: the learning rate follows the time, see `luthier.train.loop.train`.
    """
    request, clock = session.request, session.clock
    most = MOST_EPOCHS[request.pretrained is not None]
    epoch_s = 0.0 if request.epochs is not None else _epoch_s(study, folder, final, len(session.splits.train))
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
        planned = request.epochs or whole_epochs(deadline_s - clock.elapsed_s, epoch_s, most)
        epochs: int = study.note(f"final_epochs{attempt}", lambda n=planned: n)  # type: ignore[misc]
        begin_s: float = study.note(f"final_begin{attempt}", lambda: round(clock.elapsed_s, 3))
        left = "" if request.epochs is not None else f", {show(max(clock.left_s, 0), 'duration')} left"
        session.say(f"final training: {final.network.name}, {epochs} epochs{left}")
        last = attempt == ATTEMPTS - 1 or request.epochs is not None

        def too_short(epoch: Epoch, epochs: int = epochs, last: bool = last) -> bool:
            if last or epoch.epoch != 1:
                return False
            fits = whole_epochs(deadline_s - clock.elapsed_s, epoch.wall_s, most)
            return fits > 1.5 * max(1, epochs - 1)

        module, trained = session.train(
            final.network, epochs, folder.final(attempt), final.network.name,
            begin_s=begin_s, deadline_s=None if request.epochs is not None else deadline_s, give_up=too_short,
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
        history = read_epochs(folder.trial(member.number, played.rung) / METRICS)
        if history:  # a late round ends in the middle of an epoch, so its rate counts, not its time
            return 1.1 * images / history[-1].images_per_s
    return 1.1 * stored_pace(study).epoch_s(member.cost.macs, images)
